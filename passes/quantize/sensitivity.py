"""How much the rounding of one value costs the outputs.

Scales can't tell: a network may amplify what it reads a hundredfold, or not see it at all. So
values are rounded in the float graph, and what follows from them is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from irc import fixedpoint
from irc.graph import Graph, evaluate
from irc.ops.core import Const
from irc.types import Array, TensorType
from irc.value import Value

MEMORY = 3 << 28
"""Bytes of values that are kept, of one sample even if it has more."""

Arrays = Mapping[Value, Array]


@dataclass
class Energy:
    """Squares of a graph's outputs, and of how far they are off, over samples."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, real: Array, found: Array) -> None:
        """Take in one output of one sample."""
        self.signal += float(np.square(real, dtype=np.float64).sum())
        self.noise += float(np.square(found.astype(np.float64) - real).sum())

    @property
    def decibels(self) -> float:
        """The SQNR; infinite where nothing is off or nothing was there, or where what was there is
        infinite or no number."""
        if not (self.noise and self.signal):
            return math.inf
        ratio = self.signal / self.noise
        if math.isnan(ratio):
            return math.inf
        return 10 * math.log10(ratio) if ratio else -math.inf


@dataclass
class Outputs:
    """The energies of a graph's outputs by name."""

    each: dict[str, Energy] = field(default_factory=dict)

    def add(self, name: str, real: Array, found: Array) -> None:
        """Take in one output of one sample."""
        self.each.setdefault(name, Energy()).add(real, found)

    @property
    def worst(self) -> float:
        """The SQNR in dB of the output that is off furthest."""
        return min((e.decibels for e in self.each.values()), default=math.inf)


def real_outputs(graph: Graph, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What a float graph makes of a sample, but for whole numbers and booleans."""
    found = evaluate(graph, feed)
    names = zip(graph.output_names, graph.outputs, strict=True)
    return {name: found[name] for name, o in names if o.type.dtype.is_float}


def reals(graph: Graph, arrays: Arrays) -> dict[str, Array]:
    """As `real_outputs`, from arrays that are known."""
    names = zip(graph.output_names, graph.outputs, strict=True)
    return {name: arrays[o] for name, o in names if o.type.dtype.is_float}


@dataclass(frozen=True)
class Known:
    """What graphs make of samples, as `real_outputs` does, computed once as long as there is memory
    for it: what was not asked for longest is forgotten first."""

    made: dict[tuple[int, int], tuple[Graph, Mapping[str, Array], Mapping[str, Array]]] = field(
        default_factory=dict
    )
    """By the identities of graphs and samples, which are kept alive."""

    def __call__(self, graph: Graph, feed: Mapping[str, Array]) -> Mapping[str, Array]:
        """The real outputs of a graph by name."""
        entry = self.made.get((id(graph), id(feed)))
        outputs = real_outputs(graph, feed) if entry is None else entry[2]
        self.add(graph, feed, outputs)
        return outputs

    def add(
        self, graph: Graph, feed: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> None:
        """Remember what was computed elsewhere."""
        key = id(graph), id(feed)
        self.made.pop(key, None)
        self.made[key] = graph, feed, outputs
        held = sum(a.nbytes for _, _, arrays in self.made.values() for a in arrays.values())
        while held > MEMORY and len(self.made) > 1:
            *_, arrays = self.made.pop(next(iter(self.made)))
            held -= sum(a.nbytes for a in arrays.values())


def worst(wanted: Iterable[Mapping[str, Array]], found: Iterable[Mapping[str, Array]]) -> float:
    """The SQNR in dB of the output that is off furthest, over samples of outputs by name."""
    outputs = Outputs()
    for reals, others in zip(wanted, found, strict=True):
        for name, real in reals.items():
            outputs.add(name, real, others[name])
    return outputs.worst


@dataclass(frozen=True)
class Trials:
    """All that a float graph computes of some samples, to try what follows where values of it are
    rounded."""

    graph: Graph
    samples: Sequence[Arrays]

    @classmethod
    def of(cls, graph: Graph, feeds: Iterable[Mapping[str, Array]]) -> Trials:
        """Of as many samples as fit into memory, at least one where there is any."""
        each = sum(v.type.nbytes for v in graph.order if not isinstance(v, Const))
        count = max(1, MEMORY // max(each, 1))
        return cls(graph, [_arrays(graph, feed) for feed in islice(feeds, count)])

    def worst(self, rounded: Mapping[Value, TensorType]) -> float:
        """The SQNR in dB of the worst output where some values are rounded to these types."""
        outputs = Outputs()
        for arrays in self.samples:
            changed = _following(self.graph, arrays, rounded)
            for name, o in zip(self.graph.output_names, self.graph.outputs, strict=True):
                if o.type.dtype.is_float:
                    outputs.add(name, arrays[o], changed.get(o, arrays[o]))
        return outputs.worst


def sensitivities(
    graph: Graph, feeds: Iterable[Mapping[str, Array]], rounded: Mapping[Value, TensorType]
) -> dict[Value, float]:
    """The SQNR in dB of the graph's worst output where only one value is `rounded` to a type, by
    that value, over as many feeds as fit into memory."""
    trials = Trials.of(graph, feeds if rounded else ())
    return {v: trials.worst({v: type_}) for v, type_ in rounded.items()}


def _arrays(graph: Graph, feed: Mapping[str, Array]) -> Arrays:
    """All values of a graph."""
    arrays: dict[Value, Array] = {}
    evaluate(graph, feed, observe=arrays.__setitem__)
    return arrays


def _following(graph: Graph, arrays: Arrays, rounded: Mapping[Value, TensorType]) -> Arrays:
    """Values rounded, and all that is computed from them."""
    changed: dict[Value, Array] = {}
    for v in graph.order:
        if not changed.keys().isdisjoint(v.operands):
            changed[v] = np.asarray(v.call(lambda o: changed[o] if o in changed else arrays[o]))
        if v in rounded:
            changed[v] = _rounded(changed.get(v, arrays[v]), rounded[v])
    return changed


def _rounded(array: Array, type_: TensorType) -> Array:
    return fixedpoint.dequantize(fixedpoint.quantize(array, type_), type_).astype(array.dtype)
