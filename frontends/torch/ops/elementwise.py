"""Element by element: arithmetic, activations, comparisons, choices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.torch.ops.table import DATA_SHAPED, Node, Results, handles
from irc.ops import activation as act
from irc.ops import bits, logic, unary
from irc.ops import elementwise as ew
from irc.ops.core import Const, is_number
from irc.ops.prelu import PRelu
from irc.ops.selection import Where
from irc.types import DType
from irc.value import Value

Function = Callable[[Value, Value], Value]

BINARY: dict[str, Function] = {
    "aten.mul": ew.Mul,
    "aten.maximum": ew.Maximum,
    "aten.minimum": ew.Minimum,
}

RELATIONS: dict[str, Function] = {
    "aten.eq": logic.Equal,
    "aten.lt": logic.Less,
    "aten.le": logic.LessOrEqual,
    "aten.gt": lambda a, b: logic.Less(b, a),
    "aten.ge": lambda a, b: logic.LessOrEqual(b, a),
}

LOGIC: dict[str, Function] = {
    "aten.logical_and": logic.And,
    "aten.logical_or": logic.Or,
    "aten.bitwise_and": logic.And,
    "aten.bitwise_or": logic.Or,
}

BITS: dict[str, Function] = {
    "aten.bitwise_and": bits.BitAnd,
    "aten.bitwise_or": bits.BitOr,
    "aten.bitwise_xor": bits.BitXor,
}

UNARY: dict[str, Callable[[Value], Value]] = {
    "aten.relu": act.Relu,
    "aten.relu6": lambda x: act.Clip(x, 0.0, 6.0),
    "aten.sigmoid": act.Sigmoid,
    "aten.tanh": act.Tanh,
    "aten.hardsigmoid": lambda x: act.HardSigmoid(x, 1 / 6, 0.5),
    "aten.hardswish": act.HardSwish,
    "aten.silu": act.Silu,
    "aten.selu": act.Selu,
    "aten.mish": act.Mish,
    "aten.exp": unary.Exp,
    "aten.log": unary.Log,
    "aten.sqrt": unary.Sqrt,
    "aten.neg": unary.Neg,
    "aten.abs": unary.Abs,
    "aten.erf": unary.Erf,
    "aten.reciprocal": unary.Reciprocal,
    "aten.floor": unary.Floor,
    "aten.ceil": unary.Ceil,
    "aten.round": unary.Round,
    "aten.sign": unary.Sign,
    "aten.sin": unary.Sin,
    "aten.cos": unary.Cos,
}


def common(node: Node, *names: str) -> DType:
    """The element type that operands meet in: a number takes that of the tensors unless it is a
    fraction and they are whole."""
    found = [node.arguments[n] for n in names]
    tensors = [v.type for v in found if isinstance(v, Value)]
    if not tensors:
        return node.dtype or DType.F32
    ranked = [t for t in tensors if t.rank] or tensors  # tensors without axes give way
    made = np.result_type(*(t.dtype.numpy for t in ranked))
    if any(t.dtype.is_float for t in tensors) or any(isinstance(v, float) for v in found):
        return DType.F32
    return DType.of(made)


def pair_of(node: Node, dtype: DType, b: str = "other") -> tuple[Value, Value]:
    """The operands `self` and `b` in one element type."""
    return node.operand("self", dtype), node.operand(b, dtype)


@handles("aten.mul", "aten.maximum", "aten.minimum")
def binary(node: Node) -> Results:
    """Two operands with broadcasting."""
    dtype = common(node, "self", "other")
    if dtype is DType.BOOL:
        both = logic.Or if node.op == "aten.maximum" else logic.And
        return node.builder.add(both(*pair_of(node, dtype)))
    return node.builder.add(BINARY[node.op](*pair_of(node, dtype)))


@handles("aten.add", "aten.sub", "aten.rsub")
def add(node: Node) -> Results:
    """`self ± alpha * other`, for `rsub` the other way round."""
    a, b = pair_of(node, common(node, "self", "other"))
    if node.op == "aten.rsub":
        a, b = b, forms.scaled(node.builder, a, node.number("alpha"))
    else:
        b = forms.scaled(node.builder, b, node.number("alpha"))
    return node.builder.add(ew.Add(a, b) if node.op == "aten.add" else ew.Sub(a, b))


@handles("aten.addcmul", "aten.addcdiv")
def add_product(node: Node) -> Results:
    """`self + value * a * b`, or `a / b`."""
    build = node.builder
    a, b = node.x("tensor1"), node.x("tensor2")
    y = build.add(ew.Mul(a, b) if node.op == "aten.addcmul" else ew.Div(a, b))
    return build.add(ew.Add(node.x(), forms.scaled(build, y, node.number("value"))))


@handles("aten.div", "aten.floor_divide")
def divide(node: Node) -> Results:
    """True division; `rounding_mode` rounds down or towards zero, and keeps integers."""
    build, mode = node.builder, "floor" if node.op == "aten.floor_divide" else None
    if "rounding_mode" in node.arguments:
        mode = node.any("rounding_mode")
    if mode is not None and not (node.dtype or DType.F32).is_float:
        return _whole_quotient(node, down=mode == "floor")
    a, b = pair_of(node, DType.F32)
    y = build.add(ew.Div(a, b))
    if mode is None:
        return y
    return build.add(unary.Floor(y)) if mode == "floor" else forms.truncated(build, y)


def _whole_quotient(node: Node, *, down: bool) -> Value:
    """Of integers, whose own division goes towards zero: what is left over goes before."""
    build, dtype = node.builder, common(node, "self", "other")
    a, b = pair_of(node, dtype)
    return build.add(ew.Div(build.add(ew.Sub(a, build.add(ew.Mod(a, b)))) if down else a, b))


@handles("aten.pow")
def power(node: Node) -> Results:
    """Squares are products, since their base may be negative."""
    dtype = common(node, "self", "exponent")
    if node.arguments["exponent"] == 2:
        node.ignore("exponent")
        x = node.operand("self", dtype)
        return node.builder.add(ew.Mul(x, x))
    return node.builder.add(ew.Pow(*pair_of(node, dtype, b="exponent")))


@handles(*RELATIONS, "aten.ne")
def relation(node: Node) -> Results:
    """Comparisons, with booleans as results."""
    dtype = common(node, "self", "other")
    limit = node.arguments["other"]
    if isinstance(limit, float) and math.isinf(limit):  # no element is: so none is this large
        node.arguments["other"] = math.copysign(float(np.finfo(np.float32).max), limit)
    a, b = pair_of(node, dtype)
    if node.op == "aten.ne":
        return node.builder.add(logic.Not(node.builder.add(logic.Equal(a, b))))
    return node.builder.add(RELATIONS[node.op](a, b))


@handles(*LOGIC, "aten.logical_xor", "aten.bitwise_xor")
def logical(node: Node) -> Results:
    """Of booleans; of integers bit by bit."""
    build = node.builder
    if "bitwise" in node.op and node.dtype is not DType.BOOL:
        return build.add(BITS[node.op](*pair_of(node, common(node, "self", "other"))))
    a, b = pair_of(node, DType.BOOL)
    if node.op in LOGIC:
        return build.add(LOGIC[node.op](a, b))
    both = build.add(logic.Not(build.add(logic.And(a, b))))
    return build.add(logic.And(build.add(logic.Or(a, b)), both))


@handles("aten.logical_not", "aten.bitwise_not")
def negate(node: Node) -> Results:
    """Of booleans; of integers all bits."""
    if node.op == "aten.bitwise_not" and node.dtype is not DType.BOOL:
        x = node.x()
        ones = np.bitwise_not(np.zeros((), x.type.dtype.numpy))
        return node.builder.add(bits.BitXor(x, node.builder.const(ones)))
    return node.builder.add(logic.Not(node.operand("self", DType.BOOL)))


@handles(*UNARY)
def of_one(node: Node) -> Results:
    """One operand and nothing else."""
    x = node.x()
    dtype = node.dtype or x.type.dtype
    if node.has("decimals") and (digits := node.integer("decimals")):
        x = forms.scaled(node.builder, x, 10.0**digits)
        return forms.scaled(node.builder, node.builder.add(unary.Round(x)), 10.0**-digits)
    return node.builder.add(UNARY[node.op](node.cast(x, dtype)))


@handles("aten.rsqrt", "aten.log1p", "aten.expm1", "aten.log2", "aten.log_sigmoid")
def composed(node: Node) -> Results:
    """Functions that are two of ours."""
    build, x = node.builder, node.operand("self", DType.F32)
    one = build.const(np.asarray(1, np.float32), name=f"{build.name}.one")
    match node.op:
        case "aten.rsqrt":
            return build.add(unary.Reciprocal(build.add(unary.Sqrt(x))))
        case "aten.log1p":
            return build.add(unary.Log(build.add(ew.Add(x, one))))
        case "aten.expm1":
            return build.add(ew.Sub(build.add(unary.Exp(x)), one))
        case "aten.log2":
            return forms.scaled(build, build.add(unary.Log(x)), 1 / math.log(2))
    return build.add(unary.Neg(build.add(act.Softplus(build.add(unary.Neg(x))))))


@handles("aten.leaky_relu")
def leaky_relu(node: Node) -> Results:
    """`negative_slope * x` below zero."""
    return node.builder.add(act.LeakyRelu(node.x(), node.number("negative_slope")))


@handles("aten.prelu", "aten._prelu_kernel")
def prelu(node: Node) -> Results:
    """One slope, or one for each entry of the second axis."""
    x, slope = node.x(), node.x("weight")
    if node.op == "aten.prelu" and x.type.rank > 1:
        slope = node.builder.reshape(slope, (slope.type.size, *(1,) * (x.type.rank - 2)))
    return node.builder.add(PRelu(x, slope))


@handles("aten.elu")
def elu(node: Node) -> Results:
    """`scale * alpha * (exp(input_scale * x) - 1)` below zero."""
    alpha, scale, inner = (node.number(n) for n in ("alpha", "scale", "input_scale"))
    if inner != 1.0:
        node.fail(f"input_scale = {inner} is not supported")
    return forms.scaled(node.builder, node.builder.add(act.Elu(node.x(), alpha)), scale)


@handles("aten.celu")
def celu(node: Node) -> Results:
    """`alpha * elu(x / alpha)`."""
    alpha, build = node.number("alpha"), node.builder
    inner = build.add(act.Elu(forms.scaled(build, node.x(), 1 / alpha), 1.0))
    return forms.scaled(build, inner, alpha)


@handles("aten.softplus")
def softplus(node: Node) -> Results:
    """`log(1 + exp(beta * x)) / beta`; beyond the threshold that is x, to the last bit."""
    beta, build = node.number("beta"), node.builder
    node.ignore("threshold")
    inner = build.add(act.Softplus(forms.scaled(build, node.x(), beta)))
    return forms.scaled(build, inner, 1 / beta)


@handles("aten.gelu")
def gelu(node: Node) -> Results:
    """Exact, or by tanh."""
    return node.builder.add(act.Gelu(node.x(), str(node.any("approximate"))))


@handles("aten.hardtanh", "aten.clamp", "aten.clamp_min", "aten.clamp_max", "aten.clip")
def clip(node: Node) -> Results:
    """Between bounds, either of which may be missing; they may be tensors."""
    low, high = ("min_val", "max_val") if node.op == "aten.hardtanh" else ("min", "max")
    x, bounds = node.x(), [node.arguments.get(n) for n in (low, high)]
    plain = not any(isinstance(v, Value) and not is_number(v) for v in bounds)
    if x.type.dtype.is_float and plain:
        return node.builder.add(act.Clip(x, node.bound(low, -1), node.bound(high, 1)))
    dtype, y = node.dtype or x.type.dtype, node.operand("self", node.dtype or x.type.dtype)
    if node.has(low):
        y = node.builder.add(ew.Maximum(y, node.operand(low, dtype)))
    if node.has(high):
        y = node.builder.add(ew.Minimum(y, node.operand(high, dtype)))
    node.ignore(low, high)
    return y


@handles("aten.where")
def where(node: Node) -> Results:
    """A choice, element by element; the places where a condition holds have no fixed number."""
    if "self" not in node.arguments:
        node.fail(DATA_SHAPED)
    dtype = common(node, "self", "other")
    condition = node.operand("condition", DType.BOOL)
    return node.builder.add(Where(condition, *pair_of(node, dtype)))


@handles("aten.masked_fill")
def masked_fill(node: Node) -> Results:
    """One number where the mask is set; -inf, which can't be stored, becomes the least number in
    what is known at import. In a choice it stays, for attention to tell it from that number."""
    x, value = node.x(), node.any("value")
    mask = node.operand("mask", DType.BOOL)
    if isinstance(value, Value):
        filled = node.cast(value, x.type.dtype)
    else:
        known = isinstance(x, Const) and isinstance(mask, Const)
        least = np.finfo(np.float32).min if known else -np.inf
        number = max(value, least) if x.type.dtype.is_float else value
        filled = node.builder.const(
            np.asarray(number, x.type.dtype.numpy), name=f"{node.builder.name}.value"
        )
    return node.builder.add(Where(mask, filled, x))
