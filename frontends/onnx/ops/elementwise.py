"""Element by element: arithmetic, activations, comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.file import SMALL_FLOATS, element_type, limits
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops import activation as act
from irc.ops import elementwise as ew
from irc.ops import logic, unary
from irc.ops.bits import Shift
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.prelu import PRelu
from irc.ops.selection import Where
from irc.ops.shape import Expand
from irc.types import DType
from irc.value import Value

BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "Add": ew.Add,
    "Sub": ew.Sub,
    "Mul": ew.Mul,
    "Pow": ew.Pow,
    "Equal": logic.Equal,
    "Less": logic.Less,
    "LessOrEqual": logic.LessOrEqual,
    "Greater": lambda a, b: logic.Less(b, a),
    "GreaterOrEqual": lambda a, b: logic.LessOrEqual(b, a),
    "And": logic.And,
    "Or": logic.Or,
}

VARIADIC: dict[str, Callable[[Value, Value], Value]] = {
    "Sum": ew.Add,
    "Max": ew.Maximum,
    "Min": ew.Minimum,
}

NOTHING = {"Max": -math.inf, "Min": math.inf}
"""The operand with which an operator gives the other one."""

UNARY: dict[str, Callable[[Value], Value]] = {
    "Relu": act.Relu,
    "Sigmoid": act.Sigmoid,
    "Tanh": act.Tanh,
    "HardSwish": act.HardSwish,
    "Softplus": act.Softplus,
    "Softsign": act.Softsign,
    "Mish": act.Mish,
    "Exp": unary.Exp,
    "Log": unary.Log,
    "Sqrt": unary.Sqrt,
    "Neg": unary.Neg,
    "Abs": unary.Abs,
    "Erf": unary.Erf,
    "Reciprocal": unary.Reciprocal,
    "Floor": unary.Floor,
    "Ceil": unary.Ceil,
    "Round": unary.Round,
    "Sign": unary.Sign,
    "Sin": unary.Sin,
    "Cos": unary.Cos,
    "Not": logic.Not,
}


@handles(*BINARY)
def binary(node: Node) -> Results:
    """Two operands with broadcasting."""
    a, b = _operands(node)
    if node.op == "Pow" and isinstance(b, Const):
        if a.type.dtype.is_integer and b.type.size == 1 and b.array.item() in WHOLE_POWERS:
            return _whole_power(node, a, int(b.array.item()))
        if b.type.dtype is not a.type.dtype:
            b = node.builder.const(b.array.astype(a.type.dtype.numpy), name=b.name)
    return node.builder.add(BINARY[node.op](a, b))


WHOLE_POWERS = range(1, 9)
"""Exponents for which a power of whole numbers is computed as products, which are exact."""


def _whole_power(node: Node, a: Value, exponent: int) -> Value:
    made = a
    for _ in range(exponent - 1):
        made = node.builder.add(ew.Mul(made, a))
    return made


def _operands(node: Node) -> tuple[Value, Value]:
    """Both operands. Before opset 7 b's axes are a's from `axis` on, by default the last ones."""
    a, b = node.x(0), node.x(1)
    if "broadcast" not in node.schema.attributes:
        return a, b
    start = node.attribute("axis")
    if not node.integer("broadcast"):
        if a.shape != b.shape:
            node.fail(f"{a.type} and {b.type} differ, and it does not broadcast")
        return a, b
    if start is None:
        return a, b
    axis = node.axis(int(start.i), a.type.rank)
    return a, node.builder.reshape(b, (*b.shape, *(1,) * (a.type.rank - axis - b.type.rank)))


@handles("Div")
def divide(node: Node) -> Results:
    """Integers are divided towards zero, as shapes are computed."""
    a, b = _operands(node)
    if a.type.dtype.is_integer and isinstance(b, Const) and not np.all(b.array):
        node.fail(f"divides by zero ({b.name!r})")
    return node.builder.add(ew.Div(a, b))


@handles("Mod")
def modulo(node: Node) -> Results:
    """The remainder, with the sign of the divisor, or of the dividend (`fmod`)."""
    a, b = node.x(0), node.x(1)
    if b.type.dtype.is_integer and isinstance(b, Const) and not np.all(b.array):
        node.fail(f"divides by zero ({b.name!r})")
    return node.builder.add(ew.Mod(a, b, bool(node.integer("fmod"))))


@handles(*VARIADIC)
def variadic(node: Node) -> Results:
    """Any number of operands, from the left; the ends of all numbers choose nothing."""
    values = [node.x(i) for i in range(len(node.inputs))]
    if (end := NOTHING.get(node.op)) is not None:
        values = [v for v in values if not _is_scalar(v, end)] or values[:1]
    result = values[0]
    for value in values[1:]:
        result = node.builder.add(VARIADIC[node.op](result, value))
    return result


def _is_scalar(v: Value, number: float) -> bool:
    return isinstance(v, Const) and v.type.rank == 0 and float(v.array) == number


@handles("Mean")
def mean(node: Node) -> Results:
    """The sum, divided by the number of operands."""
    count = len(node.inputs)
    values = [node.x(i) for i in range(count)]
    return forms.scaled(node.builder, forms.total(node.builder, values), 1 / count)


@handles("Xor")
def exclusive_or(node: Node) -> Results:
    """One of both, not both."""
    (a, b), build = _operands(node), node.builder
    both = build.add(logic.Not(build.add(logic.And(a, b))))
    return build.add(logic.And(build.add(logic.Or(a, b)), both))


@handles(*UNARY)
def of_one(node: Node) -> Results:
    """One operand, no attribute."""
    return node.builder.add(UNARY[node.op](node.x()))


@handles("LeakyRelu")
def leaky_relu(node: Node) -> Results:
    """`alpha * x` below zero."""
    return node.builder.add(act.LeakyRelu(node.x(), node.real("alpha")))


@handles("Elu")
def elu(node: Node) -> Results:
    """`alpha * (exp(x) - 1)` below zero."""
    return node.builder.add(act.Elu(node.x(), node.real("alpha")))


@handles("Celu")
def celu(node: Node) -> Results:
    """`alpha * elu(x / alpha)`."""
    alpha, build = node.real("alpha"), node.builder
    inner = build.add(act.Elu(forms.scaled(build, node.x(), 1 / alpha), 1.0))
    return forms.scaled(build, inner, alpha)


@handles("Selu")
def selu(node: Node) -> Results:
    """`gamma * elu(x, alpha)`."""
    alpha, gamma = node.real("alpha"), node.real("gamma")
    return node.builder.add(act.Selu(node.x(), alpha, gamma))


@handles("HardSigmoid")
def hard_sigmoid(node: Node) -> Results:
    """`clip(alpha * x + beta, 0, 1)`."""
    return node.builder.add(act.HardSigmoid(node.x(), node.real("alpha"), node.real("beta")))


@handles("Gelu")
def gelu(node: Node) -> Results:
    """Exact, or by tanh."""
    return node.builder.add(act.Gelu(node.x(), node.text("approximate")))


@handles("Swish")
def swish(node: Node) -> Results:
    """`x * sigmoid(alpha * x)`."""
    x, alpha, build = node.x(), node.real("alpha"), node.builder
    if alpha == 1.0:
        return build.add(act.Silu(x))
    return build.add(ew.Mul(x, build.add(act.Sigmoid(forms.scaled(build, x, alpha)))))


@handles("PRelu")
def prelu(node: Node) -> Results:
    """`slope * x` below zero; the slope broadcasts to x (before opset 7: one for each channel)."""
    x, slope = node.x(0), node.x(1)
    if node.opset < 7 and slope.type.rank == 1 and slope.type.size > 1:
        slope = node.builder.reshape(slope, (*slope.shape, *(1,) * (x.type.rank - 2)))
    return node.builder.add(PRelu(x, slope))


@handles("Clip")
def clip(node: Node) -> Results:
    """Bounds as attributes, since opset 11 as inputs; either may be missing."""
    x = node.x()
    if node.opset < 11:
        return node.builder.add(act.Clip(x, node.real("min"), node.real("max")))
    if any(node.has(i) and not isinstance(node.x(i), Const) for i in (1, 2)):
        return _clip_computed(node, x)
    low = node.scalar(1, "lower bound") if node.has(1) else None
    high = node.scalar(2, "upper bound") if node.has(2) else None
    if x.type.dtype.is_float:
        lo, hi = -math.inf if low is None else low, math.inf if high is None else high
        return node.builder.add(act.Clip(x, float(lo), float(hi)))
    return _clip_integers(node, x, low, high)


def _clip_computed(node: Node, x: Value) -> Value:
    """Bounds that depend on data, or one of them and an infinite one."""
    if node.has(1) and not _is_scalar(node.x(1), NOTHING["Max"]):
        x = node.builder.add(ew.Maximum(x, node.x(1)))
    if node.has(2) and not _is_scalar(node.x(2), NOTHING["Min"]):
        x = node.builder.add(ew.Minimum(x, node.x(2)))
    return x


def _clip_integers(node: Node, x: Value, low: int | None, high: int | None) -> Value:
    dtype, result = x.type.dtype.numpy, x
    if low is not None:
        result = node.builder.add(ew.Maximum(result, node.builder.const(np.asarray(low, dtype))))
    if high is not None:
        result = node.builder.add(ew.Minimum(result, node.builder.const(np.asarray(high, dtype))))
    return result


@handles("Where")
def where(node: Node) -> Results:
    """A choice, element by element. Where it is known and the same everywhere, what is never
    chosen may be no number, as behind the guards of jax's variances."""
    made = Where(node.x(0), node.x(1), node.x(2))
    match made.condition:
        case Const(array=condition) if condition.size and condition.all() == condition.any():
            chosen = made.a if condition.all() else made.b
            same = chosen.type == made.type
            return chosen if same else node.builder.add(Expand(chosen, made.shape))
    return node.builder.add(made)


