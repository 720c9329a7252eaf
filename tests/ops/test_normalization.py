"""Norms by a row's own statistics: against onnxruntime, and equation (11) against the reals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.interpret import interpret
from irc.ops.core import Const, Input
from irc.ops.normalization import GroupNorm, InstanceNorm, LayerNorm, RMSNorm, RowNorm
from irc.ops.qnorm import QNorm
from irc.ops.shape import Reshape
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.ops.peer import run, to_nchw, to_nhwc
from tests.ops.real_steps import fitted, steps_off

RNG = np.random.default_rng(3)


def reals(*shape: int, scale: float = 2.0) -> Array:
    return RNG.normal(0.3, scale, shape).astype(np.float32)


def f32(array: Array) -> Const:
    return Const(np.asarray(array, np.float32))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_layer_norm_is_the_onnx_operator(axis: int) -> None:
    x = reals(2, 3, 4, 5)
    scale, bias = reals(*x.shape[axis:]), reals(*x.shape[axis:])
    node = LayerNorm(Input(DType.F32, x.shape), f32(scale), f32(bias), axis, 1e-3)
    expected = run("LayerNormalization", [x, scale, bias], axis=axis, epsilon=1e-3)
    np.testing.assert_allclose(node.evaluate(x, scale, bias), expected, rtol=1e-5, atol=1e-5)


def test_instance_norm_is_the_onnx_operator() -> None:
    x, scale, bias = reals(2, 4, 5, 3), reals(3), reals(3)
    node = InstanceNorm(Input(DType.F32, x.shape), f32(scale), f32(bias), 1e-4)
    expected = run("InstanceNormalization", [to_nchw(x), scale, bias], epsilon=1e-4)
    found = node.evaluate(x, scale, bias)
    np.testing.assert_allclose(found, to_nhwc(expected), rtol=1e-5, atol=1e-5)


def test_group_norm_is_the_onnx_operator() -> None:
    x, scale, bias = reals(2, 4, 5, 6), reals(6), reals(6)
    node = GroupNorm(Input(DType.F32, x.shape), f32(scale), f32(bias), 3, 1e-4)
    expected = run("GroupNormalization", [to_nchw(x), scale, bias], num_groups=3, epsilon=1e-4)
    found = node.evaluate(x, scale, bias)
    np.testing.assert_allclose(found, to_nhwc(expected), rtol=1e-5, atol=1e-5)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x, scale = reals(3, 7), reals(7)
    node = RMSNorm(Input(DType.F32, x.shape), f32(scale), 1, 1e-2)
    expected = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-2) * scale
    np.testing.assert_allclose(node.evaluate(x, scale), expected, rtol=1e-5)


def test_row_without_deviation_is_its_bias() -> None:
    x, bias = np.full((2, 4), 7.0, np.float32), reals(4)
    node = LayerNorm(Input(DType.F32, x.shape), None, f32(bias), 1, 0.0)
    np.testing.assert_array_equal(node.evaluate(x, None, bias), np.broadcast_to(bias, (2, 4)))


def test_refusals() -> None:
    x = Input(DType.F32, (2, 3, 4))
    with pytest.raises(TypeCheckError, match="axis 3"):
        LayerNorm(x, None, None, 3, 1e-5)
    with pytest.raises(TypeCheckError, match=r"scale must be f32\[4\]"):
        LayerNorm(x, f32(reals(3)), None, 2, 1e-5)
    with pytest.raises(TypeCheckError, match="3 groups"):
        GroupNorm(x, None, None, 3, 1e-5)
    with pytest.raises(TypeCheckError, match="epsilon"):
        RMSNorm(x, None, 2, -1.0)
    with pytest.raises(TypeCheckError, match="no rows"):
        InstanceNorm(Input(DType.F32, (2, 3)), None, None, 1e-5)


# ---------------------------------------------------------------- integers


def check(node: RowNorm, x: TensorType, q: Array, tolerance: int = 1) -> None:
    """The twin is within a step of the real norm of the reals that `q` stands for."""
    # The norm of scale * d is that of d with another epsilon, and d is exact.
    exact = node.replace(epsilon=node.added / x.scale**2)
    d = q.astype(np.float64) - x.zero
    scale, bias = (None if v is None else v.evaluate() for v in node.parameters)
    expected = exact.normalized(d, scale, bias)
    for dtype in (DType.U8, DType.I8):
        result = fitted(expected, dtype)
        source = Input.of(x, "x")
        made = node.quantized((source, *node.operands[1:]), result)
        assert made.type == result
        assert steps_off(made, {source: q}, expected).max() <= tolerance


def rows(draw: st.DrawFn, source: TensorType) -> Array:
    """Rows of all kinds: anything, two values, nearly or wholly constant, one element that
    differs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = source.dtype.min, source.dtype.max
    made = rng.integers(low, high, source.shape, np.int64, endpoint=True)
    for i in range(source.shape[0]):
        kind = draw(st.sampled_from(["any", "ends", "near", "constant", "one", "bell"]))
        width = source.shape[1:]
        base = int(rng.integers(low + 1, high))
        if kind == "ends":
            made[i] = rng.choice([low, high], width)
        elif kind == "near":
            made[i] = base + rng.integers(0, 2, width)
        elif kind in ("constant", "one"):
            made[i] = base
            made[i].reshape(-1)[0] += kind == "one"
        elif kind == "bell":
            made[i] = np.clip(np.rint(rng.normal(base, 12, width)), low, high)
    return made.astype(source.dtype.numpy)


