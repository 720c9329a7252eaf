"""Sequences, whose length and whose places are known at import."""

from __future__ import annotations

import numpy as np

from irc.frontends.onnx.lists import Listed
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.shape import Concat, Slice
from irc.value import Value


@handles("SequenceEmpty")
def empty(node: Node) -> Results:
    """Nothing yet."""
    node.ignore("dtype")
    return Listed(())


@handles("SequenceConstruct")
def construct(node: Node) -> Results:
    """All inputs."""
    return Listed(tuple(node.x(i) for i in range(len(node.inputs))))


@handles("SequenceLength")
def length(node: Node) -> Results:
    """A number that is known."""
    return node.builder.const(np.asarray(len(node.listed(0)), np.int64))


@handles("SequenceAt")
def at(node: Node) -> Results:
    """One of the tensors."""
    parts = node.listed(0)
    return parts[_place(node, 1, len(parts))]


@handles("SequenceInsert")
def insert(node: Node) -> Results:
    """One more, at a place or behind the last."""
    parts = node.listed(0)
    place = _place(node, 2, len(parts), behind=True) if node.has(2) else len(parts)
    return Listed((*parts[:place], node.x(1), *parts[place:]))


@handles("SequenceErase")
def erase(node: Node) -> Results:
    """All but one, the last if no place is given."""
    parts = node.listed(0)
    place = _place(node, 1, len(parts)) if node.has(1) else len(parts) - 1
    if not parts:
        node.fail("nothing is in the sequence")
    return Listed((*parts[:place], *parts[place + 1 :]))


def _place(node: Node, i: int, count: int, *, behind: bool = False) -> int:
    """An index that may count from the end, or be the one `behind` it."""
    index = int(node.scalar(i, "position"))
    if not -count <= index < count + behind:
        node.fail(f"position {index} does not exist among {count}")
    return index + count if index < 0 else index


@handles("SplitToSequence")
def split(node: Node) -> Results:
    """Parts of one size, the last one smaller, or of sizes that are stated."""
    x, keep = node.x(), bool(node.integer("keepdims"))
    axis = node.axis(node.integer("axis"), x.type.rank)
    extent = x.shape[axis]
    sizes = _sizes(node, extent) if node.has(1) else (1,) * extent
    ends = np.cumsum(sizes).tolist()
    parts = [_part(node, x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]
    if not node.has(1) and not keep:
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        parts = [node.builder.reshape(p, shape) for p in parts]
    return Listed(tuple(parts))


def _sizes(node: Node, extent: int) -> tuple[int, ...]:
    """The sizes of the parts: as listed, or one number for all."""
    stated = node.whole(1, "sizes of the parts")
    if node.x(1).type.rank == 0:
        (size,) = stated
        if size < 1:
            node.fail(f"parts of {size} elements are none")
        return tuple(min(size, extent - start) for start in range(0, extent, size))
    if sum(stated) != extent or min(stated, default=0) < 0:
        node.fail(f"parts of {list(stated)} elements do not make up {extent}")
    return stated


def _part(node: Node, x: Value, axis: int, start: int, stop: int) -> Value:
    starts, stops = [0] * x.type.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return node.builder.add(Slice(x, tuple(starts), tuple(stops), (1,) * x.type.rank))


@handles("ConcatFromSequence")
def joined(node: Node) -> Results:
    """All of them along an axis, or along a new one."""
    build, new = node.builder, bool(node.integer("new_axis"))
    first, *others = node.listed(0) or node.fail("nothing is in the sequence")
    axis = node.axis(node.integer("axis"), first.type.rank + new)
    parts = [first, *others]
    if new:
        parts = [build.reshape(p, (*p.shape[:axis], 1, *p.shape[axis:])) for p in parts]
    return build.add(Concat(tuple(parts), axis)) if others else parts[0]
