"""What is compared: the value itself, not what a growing function makes of it.

A threshold behind a scaler is another threshold before it; the place of the largest probability is
that of the largest logit. So nothing is rounded on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.logic import Less, LessOrEqual
from irc.ops.ranking import ArgMax
from irc.ops.reduce import ReduceSum
from irc.ops.shape import Expand, Reshape
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp
from irc.passes.constants import uniform
from irc.passes.singles import parted
from irc.types import DType
from irc.value import Value


def compared_before(v: Value) -> Value | None:
    """A comparison of what was moved or scaled with constants; the bound is found by bisection
    among singles.

        (%x: f32[1,2])
        %s = const [2.0, 4.0] : f32[2]
        %z = mul(%x, %s) : f32[1,2]
        %c = const [2.0] : f32[1]
        %y = less_or_equal(%c, %z) : b1[1,2]
        ->
        %c = const [1.0, 0.5] : f32[2]
        %y = less_or_equal(%c, %x) : b1[1,2]

        (%x: f32[1,2])
        %s = const [0.5, 1.0] : f32[2]
        %z = add(%x, %s) : f32[1,2]
        %c = const [0.25] : f32[1]
        %y = less(%z, %c) : b1[1,2]
        ->
        %c = const [-0.25, -0.75] : f32[2]
        %y = less(%x, %c) : b1[1,2]
    """
    match v:
        case Less(a=Const() as c, b=Add() | Mul() as f) | LessOrEqual(
            a=Const() as c, b=Add() | Mul() as f
        ):
            above = True
        case Less(a=Add() | Mul() as f, b=Const() as c) | LessOrEqual(
            a=Add() | Mul() as f, b=Const() as c
        ):
            above = False
        case _:
            return None
    node: Any = f
    by, x = node.b, node.a
    if not isinstance(by, Const) or x.type != f.type or f.type.dtype is not DType.F32:
        return None
    wide = np.broadcast_shapes(c.shape, by.shape)
    adds = isinstance(f, Add)
    usual = np.isfinite(by.array).all() and not np.isnan(c.array).any()
    if np.prod(wide) > max(c.type.size, by.type.size) or not usual:
        return None
    if not adds and not np.all(by.array > 0):
        return None
    k = np.broadcast_to(by.array, wide)
    # From which single on the result lies above the bound, or on it where that matters.
    inclusive = np.full(wide, isinstance(v, LessOrEqual) == above)
    with np.errstate(all="ignore"):
        last, first = parted(
            (lambda real: real + k) if adds else (lambda real: real * k),
            np.broadcast_to(c.array, wide), inclusive,
        )  # fmt: skip
    bound = Const(first if isinstance(v, LessOrEqual) == above else last, name=c.name)
    return v.replace(a=bound, b=x) if above else v.replace(a=x, b=bound)


def largest_before(v: Value) -> Value | None:
    """The place of the largest of what grows with each element of a row.

        (%x: f32[2,4])
        %p = softmax(%x) {axis = 1} : f32[2,4]
        %y = argmax(%p) {axis = 1, keepdims = false, select_last = false} : i64[2]
        ->
        %y = argmax(%x) {axis = 1, keepdims = false, select_last = false} : i64[2]

        (%x: f32[2,4])
        %c = const [3.0] : f32[]
        %z = mul(%x, %c) : f32[2,4]
        %e = exp(%z) : f32[2,4]
        %s = reduce_sum(%e) {axes = [1], keepdims = true} : f32[2,1]
        %p = div(%e, %s) : f32[2,4]
        %y = argmax(%p) {axis = 1, keepdims = false, select_last = false} : i64[2]
        ->
        %y = argmax(%x) {axis = 1, keepdims = false, select_last = false} : i64[2]
    """
    if not isinstance(v, ArgMax) or (x := _grown_from(v.x, v.axis)) is None:
        return None
    return v.replace(x=x) if x.type == v.x.type else None


def _grown_from(v: Value, axis: int) -> Value | None:
    """What a value grows with, each element along an axis with its own by the same function."""
    match v:
        case Softmax(x=x, axis=along) if along == axis:
            return x
        case Exp(x=x):
            return x
        case Mul(a=x, b=c) if (factor := uniform(c)) is not None and 1e-6 < factor < 1e6:
            return x
        case Div(a=x, b=by) if _same_along(by, v, axis) and _positive(by):
            return x
        case Sub(a=x, b=by) if _same_along(by, v, axis):
            return x
    return None


def _same_along(v: Value, result: Value, axis: int) -> bool:
    """Whether one number counts for all elements of a row."""
    at = axis - (result.type.rank - v.type.rank)
    return v.type.dtype.is_float and (at < 0 or v.shape[at] == 1)


def _positive(v: Value) -> bool:
    """Whether no number can be less than zero, as an op's kind tells."""
    match v:
        case Exp() | Softmax():
            return True
        case ReduceSum(x=x) | Reshape(x=x) | Expand(x=x):
            return _positive(x)
        case Add(a=a, b=b):
            return _positive(a) and _positive(b)
    return v.op == "cast" and v.operands[0].type.dtype is DType.BOOL


RULES = (compared_before, largest_before)
