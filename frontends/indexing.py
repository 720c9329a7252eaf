"""Elements by computed or constant index: one gather or scatter along one axis of a flattened
tensor, whose places are made of indices and strides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.ops.activation import Clip
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Maximum, Minimum, Mul
from irc.ops.linear import MatMul
from irc.ops.logic import Equal, Less
from irc.ops.reduce import ReduceMax, ReduceMin, ReduceSum
from irc.ops.scatter import Scatter
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Expand
from irc.types import Array, DType, Shape
from irc.value import Value

MAX_PAIRS = 1 << 22
"""How many pairs of an element and a place are compared where reductions go to computed places."""
MAX_TIMES = 64
"""How often a scatter may name one element."""

REDUCTIONS: dict[str, Callable[[Value, Value], Value]] = {
    "add": Add, "mul": Mul, "max": Maximum, "min": Minimum,
}  # fmt: skip
"""What scatters may do with an old and a new element, besides taking the new one."""

# ---------------------------------------------------------------- indices and places


def front(b: Builder, indices: Value, extent: int) -> Value:
    """Indices counted from the front, i64; constants are checked, others are not."""
    if isinstance(indices, Const):
        return b.const(_checked(indices.array, extent), name=indices.name)
    if indices.type.dtype is not DType.I64:
        indices = b.add(Cast(indices, DType.I64))
    zero, shift = (b.const(np.asarray(n, np.int64)) for n in (0, extent))
    return b.add(Where(b.add(Less(indices, zero)), b.add(Add(indices, shift)), indices))


def _checked(array: Array, extent: int) -> Array:
    if array.dtype.kind not in "iu":
        raise ModelError(f"its indices must be integers, they are {array.dtype}")
    if array.size and not -extent <= array.min() <= array.max() < extent:
        raise ModelError(f"its indices reach from {array.min()} to {array.max()}, of {extent}")
    return np.where(array < 0, array + extent, array).astype(np.int64)


def strides_of(shape: Shape) -> list[int]:
    """How many elements apart the neighbours along each axis lie."""
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def offsets(shape: Shape, skip: Sequence[int], strides: Sequence[int]) -> Array:
    """The part of each element's place that its index along the axes not skipped makes."""
    grid = np.indices(shape, np.int64, sparse=True)
    total = np.zeros((), np.int64)
    for axis, index in enumerate(grid):
        if axis not in skip:
            total = total + index * strides[axis]
    return np.asarray(np.broadcast_to(total, shape))


def placed(b: Builder, at: Value, stride: int, offset: Value | Array) -> Value:
    """`at * stride + offset`."""
    scaled = b.add(Mul(at, b.const(np.asarray(stride, np.int64))))
    added = offset if isinstance(offset, Value) else b.const(offset, name=f"{b.name}.offset")
    return b.add(Add(scaled, added))


def places_along(b: Builder, at: Value, axis: int, shape: Shape) -> Value:
    """The places in a tensor of `shape` of elements whose index along an axis is `at`, and along
    the others their own."""
    strides = strides_of(shape)
    return placed(b, at, strides[axis], offsets(at.shape, [axis], strides))


def places_at(b: Builder, indices: Mapping[int, Value], shape: Shape) -> Value:
    """The numbers of rows of a tensor whose first axes have `shape`, one index tensor for each of
    them; the indices broadcast."""
    strides = strides_of(shape)
    total: Value = b.const(np.zeros((), np.int64))
    for axis, at in indices.items():
        total = placed(b, front(b, at, shape[axis]), strides[axis], total)
    return total


# ---------------------------------------------------------------- taking


