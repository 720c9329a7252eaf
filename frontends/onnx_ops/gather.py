"""Gathers and scatters by index: each is one gather along one axis of a flattened tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Maximum, Minimum, Mod, Mul, Sub
from irc.ops.logic import And, Less, LessOrEqual
from irc.ops.scatter import Scatter
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat
from irc.types import Array, DType, Shape
from irc.value import Value

from .table import Node, Results, handles

MAX_TIMES = 64
"""How often a scatter may name one element."""


def _checked(node: Node, array: Array, extent: int) -> Array:
    """Constant indices, counted from the front."""
    if array.dtype.kind not in "iu":
        node.fail(f"its indices must be integers, they are {array.dtype}")
    if array.size and not -extent <= array.min() <= array.max() < extent:
        node.fail(f"its indices reach from {array.min()} to {array.max()}, of {extent}")
    return np.where(array < 0, array + extent, array).astype(np.int64)


def _front(node: Node, indices: Value, extent: int) -> Value:
    """Indices counted from the front, i64; constants are checked, others are not."""
    build = node.builder
    if isinstance(indices, Const):
        return build.const(_checked(node, indices.array, extent), name=indices.name)
    if indices.type.dtype is not DType.I64:
        indices = build.add(Cast(indices, DType.I64))
    zero, shift = (build.const(np.asarray(n, np.int64)) for n in (0, extent))
    return build.add(Where(build.add(Less(indices, zero)), build.add(Add(indices, shift)), indices))


def _picked(node: Node, x: Value, at: Value, row: Shape = ()) -> Value:
    """Rows of x, seen as `[-1, *row]`, by their number."""
    flat = node.builder.reshape(x, (x.type.size // max(1, prod(row)), *row))
    return node.builder.add(Gather(flat, at, 0))


def _offsets(shape: Shape, skip: Sequence[int], strides: Sequence[int]) -> Array:
    """The part of each element's place that its index along the axes not skipped makes."""
    grid = np.indices(shape, np.int64, sparse=True)
    total = np.zeros((), np.int64)
    for axis, index in enumerate(grid):
        if axis not in skip:
            total = total + index * strides[axis]
    return np.asarray(np.broadcast_to(total, shape))


def _strides(shape: Shape) -> list[int]:
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def _linear(node: Node, at: Value, stride: int, offset: Array) -> Value:
    build = node.builder
    scaled = build.add(Mul(at, build.const(np.asarray(stride, np.int64))))
    return build.add(Add(scaled, build.const(offset, name=f"{build.name}.offset")))


@handles("GatherElements")
def gather_elements(node: Node) -> Results:
    """Along an axis, an index for each element of the result."""
    x, indices = node.x(0), node.x(1)
    axis = node.axis(node.integer("axis"), x.type.rank)
    if indices.type.rank != x.type.rank or any(
        i > d for a, (i, d) in enumerate(zip(indices.shape, x.shape, strict=True)) if a != axis
    ):
        node.fail(f"indices {indices.type} do not fit {x.type}")
    return taken_along(node, x, _front(node, indices, x.shape[axis]), axis)


def taken_along(node: Node, x: Value, at: Value, axis: int) -> Value:
    """NumPy's take_along_axis, of indices that count from the front; their other axes may be
    shorter."""
    strides, indices = _strides(x.shape), at
    offset = _offsets(indices.shape, [axis], strides)
    return _picked(node, x, _linear(node, at, strides[axis], offset))


@handles("GatherND")
def gather_nd(node: Node) -> Results:
    """Slices by tuples of indices, behind `batch_dims` axes that both share."""
    x, indices, found = node.x(0), node.x(1), node.attribute("batch_dims")
    batch = 0 if found is None else int(found.i)
    depth = indices.shape[-1] if indices.type.rank else 0
    end = batch + depth
    if not 0 <= batch < indices.type.rank or not depth or end > x.type.rank or (
        x.shape[:batch] != indices.shape[:batch]
    ):
        node.fail(f"indices {indices.type} with batch_dims = {batch} do not fit {x.type}")
    rows = x.shape[:end]
    at = _row_numbers(node, indices, rows, batch)
    return _picked(node, x, at, x.shape[end:])


def _row_numbers(node: Node, indices: Value, rows: Shape, batch: int) -> Value:
    """Tuples of indices (last axis) as numbers of rows."""
    strides, build = _strides(rows), node.builder
    outer = indices.shape[:-1]
    total: Value = build.const(_offsets(outer, range(batch, len(outer)), [*strides, *outer]))
    for k in range(indices.shape[-1]):
        which = build.const(np.asarray(k, np.int64))
        part = _front(node, build.add(Gather(indices, which, len(outer))), rows[batch + k])
        scaled = build.add(Mul(part, build.const(np.asarray(strides[batch + k], np.int64))))
        total = build.add(Add(total, scaled))
    return total


