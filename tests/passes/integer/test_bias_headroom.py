"""Channels that training has all but switched off: tiny weights beside a bias that counts too many
of their units for 32 bits."""

from __future__ import annotations

import numpy as np
import pytest

from irc.graph import Graph
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.quantization import Dequantize
from irc.ops.quantization import Quantize as Q
from irc.passes.integer.bias_headroom import with_room
from irc.passes.integer.integerize import integerize
from irc.passes.integer.prove import prove
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.passes.integer.test_integerize import dq, steps_apart

SEEN = Quant(0.05, 100)
X = TensorType(DType.U8, (1, 8), SEEN)
SCALES = (0.01, 3e-9, 1e-12, 2e-14)
"""Of weights; 50 (a bias of 2.5 in units of `X`'s scale) is more and more of them."""


def weights(shape: tuple[int, ...]) -> Const:
    rng = np.random.default_rng(1)
    return Const(rng.integers(-127, 128, shape).astype(np.int8), Quant(SCALES, 0, 0), name="w")


def bias(kind: str) -> Value:
    """As reals, or as onnxruntime stores it: i32, saturated."""
    real = np.array([0.5, -2.5, 2.5, -2.5], np.float32)
    if kind == "real":
        return Const(real, name="b")
    scales = np.array(SCALES) * X.scale
    units = np.clip(np.rint(real / scales), -(2**31), 2**31 - 1).astype(np.int32)
    return Dequantize(Const(units, Quant(tuple(map(float, scales)), 0, 0), name="b"))


def layer(kind: str, b: Value) -> Graph:
    shape = (1, 4, 4, 2) if kind == "conv" else X.shape
    x = Input(DType.F32, shape, name="x")
    xq = dq(Q(x, DType.U8, SEEN, name="xq"))
    made: Value
    if kind == "conv":
        made = Conv2d(xq, dq(weights((4, 2, 2, 2))), b, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    else:
        made = Linear(xq, dq(weights((4, 8))), b)
    return Graph("g", (x,), (dq(Q(made, DType.U8, Quant(0.03, 128), name="y")),), ("y",))


@pytest.mark.parametrize("stored", ["real", "saturated"])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_within_a_step_of_the_definition(kind: str, stored: str) -> None:
    graph = layer(kind, bias(stored))
    prove(integerize(graph))
    assert steps_apart(graph) <= 1


def test_only_the_channels_that_need_it_change() -> None:
    w = weights((4, 8))
    made = with_room(X, w, bias("real"))
    assert made.quant is not None
    assert np.array_equal(made.array[0], w.array[0])
    assert made.quant.scales[0] == SCALES[0]
    assert all(m > s for m, s in zip(made.quant.scales[1:], SCALES[1:], strict=True))
    products: Array = np.abs(made.array.astype(int)).sum(1) * 255
    units = np.abs(np.array([0.5, 2.5, 2.5, 2.5]) / (X.scale * np.array(made.quant.scales)))
    assert np.all(products + units < 2**31)


def test_weights_with_room_are_the_same_object() -> None:
    w = Const(np.ones((2, 8), np.int8), Quant(0.01, 0), name="w")
    assert with_room(X, w, Const(np.ones(2, np.float32))) is w
    assert with_room(X, w, None) is w


def test_the_zero_point_needs_room_beside_the_products() -> None:
    w = Const(np.full((1, 8), -127, np.int8), Quant((0.01,), 0, 0), name="w")
    products = 127 * 8 * (255 + 155)
    for missing, room in ((-(2**10), True), (2**10, False)):
        units = 2**31 - products + missing
        b = Const(np.array([units * 0.01 * X.scale], np.float64), name="b")
        assert (with_room(X, w, b) is w) == room
