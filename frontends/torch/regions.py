"""What a torch program's graph consists of: the nodes that count, the graphs inside of others, and
the operators that are not supported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from irc.errors import ModelError
from irc.frontends.torch.export_errors import NO_DATA
from irc.frontends.torch.higher_order import graphs, higher
from irc.frontends.torch.names import where
from irc.frontends.torch.ops import FILLED, HANDLERS, KEPT, OF_COMPLEX
from irc.frontends.torch.ops.table import DATA_SHAPED
from irc.frontends.torch.program import is_random, operator_name

READ = "aten._local_scalar_dense"
"""What `tensor.item()` becomes."""
REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "cond")
"""Operators that run graphs of their own: one under other settings of torch, or one of two."""


RANDOM = "random numbers"


@dataclass(frozen=True)
class Region:
    """A graph that an operator runs, and the arguments that it gives it."""

    graph: Any
    given: list[Any]

    def bound(self, arguments: list[Any]) -> dict[Any, Any]:
        """What the graph's placeholders stand for."""
        holders = [n for n in self.graph.graph.nodes if n.op == "placeholder"]
        return dict(zip(holders, arguments, strict=True))


def regions(fx: Any, node: Any) -> list[Region]:
    """The graphs that a call runs: none unless it is one of `REGIONS`."""
    if operator_name(node.target).rpartition(".")[2] not in REGIONS:
        return []
    at = [i for i, a in enumerate(node.args) if getattr(a, "op", "") == "get_attr"]
    rest = node.args[at[-1] + 1 :]
    given = list(rest[0] if len(at) > 1 else rest)
    return [Region(getattr(fx, node.args[i].target), given) for i in at]


def needed(graph: Any) -> list[Any]:
    """The nodes that the output needs, in order; assertions about sizes are not among them."""
    found: set[Any] = set()
    stack = [n for n in graph.nodes if n.op == "output"]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return [n for n in graph.nodes if n in found]


# ---------------------------------------------------------------- what is not supported


def supported(op: str) -> bool:
    """Whether an operator has a handler."""
    return op in HANDLERS or op in OF_COMPLEX


def check_supported(fx: Any, inputs: set[Any]) -> None:
    """Raise `ModelError` for every operator that is not supported, at once, with the modules that
    use it."""
    missing: dict[str, list[str]] = {}
    _find_missing(fx, inputs, missing)
    if not missing:
        return
    if (node := _shaped_by_data(fx)) is not None:
        raise ModelError(f"{where(node)}: {DATA_SHAPED}")
    listed = "; ".join(f"{op} ({_shortened(at)})" for op, at in sorted(missing.items()))
    raise ModelError(f"operators that are not supported: {listed}; {_cure(missing)}")


def _shaped_by_data(fx: Any) -> Any | None:
    """The first node whose result has a size that torch knows by a name alone, as data decide."""
    for node in needed(fx.graph):
        shape = getattr(node.meta.get("val"), "shape", ())
        if any(str(d).startswith("u") for d in shape):
            return node
    return None


def _cure(missing: Mapping[str, list[str]]) -> str:
    """What can be done, by the first of the causes that has a cure of its own."""
    if READ in missing:
        return f"numbers are read out of tensors: {NO_DATA}"
    if any(RANDOM in places for places in missing.values()):
        return "make random numbers an input, or leave them out of evaluation mode"
    if any("grouped_mm" in op for op in missing):
        return (
            "experts sort the tokens that data give them: have each token multiplied by its"
            " experts' weights, in transformers by model.set_experts_implementation('batched_mm')"
        )
    return "say them with others, or compute that part outside of the module"


def _shortened(places: list[str]) -> str:
    return f"{', '.join(dict.fromkeys(places[:3]))}{', …' if len(places) > 3 else ''}"


def _find_missing(fx: Any, dependent: set[Any], missing: dict[str, list[str]]) -> None:
    """Enter the unsupported operators of a graph that depend on its inputs, or on chance."""
    for node in needed(fx.graph):
        if node.op != "call_function":
            continue
        op = operator_name(node.target)
        if inner := _inner(fx, node, dependent):
            for graph, holders in inner:
                _find_missing(graph, holders, missing)
            dependent.add(node)
        elif is_random(node.target) and not supported(op):
            missing.setdefault(op, []).append(RANDOM)
        elif any(n in dependent for n in node.all_input_nodes) or op in KEPT:
            if op not in FILLED:
                dependent.add(node)
            if not supported(op) and not _plain(node.target):
                missing.setdefault(op, []).append(where(node).removeprefix(f"{op} in "))


def _inner(fx: Any, node: Any, dependent: Collection[Any]) -> list[tuple[Any, set[Any]]]:
    """The graphs that a call runs, and those of their placeholders that depend on inputs: all of
    them where they stand for what earlier turns left."""
    found = []
    for region in regions(fx, node):
        bound = region.bound(region.given)
        found.append((region.graph, {h for h, g in bound.items() if g in dependent}))
    for graph in graphs(fx, node) if higher(node) else ():
        found.append((graph, {n for n in graph.graph.nodes if n.op == "placeholder"}))
    return found


def _plain(target: Any) -> bool:
    """Whether a target is Python's: indexing, arithmetic of sizes."""
    return getattr(target, "_schema", None) is None or operator_name(target).startswith("aten.sym_")
