"""Rarer functions, and what only occurs among constants (shape arithmetic)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops import bits, functions
from irc.ops.core import Const
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Add
from irc.ops.logic import Equal, Less, Not, Or
from irc.ops.unary import Erf, Neg
from irc.value import Value

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

BITWISE: dict[str, Callable[[Value, Value], Value]] = {
    "BitwiseAnd": bits.BitAnd,
    "BitwiseOr": bits.BitOr,
    "BitwiseXor": bits.BitXor,
}


@handles(*UNARY)
def unary(node: Node) -> Results:
    """One operand, no attribute."""
    return node.builder.add(UNARY[node.op](node.x()))


@handles("Erfc")
def complementary_error(node: Node) -> Results:
    """TensorFlow's 1 - erf(x), which Keras' GELU reads at -x and tf2onnx leaves as it is: written
    as 1 + erf(-x), as GELUs are."""
    x, build = node.x(), node.builder
    one = build.const(np.ones((), x.type.dtype.numpy))
    return build.add(Add(build.add(Erf(build.add(Neg(x)))), one))


@handles("ThresholdedRelu")
def thresholded_relu(node: Node) -> Results:
    """0 up to alpha."""
    return node.builder.add(functions.ThresholdedRelu(node.x(), node.real("alpha")))


@handles("Shrink")
def shrink(node: Node) -> Results:
    """Towards zero by a bias."""
    return node.builder.add(functions.Shrink(node.x(), node.real("lambd"), node.real("bias")))


@handles(*BITWISE)
def bitwise(node: Node) -> Results:
    """Bit by bit."""
    return node.builder.add(BITWISE[node.op](node.x(0), node.x(1)))


@handles("BitwiseNot")
def bitwise_not(node: Node) -> Results:
    """Exclusive or with all ones."""
    x = node.x()
    if not x.type.dtype.is_integer:
        node.fail(f"its input must be integers, it is {x.type}")
    dtype = x.type.dtype.numpy
    ones = np.bitwise_not(np.zeros((), dtype))
    return node.builder.add(bits.BitXor(x, node.builder.const(ones)))


@handles("BitShift")
def bit_shift(node: Node) -> Results:
    """To the left or the right; what is shifted out is gone, and a sign stays."""
    direction = node.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        node.fail(f"direction = {direction!r} is neither LEFT nor RIGHT")
    return node.builder.add(bits.Shift(node.x(0), node.x(1), direction == "LEFT"))


@handles("IsNaN")
def is_nan(node: Node) -> Results:
    """What does not equal itself."""
    x, build = node.x(), node.builder
    if isinstance(x, Const):
        return build.const(np.isnan(x.array))
    return build.add(Not(build.add(Equal(x, x))))


@handles("IsInf")
def is_inf(node: Node) -> Results:
    """What is more, or less, than any number."""
    x, build = node.x(), node.builder
    up, down = node.integer("detect_positive"), node.integer("detect_negative")
    if isinstance(x, Const):
        wanted = (x.array > 0) & bool(up) | (x.array < 0) & bool(down)
        return build.const(np.isinf(x.array) & wanted)
    most = np.finfo(x.type.dtype.numpy).max
    above = build.add(Less(build.const(most), x))
    below = build.add(Less(x, build.const(-most)))
    if up and down:
        return build.add(Or(above, below))
    return above if up else below if down else build.const(np.zeros(x.shape, np.bool_))


@handles("CumSum")
def cumulative_sum(node: Node) -> Results:
    """Along a constant axis."""
    x = node.x()
    axis = node.axis(int(node.scalar(1, "axis")), x.type.rank)
    exclusive, reverse = (bool(node.integer(n)) for n in ("exclusive", "reverse"))
    return node.builder.add(CumSum(x, axis, exclusive, reverse))


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
