"""Gathers and scatters by index: each is one gather along one axis of a flattened tensor."""

from __future__ import annotations

import numpy as np

from irc.frontends.builder import Builder
from irc.frontends.indexing import (
    front,
    offsets,
    picked,
    placed,
    places_along,
    put_at,
    row_numbers,
    scattered,
    strides_of,
    taken_along,
)
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.elementwise import Add, Maximum, Minimum, Mod, Sub
from irc.ops.logic import And, LessOrEqual
from irc.ops.selection import Gather, Where
from irc.types import Shape
from irc.value import Value


@handles("GatherElements")
def gather_elements(node: Node) -> Results:
    """Along an axis, an index for each element of the result."""
    x, indices = node.x(0), node.x(1)
    axis = node.axis(node.integer("axis"), x.type.rank)
    if indices.type.rank != x.type.rank or any(
        i > d for a, (i, d) in enumerate(zip(indices.shape, x.shape, strict=True)) if a != axis
    ):
        node.fail(f"indices {indices.type} do not fit {x.type}")
    build = node.builder
    return taken_along(build, x, front(build, indices, x.shape[axis]), axis)


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
    return picked(node.builder, x, at, x.shape[end:])


def _row_numbers(node: Node, indices: Value, rows: Shape, batch: int) -> Value:
    """Tuples of indices (last axis) as numbers of rows."""
    strides, build = strides_of(rows), node.builder
    outer = indices.shape[:-1]
    total: Value = build.const(offsets(outer, range(batch, len(outer)), [*strides, *outer]))
    for k in range(indices.shape[-1]):
        which = build.const(np.asarray(k, np.int64))
        part = front(build, build.add(Gather(indices, which, len(outer))), rows[batch + k])
        total = placed(build, part, strides[batch + k], total)
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
    starts = node.x(2) if node.has(2) else build.const(np.zeros(x.shape[0], np.int64))
    return cached(build, x, updates, starts, axis, circular=mode == "circular")


def cached(
    build: Builder, x: Value, updates: Value, starts: Value, axis: int, *, circular: bool = False
) -> Value:
    """x, a cache, of which sequence b (axis 0) has its updates along an axis from i64 `starts[b]`
    on; `circular` ones go on at the start."""
    batch, extent, length = x.shape[0], x.shape[axis], updates.shape[axis]
    since = build.add(Sub(build.const(np.arange(extent)), build.reshape(starts, (batch, 1))))
    if circular:
        since = build.add(Mod(since, build.const(np.asarray(extent, np.int64))))
    zero, last = (build.const(np.asarray(n, np.int64)) for n in (0, length - 1))
    new = build.add(And(build.add(LessOrEqual(zero, since)), build.add(LessOrEqual(since, last))))
    at = build.add(Minimum(build.add(Maximum(since, zero)), last))
    rows = build.add(Add(at, build.const(np.arange(batch)[:, np.newaxis] * length)))
    order = (0, axis, *(i for i in range(1, x.type.rank) if i != axis))
    moved = build.transpose(updates, order)
    new_rows = picked(build, moved, rows, moved.shape[2:])
    back = build.transpose(new_rows, tuple(int(i) for i in np.argsort(order)))
    mask = build.reshape(new, tuple(d if i in (0, axis) else 1 for i, d in enumerate(x.shape)))
    return build.add(Where(mask, back, x))


@handles("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Results:
    """Into places along an axis; those that are computed take no products."""
    x, updates = node.x(0), node.x(2)
    axis = node.axis(node.integer("axis"), x.type.rank)
    rows = row_numbers(node.builder, node.x(1), axis, x.shape)
    if rows is not None and updates.shape == node.x(1).shape:
        return put_at(node.builder, x, {axis: rows}, updates, _reduction(node))
    places = front(node.builder, node.x(1), x.shape[axis])
    shape = places.shape
    if shape != updates.shape or len(shape) != x.type.rank:
        node.fail(f"updates {updates.type} and indices of shape {list(shape)} differ")
    if any(n > d for a, (n, d) in enumerate(zip(shape, x.shape, strict=True)) if a != axis):
        node.fail(f"updates {updates.type} do not fit {x.type}")
    numbers = places_along(node.builder, places, axis, x.shape)
    return scattered(node.builder, x, updates, numbers, (), _reduction(node))


@handles("ScatterND")
def scatter_nd(node: Node) -> Results:
    """Slices into places; those that are computed take no products."""
    x, indices, updates = node.x(0), node.x(1), node.x(2)
    depth = indices.shape[-1] if indices.type.rank else 0
    rows, row = x.shape[:depth], x.shape[depth:]
    if not 1 <= depth <= x.type.rank or updates.shape != (*indices.shape[:-1], *row):
        node.fail(f"updates {updates.type} and indices {list(indices.shape)} do not fit {x.type}")
    numbers = _row_numbers(node, indices, rows, 0)
    return scattered(node.builder, x, updates, numbers, row, _reduction(node))


def _reduction(node: Node) -> str:
    """What happens to elements that are there."""
    found = node.attribute("reduction")
    return "none" if found is None else found.s.decode("utf-8", "replace")
