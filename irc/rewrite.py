"""Rewriting: rules on single nodes, and the driver that applies them to a graph."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence

from irc.errors import GraphError
from irc.graph import Graph
from irc.ops.core import Const
from irc.value import Value, differs

Rule = Callable[[Value], Value | None]
"""Takes a node, gives what stands for it from now on (same type), or None to leave it."""

MAX_SWEEPS = 100


class Uses:
    """How often the nodes of a graph under rewriting are read, counted as the sweep began.

    Nodes made during the sweep take over the count of what they replace; those inside of a
    rule's result count as shared until the next sweep.
    """

    def __init__(self, graph: Graph) -> None:
        self._counts: Counter[Value] = Counter(graph.outputs)
        for v in graph.order:
            self._counts.update(v.operands)

    def carry(self, old: Value, new: Value) -> None:
        """`new` stands for `old` from now on, and is read wherever `old` was."""
        if new is not old:
            self._counts[new] += self._counts[old]

    def single(self, v: Value) -> bool:
        """Whether exactly one operand or output of the graph is `v`."""
        return self._counts[v] == 1


UseRule = Callable[[Value, Uses], Value | None]
"""A rule that asks who else reads a node: one that would otherwise do work twice."""


def rewrite(graph: Graph, rules: Sequence[Rule], use_rules: Sequence[UseRule] = ()) -> Graph:
    """Apply the rules bottom-up until nothing changes; on each node `rules` come first.

    A node sees its operands already rewritten. The result of a rule keeps the shape and dtype of
    what it replaces and, where it has no name of its own, its name. Raises `GraphError` where a
    rule changes a type or the sweeps don't come to rest.
    """
    for _ in range(MAX_SWEEPS):
        changed = sweep(graph, rules, use_rules)
        if changed is graph:
            return graph
        graph = changed
    names = [*map(_name, rules), *map(_name, use_rules)]
    raise GraphError(f"rewriting {graph.name} does not come to rest: {names}")


def sweep(graph: Graph, rules: Sequence[Rule], use_rules: Sequence[UseRule] = ()) -> Graph:
    """One pass over the graph; returns the same object where no rule applied."""
    uses = Uses(graph)
    bound = [*rules, *(_bind(rule, uses) for rule in use_rules)]
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for v in graph.order:
        if v not in new:
            rebuilt = v.map_operands(new.__getitem__)
            uses.carry(v, rebuilt)
            new[v] = apply(rebuilt, bound)
            uses.carry(rebuilt, new[v])
    outputs = tuple(new[v] for v in graph.outputs)
    return graph.with_outputs(outputs) if differs(outputs, graph.outputs) else graph


def _bind(rule: UseRule, uses: Uses) -> Rule:
    @functools.wraps(rule)
    def bound(v: Value) -> Value | None:
        return rule(v, uses)

    return bound


def apply(v: Value, rules: Sequence[Rule]) -> Value:
    """The first rule that matches, applied once; later sweeps see the rest."""
    for rule in rules:
        made = rule(v)
        if made is not None and made is not v:
            return _checked(v, made, rule)
    return v


def _name(rule: Rule | UseRule) -> str:
    return getattr(rule, "__name__", repr(rule))


def _checked(v: Value, made: Value, rule: Rule) -> Value:
    if (made.shape, made.type.dtype) != (v.shape, v.type.dtype):
        raise GraphError(
            f"rule {_name(rule)} turned {v.op} %{v.name} of {v.type}"
            f" into {made.op} of {made.type}"
        )
    nameless = not made.name and not isinstance(made, Const)
    return made.replace(name=v.name) if nameless and v.name else made


def rebuild(graph: Graph, f: Callable[[Value, Value], Value]) -> Graph:
    """The graph with `f(v, made)` in the place of each node v but the inputs, where `made` is v
    over what stands for its operands; types may change. The same object where nothing did."""
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for v in graph.order:
        if v not in new:
            new[v] = f(v, v.map_operands(new.__getitem__))
    outputs = tuple(new[v] for v in graph.outputs)
    return graph.with_outputs(outputs) if differs(outputs, graph.outputs) else graph
