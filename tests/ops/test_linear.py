"""Matrix products against NumPy and onnxruntime; their twins against the reals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.errors import IRCError, TypeCheckError
from irc.interpret import interpret
from irc.ops.core import Const, Input
from irc.ops.linear import Linear, MatMul, QLinear, QMatMul
from irc.types import Array, DType, Quant, Shape, TensorType
from tests.ops.peer import run
from tests.ops.real_steps import fitted, quantized_input, quantized_weights, steps_off

F32 = DType.F32


def real_input(name: str, shape: Shape) -> Input:
    return Input(F32, shape, name=name)


def normal(seed: int, shape: Shape) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul_is_onnx_matmul(a: Shape, b: Shape) -> None:
    x, y = normal(0, a), normal(1, b)
    node = MatMul(real_input("a", a), real_input("b", b))
    found = node.evaluate(x, y)
    assert found.shape == node.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run("MatMul", [x, y]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [((), (3,)), ((2, 3), (2, 3)), ((2, 2, 3), (4, 3, 2))])
def test_matmul_refuses_shapes_that_do_not_fit(a: Shape, b: Shape) -> None:
    with pytest.raises(TypeCheckError):
        MatMul(real_input("a", a), real_input("b", b))


@pytest.mark.parametrize("outer", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_onnx_gemm(outer: Shape, bias: bool) -> None:
    x, w, b = normal(0, (*outer, 7)), normal(1, (5, 7)), normal(2, (5,))
    node = Linear(
        real_input("x", x.shape), real_input("w", w.shape), real_input("b", (5,)) if bias else None
    )
    found = node.evaluate(x, w, b if bias else None)
    assert found.shape == node.shape
    assert found.dtype == np.float32
    terms = (b,) if bias else ()
    expected = run("Gemm", [x.reshape(-1, 7), w, *terms], transB=1).reshape(node.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.sampled_from([DType.U8, DType.I8]),
    target=st.sampled_from([DType.U8, DType.I8]),
    k=st.integers(1, 200),
)
def test_qlinear_is_within_a_step(seed: int, source: DType, target: DType, k: int) -> None:
    rng = np.random.default_rng(seed)
    x, xq, x_real = quantized_input("x", rng.normal(size=(6, k)), source)
    w, w_real = quantized_weights(rng.normal(size=(9, k)) * rng.uniform(0.01, 10, (9, 1)))
    bias = rng.normal(size=9).astype(np.float32)
    real = x_real @ w_real.T + bias
    made = Linear(real_input("x", x.shape), real_input("w", w.shape), Const(bias)).quantized(
        (x, w, Const(bias)), fitted(real, target)
    )
    assert isinstance(made, QLinear)
    # The bias is rounded to the accumulator's step, which is far finer than the result's.
    assert steps_off(made, {x: xq}, real).max() <= 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtypes=st.tuples(*[st.sampled_from([DType.U8, DType.I8])] * 3),
    k=st.integers(1, 200),
)
def test_qmatmul_is_within_a_step(seed: int, dtypes: tuple[DType, DType, DType], k: int) -> None:
    rng = np.random.default_rng(seed)
    a, aq, a_real = quantized_input("a", rng.normal(1, 2, (2, 1, 3, k)), dtypes[0])
    b, bq, b_real = quantized_input("b", rng.normal(-1, 2, (4, k, 2)), dtypes[1])
    real = a_real @ b_real
    node = MatMul(real_input("a", a.shape), real_input("b", b.shape))
    made = node.quantized((a, b), fitted(real, dtypes[2]))
    assert isinstance(made, QMatMul)
    assert steps_off(made, {a: aq, b: bq}, real).max() <= 1


@pytest.mark.parametrize("k", [4096, 33025, 33026, 60000])
def test_qmatmul_does_not_overflow(k: int) -> None:
    t = TensorType(DType.U8, (1, k), Quant(1.0, 0))
    a, b = Input.of(t, "a"), Input(DType.U8, (k, 1), Quant(1.0, 0), name="b")
    result = TensorType(DType.U8, (1, 1), Quant(k * 255.0, 3))
    node = MatMul(real_input("a", (1, k)), real_input("b", (k, 1))).quantized((a, b), result)
    full, column = np.full((1, k), 255, np.uint8), np.full((k, 1), 255, np.uint8)
    assert node.evaluate(full, column) == 255  # 255 + 3, clamped
    assert node.evaluate(full, np.full((k, 1), 127, np.uint8)) == 130
    assert interpret(node.loops(), {a: full, b: np.full((k, 1), 127, np.uint8)}) == 130


def test_qmatmul_refuses_sums_that_leave_64_bits() -> None:
    a = Input(DType.U8, (1, 70000), Quant(1.0, 0), name="a")
    b = Input(DType.U8, (70000, 1), Quant(1.0, 0), name="b")
    with pytest.raises(TypeCheckError, match="too large"):
        QMatMul(a, b, 2**31 - 1, 40, (0, 255), DType.U8, Quant(1.0, 0))


def test_qlinear_needs_constant_symmetric_weights() -> None:
    x = Input(DType.U8, (1, 3), Quant(1.0, 0), name="x")
    node = Linear(real_input("x", (1, 3)), real_input("w", (2, 3)), name="fc")
    result = TensorType(DType.U8, (1, 2), Quant(1.0, 0))
    with pytest.raises(IRCError, match="must be a constant"):
        node.quantized((x, Input(DType.I8, (2, 3), Quant(1.0), name="w")), result)
    skewed = Const(np.zeros((2, 3), np.int8), Quant(1.0, 5), name="w")
    with pytest.raises(IRCError, match="zero point 0"):
        node.quantized((x, skewed), result)
