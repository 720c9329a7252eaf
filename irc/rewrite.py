"""Rewriting: rules on single nodes, and the driver that applies them to a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irc.errors import GraphError
from irc.graph import Graph
from irc.ops.core import Const
from irc.value import Value

Rule = Callable[[Value], Value | None]
"""Takes a node, gives what stands for it from now on (same type), or None to leave it."""

MAX_SWEEPS = 100


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Apply the rules bottom-up until nothing changes.

    A node sees its operands already rewritten. The result of a rule keeps the shape and dtype of
    what it replaces and, where it has no name of its own, its name. Raises `GraphError` where a
    rule changes a type or the sweeps don't come to rest.
    """
    for _ in range(MAX_SWEEPS):
        changed = sweep(graph, rules)
        if changed is graph:
            return graph
        graph = changed
    raise GraphError(f"rewriting {graph.name} does not come to rest: {[r.__name__ for r in rules]}")


def sweep(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """One pass over the graph; returns the same object where no rule applied."""
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for v in graph.order:
        if v not in new:
            new[v] = apply(v.map_operands(new.__getitem__), rules)
    outputs = tuple(new[v] for v in graph.outputs)
    if all(a is b for a, b in zip(outputs, graph.outputs, strict=True)):
        return graph
    return graph.with_outputs(outputs)


def apply(v: Value, rules: Sequence[Rule]) -> Value:
    """The first rule that matches, applied once; later sweeps see the rest."""
    for rule in rules:
        made = rule(v)
        if made is not None and made is not v:
            return _checked(v, made, rule)
    return v


def _checked(v: Value, made: Value, rule: Rule) -> Value:
    if (made.shape, made.type.dtype) != (v.shape, v.type.dtype):
        raise GraphError(
            f"rule {rule.__name__} turned {v.op} %{v.name} of {v.type}"
            f" into {made.op} of {made.type}"
        )
    nameless = not made.name and not isinstance(made, Const)
    return made.replace(name=v.name) if nameless and v.name else made


def replace_all(graph: Graph, f: Callable[[Value], Value]) -> Graph:
    """Rebuild the graph with `f` applied to each node (inputs aside) over its new operands; the
    types may change."""
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for v in graph.order:
        if v not in new:
            new[v] = f(v.map_operands(new.__getitem__))
    return graph.with_outputs(tuple(new[v] for v in graph.outputs))