@handles("TensorScatter")
def tensor_scatter(node: Node) -> Results:
    """A cache, of which each sequence takes its update from a place of its own on; `circular` goes
    on at the start."""
    x, updates, build = node.x(0), node.x(1), node.builder
    axis = node.axis(node.integer("axis"), x.type.rank)
    mode = node.text("mode")
    same = [i for i in range(x.type.rank) if i != axis]
    if updates.type.rank != x.type.rank or any(x.shape[i] != updates.shape[i] for i in same):
        node.fail(f"updates {updates.type} do not fit {x.type}")
    if axis == 0 or mode not in ("linear", "circular") or not updates.shape[axis]:
        node.fail(f"axis = {axis} with mode = {mode!r} of {updates.type} is not supported")
    batch, extent, length = x.shape[0], x.shape[axis], updates.shape[axis]
    starts = node.x(2) if node.has(2) else build.const(np.zeros(batch, np.int64))
    since = build.add(Sub(build.const(np.arange(extent)), build.reshape(starts, (batch, 1))))
    if mode == "circular":
        since = build.add(Mod(since, build.const(np.asarray(extent, np.int64))))
    zero, last = (build.const(np.asarray(n, np.int64)) for n in (0, length - 1))
    new = build.add(And(build.add(LessOrEqual(zero, since)), build.add(LessOrEqual(since, last))))
    at = build.add(Minimum(build.add(Maximum(since, zero)), last))
    rows = build.add(Add(at, build.const(np.arange(batch)[:, np.newaxis] * length)))
    order = (0, axis, *same[1:])
    moved = build.transpose(updates, order)
    picked = _picked(node, moved, rows, moved.shape[2:])
    back = build.transpose(picked, tuple(int(i) for i in np.argsort(order)))
    mask = build.reshape(new, tuple(d if i in (0, axis) else 1 for i, d in enumerate(x.shape)))
    return build.add(Where(mask, back, x))


REDUCTIONS: dict[str, Callable[[Value, Value], Value]] = {
    "add": Add, "mul": Mul, "max": Maximum, "min": Minimum,
}  # fmt: skip


@handles("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Results:
    """Into places along an axis; those that are computed take no reduction."""
    x, updates = node.x(0), node.x(2)
    axis = node.axis(node.integer("axis"), x.type.rank)
    places = _front(node, node.x(1), x.shape[axis])
    shape = places.shape
    if shape != updates.shape or len(shape) != x.type.rank:
        node.fail(f"updates {updates.type} and indices of shape {list(shape)} differ")
    if any(n > d for a, (n, d) in enumerate(zip(shape, x.shape, strict=True)) if a != axis):
        node.fail(f"updates {updates.type} do not fit {x.type}")
    strides = _strides(x.shape)
    numbers = _linear(node, places, strides[axis], _offsets(shape, [axis], strides))
    return _scattered(node, x, updates, node.builder.reshape(numbers, (prod(shape),)), ())


@handles("ScatterND")
def scatter_nd(node: Node) -> Results:
    """Slices into places; those that are computed take no reduction."""
    x, indices, updates = node.x(0), node.x(1), node.x(2)
    depth = indices.shape[-1] if indices.type.rank else 0
    rows, row = x.shape[:depth], x.shape[depth:]
    if not 1 <= depth <= x.type.rank or updates.shape != (*indices.shape[:-1], *row):
        node.fail(f"updates {updates.type} and indices {list(indices.shape)} do not fit {x.type}")
    numbers = _row_numbers(node, indices, rows, 0)
    return _scattered(node, x, updates, node.builder.reshape(numbers, (numbers.type.size,)), row)


def _scattered(node: Node, x: Value, updates: Value, numbers: Value, row: Shape) -> Value:
    """Rows of x, of which those with the given numbers are replaced by, or joined with, updates."""
    build, found = node.builder, node.attribute("reduction")
    how = "none" if found is None else found.s.decode("utf-8", "replace")
    count = x.type.size // max(1, prod(row))
    old = build.reshape(x, (count, *row))
    new = build.reshape(updates, (numbers.type.size, *row))
    if how != "none" and how not in REDUCTIONS:
        node.fail(f"reduction = {how!r} is not supported")
    if not isinstance(numbers, Const):
        if how != "none":
            node.fail(f"reduction = {how!r} at places computed at run time is not supported")
        return build.reshape(build.add(Scatter(old, new, numbers)), x.shape)
    for source in _rounds(node, numbers.array, count, every=how != "none"):
        y = _replaced(node, old, new, source)
        if how != "none":
            touched = (source >= 0).reshape(-1, *(1,) * len(row))
            mask = build.const(np.broadcast_to(touched, old.shape), name=f"{build.name}.touched")
            y = build.add(Where(mask, build.add(REDUCTIONS[how](old, y)), old))
        old = y
    return build.reshape(old, x.shape)


def _replaced(node: Node, old: Value, new: Value, source: Array) -> Value:
    """Row i is `new[source[i]]`, or `old[i]` where that is -1."""
    both = node.builder.add(Concat((old, new), 0))
    count = len(source)
    at = np.where(source < 0, np.arange(count), count + source)
    return node.builder.add(Gather(both, node.builder.const(at, name=f"{node.builder.name}.at"), 0))


def _rounds(node: Node, numbers: Array, count: int, *, every: bool) -> list[Array]:
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
            node.fail(f"an element is updated more than {MAX_TIMES} times")
    return rounds
