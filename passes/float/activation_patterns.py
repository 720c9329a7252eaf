"""Activation functions that exporters wrote out, recognised."""

from __future__ import annotations

import math
from collections.abc import Iterator

from irc.ops.activation import (
    Clip,
    Gelu,
    HardSigmoid,
    HardSwish,
    Mish,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from irc.ops.elementwise import Add, Div, Mul, Pow
from irc.ops.reduce import ReduceSum
from irc.ops.shape import Reshape, Slice
from irc.ops.spectrum import Magnitude
from irc.ops.unary import Erf, Exp, Log, Neg, Reciprocal, Sqrt
from irc.passes.float.constants import is_uniform, uniform
from irc.value import Value

CLOSE = 1e-4
"""Relative tolerance of the constants in a pattern: exporters write them with few digits."""


def hard_sigmoid(v: Value) -> Value | None:
    """A clamped line from 0 to 1.

        (%x: f32[2,3])
        %a = const [0.25] : f32[]
        %b = const [0.5] : f32[]
        %m = mul(%x, %a) : f32[2,3]
        %s = add(%m, %b) : f32[2,3]
        %y = clip(%s) {lo = 0.0, hi = 1.0} : f32[2,3]
        ->
        %y = hard_sigmoid(%x) {alpha = 0.25, beta = 0.5} : f32[2,3]

        (%x: f32[2,3])
        %three = const [3.0] : f32[]
        %eighth = const [0.125] : f32[]
        %s = add(%x, %three) : f32[2,3]
        %c = clip(%s) {lo = 0.0, hi = 8.0} : f32[2,3]
        %y = mul(%c, %eighth) : f32[2,3]
        ->
        %y = hard_sigmoid(%x) {alpha = 0.125, beta = 0.375} : f32[2,3]
    """
    match v:
        case Clip(x=Add(a=Mul(a=x, b=a), b=b), lo=0.0, hi=1.0):
            alpha, beta = uniform(a), uniform(b)
        case Mul(a=Clip(x=Add(a=x, b=b), lo=0.0, hi=hi), b=a) if is_uniform(a, 1 / hi, CLOSE):
            offset = uniform(b)
            alpha, beta = 1 / hi, None if offset is None else offset / hi
        case _:
            return None
    if alpha is None or beta is None or x.shape != v.shape:
        return None
    return HardSigmoid(x, alpha, beta)


def magnitude(v: Value) -> Value | None:
    """The size of a complex number.

        (%a: f32[2,3], %b: f32[2,3])
        %p = mul(%a, %a) : f32[2,3]
        %q = mul(%b, %b) : f32[2,3]
        %s = add(%p, %q) : f32[2,3]
        %y = sqrt(%s) : f32[2,3]
        ->
        %y = magnitude(%a, %b) : f32[2,3]
    """
    match v:
        case Sqrt(x=Add(a=Mul(a=a, b=also_a), b=Mul(a=b, b=also_b))):
            squares = a is also_a and b is also_b and a is not b
            return Magnitude(a, b) if squares and a.shape == b.shape else None
    return None


def stacked_magnitude(v: Value) -> Value | None:
    """The size of complex numbers whose parts lie beside each other.

        (%x: f32[3,2])
        %p = mul(%x, %x) : f32[3,2]
        %s = reduce_sum(%p) {axes = [1], keepdims = false} : f32[3]
        %y = sqrt(%s) : f32[3]
        ->
        %0 = slice(%x) {starts = [0, 0], stops = [3, 1], steps = [1, 1]} : f32[3,1]
        %1 = reshape(%0) {dims = [3]} : f32[3]
        %2 = slice(%x) {starts = [0, 1], stops = [3, 2], steps = [1, 1]} : f32[3,1]
        %3 = reshape(%2) {dims = [3]} : f32[3]
        %y = magnitude(%1, %3) : f32[3]
    """
    match v:
        case Sqrt(x=ReduceSum(x=Mul(a=x, b=also_x), axes=(axis,))) if x is also_x:
            if x.shape[axis] != 2 or not v.type.dtype.is_float:
                return None
            return Magnitude(*(Reshape(_at(x, axis, i), v.shape) for i in range(2)))
    return None


def _at(x: Value, axis: int, index: int) -> Value:
    """One element along an axis, which stays."""
    starts = [index if a == axis else 0 for a in range(x.type.rank)]
    stops = [index + 1 if a == axis else n for a, n in enumerate(x.shape)]
    return Slice(x, tuple(starts), tuple(stops), (1,) * x.type.rank)


def gated(v: Value) -> Value | None:
    """A value times a gate of itself: SiLU, hard-swish, GELU, mish, in any order of factors.

        (%x: f32[2,3])
        %s = sigmoid(%x) : f32[2,3]
        %y = mul(%s, %x) : f32[2,3]
        ->
        %y = silu(%x) : f32[2,3]

        (%x: f32[2,3])
        %three = const [3.0] : f32[]
        %sixth = const [0.1666666716337204] : f32[]
        %s = add(%x, %three) : f32[2,3]
        %c = clip(%s) {lo = 0.0, hi = 6.0} : f32[2,3]
        %p = mul(%x, %c) : f32[2,3]
        %y = mul(%p, %sixth) : f32[2,3]
        ->
        %y = hard_swish(%x) : f32[2,3]

        (%x: f32[2,3])
        %root = const [0.7071067690849304] : f32[]
        %one = const [1.0] : f32[]
        %half = const [0.5] : f32[]
        %r = mul(%x, %root) : f32[2,3]
        %e = erf(%r) : f32[2,3]
        %s = add(%e, %one) : f32[2,3]
        %h = mul(%x, %half) : f32[2,3]
        %y = mul(%h, %s) : f32[2,3]
        ->
        %y = gelu(%x) {approximate = "none"} : f32[2,3]

        (%x: f32[2,3])
        %s = softplus(%x) : f32[2,3]
        %t = tanh(%s) : f32[2,3]
        %y = mul(%x, %t) : f32[2,3]
        ->
        %y = mish(%x) : f32[2,3]
    """
    if not isinstance(v, Mul):
        return None
    for scale, a, b in products(v):
        for x, gate in ((a, b), (b, a)):
            made = _gate(scale, x, gate)
            if made is not None and x.shape == v.shape:
                return made
    return None


def products(v: Mul) -> Iterator[tuple[float, Value, Value]]:
    """Ways to read a product as `number * a * b`."""
    number = uniform(v.b)
    if number is None:
        yield 1.0, v.a, v.b
        for scaled, other in ((v.a, v.b), (v.b, v.a)):
            match scaled:
                case Mul(a=x, b=c) if (inner := uniform(c)) is not None:
                    yield inner, x, other
    elif isinstance(v.a, Mul):
        yield from ((number * inner, a, b) for inner, a, b in products(v.a))


def _gate(scale: float, x: Value, gate: Value) -> Value | None:
    """The function that is `scale * x * gate`, if gate is one of x."""
    match gate:
        case Sigmoid(x=of) if of is x and _close(scale, 1.0):
            return Silu(x)
        case HardSigmoid(x=of, alpha=alpha, beta=beta) if of is x and _close(scale, 1.0):
            return HardSwish(x) if _close(alpha, 1 / 6) and _close(beta, 0.5) else None
        case Clip(x=Add(a=of, b=c), lo=0.0, hi=6.0) if of is x and is_uniform(c, 3.0):
            return HardSwish(x) if _close(scale, 1 / 6) else None
        case Tanh(x=Softplus(x=of)) if of is x and _close(scale, 1.0):
            return Mish(x)
        case Add(a=Erf(x=inner), b=one) if is_uniform(one, 1.0) and _close(scale, 0.5):
            return Gelu(x) if _is_scaled(inner, x, math.sqrt(0.5)) else None
        case Add(a=Tanh(x=inner), b=one) if is_uniform(one, 1.0) and _close(scale, 0.5):
            return Gelu(x, "tanh") if _is_cubic(inner, x) else None
        case Mul(a=inner, b=c) if (number := uniform(c)) is not None:
            return _gate(scale * number, x, inner)
    return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE)


