"""Softmax: against onnxruntime, and equation (9) against the reals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.graph import Graph, evaluate
from irc.interpret import interpret
from irc.ops.core import Const, Input
from irc.ops.softmax import QSoftmax, Softmax
from irc.types import Array, DType, Quant, TensorType
from tests.ops.peer import run

UNIT = Quant(1 / 256, 0)
RESULTS = [(DType.U8, UNIT), (DType.I8, Quant(1 / 256, -128)), (DType.U8, Quant(0.0031, 17)),
           (DType.I8, Quant(0.011, -30))]  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_is_the_onnx_operator(axis: int) -> None:
    x = np.random.default_rng(0).normal(0, 20, (4, 5, 6)).astype(np.float32)
    node = Softmax(Input(DType.F32, x.shape, name="x"), axis)
    found = node.evaluate(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run("Softmax", [x], axis=axis), rtol=1e-5, atol=1e-7)


def twin(x: TensorType, axis: int, result: TensorType) -> QSoftmax:
    node = Softmax(Input(DType.F32, x.shape, name="x"), axis, name="probabilities")
    made = node.quantized((Input.of(x, "x"),), result)
    assert isinstance(made, QSoftmax)
    assert made.name == "probabilities"
    return made


def exact(q: Array, scale: float, axis: int) -> Array:
    """The real softmax, float64."""
    e = np.exp(scale * (q.astype(np.float64) - q.max(axis, keepdims=True)))
    return np.asarray(e / e.sum(axis, keepdims=True))


@pytest.mark.parametrize(("dtype", "quant"), RESULTS)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 1000), (32000,)])
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.sampled_from([DType.U8, DType.I8]),
    scale=st.floats(1e-4, 2.0),
    spread=st.sampled_from([2, 40, 256]),
    data=st.data(),
)
def test_twin_is_within_a_step(
    dtype: DType, quant: Quant, shape: tuple[int, ...], seed: int, source: DType, scale: float,
    spread: int, data: st.DataObject,
) -> None:  # fmt: skip
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = TensorType(source, shape, Quant(scale, data.draw(st.integers(source.min, source.max))))
    rng = np.random.default_rng(seed)
    q = (source.max - rng.integers(0, spread, shape)).astype(source.numpy)
    result = TensorType(dtype, shape, quant)
    made = twin(x, axis, result)
    graph = Graph("softmax", (made.operands[0],), (made,), ("y",))  # type: ignore[arg-type]
    found = evaluate(graph, {"x": q})["y"].astype(np.int64)
    expected = fixedpoint.quantize(exact(q, scale, axis), result)
    assert np.abs(found - expected).max() <= 1


@given(st.integers(1, 500), st.integers(0, 2**32 - 1), st.floats(1e-5, 0.1))
@settings(max_examples=50)
def test_logits_of_16_bits_are_as_exact(n: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-(2**15), 2**15, n).astype(np.int16)
    p = fixedpoint.softmax(q, fixedpoint.softmax_table(scale, 16), 0)
    assert np.abs(p / 2.0**30 - exact(q, scale, 0)).max() <= (2 * n + 6) * 2.0**-30
    i16 = TensorType(DType.I16, (n,), Quant(scale, 5))
    made = twin(i16, 0, TensorType(DType.I16, (n,), Quant(2.0**-15)))
    (value, table) = made.operands
    assert isinstance(table, Const)
    found = made.evaluate(q, table.array)
    wanted = fixedpoint.quantize(exact(q, scale, 0), made.type)
    assert np.abs(found.astype(np.int64) - wanted).max() <= 1
    np.testing.assert_array_equal(interpret(made.loops(), {value: q, table: table.array}), found)


def test_one_of_one_is_all() -> None:
    x = TensorType(DType.U8, (3, 1), Quant(0.1, 0))
    made = twin(x, 1, TensorType(DType.U8, (3, 1), UNIT))
    (value, table) = made.operands
    assert isinstance(table, Const)
    q = np.array([[0], [9], [255]], np.uint8)
    # 1 is 256 steps, one more than a u8 holds.
    np.testing.assert_array_equal(made.evaluate(q, table.array), [[255]] * 3)
    np.testing.assert_array_equal(
        interpret(made.loops(), {value: q, table: table.array}), [[255]] * 3
    )


@given(st.integers(1, 5000), st.integers(0, 2**32 - 1), st.floats(0.001, 1))
@settings(max_examples=50)
def test_probabilities_have_thirty_bits(n: int, seed: int, scale: float) -> None:
    """Far finer than any 8-bit result: rounded exponentials and one rounded reciprocal."""
    q = np.random.default_rng(seed).integers(0, 256, n).astype(np.uint8)
    p = fixedpoint.softmax(q, fixedpoint.softmax_table(scale), 0)
    assert np.abs(p / 2.0**30 - exact(q, scale, 0)).max() <= (n + 3) * 2.0**-30


def test_what_does_not_fit_is_refused() -> None:
    x = Input(DType.U8, (3,), Quant(0.1, 0), name="x")
    table = Const(fixedpoint.softmax_table(0.1))
    with pytest.raises(TypeCheckError, match="not an axis"):
        QSoftmax(x, table, 1, 2**30, 52, DType.U8, UNIT)
    with pytest.raises(TypeCheckError, match=r"i32\[256\]"):
        QSoftmax(x, Const(table.array[:9]), 0, 2**30, 52, DType.U8, UNIT)
    wide = Input(DType.I16, (3,), Quant(0.1, 0), name="x")
    with pytest.raises(TypeCheckError, match=r"i32\[512\]"):
        QSoftmax(wide, table, 0, 2**30, 52, DType.U8, UNIT)
    wider = Input(DType.I32, (3,), Quant(0.1, 0), name="x")
    with pytest.raises(TypeCheckError, match="8 or 16 bits"):
        QSoftmax(wider, table, 0, 2**30, 52, DType.U8, UNIT)
