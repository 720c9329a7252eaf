"""Holding an integer twin to its float op: over the reals that its integers stand for, it may be
off by one step of the result's scale, no more."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np

from irc import fixedpoint
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.ops.sampling import EIGHT_BITS, Draw, Feed, array, operand, pick, zero_point


@dataclass(frozen=True)
class Operand:
    """An integer operand with its array, and the float input or constant that stands for it."""

    integer: Value
    real: Value
    array: Array

    @property
    def reals(self) -> Array:
        """The reals that the integers stand for."""
        return fixedpoint.dequantize(self.array, self.integer.type, DType.F64)


def activation(draw: Draw, name: str, dims: tuple[int, ...]) -> Operand:
    """An 8-bit activation."""
    feed: Feed = operand(draw, name, dims)
    real = Input(DType.F64, dims, name=name)
    return Operand(feed.value, real, feed.array)


def weight(draw: Draw, dims: tuple[int, ...]) -> Operand:
    """Weights i8 with a scale per output channel."""
    scales = draw(st.lists(st.floats(2.0**-8, 1.0), min_size=dims[0], max_size=dims[0]))
    values = array(draw, DType.I8, dims, (-127, 127))
    return constant(values, Quant(tuple(scales), 0, 0), "w")


def bias(draw: Draw, x: Operand, w: Operand) -> Operand:
    """A bias i32 in the accumulator's scale."""
    assert w.integer.type.quant is not None
    scales = tuple(x.integer.type.scale * s for s in w.integer.type.quant.scales)
    values = array(draw, DType.I32, (len(scales),), (-(2**16), 2**16))
    return constant(values, Quant(scales, 0, 0), "b")


def constant(values: Array, quant: Quant, name: str) -> Operand:
    """A quantized constant."""
    integer = Const(values, quant, name=name)
    real = fixedpoint.dequantize(values, integer.type, DType.F64)
    return Operand(integer, Const(real, name=name), values)


def reals(node: Value, operands: tuple[Operand, ...]) -> Array:
    """What the float node computes."""
    arrays = {o.real: o.reals for o in operands}
    return np.asarray(node.call(arrays.__getitem__))


def result_type(draw: Draw, expected: Array) -> TensorType:
    """A type for the result whose range the expected values fill, or more than fill."""
    dtype = pick(draw, EIGHT_BITS)
    spread = float(np.abs(expected).max()) if expected.size else 0.0
    step = max(spread, 2.0**-6) / pick(draw, [60, 127, 255])
    return TensorType(dtype, expected.shape, Quant(step, zero_point(draw, dtype)))


def check_twin(draw: Draw, node: Value, operands: tuple[Operand, ...]) -> Value:
    """Quantize the node, compare it with its real self; returns the twin."""
    expected = reals(node, operands)
    result = result_type(draw, expected)
    twin = node.quantized(tuple(o.integer for o in operands), result)
    assert twin.type == result
    inputs = tuple(o.integer for o in operands if isinstance(o.integer, Input))
    feeds = {o.integer.name: o.array for o in operands if isinstance(o.integer, Input)}
    found = evaluate(Graph("twin", inputs, (twin,), ("y",)), feeds)["y"]
    wanted = fixedpoint.quantize(expected, result)
    assert np.abs(found.astype(np.int64) - wanted).max(initial=0) <= 1
    return twin