def _is_scaled(v: Value, x: Value, factor: float) -> bool:
    """Whether v is `factor * x`."""
    match v:
        case Mul(a=of, b=c):
            return of is x and is_uniform(c, factor, CLOSE)
        case Div(a=of, b=c):
            return of is x and is_uniform(c, 1 / factor, CLOSE)
    return False


def _is_cubic(v: Value, x: Value) -> bool:
    """Whether v is `sqrt(2/pi) * (x + 0.044715 * x^3)`."""
    match v:
        case Mul(a=Add(a=a, b=b), b=c) if is_uniform(c, math.sqrt(2 / math.pi), CLOSE):
            return (a is x and _is_cube(b, x, 0.044715)) or (b is x and _is_cube(a, x, 0.044715))
    return False


def _is_cube(v: Value, x: Value, factor: float) -> bool:
    """Whether v is `factor * x^3`, as a power or as products in any order."""
    number, parts = _factors(v, x)
    return len(parts) == 3 and all(p is x for p in parts) and _close(number, factor)


def _factors(v: Value, x: Value, depth: int = 4) -> tuple[float, list[Value]]:
    """A product as a number and the other factors; x stays whole, third powers are taken apart."""
    if v is x or depth == 0:
        return 1.0, [v]
    if (number := uniform(v)) is not None:
        return number, []
    match v:
        case Pow(a=of, b=c) if is_uniform(c, 3.0):
            return 1.0, [of, of, of]
        case Mul(a=a, b=b):
            (m, left), (n, right) = _factors(a, x, depth - 1), _factors(b, x, depth - 1)
            return m * n, [*left, *right]
    return 1.0, [v]


def softplus(v: Value) -> Value | None:
    """The logarithm written out.

        (%x: f32[2,3])
        %one = const [1.0] : f32[]
        %e = exp(%x) : f32[2,3]
        %s = add(%e, %one) : f32[2,3]
        %y = log(%s) : f32[2,3]
        ->
        %y = softplus(%x) : f32[2,3]
    """
    match v:
        case Log(x=Add(a=Exp(x=x), b=one)) if is_uniform(one, 1.0) and x.shape == v.shape:
            return Softplus(x)
    return None


def sigmoid(v: Value) -> Value | None:
    """The logistic function written out.

        (%x: f32[2,3])
        %one = const [1.0] : f32[]
        %n = neg(%x) : f32[2,3]
        %e = exp(%n) : f32[2,3]
        %s = add(%e, %one) : f32[2,3]
        %y = reciprocal(%s) : f32[2,3]
        ->
        %y = sigmoid(%x) : f32[2,3]
    """
    match v:
        case Reciprocal(x=Add(a=Exp(x=inner), b=one)) if is_uniform(one, 1.0):
            x = _negated(inner)
            return None if x is None or x.shape != v.shape else Sigmoid(x)
    return None


def _negated(v: Value) -> Value | None:
    match v:
        case Neg(x=x):
            return x
        case Mul(a=x, b=c) if is_uniform(c, -1.0):
            return x
    return None


RULES = (magnitude, stacked_magnitude, hard_sigmoid, softplus, sigmoid, gated)