@st.composite
def sources(draw: st.DrawFn, shape: tuple[int, ...]) -> TensorType:
    dtype = draw(st.sampled_from([DType.U8, DType.I8]))
    scale = 2.0 ** draw(st.floats(-24, 12))
    return TensorType(dtype, shape, Quant(scale, draw(st.integers(dtype.min, dtype.max))))


EPSILONS = st.sampled_from([0.0, 1e-12, 1e-6, 1e-5, 1e-3, 1.0])
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(st.data(), st.sampled_from([1, 2, 3, 5, 16, 120, 768, 4096]), EPSILONS)
def test_layer_norm_is_within_a_step(data: st.DataObject, count: int, epsilon: float) -> None:
    source = data.draw(sources((5, count)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scale = f32(rng.normal(1, 1, count)) if data.draw(st.booleans()) else None
    bias = f32(rng.normal(0, 1, count)) if data.draw(st.booleans()) else None
    node = LayerNorm(Input(DType.F32, source.shape), scale, bias, 1, epsilon)
    check(node, source, data.draw(st.composite(rows)(source)))


@MANY
@given(st.data(), st.sampled_from([1, 2, 7, 64, 4096]), EPSILONS)
def test_rms_norm_is_within_a_step(data: st.DataObject, count: int, epsilon: float) -> None:
    source = data.draw(sources((5, count)))
    scale = f32(reals(count)) if data.draw(st.booleans()) else None
    node = RMSNorm(Input(DType.F32, source.shape), scale, 1, epsilon)
    check(node, source, data.draw(st.composite(rows)(source)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), EPSILONS)
def test_image_norms_are_within_a_step(data: st.DataObject, epsilon: float) -> None:
    source = data.draw(sources((2, 3, 5, 4)))
    q = data.draw(st.composite(rows)(source))
    x, scale, bias = Input(DType.F32, source.shape), f32(reals(4)), f32(reals(4))
    check(InstanceNorm(x, scale, bias, epsilon), source, q)
    check(GroupNorm(x, scale, bias, 2, epsilon), source, q)


def test_sixteen_bits_in() -> None:
    source = TensorType(DType.I16, (4, 256), Quant(1e-3, 5))
    q = RNG.normal(0, 3000, (4, 256)).astype(np.int16)
    check(LayerNorm(Input(DType.F32, source.shape), None, None, 1, 1e-5), source, q, 0)


def test_large_images() -> None:
    source = TensorType(DType.U8, (1, 512, 512, 2), Quant(0.02, 100))
    q = RNG.integers(0, 256, source.shape).astype(np.uint8)
    check(InstanceNorm(Input(DType.F32, source.shape), None, None, 1e-5), source, q)


@given(st.integers(1, 2**62 - 1))
def test_root_and_reciprocal(d: int) -> None:
    n = int(fixedpoint.half_shift(np.array(d)))
    wide = d << 2 * n
    assert 2**60 <= wide < 2**62
    assert int(fixedpoint.square_root(np.array(wide))) == math.isqrt(wide)


def twin(node: RowNorm, source: TensorType) -> Value:
    made = node.quantized((Input.of(source, "x"), *node.operands[1:]), source)
    return made.x if isinstance(made, Reshape) else made


def test_loops_are_the_equation() -> None:
    source = TensorType(DType.U8, (3, 4, 6), Quant(0.1, 9))
    made = twin(LayerNorm(Input(DType.F32, source.shape), f32(reals(6)), None, 2, 1e-5), source)
    assert isinstance(made, QNorm)
    q = RNG.integers(0, 256, source.shape).astype(np.uint8)
    arrays = {made.x: q, made.m: made.m.evaluate(), made.b: made.b.evaluate()}
    expected = made.evaluate(q, made.m.evaluate(), made.b.evaluate())
    np.testing.assert_array_equal(interpret(made.loops(), arrays), expected)


def test_what_could_overflow_is_refused() -> None:
    source = TensorType(DType.U8, (2, 4), Quant(0.1, 9))
    made = twin(LayerNorm(Input(DType.F32, source.shape), None, None, 1, 1e-5), source)
    for change in ({"lift": 60}, {"shift": 30}, {"shift": 63}, {"s": 63}, {"epsilon": 2**62},
                   {"clamp": (0, 256)}, {"axes": (2,)}):  # fmt: skip
        with pytest.raises(TypeCheckError):
            made.replace(**change)