@handles("BitCast")
def bit_cast(node: Node) -> Results:
    """The same bits: of integers at run time, of constants also from and to floats."""
    x, wanted = node.x(), node.integer("to")
    dtype = DType.of(element_type(wanted, "BitCast"))
    if wanted == TensorProto.DOUBLE or dtype.bits != x.type.dtype.bits:
        node.fail(f"the bits of {x.type} are no {dtype.value}")
    if isinstance(x, Const):
        return node.builder.const(x.array.view(dtype.numpy))
    if x.type.dtype.is_float or dtype.is_float or dtype is DType.BOOL:
        node.fail(f"the bits of {x.type}, computed at run time, can't be read as {dtype.value}")
    return node.builder.add(Cast(x, dtype))


@handles("Cast", "CastLike")
def cast(node: Node) -> Results:
    """Between element types; all floats are f32 here."""
    node.ignore("saturate", "round_mode")
    x = node.x()
    if node.op == "Cast":
        kind = node.integer("to")
        wanted = DType.of(element_type(kind, "Cast"))
    else:
        kind, wanted = node.builder.kinds.get(node.x(1).name, 0), node.x(1).type.dtype
    if kind in SMALL_FLOATS:
        node.fail("rounding to floats of 8 bits is not supported")
    ends = limits(kind)
    y = x if wanted is x.type.dtype else node.builder.add(Cast(x, wanted))
    return y if ends is None else _low_bits(node, y, (ends[1] - ends[0]).bit_length())


def _low_bits(node: Node, x: Value, count: int) -> Value:
    """The lowest bits of integers, the highest of them being the sign of signed ones."""
    build, dtype = node.builder, x.type.dtype
    rest = build.const(np.asarray(dtype.bits - count, dtype.numpy))
    return build.add(Shift(build.add(Shift(x, rest, True)), rest, False))
