"""One way to write each thing, so that later passes meet only that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.activation import Clip, Relu
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Maximum, Minimum, Mul, Pow, Sub
from irc.ops.logic import Less, LessOrEqual
from irc.ops.unary import Neg, Reciprocal
from irc.passes.float import (
    activation_patterns,
    comparisons,
    computed_parameters,
    expanded_norms,
    gru_patterns,
    linear,
    logits,
    masking,
    norm_patterns,
    pooling,
    quantized_cells,
    recurrent_patterns,
    tree_thresholds,
)
from irc.passes.float.constants import is_uniform, real, uniform
from irc.passes.float.fold import RULES as FOLDING
from irc.passes.float.fold import share
from irc.passes.float.identities import equals_itself, times_nothing
from irc.pipeline import Pass
from irc.rewrite import Uses, rewrite
from irc.types import Array
from irc.value import Value

EXACT = 2.0**24
"""Whole numbers below are singles."""


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Constants on the right, clamps as clip, affine maps as linear, global pools as reductions,
    written-out activations by their name."""

    name: ClassVar[str] = "canonicalize"

    def run(self, graph: Graph) -> Graph:
        """To a fixed point of the rules, over shared subexpressions so that patterns match."""
        return share(rewrite(share(graph), (*FOLDING, *RULES), USE_RULES))


def constant_right(v: Value) -> Value | None:
    """The constant operand of a commutative op comes second.

        (%x: f32[2,3])
        %c = const [2.0] : f32[]
        %y = add(%c, %x) : f32[2,3]
        ->
        %c = const [2.0] : f32[]
        %y = add(%x, %c) : f32[2,3]
    """
    match v:
        case Add(a=Const() as c, b=x) | Mul(a=Const() as c, b=x):
            pass
        case Minimum(a=Const() as c, b=x) | Maximum(a=Const() as c, b=x):
            pass
        case _:
            return None
    return None if isinstance(x, Const) else v.replace(a=x, b=c)


def relu_is_clip(v: Value) -> Value | None:
    """A ReLU is a clamp from below.

        (%x: f32[2,3])
        %y = relu(%x) : f32[2,3]
        ->
        %y = clip(%x) {lo = 0.0, hi = inf} : f32[2,3]
    """
    match v:
        case Relu(x=x):
            return Clip(x, 0.0, np.inf)
    return None


def bound_is_clip(v: Value) -> Value | None:
    """The larger or smaller of a value and a number is a clamp.

        (%x: f32[2,3])
        %c = const [6.0] : f32[]
        %y = minimum(%x, %c) : f32[2,3]
        ->
        %y = clip(%x) {lo = -inf, hi = 6.0} : f32[2,3]
    """
    match v:
        case Maximum(a=x, b=c) if (bound := uniform(c)) is not None:
            lo, hi = bound, np.inf
        case Minimum(a=x, b=c) if (bound := uniform(c)) is not None:
            lo, hi = -np.inf, bound
        case _:
            return None
    fits = x.type == v.type and v.type.dtype.is_float and not np.isnan(bound)
    return Clip(x, lo, hi) if fits else None


def clip_twice(v: Value) -> Value | None:
    """A clamp of a clamp is one.

        (%x: f32[2,3])
        %a = clip(%x) {lo = 0.0, hi = inf} : f32[2,3]
        %y = clip(%a) {lo = -1.0, hi = 6.0} : f32[2,3]
        ->
        %y = clip(%x) {lo = 0.0, hi = 6.0} : f32[2,3]
    """
    match v:
        case Clip(x=Clip(x=x) as inner):
            lo, hi = (min(max(bound, v.range[0]), v.hi) for bound in inner.range)
            return Clip(x, lo, hi)
    return None


def divide_by_constant(v: Value) -> Value | None:
    """Dividing by a constant is multiplying by its reciprocal.

        (%x: f32[2,2])
        %c = const [2.0, 4.0] : f32[2]
        %y = div(%x, %c) : f32[2,2]
        ->
        %c = const [0.5, 0.25] : f32[2]
        %y = mul(%x, %c) : f32[2,2]
    """
    match v:
        case Div(a=x, b=Const() as c) if c.type.dtype.is_float and _invertible(c.array):
            return Mul(x, real(1 / c.array.astype(np.float64), c.type.dtype, c.name))
    return None


def _invertible(array: Array) -> bool:
    """Whether an array has reciprocals that are normal numbers."""
    size = np.abs(array.astype(np.float64))
    return bool(np.all((size > 1e-30) & (size < 1e30)))


def subtract_constant(v: Value) -> Value | None:
    """Subtracting a constant is adding its negative.

        (%x: f32[2,2])
        %c = const [2.0, 4.0] : f32[2]
        %y = sub(%x, %c) : f32[2,2]
        ->
        %c = const [-2.0, -4.0] : f32[2]
        %y = add(%x, %c) : f32[2,2]
    """
    match v:
        case Sub(a=x, b=Const() as c) if c.type.dtype.is_float:
            return Add(x, Const(-c.array, name=c.name))
    return None


