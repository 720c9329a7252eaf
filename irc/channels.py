"""Ties between channels: which entries of which axes live and die together.

Removing output channel 3 of a convolution removes entry 3 of its bias, channel 3 of every
elementwise result behind it, input channel 3 of the next convolution's weights, and channel 3 of
whatever is added to it. An op states such ties between its operands and its result in `ties()`; an
axis that no tie of an op names can't change its extent there. `Channels` joins the ties of a whole
graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from irc.types import Array, Shape

if TYPE_CHECKING:
    from irc.graph import Graph
    from irc.value import Value

Kept = Callable[["Value", int], Array]
"""Which entries of an axis, of a node's operand or of its result, remain: b1 [extent]."""


@dataclass(frozen=True, eq=False)
class Tie:
    """Entries `a_index` of an axis of `a` live and die with entries `b_index` of one of `b`, one
    for one."""

    a: Value
    a_axis: int
    a_index: Array
    b: Value
    b_axis: int
    b_index: Array


def tie(
    a: Value, a_axis: int, b: Value, b_axis: int, a_index: Array | None = None,
    b_index: Array | None = None,
) -> Tie:  # fmt: skip
    """A tie between two axes; without an index, between all of their entries in order."""
    ia = np.arange(a.shape[a_axis]) if a_index is None else a_index
    ib = np.arange(b.shape[b_axis]) if b_index is None else b_index
    return Tie(a, a_axis, ia, b, b_axis, ib)


def tie_axes(a: Value, b: Value, axes: Iterable[int]) -> Iterator[Tie]:
    """The same axes of both."""
    return (tie(a, axis, b, axis) for axis in axes)


def tie_broadcast(operand: Value, result: Value) -> Iterator[Tie]:
    """An operand that NumPy broadcasts: its axes that have their extent in the result too."""
    lead = len(result.shape) - len(operand.shape)
    for axis, extent in enumerate(operand.shape):
        if extent == result.shape[axis + lead]:
            yield tie(operand, axis, result, axis + lead)


def tie_reshape(x: Value, result: Value) -> Iterator[Tie]:
    """Axes that a row-major reshape leaves alone, merges, or splits.

    Of axes that merge or split, the widest is tied (of equals the innermost), the same for every
    index of the others: a head's feature in all heads, a channel at all positions.
    """
    for many, one, a, b in _merges(x, result):
        axis = max(a, key=lambda i: (many.shape[i], i))
        inside = prod(many.shape[axis + 1 : a[-1] + 1])
        index = np.arange(one.shape[b]) // inside % many.shape[axis]
        yield tie(many, axis, one, b, index)


def _merges(x: Value, result: Value) -> Iterator[tuple[Value, Value, range, int]]:
    """Several axes of a value that hold what a single axis of the other does; axes that turn
    several into several are left out."""
    for a, b in _regrouped(x.shape, result.shape):
        if len(b) == 1:
            yield x, result, a, b[0]
        elif len(a) == 1:
            yield result, x, b, a[0]


def _regrouped(a: Shape, b: Shape) -> Iterator[tuple[range, range]]:
    """Shortest runs of axes of both shapes that hold equally many elements."""
    if 0 in a:
        return
    i = j = 0
    while i < len(a) and j < len(b):
        i0, j0, have, need = i, j, a[i], b[j]
        i, j = i + 1, j + 1
        while have != need:
            if have < need:
                have, i = have * a[i], i + 1
            else:
                need, j = need * b[j], j + 1
        yield range(i0, i), range(j0, j)


class Channels:
    """The classes of entries of a graph that live and die together.

    Classes are numbers. A constant has its own in each node that reads it, so that two nodes may
    keep different parts of it.
    """

    def __init__(self, graph: Graph) -> None:
        self._first: dict[tuple[Value, Value, int], int] = {}
        self._count = 0
        edges: list[tuple[Array, Array]] = []
        frozen: list[Array] = []
        for v in graph.order:
            edges += self._join(v, frozen)
        for v in (*graph.inputs, *graph.outputs):
            frozen += [self._entries(v, v, axis) for axis in range(len(v.shape))]
        ends = (_joined(edge[i] for edge in edges) for i in (0, 1))
        self._class = components(self._count, *ends)
        self.free = np.ones(self._count, np.bool_)
        """By class: whether its entries can be removed at all."""
        self.free[self._class[_joined(frozen)]] = False

    def _join(self, v: Value, frozen: list[Array]) -> Iterator[tuple[Array, Array]]:
        """The edges of a node's ties; what it does not tie goes to `frozen`."""
        tied: set[tuple[Value, int]] = set()
        for t in v.ties():
            tied |= {(t.a, t.a_axis), (t.b, t.b_axis)}
            a = self._entries(v, t.a, t.a_axis)[t.a_index]
            yield a, self._entries(v, t.b, t.b_axis)[t.b_index]
        for each in {v, *v.operands} if v.operands else ():
            rest = (axis for axis in range(len(each.shape)) if (each, axis) not in tied)
            frozen += [self._entries(v, each, axis) for axis in rest]

    def _entries(self, user: Value, v: Value, axis: int) -> Array:
        """Numbers of the entries of an axis, as `user` sees it."""
        key = (user if v.op == "const" else v, v, axis)
        if key not in self._first:
            self._first[key] = self._count
            self._count += v.shape[axis]
        first = self._first[key]
        return np.arange(first, first + v.shape[axis])

    def of(self, user: Value, v: Value, axis: int) -> Array:
        """The classes of the entries of an axis of `v`, an operand of `user` or `user` itself."""
        known = self._count
        classes: Array = self._class[self._entries(user, v, axis)]
        assert self._count == known, "every axis of a graph has its classes"
        return classes

    @property
    def count(self) -> int:
        """How many numbers there are; classes lie below."""
        return self._count


def _joined(arrays: Iterable[Array]) -> Array:
    parts = list(arrays)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def components(count: int, a: Array, b: Array) -> Array:
    """Connected components of `count` nodes under edges `a[i] - b[i]`: the smallest node of each
    node's component."""
    root = np.arange(count)
    while True:
        ra, rb = root[a], root[b]
        if np.array_equal(ra, rb):
            return root
        np.minimum.at(root, np.maximum(ra, rb), np.minimum(ra, rb))
        while not np.array_equal(root, root[root]):
            root = root[root]
