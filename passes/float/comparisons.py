"""What is compared: the value itself, not what a growing function makes of it.

A threshold behind a scaler is another threshold before it; the place of the largest probability is
that of the largest logit. So nothing is rounded on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.ops.activation import Clip
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.logic import Less, LessOrEqual
from irc.ops.normalization import BatchNorm, RowNorm
from irc.ops.ranking import ArgMax
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Expand, Reshape, bare, with_shape
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp
from irc.passes.float.constants import uniform
from irc.passes.float.float32_bisection import parted
from irc.types import Array, DType
from irc.value import Value

MANY = 1 << 16
"""Comparisons that are made at once, most."""


def compared_before(v: Value) -> Value | None:
    """A comparison of what was moved or scaled with constants; the bound is found by bisection
    among singles. A layer's results stay scaled: its weights will hold the factors, and a scale
    for all channels, which need not be alike without them, holds the results.

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
    if not isinstance(v, Less | LessOrEqual):
        return None
    above = isinstance(v.a, Const)
    c, f = (v.a, v.b) if above else (v.b, v.a)
    match f:
        case Add(a=x, b=Const() as by) | Mul(a=x, b=Const() as by) if isinstance(c, Const):
            grows = isinstance(f, Add) or np.all(by.array > 0)
        case _:
            return None
    if not grows or x.type != f.type or f.type.dtype is not DType.F32:
        return None
    if uniform(by) is None and _takes_factors(x):
        return None
    found = _bounds_before(f, by.array, c.array, isinstance(v, LessOrEqual) == above)
    if found is None:
        return None
    bound = Const(found, name=c.name)
    return v.replace(a=bound, b=x) if above else v.replace(a=x, b=bound)


def _bounds_before(f: Add | Mul, by: Array, bounds: Array, inclusive: bool) -> Array | None:
    """From which singles on sums or products with `by` lie above the bounds, or where it is
    `inclusive` on them; otherwise the last ones that do not. None where no number lies on the other
    side, or they would be more than there are."""
    wide = np.broadcast_shapes(bounds.shape, by.shape)
    usual = np.isfinite(by).all() and not np.isnan(bounds).any()
    if np.prod(wide) > max(bounds.size, by.size) or not usual:
        return None
    joined = np.add if isinstance(f, Add) else np.multiply
    with np.errstate(all="ignore"):
        last, first = parted(
            lambda real: np.asarray(joined(real, by)),
            np.broadcast_to(bounds, wide), np.full(wide, inclusive),
        )  # fmt: skip
    found = first if inclusive else last
    return found if np.isfinite(found).all() else None


def _takes_factors(v: Value) -> bool:
    """Whether the weights of a layer before a value may take up factors behind it."""
    left, seen = [v], set[Value]()
    while left:
        v = left.pop()
        if isinstance(v, Conv2d | ConvTranspose2d | Linear | BatchNorm | RowNorm):
            return True
        if v not in seen and (v.moves or isinstance(v, Add | Mul | Clip)):
            seen.add(v)
            left.extend(v.operands)
    return False


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
    left, seen = [v], set[Value]()
    while left:
        v = left.pop()
        match v:
            case Exp() | Softmax():
                continue
            case ReduceSum() | Reshape() | Expand() | Add():
                left.extend(o for o in v.operands if o not in seen)
                seen.update(v.operands)
            case _:
                if v.op != "cast" or v.operands[0].type.dtype is not DType.BOOL:
                    return False
    return True


def compared_ahead(v: Value) -> Value | None:
    """A row's columns by an index that a table holds, against the numbers that another one holds
    in the same place: all are compared, and the answers chosen. Columns of one scale would be
    compared otherwise, whichever comes.

        (%x: f32[3], %i: i64[2])
        %n = const [2, 0, 1, 1] : i64[4]
        %t = const [0.5, 1.0, 2.0, 3.0] : f32[4]
        %c = gather(%n, %i) {axis = 0} : i64[2]
        %a = gather(%x, %c) {axis = 0} : f32[2]
        %b = gather(%t, %i) {axis = 0} : f32[2]
        %y = less_or_equal(%a, %b) : b1[2]
        ->
        %0 = const [2, 0, 1, 1] : i64[4]
        %1 = gather(%x, %0) {axis = 0} : f32[4]
        %t = const [0.5, 1.0, 2.0, 3.0] : f32[4]
        %2 = less_or_equal(%1, %t) : b1[4]
        %y = gather(%2, %i) {axis = 0} : b1[2]
    """
    if not isinstance(v, Less | LessOrEqual):
        return None
    for picked, bound in ((v.a, v.b), (v.b, v.a)):
        x, bounds = bare(picked), _tabled(bound)
        if not isinstance(x, Gather) or bounds is None or picked.shape != bound.shape:
            continue
        columns, row = _tabled(x.indices), _flat(x.x)
        if columns is None or row is None or row.shape[0] != x.x.shape[x.axis]:
            continue
        if columns.place is not bounds.place or columns.size != bounds.size or columns.size > MANY:
            continue
        there = (columns.array >= 0) & (columns.array < row.shape[0])
        if columns.place.type.size != picked.type.size or not there.all():
            continue
        chosen = Gather(row, Const(columns.array.astype(np.int64)), 0)
        limit = Const(bounds.array, name=bounds.name)
        ahead = v.replace(a=chosen, b=limit) if picked is v.a else v.replace(a=limit, b=chosen)
        place = columns.place
        flat = with_shape(place, (place.type.size,))
        found = Gather(ahead.replace(name=""), flat, 0)
        return with_shape(found, v.shape)
    return None