def negate(v: Value) -> Value | None:
    """A negated operand is the other sign of the sum or product around it.

        (%x: f32[2], %y: f32[2])
        %n = neg(%y) : f32[2]
        %z = add(%x, %n) : f32[2]
        ->
        %z = sub(%x, %y) : f32[2]

        (%x: f32[2], %y: f32[2])
        %n = neg(%y) : f32[2]
        %z = sub(%x, %n) : f32[2]
        ->
        %z = add(%x, %y) : f32[2]

        (%x: f32[2])
        %n = neg(%x) : f32[2]
        %z = neg(%n) : f32[2]
        ->
        %x
    """
    match v:
        case Neg(x=Neg(x=x)):
            return x
        case Add(a=x, b=Neg(x=y)) | Add(b=x, a=Neg(x=y)):
            return Sub(x, y)
        case Sub(a=x, b=Neg(x=y)):
            return Add(x, y)
        case Mul(a=Neg(x=x), b=Const() as c) if c.type.dtype.is_float:
            return Mul(x, Const(-c.array, name=c.name))
    return None


def one_over(v: Value) -> Value | None:
    """A quotient of one is a reciprocal.

        (%x: f32[2])
        %one = const [1.0] : f32[]
        %y = div(%one, %x) : f32[2]
        ->
        %y = reciprocal(%x) : f32[2]
    """
    match v:
        case Div(a=c, b=x) if is_uniform(c, 1.0) and x.type == v.type and v.type.dtype.is_float:
            return Reciprocal(x)
    return None


def square(v: Value) -> Value | None:
    """The second power is a product.

        (%x: f32[2])
        %two = const [2.0] : f32[]
        %y = pow(%x, %two) : f32[2]
        ->
        %y = mul(%x, %x) : f32[2]
    """
    match v:
        case Pow(a=x, b=c) if is_uniform(c, 2.0) and x.type == v.type:
            return Mul(x, x)
    return None


def merge_constants(v: Value, uses: Uses) -> Value | None:
    """Two added constants are one, two factors likewise.

        (%x: f32[2,2])
        %a = const [1.0, 2.0] : f32[2]
        %b = const [3.0] : f32[]
        %s = add(%x, %a) : f32[2,2]
        %y = add(%s, %b) : f32[2,2]
        ->
        %b = const [4.0, 5.0] : f32[2]
        %y = add(%x, %b) : f32[2,2]
    """
    match v:
        case Add(a=Add(a=x, b=Const() as a) as inner, b=Const() as b):
            array = a.array.astype(np.float64) + b.array
        case Mul(a=Mul(a=x, b=Const() as a) as inner, b=Const() as b):
            array = a.array.astype(np.float64) * b.array
        case _:
            return None
    # A shared sum is worth more: (x + b) + 3 is part of the hard-swish of x + b.
    if not uses.single(inner) or not v.type.dtype.is_float:
        return None
    # A row and a column would make a whole matrix.
    if array.size > max(a.array.size, b.array.size):
        return None
    return v.replace(a=x, b=real(array, v.type.dtype, b.name))


def compare_whole(v: Value) -> Value | None:
    """Whole numbers that became reals to be compared with constants are compared as they are.

        (%x: i64[3])
        %r = cast(%x) : f32[3]
        %c = const [2.5] : f32[1]
        %y = less(%r, %c) : b1[3]
        ->
        %c = const [3] : i64[1]
        %y = less(%x, %c) : b1[3]
    """
    match v:
        case Less(a=Cast(x=x), b=Const() as c) | Less(a=Const() as c, b=Cast(x=x)):
            rounded = np.ceil if v.b is c else np.floor
        case LessOrEqual(a=Cast(x=x), b=Const() as c) | LessOrEqual(a=Const() as c, b=Cast(x=x)):
            rounded = np.floor if v.b is c else np.ceil
        case _:
            return None
    exact = x.type.dtype.is_integer and np.all(np.abs(c.array) < EXACT)
    if not exact or x.type.quant is not None or not c.type.dtype.is_float:
        return None
    least, most = x.type.dtype.min, x.type.dtype.max
    whole = rounded(c.array.astype(np.float64))
    if np.any((whole < least) | (whole > most)):
        return None
    bound = Const(whole.astype(x.type.dtype.numpy), name=c.name)
    return v.replace(a=x, b=bound) if v.b is c else v.replace(a=bound, b=x)


RULES = (
    constant_right, relu_is_clip, bound_is_clip, clip_twice, divide_by_constant,
    subtract_constant, negate, one_over, square, compare_whole, equals_itself,
    times_nothing,
    *activation_patterns.RULES, *norm_patterns.RULES, *expanded_norms.RULES, *linear.RULES,
    *pooling.RULES, *recurrent_patterns.RULES, *masking.RULES, *gru_patterns.RULES,
    *quantized_cells.RULES,
    *tree_thresholds.RULES, *logits.RULES, *comparisons.RULES, *computed_parameters.RULES,
)  # fmt: skip
USE_RULES = (merge_constants, *linear.USE_RULES)
