"""Structured pruning of a float graph: choose channels, then rebuild without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from irc.channels import Channels, components
from irc.errors import GraphError, IRCError
from irc.graph import Graph
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.passes.calibration.moments import Moments
from irc.passes.prune.compensate import compensated
from irc.passes.prune.importance import importance, is_dense
from irc.passes.prune.statistics import Layer, layers, moments
from irc.passes.prune.surgeon import Reader, cheapest
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class Options:
    """How a graph is pruned; `irc.prune` takes these by keyword.

    ratio: share of its channels that each group of tied layers loses, in [0, 1). multiple: the
    channels that stay are rounded to a multiple of this, which suits vectors, in groups of twice as
    many. compensate: refit the weights of what reads the removed channels (needs samples).
    """

    ratio: float
    multiple: int = 4
    compensate: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise IRCError(f"prune: ratio={self.ratio} must lie in [0, 1): the share removed")
        if self.multiple < 1:
            raise IRCError(f"prune: multiple={self.multiple} must be at least 1")

    def left(self, count: int) -> int:
        """How many of `count` channels stay."""
        if not self.ratio:
            return count
        step = self.multiple if count >= 2 * self.multiple else 1
        return min(count, step * max(1, round(count * (1 - self.ratio) / step)))


def prune(
    graph: Graph,
    samples: Iterable[Mapping[str, Array]] | None,
    options: Options,
    progress: Callable[[int], None] | None = None,
) -> Graph:
    """The graph without its least important channels; its interface stays.

    Inputs, outputs and whatever is tied to them keep all channels. With `samples`, importance is
    measured on them, and the remaining weights are refitted. Raises `GraphError` for a graph
    in which no channel can go.
    """
    channels, found = Channels(graph), layers(graph)
    groups = list(_groups(found, channels))
    if not groups:
        raise GraphError(
            f"graph {graph.name} has no channels to remove: each is tied to an input, an output,"
            " or an op that fixes its extent"
        )
    seen = {} if samples is None else moments(graph, samples, progress)
    score = importance(found, channels, seen)
    readers = _readers(found, channels, seen) if options.compensate else {}
    removed = np.zeros(channels.count, np.bool_)
    for group in groups:
        wanted = len(group) - options.left(len(group))
        reading = [r for r in readers.values() if np.isin(r.classes, group).any()]
        if reading:
            removed[cheapest(group, wanted, reading, channels.count)] = True
        else:
            removed[group[np.argsort(score[group], kind="stable")][:wanted]] = True
    _keep_one_of_each(graph, channels, removed, score)
    return _Narrowing(channels, removed, seen if options.compensate else {}).run(graph)


def _readers(
    found: list[Layer], channels: Channels, seen: Mapping[Value, Moments]
) -> dict[Value, Reader]:
    """The layers that mix channels, as far as samples have been seen."""
    return {
        v: Reader.of(v.w.array, seen[v.x], channels.of(v, v.x, len(v.x.shape) - 1))
        for v in found
        if v.x in seen and is_dense(v) and isinstance(v.w, Const)
    }


def _groups(found: list[Layer], channels: Channels) -> Iterator[Array]:
    """Classes that one or several tied layers make, and that can go: one array per group."""
    made = [np.unique(channels.of(v, v, len(v.shape) - 1)) for v in found]
    made = [classes[channels.free[classes]] for classes in made]
    made = [classes for classes in made if len(classes)]
    if not made:
        return
    first = np.concatenate([np.full(len(classes), classes[0]) for classes in made])
    root = components(channels.count, first, np.concatenate(made))
    every = np.unique(np.concatenate(made))
    for group in np.unique(root[every]):
        yield every[root[every] == group]


def _keep_one_of_each(graph: Graph, channels: Channels, removed: Array, score: Array) -> None:
    """No axis of the graph may lose its last entry: its most important one stays."""
    for v in graph.order:
        for axis in range(len(v.shape)) if v.operands else ():
            classes = channels.of(v, v, axis)
            if len(classes) and removed[classes].all():
                removed[classes[np.argmax(score[classes])]] = False


@dataclass(frozen=True)
class _Narrowing:
    """Rebuilds a graph without the removed classes."""

    channels: Channels
    removed: Array
    seen: Mapping[Value, Moments]

    def run(self, graph: Graph) -> Graph:
        """The narrowed graph."""
        new: dict[Value, Value] = {}
        for v in graph.order:
            if isinstance(v, Input | Const):
                new[v] = v
            else:
                new[v] = self._node(v, new)
        return graph.with_outputs(tuple(new[v] for v in graph.outputs))

    def _node(self, v: Value, new: Mapping[Value, Value]) -> Value:
        def kept(of: Value, axis: int) -> Array:
            return ~self.removed[self.channels.of(v, of, axis)]

        def operand(of: Value) -> Value:
            return self._constant(v, of) if isinstance(of, Const) else new[of]

        made = self._refitted(v, v.narrowed(operand, kept))
        expected = tuple(int(kept(v, axis).sum()) for axis in range(len(v.shape)))
        if made.shape != expected:
            raise GraphError(
                f"{v.op} %{v.name}: pruned to {list(made.shape)}, its ties say {list(expected)}"
            )
        return made

    def _constant(self, user: Value, c: Const) -> Const:
        array = c.array
        for axis in range(array.ndim):
            kept = ~self.removed[self.channels.of(user, c, axis)]
            if not kept.all():
                array = np.compress(kept, array, axis)
        return c if array is c.array else c.replace(array=array)

    def _refitted(self, v: Value, narrow: Value) -> Value:
        """A layer that lost inputs, over weights that make up for them."""
        if not isinstance(v, Layer) or v.x not in self.seen or not isinstance(v.w, Const):
            return narrow
        kept = ~self.removed[self.channels.of(v, v.x, len(v.x.shape) - 1)]
        grouped = isinstance(v, Conv2d | ConvTranspose2d) and v.groups > 1
        if kept.all() or grouped or not (v.b is None or isinstance(v.b, Const)):
            return narrow
        bias = np.zeros(v.w.shape[0], v.w.array.dtype) if v.b is None else v.b.array
        w, b = compensated(v.w.array, bias, self.seen[v.x], kept)
        left = ~self.removed[self.channels.of(v, v, len(v.shape) - 1)]
        name = f"{v.name}.bias" if v.b is None else v.b.name
        return narrow.replace(w=v.w.replace(array=w[left]), b=Const(b[left], name=name))
