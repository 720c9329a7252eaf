"""The reference backend: every op's own `evaluate`, node by node. The oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irc.graph import Graph, evaluate
from irc.types import Array


@dataclass(frozen=True)
class Executable:
    """A graph that is evaluated in NumPy."""

    graph: Graph

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name; raises `DataError` for inputs that don't fit."""
        return evaluate(self.graph, inputs)

    def attempt(self, inputs: Mapping[str, Any]) -> None:
        """None: there is nothing to be gained."""


def compile(graph: Graph, target: str = "host", threads: int = 1) -> Executable:
    """Any graph; target and threads change nothing."""
    del target, threads
    return Executable(graph)
