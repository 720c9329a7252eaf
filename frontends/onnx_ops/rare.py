"""Rarer functions, and what only occurs among constants (shape arithmetic)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irc.ops import functions
from irc.ops.activation import Not
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.logic import Equal
from irc.ops.shape import Pad, Slice
from irc.types import Array
from irc.value import Value

from .table import Node, Results, handles

UNARY: dict[str, Callable[[Value], Value]] = {
    "Tan": functions.Tan,
    "Asin": functions.Asin,
    "Acos": functions.Acos,
    "Atan": functions.Atan,
    "Sinh": functions.Sinh,
    "Cosh": functions.Cosh,
    "Asinh": functions.Asinh,
    "Acosh": functions.Acosh,
    "Atanh": functions.Atanh,
}

CONSTANT: dict[str, Callable[..., Any]] = {
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "BitwiseNot": np.bitwise_not,
}


@handles(*UNARY)
def unary(node: Node) -> Results:
    """One operand, no attribute."""
    return node.builder.add(UNARY[node.op](node.x()))


@handles("ThresholdedRelu")
def thresholded_relu(node: Node) -> Results:
    """0 up to alpha."""
    return node.builder.add(functions.ThresholdedRelu(node.x(), node.real("alpha")))


@handles("Shrink")
def shrink(node: Node) -> Results:
    """Towards zero by a bias."""
    return node.builder.add(functions.Shrink(node.x(), node.real("lambd"), node.real("bias")))


@handles(*CONSTANT)
def bitwise(node: Node) -> Results:
    """Of constants."""
    arrays = [node.constant(i, "input") for i in range(len(node.inputs))]
    if any(a.dtype.kind not in "iub" for a in arrays):
        node.fail("its inputs must be integers")
    return node.builder.const(np.asarray(CONSTANT[node.op](*arrays)))


@handles("BitShift")
def bit_shift(node: Node) -> Results:
    """Of constants; what is shifted out is gone, and a sign stays."""
    x, by = node.constant(0, "input"), node.constant(1, "shift")
    if x.dtype.kind not in "iu" or by.dtype != x.dtype or np.any(by < 0):
        node.fail(f"{x.dtype} shifted by {by.dtype}: one integer type, and no negative shift")
    bits = x.dtype.itemsize * 8
    few = np.minimum(by, bits - 1)
    if node.text("direction") == "LEFT":
        return node.builder.const(np.where(by < bits, np.left_shift(x, few), 0).astype(x.dtype))
    emptied = 0 if x.dtype.kind == "u" else np.right_shift(x, bits - 1)
    return node.builder.const(
        np.where(by < bits, np.right_shift(x, few), emptied).astype(x.dtype)
    )


@handles("IsNaN")
def is_nan(node: Node) -> Results:
    """What does not equal itself."""
    x, build = node.x(), node.builder
    if isinstance(x, Const):
        return build.const(np.isnan(x.array))
    return build.add(Not(build.add(Equal(x, x))))


@handles("IsInf")
def is_inf(node: Node) -> Results:
    """Of constants."""
    x = node.constant(0, "input")
    up, down = node.integer("detect_positive"), node.integer("detect_negative")
    return node.builder.const(np.isinf(x) & ((x > 0) & bool(up) | (x < 0) & bool(down)))


@handles("CumSum")
def cumulative_sum(node: Node) -> Results:
    """Along a constant axis, by sums over 2, 4, 8, … neighbours."""
    x, build = node.x(), node.builder
    axis = node.axis(int(node.scalar(1, "axis")), x.type.rank)
    extent, reverse = x.shape[axis], bool(node.integer("reverse"))
    if isinstance(x, Const):
        return build.const(_cumulative(x.array, axis, bool(node.integer("exclusive")), reverse))
    y = _shifted(node, x, axis, 1, reverse) if node.integer("exclusive") else x
    step = 1
    while step < extent:
        y = build.add(Add(y, _shifted(node, y, axis, step, reverse)))
        step *= 2
    return y


def _cumulative(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    y = np.flip(x, axis) if reverse else x
    total = np.cumsum(y, axis, dtype=x.dtype)
    total = total - y if exclusive else total
    return np.asarray(np.flip(total, axis) if reverse else total)


def _shifted(node: Node, x: Value, axis: int, by: int, reverse: bool) -> Value:
    """x moved along an axis, zeros moving in."""
    by, extent = min(by, x.shape[axis]), x.shape[axis]
    widths = tuple(
        ((0, by) if reverse else (by, 0)) if a == axis else (0, 0) for a in range(x.type.rank)
    )
    wide = node.builder.add(Pad(x, widths))
    starts = tuple(by if a == axis and reverse else 0 for a in range(x.type.rank))
    stops = tuple(s + d for s, d in zip(starts, x.shape, strict=True))
    assert wide.shape[axis] == extent + by
    return node.builder.add(Slice(wide, starts, stops, (1,) * x.type.rank))


@handles("CumProd")
def cumulative_product(node: Node) -> Results:
    """Of constants."""
    x, axis = node.constant(0, "input"), int(node.scalar(1, "axis"))
    axis = node.axis(axis, x.ndim)
    reverse = bool(node.integer("reverse"))
    y = np.flip(x, axis) if reverse else x
    total = np.cumprod(y, axis, dtype=x.dtype)
    if node.integer("exclusive"):
        first = np.ones_like(total.take([0], axis))
        total = np.concatenate([first, total.take(range(x.shape[axis] - 1), axis)], axis)
    return node.builder.const(np.asarray(np.flip(total, axis) if reverse else total))
