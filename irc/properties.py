"""The four named properties of a graph (architecture.md), and the checks behind them."""

from __future__ import annotations

from collections.abc import Callable

from irc.errors import GraphError
from irc.graph import Graph
from irc.ops.core import Const, Input, Kernel
from irc.value import Value

EDGES = ("quantize", "dequantize")


def is_float(graph: Graph) -> bool:
    """No quantize, no dequantize, no kernel: a model as it was trained."""
    return all(v.op not in EDGES and v.op != "kernel" for v in graph.order)


def is_qdq(graph: Graph) -> bool:
    """Float with explicit quantize/dequantize pairs."""
    return any(v.op in EDGES for v in graph.order)


def is_integer(graph: Graph) -> bool:
    """No float type anywhere inside, bodies included."""
    return first_float(graph) is None


def is_scheduled(graph: Graph) -> bool:
    """Integer, all work in fused kernels, with a memory plan."""
    return is_integer(graph) and graph.plan is not None and all(
        isinstance(v, Kernel | Input | Const) or v.moves for v in graph.order
    )


def first_float(graph: Graph) -> Value | None:
    """The first node whose result is a float, bodies included; None in an integer graph."""
    for v in graph.order:
        if v.type.dtype.is_float:
            return v
        if isinstance(v, Kernel) and (inner := first_float(v.body)) is not None:
            return inner
    return None


PROPERTIES: dict[str, Callable[[Graph], bool]] = {
    "float": is_float,
    "qdq": is_qdq,
    "integer": is_integer,
    "scheduled": is_scheduled,
}


def require(graph: Graph, names: tuple[str, ...], who: str) -> None:
    """Raise `GraphError` unless the graph has every named property."""
    for name in names:
        if not PROPERTIES[name](graph):
            raise GraphError(f"{who}: graph {graph.name} is not {name}{_why_not(graph, name)}")


def _why_not(graph: Graph, name: str) -> str:
    v = first_float(graph) if name in ("integer", "scheduled") else None
    return "" if v is None else f": {v.op} %{v.name} is {v.type}"
