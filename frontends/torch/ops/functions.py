"""Rarer functions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.torch.ops.elementwise import common, pair_of
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops import activation as act
from irc.ops import bits, functions, unary
from irc.ops import elementwise as ew
from irc.ops.logic import Equal, Less, Not
from irc.ops.selection import Where
from irc.types import DType
from irc.value import Value

UNARY: dict[str, Callable[[Value], Value]] = {
    "aten.tan": functions.Tan,
    "aten.asin": functions.Asin,
    "aten.acos": functions.Acos,
    "aten.atan": functions.Atan,
    "aten.sinh": functions.Sinh,
    "aten.cosh": functions.Cosh,
    "aten.asinh": functions.Asinh,
    "aten.acosh": functions.Acosh,
    "aten.atanh": functions.Atanh,
    "aten.softsign": act.Softsign,
}

BITS: dict[str, Callable[[Value, Value], Value]] = {
    "aten.bitwise_left_shift": lambda a, b: bits.Shift(a, b, True),
    "aten.bitwise_right_shift": lambda a, b: bits.Shift(a, b, False),
    "aten.__lshift__": lambda a, b: bits.Shift(a, b, True),
    "aten.__rshift__": lambda a, b: bits.Shift(a, b, False),
}


@handles(*UNARY)
def rarer(node: Node) -> Results:
    """One operand and nothing else."""
    return node.builder.add(UNARY[node.op](node.operand("self", DType.F32)))


@handles(*BITS)
def shifted(node: Node) -> Results:
    """Bits of integers moved."""
    return node.builder.add(BITS[node.op](*pair_of(node, common(node, "self", "other"))))


@handles("aten.erfc", "aten.exp2", "aten.log10", "aten.square", "aten.frac")
def composed(node: Node) -> Results:
    """Functions that are two of ours."""
    build, x = node.builder, node.operand("self", DType.F32)
    match node.op:
        case "aten.erfc":
            one = build.const(np.asarray(1, np.float32), name=f"{build.name}.one")
            return build.add(ew.Sub(one, build.add(unary.Erf(x))))
        case "aten.exp2":
            return build.add(unary.Exp(forms.scaled(build, x, math.log(2))))
        case "aten.log10":
            return forms.scaled(build, build.add(unary.Log(x)), 1 / math.log(10))
        case "aten.square":
            return build.add(ew.Mul(x, x))
    return build.add(ew.Sub(x, forms.truncated(build, x)))


@handles("aten.silu_backward")
def silu_gradient(node: Node) -> Results:
    """`g (s + x s (1 - s))`, s the sigmoid of x; torch takes apart the gradients of others."""
    build, x, gradient = node.builder, node.x(), node.x("grad_output")
    s = build.add(act.Sigmoid(x))
    rest = build.add(act.Sigmoid(build.add(unary.Neg(x))))
    bend = build.add(ew.Mul(build.add(act.Silu(x)), rest))
    return build.add(ew.Mul(gradient, build.add(ew.Add(s, bend))))


@handles("aten.trunc", "aten.fix")
def truncate(node: Node) -> Results:
    """Towards zero."""
    x = node.x()
    return forms.truncated(node.builder, x) if x.type.dtype.is_float else x


@handles("aten.remainder", "aten.fmod")
def remainder(node: Node) -> Results:
    """With the sign of the divisor; of `fmod` with that of the dividend."""
    a, b = pair_of(node, common(node, "self", "other"))
    return node.builder.add(ew.Mod(a, b, node.op == "aten.fmod"))


@handles("aten.threshold")
def threshold(node: Node) -> Results:
    """A value in the place of all that is not above the threshold."""
    x, build = node.x(), node.builder
    limit, value = node.operand("threshold", x.type.dtype), node.operand("value", x.type.dtype)
    return build.add(Where(build.add(Less(limit, x)), x, value))


@handles("aten.hardshrink", "aten.softshrink")
def shrink(node: Node) -> Results:
    """0 near zero; `softshrink` moves the rest towards it."""
    limit = node.number("lambd")
    bias = limit if node.op == "aten.softshrink" else 0.0
    return node.builder.add(functions.Shrink(node.x(), limit, bias))


@handles("aten.rrelu", "aten.rrelu_with_noise", "aten.rrelu_with_noise_functional")
def random_relu(node: Node) -> Results:
    """Outside of training the mean slope below zero."""
    node.ignore("noise", "generator")
    if node.flag("training"):
        node.fail("it is in training mode; call .eval() on the module first")
    slope = (node.number("lower") + node.number("upper")) / 2
    y = node.builder.add(act.LeakyRelu(node.x(), slope))
    return (y, None) if node.count > 1 else y


@handles("aten.nan_to_num")
def nan_to_number(node: Node) -> Results:
    """Itself: nothing here is NaN or infinite."""
    node.ignore("nan", "posinf", "neginf")
    return node.x()


@handles("aten.logaddexp")
def log_add_exp(node: Node) -> Results:
    """`max(a, b) + softplus(-|a - b|)`."""
    build = node.builder
    a, b = pair_of(node, DType.F32)
    apart = build.add(unary.Neg(build.add(unary.Abs(build.add(ew.Sub(a, b))))))
    return build.add(ew.Add(build.add(ew.Maximum(a, b)), build.add(act.Softplus(apart))))


@handles("aten.hypot")
def hypotenuse(node: Node) -> Results:
    """`sqrt(a^2 + b^2)`."""
    build = node.builder
    a, b = pair_of(node, DType.F32)
    total = build.add(ew.Add(build.add(ew.Mul(a, a)), build.add(ew.Mul(b, b))))
    return build.add(unary.Sqrt(total))


@handles("aten.atan2")
def angle(node: Node) -> Results:
    """Of points (other, self) of the plane."""
    return angle_of(node.builder, *pair_of(node, DType.F32))


def angle_of(b: Builder, y: Value, x: Value) -> Value:
    """The angle of points (x, y), from -pi to pi, 0 at the origin: that of the eighth of the plane
    in which the shorter leg is divided by the longer one, mirrored three times."""

    def number(value: float, name: str) -> Value:
        return b.const(np.asarray(value, np.float32), name=f"{b.name}.{name}")

    zero, least = number(0, "zero"), number(float(np.finfo(np.float32).tiny), "least")
    wide, high = b.add(unary.Abs(x)), b.add(unary.Abs(y))
    longer = b.add(ew.Maximum(b.add(ew.Maximum(wide, high)), least))
    made = b.add(functions.Atan(b.add(ew.Div(b.add(ew.Minimum(wide, high)), longer))))
    for mirrored, turn in ((Less(wide, high), math.pi / 2), (Less(x, zero), math.pi)):
        other = b.add(ew.Sub(number(turn, "turn"), made))
        made = b.add(Where(b.add(mirrored), other, made))
    return b.add(Where(b.add(Less(y, zero)), b.add(unary.Neg(made)), made))


@handles("aten.isnan", "aten.isinf")
def is_special(node: Node) -> Results:
    """What does not equal itself; what is larger than any number."""
    x, build = node.x(), node.builder
    if not x.type.dtype.is_float:
        return build.const(np.zeros(x.shape, np.bool_))
    if node.op == "aten.isnan":
        return build.add(Not(build.add(Equal(x, x))))
    most = build.const(np.asarray(np.finfo(x.type.dtype.numpy).max))
    return build.add(Less(most, build.add(unary.Abs(x))))


@handles("aten.xlogy", "aten.special_xlog1py")
def entropy_term(node: Node) -> Results:
    """`x log(y)` or `x log(1 + y)`; zero where x is, whatever y is there: no logarithm of zero is
    taken. Torch takes it apart into a choice with NaN, which no integer stands for."""
    x, y = pair_of(node, DType.F32)
    build = node.builder
    plain = node.op == "aten.xlogy"
    zero, one = (
        build.const(np.asarray(number, np.float32), name=f"{build.name}.{name}")
        for number, name in enumerate(("zero", "one"))
    )
    safe = build.add(Where(build.add(Equal(x, zero)), one if plain else zero, y))
    within = safe if plain else build.add(ew.Add(safe, one))
    return build.add(ew.Mul(x, build.add(unary.Log(within))))
