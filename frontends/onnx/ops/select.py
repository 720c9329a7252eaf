"""What chooses elements by rank, by a mask, or by number."""

from __future__ import annotations

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.indexing import taken_along
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.cast import Cast
from irc.ops.logic import Equal
from irc.ops.ranking import ArgMax, ArgMin, TopK
from irc.ops.selection import Gather, Where
from irc.types import Array, DType
from irc.value import Value


def _along(array: Array, axis: int, rank: int) -> Array:
    """A vector along one axis of a tensor."""
    shape = [1] * rank
    shape[axis] = -1
    return array.reshape(shape)


def _numbers(node: Node, x: Value, axis: int) -> Value:
    """0, 1, 2, … along an axis, i64."""
    numbers = np.arange(x.shape[axis], dtype=np.int64)
    name = f"{node.builder.name}.numbers"
    return node.builder.const(_along(numbers, axis, x.type.rank), name=name)


@handles("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Results:
    """The first of several; the last with `select_last_index`."""
    x = node.x()
    axis = node.axis(node.integer("axis"), x.type.rank)
    chosen = node.attribute("select_last_index")
    last = chosen is not None and bool(chosen.i)
    if x.shape[axis] == 0:
        node.fail(f"{x.type} has nothing along axis {axis}")
    position = ArgMax if node.op == "ArgMax" else ArgMin
    return node.builder.add(position(x, axis, bool(node.integer("keepdims")), last))


@handles("TopK")
def top_k(node: Node) -> Results:
    """The largest or smallest elements along an axis, and their positions."""
    x = node.x()
    k = node.integer("k") if node.opset < 10 else int(node.scalar(1, "number of elements"))
    axis = node.axis(node.integer("axis"), x.type.rank)
    node.ignore("sorted")  # any order will do then, this one too
    largest = node.attribute("largest")
    if not 0 <= k <= x.shape[axis]:
        node.fail(f"{k} elements along axis {axis} of {x.type} are asked for")
    if k == 0:
        shape = (*x.shape[:axis], 0, *x.shape[axis + 1 :])
        empty = (np.zeros(shape, t) for t in (x.type.dtype.numpy, np.int64))
        values, numbers = map(node.builder.const, empty)
        return values, numbers
    at = node.builder.add(TopK(x, axis, k, largest is None or bool(largest.i)))
    return taken_along(node.builder, x, at, axis), at


@handles("Hardmax")
def hardmax(node: Node) -> Results:
    """1 at the first maximum, 0 elsewhere; before opset 13 over all axes from `axis` on."""
    x, build = node.x(), node.builder
    axis = node.axis(node.integer("axis"), x.type.rank)
    shape = x.shape
    if node.opset < 13:
        x = build.reshape(x, (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))
        axis = 1
    at = build.add(ArgMax(x, axis, True))
    one, zero = (build.const(np.asarray(n, x.type.dtype.numpy)) for n in (1, 0))
    hit = build.add(Equal(_numbers(node, x, axis), at))
    return build.reshape(build.add(Where(hit, one, zero)), shape)


@handles("OneHot")
def one_hot(node: Node) -> Results:
    """`values` are off and on; indices out of range are nowhere on."""
    indices, build = node.x(0), node.builder
    depth = int(node.scalar(1, "depth"))
    values = node.constant(2, "values")
    if values.shape != (2,) or depth < 1:
        node.fail(f"depth {depth} and values of shape {list(values.shape)} are not supported")
    rank = indices.type.rank + 1
    axis = node.axis(node.integer("axis"), rank)
    if indices.type.dtype is not DType.I64:
        indices = build.add(Cast(indices, DType.I64))
    wide = build.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    numbers = np.arange(depth, dtype=np.int64)
    on, off = (build.const(values[i]) for i in (1, 0))
    hits = [
        build.add(Equal(wide, build.const(_along(numbers + shift, axis, rank))))
        for shift in (0, -depth)  # indices may count from the end
    ]
    return build.add(Where(hits[0], on, build.add(Where(hits[1], on, off))))


@handles("Trilu")
def trilu(node: Node) -> Results:
    """The upper or lower triangle of matrices, from a constant diagonal on."""
    x, build = node.x(), node.builder
    k = int(node.scalar(1, "diagonal")) if node.has(1) else 0
    if x.type.rank < 2:
        node.fail(f"{x.type} is no matrix")
    rows, columns = x.shape[-2:]
    distance = np.arange(columns) - np.arange(rows)[:, np.newaxis]
    mask = distance >= k if node.integer("upper") else distance <= k
    zero = build.const(np.zeros((), x.type.dtype.numpy))
    return build.add(Where(build.const(mask, name=f"{build.name}.mask"), x, zero))


@handles("Compress")
def compress(node: Node) -> Results:
    """By a constant mask."""
    x, found = node.x(), node.attribute("axis")
    mask = node.constant(1, "condition").reshape(-1)
    if found is None:
        x, axis = node.builder.reshape(x, (x.type.size,)), 0
    else:
        axis = node.axis(int(found.i), x.type.rank)
    chosen = np.nonzero(mask)[0]
    if mask.dtype != np.bool_ or len(mask) > x.shape[axis]:
        node.fail(f"a condition of {len(mask)} elements for axis {axis} of {x.type}")
    return forms.gather_axis(node.builder, x, chosen.tolist(), axis)


@handles("ReverseSequence")
def reverse_sequence(node: Node) -> Results:
    """The first so many elements of each sequence in reverse; the lengths are constant."""
    x, lengths = node.x(), node.whole(1, "sequence lengths")
    time, batch = node.integer("time_axis"), node.integer("batch_axis")
    if {time, batch} != {0, 1} or x.type.rank < 2:
        node.fail(f"time_axis = {time} and batch_axis = {batch} of {x.type} are not supported")
    steps, count = x.shape[time], x.shape[batch]
    if len(lengths) != count or not all(0 <= n <= steps for n in lengths):
        node.fail(f"lengths {list(lengths)} do not fit {x.type}")
    numbers = np.tile(np.arange(steps), (count, 1))
    for row, n in zip(numbers, lengths, strict=True):
        row[:n] = row[:n][::-1]
    at = numbers + np.arange(count)[:, np.newaxis] * steps
    build = node.builder
    order = (batch, time, *range(2, x.type.rank))
    flat = build.reshape(build.transpose(x, order), (count * steps, *x.shape[2:]))
    picked = build.add(Gather(flat, build.const(at, name=f"{build.name}.order"), 0))
    return build.transpose(picked, order)


@handles("EyeLike")
def eye_like(node: Node) -> Results:
    """A constant of the input's shape."""
    x, declared = node.x(), node.attribute("dtype")
    if x.type.rank != 2:
        node.fail(f"{x.type} is no matrix")
    dtype = x.type.dtype.numpy if declared is None else node.element_type(int(declared.i))
    rows, columns = x.shape
    return node.builder.const(np.eye(rows, columns, node.integer("k"), dtype))