@dataclass(frozen=True)
class _Tabled:
    """What a constant table [N] holds in a place that is known at run time."""

    array: Array
    place: Value
    name: str = ""

    @property
    def size(self) -> int:
        return len(self.array)


def _tabled(v: Value, known: dict[Value, _Tabled | None] | None = None) -> _Tabled | None:
    """A value of a table, or of tables that are read in the same place; `known` is what was found
    on the way."""
    known, v = {} if known is None else known, bare(v)
    if v not in known:
        known[v] = _read(v, known)
    return known[v]


def _read(v: Value, known: dict[Value, _Tabled | None]) -> _Tabled | None:
    match v:
        case Gather(x=Const(quant=None) as table, indices=at, axis=0) if not isinstance(at, Const):
            flat = table.array.reshape(-1)
            return _Tabled(flat, bare(at), table.name) if flat.size == table.shape[0] else None
        case Where() | Less() | Add():
            pass
        case _:
            return None
    parts: dict[Value, Array] = {}
    found: _Tabled | None = None
    for o in v.operands:
        if isinstance(o, Const) and o.type.size == 1:
            parts[o] = o.array.reshape(1)
            continue
        made = _tabled(o, known)
        if made is None or (found and (made.place is not found.place or made.size != found.size)):
            return None
        found, parts[o] = made, made.array
    if found is None:
        return None
    return _Tabled(np.asarray(v.call(parts.__getitem__)), found.place)


def _flat(v: Value) -> Value | None:
    """A row as one axis."""
    row = bare(v)
    if not row.type.dtype.is_float or row.type.size != max(row.shape, default=0):
        return None
    return v if v.type.rank == 1 else Reshape(row, (row.type.size,))


def compared_columns(v: Value) -> Value | None:
    """Layers that only choose columns, or nothing, against constants: what they choose; what is
    nothing has a bound on the side that zero was on.

        (%x: f32[1,3])
        %w = const [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0] : f32[3,3]
        %l = linear(%x, %w, -) : f32[1,3]
        %c = const [0.5, 2.0, 3.0] : f32[3]
        %y = less_or_equal(%l, %c) : b1[1,3]
        ->
        %l.columns = const [2, 0, 0] : i64[3]
        %l = gather(%x, %l.columns) {axis = 1} : f32[1,3]
        %c = const [0.5, 3.4028234663852886e+38, 3.0] : f32[3]
        %y = less_or_equal(%l, %c) : b1[1,3]
    """
    match v:
        case Less(a=a, b=Const() as c) | LessOrEqual(a=a, b=Const() as c):
            layer = bare(a)
        case _:
            return None
    match layer:
        case Linear(x=x, w=Const(quant=None) as w, b=None) if len(w.array) == layer.type.size:
            ones = (w.array == 1).sum(1)
        case _:
            return None
    chosen = np.all((ones == 1) | (ones == 0)) and np.count_nonzero(w.array) == ones.sum()
    if not chosen or ones.all() or c.type.size not in (1, a.type.size) or v.shape != a.shape:
        return None
    columns = Const(w.array.argmax(1).astype(np.int64), name=f"{layer.name}.columns")
    picked: Value = Gather(x, columns, x.type.rank - 1, name=layer.name)
    bound = np.broadcast_to(c.array.reshape(-1), ones.shape)
    most = np.float32(np.finfo(np.float32).max)
    always = np.where(v.evaluate(np.zeros_like(bound), bound), most, -most)
    bound = np.where(ones == 1, bound, always).astype(np.float32)
    limit = Const(bound.reshape(c.shape if c.type.size == a.type.size else a.shape), name=c.name)
    return v.replace(a=with_shape(picked, a.shape), b=limit)


RULES = (compared_before, largest_before, compared_ahead, compared_columns)