def picked(b: Builder, x: Value, at: Value, row: Shape = ()) -> Value:
    """Rows of x, seen as `[-1, *row]`, by their number."""
    flat = b.reshape(x, (x.type.size // max(1, prod(row)), *row))
    return b.add(Gather(flat, at, 0))


def taken_along(b: Builder, x: Value, at: Value, axis: int) -> Value:
    """NumPy's take_along_axis, of indices that count from the front; their other axes may be
    shorter."""
    return picked(b, x, places_along(b, at, axis, x.shape))


def taken_at(b: Builder, x: Value, indices: Mapping[int, Value]) -> Value:
    """NumPy's indexing by integer tensors for several axes, which broadcast: their axes stand where
    the first of neighbours stood, else in front."""
    axes = sorted(indices)
    rest = [a for a in range(x.type.rank) if a not in indices]
    moved = b.transpose(x, (*axes, *rest))
    rows = moved.shape[: len(axes)]
    at = places_at(b, {i: indices[a] for i, a in enumerate(axes)}, rows)
    y = picked(b, moved, at, moved.shape[len(axes) :])
    if axes[-1] - axes[0] != len(axes) - 1:
        return y
    before, own = axes[0], len(at.shape)
    kept = tuple(range(own, own + before))
    return b.transpose(y, (*kept, *range(own), *range(own + before, y.type.rank)))


# ---------------------------------------------------------------- putting


def row_numbers(b: Builder, at: Value, axis: int, shape: Shape) -> Value | None:
    """The vector that was expanded to indices `at` of whole slices of a tensor, as
    `index.view(-1, 1).expand_as(…)`; None where they are something else."""
    if not isinstance(at, Expand) or at.type.rank != len(shape):
        return None
    given = (1,) * (at.type.rank - at.x.type.rank) + at.x.shape
    others = [a for a in range(len(shape)) if a != axis]
    whole = all(at.shape[a] == shape[a] and given[a] == 1 for a in others)
    if not whole or at.x.type.size != at.shape[axis]:
        return None
    return b.reshape(at.x, (at.x.type.size,))


def scattered(
    b: Builder, x: Value, updates: Value, numbers: Value, row: Shape, how: str = "none", *,
    own: bool = True,
) -> Value:  # fmt: skip
    """Rows of x, of which those with the given numbers are replaced by, or joined with, updates;
    unless `own`, updates are joined with each other alone. Numbers that are computed take no
    products."""
    count = x.type.size // max(1, prod(row))
    old = b.reshape(x, (count, *row))
    new = b.reshape(updates, (numbers.type.size, *row))
    numbers = b.reshape(numbers, (numbers.type.size,))
    if not isinstance(numbers, Const):
        if how == "none":
            return b.reshape(b.add(Scatter(old, new, numbers)), x.shape)
        return b.reshape(_reduced(b, old, new, numbers, how, own=own), x.shape)
    if how == "mean":
        if not x.type.dtype.is_float:
            raise ModelError(f"reduction = 'mean' of {x.type} is not supported, only of reals")
        y = b.reshape(scattered(b, old, new, numbers, row, "add", own=own), old.shape)
        counts = np.bincount(numbers.array, minlength=count).reshape(-1, *(1,) * len(row)) + own
        shares = (1 / np.maximum(counts, 1)).astype(y.type.dtype.numpy)
        return b.reshape(b.add(Mul(y, b.const(shares, name=f"{b.name}.shares"))), x.shape)
    if how != "none" and how not in REDUCTIONS:
        raise ModelError(f"reduction = {how!r} is not supported")
    for i, source in enumerate(_rounds(numbers.array, count, every=how != "none")):
        y = _replaced(b, old, new, source)
        if how != "none" and (i or own):
            touched = (source >= 0).reshape(-1, *(1,) * len(row))
            mask = b.const(np.broadcast_to(touched, old.shape), name=f"{b.name}.touched")
            y = b.add(Where(mask, b.add(REDUCTIONS[how](old, y)), old))
        old = y
    return b.reshape(old, x.shape)


def _reduced(b: Builder, old: Value, new: Value, numbers: Value, how: str, *, own: bool) -> Value:
    """Rows [R, …] joined with updates [U, …] at computed numbers [U]: which update goes to which
    row is a matrix of booleans."""
    count, size = old.shape[0], numbers.type.size
    if how not in ("add", "mean", "max", "min") or not new.type.dtype.is_float:
        raise ModelError(
            f"reduction = {how!r} of {new.type} at places computed at run time is not supported,"
            " only sums, means and extremes of reals"
        )
    width, summed = new.type.size // size, how in ("add", "mean")
    if (pairs := count * size * (1 if summed else width)) > MAX_PAIRS:
        raise ModelError(
            f"{size} elements joined with {count} at places computed at run time are too many:"
            f" {pairs:,} pairs, more than {MAX_PAIRS:,}; make the places a constant of the model"
        )
    rows = b.const(np.arange(count, dtype=np.int64)[:, np.newaxis], name=f"{b.name}.rows")
    there = b.add(Equal(rows, b.reshape(numbers, (1, size))))
    flat = b.reshape(new, (size, width))
    total = _sums(b, there, flat) if summed else _extremes(b, there, flat, how)
    made, column = b.reshape(total, old.shape), (count, *(1,) * (old.type.rank - 1))
    joined = b.add(REDUCTIONS["add" if summed else how](old, made)) if own else made
    if how == "mean":
        joined = b.add(Div(joined, b.reshape(_counts(b, there, new.type.dtype, own), column)))
    if summed and own:
        return joined
    touched = b.add(ReduceMax(b.add(Cast(there, DType.I64)), (1,), False))
    where = b.add(Less(b.const(np.zeros((), np.int64)), touched))
    return b.add(Where(b.reshape(where, column), joined, old))


def _counts(b: Builder, there: Value, dtype: DType, own: bool) -> Value:
    """How many are averaged in each row [R], as reals: its updates, with `own` itself, too; at
    least one."""
    updates = b.add(ReduceSum(b.add(Cast(there, dtype)), (1,), False))
    if own:
        return b.add(Add(updates, b.const(np.ones((), dtype.numpy))))
    return b.add(Clip(updates, 1.0, float(there.shape[1])))


def _sums(b: Builder, there: Value, updates: Value) -> Value:
    """The sum of each row's updates [U, K], by a product with a matrix of zeros and ones."""
    return b.add(MatMul(b.add(Cast(there, updates.type.dtype)), updates))


def _extremes(b: Builder, there: Value, updates: Value, how: str) -> Value:
    """The largest, or least, of each row's updates [U, K]. In the place of others stands the least,
    or largest, of all: it changes nothing, and no range grows by it."""
    (count, size), width = there.shape, updates.shape[1]
    reduce, other = (ReduceMax, ReduceMin) if how == "max" else (ReduceMin, ReduceMax)
    each = b.reshape(updates, (1, size, width))
    mask = b.reshape(there, (count, size, 1))
    chosen = b.add(Where(mask, each, b.add(other(each, (1,), True))))
    return b.add(reduce(chosen, (1,), False))


def put_at(
    b: Builder, x: Value, indices: Mapping[int, Value], values: Value, how: str = "none", *,
    own: bool = True,
) -> Value:  # fmt: skip
    """`x[indices] = values`, or `+=`: integer tensors for neighbouring axes of x, which broadcast,
    as values do to what they choose."""
    axes = sorted(indices)
    first, end = axes[0], axes[-1] + 1
    if end - first != len(axes):
        raise ModelError(f"places along axes {axes}, which are no neighbours, are not supported")
    rest = (*range(first), *range(end, x.type.rank))
    order = (*axes, *rest)
    moved = b.transpose(x, order)
    rows, row = moved.shape[: len(axes)], moved.shape[len(axes) :]
    at = places_at(b, {i: indices[a] for i, a in enumerate(axes)}, rows)
    width = len(at.shape)
    chosen = (*x.shape[:first], *at.shape, *x.shape[end:])
    new = b.transpose(
        b.expand(values, chosen),
        (*range(first, first + width), *range(first), *range(first + width, len(chosen))),
    )
    made = scattered(b, moved, new, at, row, how, own=own)
    return b.transpose(made, tuple(order.index(a) for a in range(x.type.rank)))


def _replaced(b: Builder, old: Value, new: Value, source: Array) -> Value:
    """Row i is `new[source[i]]`, or `old[i]` where that is -1."""
    both = b.add(Concat((old, new), 0))
    count = len(source)
    at = np.where(source < 0, np.arange(count), count + source)
    return b.add(Gather(both, b.const(at, name=f"{b.name}.at"), 0))


def _rounds(numbers: Array, count: int, *, every: bool) -> list[Array]:
    """Which update each row takes, -1 for none. One round where the last update wins; else as many
    as the most named row has updates."""
    if not every:
        source = np.full(count, -1, np.int64)
        source[numbers] = np.arange(len(numbers))
        return [source]
    rounds: list[Array] = []
    seen = np.zeros(count, np.int64)
    for i, n in enumerate(numbers):
        if seen[n] == len(rounds):
            rounds.append(np.full(count, -1, np.int64))
        rounds[seen[n]][n] = i
        seen[n] += 1
        if len(rounds) > MAX_TIMES:
            raise ModelError(f"an element is updated more than {MAX_TIMES} times")
    return rounds
