"""Scales and offsets folded into weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.graph import Graph
from irc.ops.activation import Clip, Relu, Tanh
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.normalization import BatchNorm
from irc.ops.quantization import Dequantize
from irc.ops.ranking import ArgMax
from irc.ops.selection import Gather
from irc.ops.shape import Concat
from irc.ops.unary import Neg
from irc.passes.float import batch_norm
from irc.passes.float.batch_norm import FuseBatchNorm
from irc.passes.float.quantized_batch_norm import as_layer
from irc.types import DType, Quant
from irc.value import Value
from tests.passes.rules import AnyRule, check_equal, check_rule, parametrize


@parametrize((*batch_norm.RULES, *batch_norm.USE_RULES, *batch_norm.PART_RULES, as_layer))
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)


def const(rng: np.random.Generator, *shape: int) -> Const:
    return Const(rng.normal(size=shape).astype(np.float32))


def normalized(rng: np.random.Generator, x: Value) -> BatchNorm:
    c = x.shape[-1]
    variance = Const(rng.uniform(0.1, 2, c).astype(np.float32))
    scale, bias, mean = (const(rng, c) for _ in range(3))
    return BatchNorm(x, scale, bias, mean, variance, 1e-5, x.type.rank - 1)


def folded(x: Input, y: Value) -> list[str]:
    before = Graph("g", (x,), (y,), ("y",))
    after = FuseBatchNorm()(before)
    check_equal(before, after)
    assert str(FuseBatchNorm()(after)) == str(after)
    return [v.op for v in after.order if v.op not in ("input", "const")]


image = Input(DType.F32, (2, 5, 5, 4), name="x")


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_around_a_convolution(
    groups: int, pads: tuple[int, int, int, int], bias: bool
) -> None:
    rng = np.random.default_rng(0)
    b = const(rng, 8) if bias else None
    w = const(rng, 8, 3, 3, 4 // groups)
    conv = Conv2d(normalized(rng, image), w, b, pads=pads, groups=groups)
    kept = ["mul", "add", "conv2d"] if any(pads) else ["conv2d"]
    assert folded(image, normalized(rng, conv)) == kept


def test_scale_alone_passes_padding() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(Mul(image, const(rng, 4)), const(rng, 8, 3, 3, 4), pads=(1, 1, 1, 1))
    assert folded(image, conv) == ["conv2d"]


@pytest.mark.parametrize("groups", [1, 2])
def test_after_a_transposed_convolution(groups: int) -> None:
    rng = np.random.default_rng(0)
    conv = ConvTranspose2d(image, const(rng, 6, 2, 2, 4 // groups), strides=(2, 2), groups=groups)
    assert folded(image, normalized(rng, conv)) == ["conv_transpose2d"]


def test_around_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    linear = Linear(normalized(rng, image), const(rng, 3, 4))
    assert folded(image, Add(normalized(rng, linear), const(rng, 1))) == ["linear"]


def test_a_negation_is_a_scale() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(Neg(image), const(rng, 8, 3, 3, 4), const(rng, 8), pads=(1, 1, 1, 1))
    assert folded(image, Neg(conv)) == ["conv2d"]


def test_shared_convolution_is_not_computed_twice() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(image, const(rng, 4, 1, 1, 4))
    y = Add(normalized(rng, conv), Relu(conv))
    assert folded(image, y) == ["conv2d", "mul", "add", "relu", "add"]


@pytest.mark.parametrize("quant", [Quant(0.02, 3), Quant((0.01, 0.02, 0.03, 0.04), 0, 0)])
def test_quantized_weights_take_the_scale(quant: Quant) -> None:
    rng = np.random.default_rng(5)
    x = Input(DType.F32, (1, 6, 6, 3), name="x")
    stored = Const(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), quant)
    y = normalized(rng, Conv2d(x, Dequantize(stored), const(rng, 4)))
    y = y.replace(scale=Const(rng.uniform(0.5, 2, 4).astype(np.float32)))
    assert folded(x, y) == ["dequantize", "conv2d"]


def test_quantized_weights_take_no_negative_scale() -> None:
    x = Input(DType.F32, (1, 2), name="x")
    stored = Const(np.array([[1, 2], [3, -128]], np.int8), Quant(0.1, 0))
    y = Mul(Linear(x, Dequantize(stored), None), Const(np.array([1.0, -1.0], np.float32)))
    assert folded(x, y) == ["dequantize", "linear", "mul"]


def test_two_batch_norms_in_a_row_are_one() -> None:
    rng = np.random.default_rng(0)
    y = normalized(rng, normalized(rng, Relu(image)))
    assert folded(image, y) == ["relu", "mul", "add"]


def test_varying_along_another_axis_stays() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(image, const(rng, 4, 1, 1, 4))
    assert folded(image, Mul(conv, const(rng, 5, 1))) == ["conv2d", "mul"]


def test_what_was_put_together() -> None:
    """Convolutions take their channels' part of a norm, tables theirs; clamps go along.
    Convolutions that others read stay, and so does what the next layer takes whole."""
    rng = np.random.default_rng(0)
    a, b = (Conv2d(image, const(rng, c, 3, 3, 4), name=f"c{c}") for c in (2, 3))
    joined = Concat((a, b), 3)
    clamped = Clip(normalized(rng, joined), 0, 6)
    assert folded(image, clamped) == ["conv2d", "clip", "conv2d", "clip", "concat"]
    both = Concat((normalized(rng, joined), a), 3)
    assert folded(image, both) == ["conv2d", "mul", "add", "conv2d", "concat"]
    places = ArgMax(image, 3, False, False)
    rows = Gather(const(rng, 4, 6), places, 0)
    mixed = Concat((rows, Tanh(image)), 3)
    assert folded(image, normalized(rng, mixed)) == (
        ["argmax", "gather", "tanh", "mul", "add", "concat"]
    )
    halves = Concat((Tanh(image), Relu(image)), 3)
    whole = Conv2d(normalized(rng, halves), const(rng, 2, 1, 1, 8))
    assert folded(image, whole) == ["tanh", "relu", "concat", "conv2d"]


@given(seed=st.integers(0, 1000), length=st.integers(1, 5))
def test_chains(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    y: Value = Conv2d(image, const(rng, 4, 3, 3, 4)) if rng.random() < 0.5 else image
    for _ in range(length):
        op = (Mul, Add)[rng.integers(2)]
        y = op(y, const(rng, *((4,), (1,), (1, 1, 4), ())[rng.integers(4)]))
    assert len(folded(image, y)) <= 2
