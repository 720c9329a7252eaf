"""What is known of how a graph came to be: kept beside graphs, for manifests and reports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

from irc.graph import Graph
from irc.pipeline import Step


@dataclass(frozen=True)
class Source:
    """The model that a graph was imported from: its name, size in bytes and SHA-256."""

    name: str
    nbytes: int
    sha256: str

    @classmethod
    def of(cls, model: object) -> Source | None:
        """Which model it was; None for one that is only in memory as an object."""
        if isinstance(model, str | Path):
            path = Path(model)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(path.name, path.stat().st_size, digest)
        if isinstance(model, bytes):
            return cls("bytes", len(model), hashlib.sha256(model).hexdigest())
        return None


@dataclass(frozen=True)
class History:
    """Where a graph came from, every pass that was run on the way, what to be warned of, and what
    was chosen unasked."""

    source: Source | None = None
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_histories: WeakKeyDictionary[Graph, History] = WeakKeyDictionary()


def history_of(graph: Graph) -> History:
    """The history of a graph; empty for one that was built by hand."""
    return _histories.get(graph, History())


def chosen(graph: Graph, notes: Sequence[str]) -> None:
    """Note what a frontend, or the quantizer, chose unasked or found."""
    _histories[graph] = replace(history_of(graph), notes=tuple(notes))


def imported(graph: Graph, source: Source | None, step: Step) -> None:
    """Note where a graph was read from."""
    _histories[graph] = replace(history_of(graph), source=source, steps=(step,))


def derived(
    result: Graph, origin: Graph, steps: Sequence[Step], warnings: Sequence[str] = ()
) -> None:
    """Note that `result` was made of `origin`; steps that gave back the same graph leave no
    trace."""
    if result is origin:
        return
    known, own = history_of(origin), history_of(result)
    _histories[result] = replace(
        known,
        steps=(*known.steps, *steps),
        warnings=(*known.warnings, *warnings),
        notes=(*known.notes, *own.notes),
    )
