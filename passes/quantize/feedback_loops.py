"""What a graph computes of its own states: values that come back to themselves from run to run.

A state that only moves what was computed elsewhere, as the cache of a causal convolution or of an
attention's keys does, loses nothing by its scale of 8 bits. An average or a recurrent cell is
computed of what it was: each rounding enters the next step, and steps that are less than half a
unit are lost for good. These have 16 bits, as the cells of `irc.passes.quantize.states` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from irc.ops.core import Input
from irc.passes.quantize.sites import Sites, is_float, weighted
from irc.value import Value

ARITHMETIC = frozenset({"add", "sub", "mul", "minimum", "maximum", "prelu"})
"""Ops that read and write 16 bits, as layers and functions of one value do."""
Edge = tuple[Value, Value]
"""A state, and one that it is made of."""


def feedback(sites: Sites) -> frozenset[Value]:
    """The states that are computed of themselves, and what of that computation lies behind the last
    layer with weights."""
    return frozenset(_Loops(sites).values())


@dataclass(frozen=True)
class _Loops:
    """The cycles that states form."""

    sites: Sites

    @cached_property
    def links(self) -> Mapping[Value, Value]:
        """What each state of reals becomes."""
        return {a: b for a, b in self.sites.graph.links if is_float(a)}

    @cached_property
    def depends(self) -> Mapping[Value, frozenset[Value]]:
        """The states that each value is computed from."""
        found: dict[Value, frozenset[Value]] = {}
        for v in self.sites.graph.order:
            own = frozenset([v]) if v in self.links else frozenset[Value]()
            found[v] = own.union(*(found[o] for o in v.operands if is_float(o)))
        return found

    def sources(self, v: Value) -> Iterator[Value]:
        """What the elements of a value were moved from."""
        if not is_float(v):
            return
        if not self.sites.moving(v):
            yield v
            return
        for o in v.operands:
            yield from self.sources(o)

    @cached_property
    def edges(self) -> Mapping[Edge, bool]:
        """Which states make up which others, and whether by computing."""
        found: dict[Edge, bool] = {}
        for state, after in self.links.items():
            for source in self.sources(after):
                for other in self.depends[source]:
                    edge = state, other
                    found[edge] = found.get(edge, False) or not isinstance(source, Input)
        return found

    def reached(self, start: Value) -> set[Value]:
        """The states that one is made of, in any number of steps; itself."""
        found: set[Value] = set()
        stack = [start]
        while stack:
            v = stack.pop()
            if v not in found:
                found.add(v)
                stack += [b for a, b in self.edges if a is v]
        return found

    @cached_property
    def recursive(self) -> frozenset[Value]:
        """The states on a cycle that computes."""
        computed = [edge for edge, computes in self.edges.items() if computes]
        reach = {s: self.reached(s) for s in self.links} if computed else {}
        return frozenset(
            s for s in reach if any(a in reach[s] and s in reach[b] for a, b in computed)
        )

    def values(self) -> Iterator[Value]:
        """The recursive states, and what they are computed by."""
        seen: set[Value] = set()
        stack = [self.links[s] for s in self.recursive]
        while stack:
            v = stack.pop()
            if v in seen or self.depends[v].isdisjoint(self.recursive):
                continue
            seen.add(v)
            if isinstance(v, Input):
                yield v
            elif self.sites.moving(v):
                stack += filter(is_float, v.operands)
            elif weighted(v):
                yield v
            elif v.op in ARITHMETIC or self.sites.root[v] is not v:
                yield v
                stack += filter(is_float, v.operands)
        yield from self.recursive - seen
