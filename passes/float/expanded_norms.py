"""Norms whose statistics exporters took apart: between reshapes and transposes, multiplied with the
scale, or taken off behind it. Their parts tell which norm it may be, its numbers whether it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from irc.ops.activation import Clip
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Pow, Sub
from irc.ops.normalization import GroupNorm, InstanceNorm, LayerNorm, RMSNorm, RowNorm
from irc.ops.reduce import ReduceMean
from irc.ops.shape import Expand, Reshape, Transpose, bare, with_shape
from irc.ops.unary import Neg, Reciprocal, Sqrt
from irc.passes.float.constants import real, uniform
from irc.types import Array, Shape
from irc.value import Value

Axes = tuple[int, ...]

PARTS = (
    Add, Clip, Const, Div, Expand, Mul, Neg, Pow, Reciprocal, ReduceMean, Reshape, RowNorm, Sqrt,
    Sub, Transpose,
)  # fmt: skip
"""What such a norm is made of."""
DEEPEST = 40
CLOSE, ROUNDED = 1e-5, 1e-7
"""Relative to the scale, and to the offset: both are computed in float64, from constants of
float32."""


class Statistics(NamedTuple):
    """What a factor says of the rows that it normalizes."""

    deviation: Value
    """The root, or the power, that divides."""
    rows: Shape
    """The shape of x as its rows are taken."""
    axes: Axes
    """The axes of `rows` that make a row."""
    epsilon: float
    centred: bool


class Affine(NamedTuple):
    """What rows of a deviation of 1 are multiplied with, and what is added, over the rows."""

    scale: Array
    bias: Array


def expanded_norm(v: Value) -> Value | None:
    """A norm by its parts, put together.

        (%x: f32[1,2,4])
        %e = const [0.5] : f32[]
        %m = reduce_mean(%x) {axes = [2], keepdims = false} : f32[1,2]
        %k = reshape(%m) : f32[1,2,1]
        %d = sub(%x, %k) : f32[1,2,4]
        %q = mul(%x, %x) : f32[1,2,4]
        %w = reduce_mean(%q) {axes = [2], keepdims = false} : f32[1,2]
        %p = mul(%m, %m) : f32[1,2]
        %v = sub(%w, %p) : f32[1,2]
        %c = clip(%v) {lo = 0.0, hi = inf} : f32[1,2]
        %s = add(%c, %e) : f32[1,2]
        %r = sqrt(%s) : f32[1,2]
        %i = reciprocal(%r) : f32[1,2]
        %j = reshape(%i) : f32[1,2,1]
        %y = mul(%d, %j) : f32[1,2,4]
        ->
        %y = layer_norm(%x, -, -) {axis = 2, epsilon = 0.5} : f32[1,2,4]

        (%x: f32[2,2])
        %e = const [0.5] : f32[]
        %g = const [2.0, 3.0] : f32[2]
        %b = const [4.0, 5.0] : f32[2]
        %m = reduce_mean(%x) {axes = [1], keepdims = true} : f32[2,1]
        %d = sub(%x, %m) : f32[2,2]
        %q = mul(%d, %d) : f32[2,2]
        %w = reduce_mean(%q) {axes = [1], keepdims = true} : f32[2,1]
        %s = add(%w, %e) : f32[2,1]
        %r = sqrt(%s) : f32[2,1]
        %i = reciprocal(%r) : f32[2,1]
        %f = mul(%i, %g) : f32[2,2]
        %p = mul(%x, %f) : f32[2,2]
        %n = neg(%m) : f32[2,1]
        %t = mul(%n, %f) : f32[2,2]
        %o = add(%t, %b) : f32[2,2]
        %y = add(%p, %o) : f32[2,2]
        ->
        %0 = const [2.0, 3.0] : f32[2]
        %1 = const [4.0, 5.0] : f32[2]
        %y = layer_norm(%x, %0, %1) {axis = 1, epsilon = 0.5} : f32[2,2]

        (%x: f32[1,2,2,2])
        %e = const [0.5] : f32[]
        %q = mul(%x, %x) : f32[1,2,2,2]
        %r = reshape(%q) : f32[4,2]
        %w = reduce_mean(%r) {axes = [1], keepdims = false} : f32[4]
        %s = add(%w, %e) : f32[4]
        %t = sqrt(%s) : f32[4]
        %k = reshape(%t) : f32[1,2,2,1]
        %y = div(%x, %k) : f32[1,2,2,2]
        ->
        %0 = reshape(%x) : f32[4,2]
        %1 = rms_norm(%0, -) {axis = 1, epsilon = 0.5} : f32[4,2]
        %y = reshape(%1) : f32[1,2,2,2]
    """
    if not v.type.dtype.is_float or v.type.size == 0:
        return None
    for x, factor, centred in _readings(v):
        found = _statistics(factor, x) if x.shape == v.shape else None
        if found is not None and found.centred == centred:
            affine = _affine(v, x, factor, found)
            made = None if affine is None else _norm(v, x, found, affine)
            if affine is not None and made is not None and _gives(v, made, x, found, affine):
                return made
    return None


def _readings(v: Value) -> Iterator[tuple[Value, Value, bool]]:
    """Ways to read v as what is normalized times a factor, or over it; and whether a mean is taken
    off, before the product or behind it."""
    match v:
        case Div(a=Sub(a=x), b=factor):
            yield x, factor, True
        case Div(a=x, b=factor):
            yield x, factor, False
        case Mul(a=a, b=b):
            for x, factor in ((a, b), (b, a)):
                yield x, factor, False
                if isinstance(x, Sub):
                    yield x.a, factor, True
        case Add(a=a, b=b) | Sub(a=a, b=b):
            for product in (a, b) if isinstance(v, Add) else (a,):
                if isinstance(product, Mul):
                    yield product.a, product.b, True
                    yield product.b, product.a, True


def _statistics(factor: Value, x: Value) -> Statistics | None:
    """What `factor` is computed from, where that is the deviation of x."""
    deviation = _deviation(factor)
    if not isinstance(deviation, Sqrt | Pow):
        return None
    square = _still(deviation.x if isinstance(deviation, Sqrt) else deviation.a)
    epsilon = uniform(square.b) if isinstance(square, Add) else None
    if not isinstance(square, Add) or epsilon is None or not 0 <= epsilon < np.inf:
        return None
    variance = _still(square.a)
    if isinstance(variance, Clip) and variance.lo == 0 and variance.hi == np.inf:
        variance = _still(variance.x)
    less = isinstance(variance, Sub)
    mean = _still(variance.a) if isinstance(variance, Sub) else variance
    product = bare(mean.x) if isinstance(mean, ReduceMean) else None
    if not isinstance(mean, ReduceMean) or not isinstance(product, Mul):
        return None
    of = bare(product.a)
    if bare(product.b) is not of:
        return None
    rows, axes = mean.x.shape, mean.axes
    if of is bare(x):
        return Statistics(deviation, rows, axes, epsilon, less)
    if not less and isinstance(of, Sub) and bare(of.a) is bare(x):
        return Statistics(deviation, rows, axes, epsilon, True)
    return None


def _deviation(factor: Value) -> Value | None:
    """The root or power that a factor is, but for views and constant factors."""
    v = factor
    while True:
        match v:
            case Reshape(x=x) | Transpose(x=x) | Expand(x=x) | Neg(x=x) | Reciprocal(x=x):
                v = x
            case Mul(a=x, b=Const()) | Mul(a=Const(), b=x) | Div(a=Const(), b=x):
                v = x
            case Sqrt():
                return v
            case Pow(b=power) if uniform(power) in (-0.5, 0.5):
                return v
            case _:
                return None


def _still(v: Value) -> Value:
    """What is moved about."""
    while isinstance(v, Reshape | Transpose | Expand):
        v = v.x
    return v


def _affine(v: Value, x: Value, factor: Value, found: Statistics) -> Affine | None:
    """The scale is the factor of deviations of 1, the offset what becomes of zeros."""
    source, ones = bare(x), np.ones(found.deviation.shape)
    scale = _computed(factor, {found.deviation: ones})
    bias = _computed(v, {source: np.zeros(source.shape), found.deviation: ones})
    if scale is None or bias is None:
        return None
    scale, bias = (np.broadcast_to(a, v.shape).reshape(found.rows) for a in (scale, bias))
    if isinstance(v, Div):
        with np.errstate(all="ignore"):
            scale = 1 / scale
    return Affine(scale, bias)


def _norm(v: Value, x: Value, found: Statistics, affine: Affine) -> Value | None:
    """The norm that v may be."""
    source = bare(x)
    made = _of_groups(source, found, *affine) or _of_rows(source, found, *affine)
    return made if made is None else with_shape(made, v.shape)


def _of_rows(source: Value, found: Statistics, scale: Array, bias: Array) -> Value | None:
    """A layer or RMS norm, between transposes where the axes are not the last ones."""
    rank, dtype = len(found.rows), source.type.dtype
    perm = (*(a for a in range(rank) if a not in found.axes), *sorted(found.axes))
    first = rank - len(found.axes)
    g, b = (_along(a.transpose(perm), first, rank) for a in (scale, bias))
    if g is None or b is None:
        return None
    x = _turned(with_shape(source, found.rows), perm)
    s = None if (g == 1).all() else real(g, dtype)
    if found.centred:
        o = None if (b == 0).all() else real(b, dtype)
        made: Value = LayerNorm(x, s, o, first, found.epsilon)
    elif (b == 0).all():
        made = RMSNorm(x, s, first, found.epsilon)
    else:
        return None
    return _turned(made, tuple(int(i) for i in np.argsort(perm)))


def _of_groups(source: Value, found: Statistics, scale: Array, bias: Array) -> Value | None:
    """A norm of groups of channels, of which the last axis but one counts, in images that have
    their channels last; an instance norm where a group is one channel."""
    rank, dtype = len(found.rows), source.type.dtype
    if rank < 4 or not found.centred or found.axes != (*range(1, rank - 2), rank - 1):
        return None
    *outer, groups, size = found.rows
    g, b = (_along(a, rank - 2, rank) for a in (scale, bias))
    if g is None or b is None:
        return None
    x = with_shape(source, (*outer, groups * size))
    s, o = real(g.reshape(-1), dtype), real(b.reshape(-1), dtype)
    if size == 1:
        return InstanceNorm(x, s, o, found.epsilon)
    return GroupNorm(x, s, o, groups, found.epsilon)


def _along(array: Array, first: int, last: int) -> Array | None:
    """An array as it is along some axes, None where it varies along the axes before them."""
    one = array[(0,) * first]
    return one if np.array_equal(np.broadcast_to(one, array.shape), array) else None


def _turned(v: Value, perm: Axes) -> Value:
    return v if perm == tuple(range(len(perm))) else Transpose(v, perm)


def _gives(v: Value, made: Value, x: Value, found: Statistics, affine: Affine) -> bool:
    """Whether two graphs over x compute the same of some numbers: of a variance near 1, and of one
    near epsilon around a mean of the other sign."""
    source = bare(x)
    scale, bias = (np.abs(a).reshape(v.shape) for a in affine)
    probe = np.random.default_rng(0).normal(0.4, 1.5, source.shape)
    for factor in (1.0, -math.sqrt(found.epsilon or 1.0)):
        a, b = (_computed(value, {source: factor * probe}) for value in (v, made))
        if a is None or b is None or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return False
        if (np.abs(a - b) > CLOSE * scale + ROUNDED * bias).any():
            return False
    return True


def _computed(v: Value, known: Mapping[Value, Array], depth: int = DEEPEST) -> Array | None:
    """The value over what is known, in float64; None where it is made of other things, too."""
    arrays = dict(known)

    def of(value: Value, depth: int) -> bool:
        if value in arrays:
            return True
        if depth == 0 or not isinstance(value, PARTS):
            return False
        if isinstance(value, Clip) and (value.lo, value.hi) != (0, np.inf):
            return False  # bounds that no probe may reach
        if not all(of(operand, depth - 1) for operand in value.operands):
            return False
        with np.errstate(all="ignore"):
            arrays[value] = value.call(arrays.__getitem__).astype(np.float64)
        return True

    return arrays[v] if of(v, depth) else None


RULES = (expanded_norm,)
