"""Reductions: against onnxruntime, and the integer sum against the reals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.errors import TypeCheckError
from irc.interpret import interpret
from irc.ops.core import Input
from irc.ops.reduce import QReduceSum, ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.types import DType, Quant, TensorType
from tests.ops.peer import run
from tests.ops.real_steps import fitted, quantized_input, steps_off

Reduction = type[ReduceMean] | type[ReduceSum] | type[ReduceMax] | type[ReduceMin]
CASES: list[tuple[Reduction, str]] = [
    (ReduceMean, "ReduceMean"), (ReduceSum, "ReduceSum"),
    (ReduceMax, "ReduceMax"), (ReduceMin, "ReduceMin"),
]  # fmt: skip
AXES = [(0,), (1,), (3,), (1, 2), (0, 3), (0, 1, 2, 3)]
EIGHT = st.sampled_from([DType.U8, DType.I8])


@pytest.mark.parametrize(("cls", "op_type"), CASES)
@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction_is_the_onnx_operator(
    cls: Reduction, op_type: str, over: tuple[int, ...], keepdims: bool
) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    node = cls(Input(DType.F32, x.shape, name="x"), over, keepdims)
    found = node.evaluate(x)
    assert found.shape == node.shape
    assert found.dtype == np.float32
    axes = np.array(over, np.int64)
    expected = run(op_type, [x, axes], keepdims=int(keepdims))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_plain_integers_sum_in_their_dtype() -> None:
    node = ReduceSum(Input(DType.I64, (2, 2), name="x"), (0,), False)
    found = node.evaluate(np.array([[2**60, 1], [1, 2]]))
    np.testing.assert_array_equal(found, [2**60 + 1, 3])


@pytest.mark.parametrize("over", [(1, 0), (0, 0), (-1,), (2,)])
def test_axes_must_be_in_order(over: tuple[int, ...]) -> None:
    with pytest.raises(TypeCheckError, match="not axes"):
        ReduceSum(Input(DType.F32, (2, 3), name="x"), over, True)


def test_nothing_has_no_mean_and_no_maximum() -> None:
    empty = Input(DType.F32, (2, 0), name="x")
    with pytest.raises(TypeCheckError, match="no mean"):
        ReduceMean(empty, (1,), True)
    with pytest.raises(TypeCheckError, match="no maximum"):
        ReduceMax(empty, (1,), True)


def test_extremes_keep_the_quantization() -> None:
    x = Input(DType.U8, (2, 3), Quant(0.5, 7), name="x")
    assert ReduceMax(x, (1,), False).type == TensorType(DType.U8, (2,), Quant(0.5, 7))


@pytest.mark.parametrize("cls", [ReduceMean, ReduceSum])
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=EIGHT,
    target=EIGHT,
    over=st.sampled_from(AXES),
    keepdims=st.booleans(),
    offset=st.floats(-3, 3),
)
def test_twin_is_within_a_step(
    cls: type[ReduceMean] | type[ReduceSum],
    seed: int,
    source: DType,
    target: DType,
    over: tuple[int, ...],
    keepdims: bool,
    offset: float,
) -> None:
    rng = np.random.default_rng(seed)
    x, q, real = quantized_input("x", rng.normal(offset, 1, (2, 7, 6, 5)), source)
    node = cls(Input(DType.F32, x.shape, name="x"), over, keepdims, name="pool")
    expected = (np.mean if cls is ReduceMean else np.sum)(real, over, keepdims=keepdims)
    made = node.quantized((x,), fitted(np.asarray(expected), target))
    assert isinstance(made, QReduceSum)
    assert made.name == "pool"
    assert steps_off(made, {x: q}, np.asarray(expected)).max() <= 1


def test_a_mean_of_many_does_not_overflow() -> None:
    count = 9_000_000  # times 255 is more than an i32 holds
    x = Input(DType.U8, (count,), Quant(0.1, 0), name="x")
    result = TensorType(DType.U8, (), Quant(0.1, 0))
    made = ReduceMean(Input(DType.F32, (count,), name="x"), (0,), False).quantized((x,), result)
    full = np.full(count, 255, np.uint8)
    assert made.evaluate(full) == 255
    assert interpret(made.loops(), {x: full}) == 255
