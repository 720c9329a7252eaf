"""Concatenations that begin alike: each begins with the longest of the others.

What grows by concatenation, as in a DenseNet, is otherwise copied whole at each step; chained,
every part has one place in memory, and what is there so far is a view of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from irc.graph import Graph
from irc.ops.quantization import Dequantize
from irc.ops.shape import Concat
from irc.value import Value

Key = tuple[int, tuple[int, ...]]
"""A concatenation's axis, and the identities of its parts."""


def chained(graph: Graph) -> Graph:
    """Concatenations whose first parts are concatenated elsewhere begin with that result.

        (%x: f32[1], %y: f32[2], %z: f32[3])
        %c = concat([%x, %y]) {axis = 0} : f32[3]
        %d = concat([%x, %y, %z]) {axis = 0} : f32[6]
        ->
        %c = concat([%x, %y]) {axis = 0} : f32[3]
        %d = concat([%c, %z]) {axis = 0} : f32[6]

    Parts that come quantized stay, since nobody says at which scale they lie together.
    """
    known = {
        _key(v.axis, v.xs): v
        for v in graph.order
        if isinstance(v, Concat) and not any(isinstance(x, Dequantize) for x in v.xs)
    }
    begun = {v: first for v in known.values() if (first := _beginning(v, known))}
    if not begun:
        return graph
    new: dict[Value, Value] = {}

    def made(v: Value) -> Value:
        """The node over new operands, which are all there; beginnings may not be."""
        if v not in new:
            first = begun.get(v) if isinstance(v, Concat) else None
            changed = v.map_operands(new.__getitem__)
            if first is not None and isinstance(changed, Concat):
                changed = changed.replace(xs=(made(first), *changed.xs[len(first.xs) :]))
            new[v] = changed
        return new[v]

    for v in graph.order:
        made(v)
    return graph.with_outputs(tuple(new[v] for v in graph.outputs))


def _key(axis: int, parts: tuple[Value, ...]) -> Key:
    return axis, tuple(map(id, parts))


def _beginning(v: Concat, known: Mapping[Key, Concat]) -> Concat | None:
    """The longest of the others that it begins with."""
    for n in sorted({len(k.xs) for k in known.values()}, reverse=True):
        if n < len(v.xs) and (first := known.get(_key(v.axis, v.xs[:n]))) is not None:
            return first
    return None
