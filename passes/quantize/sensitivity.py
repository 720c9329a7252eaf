"""How much the rounding of one value costs the outputs.

Scales can't tell: a network may amplify what it reads a hundredfold, or not see it at all. So one
value at a time is rounded in the float graph, and what follows from it is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from irc import fixedpoint
from irc.graph import Graph, evaluate
from irc.types import Array, TensorType
from irc.value import Value

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
        """The SQNR; infinite where nothing is off or nothing was there."""
        if not (self.noise and self.signal):
            return math.inf
        return 10 * math.log10(self.signal / self.noise)


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


def sensitivities(
    graph: Graph, feeds: Iterable[Mapping[str, Array]], rounded: Mapping[Value, TensorType]
) -> dict[Value, float]:
    """The SQNR in dB of the graph's worst output where only one value is `rounded` to a type, by
    that value, over all feeds."""
    found = {v: Outputs() for v in rounded}
    for feed in feeds if rounded else ():
        arrays: dict[Value, Array] = {}
        evaluate(graph, feed, observe=arrays.__setitem__)
        for v, type_ in rounded.items():
            changed = _following(graph, arrays, v, type_)
            for name, o in zip(graph.output_names, graph.outputs, strict=True):
                if o.type.dtype.is_float:
                    found[v].add(name, arrays[o], changed.get(o, arrays[o]))
    return {v: outputs.worst for v, outputs in found.items()}


def _following(graph: Graph, arrays: Arrays, v: Value, type_: TensorType) -> Arrays:
    """A value rounded, and all that is computed from it."""
    integers = fixedpoint.quantize(arrays[v], type_)
    changed = {v: fixedpoint.dequantize(integers, type_).astype(arrays[v].dtype)}
    for u in graph.order:
        if u is not v and not changed.keys().isdisjoint(u.operands):
            changed[u] = np.asarray(u.call(lambda o: changed[o] if o in changed else arrays[o]))
    return changed
