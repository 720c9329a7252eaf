"""Sequences of tensors: lists of known length at import, of which nothing is left in the graph."""

from __future__ import annotations

from dataclasses import dataclass

from irc.errors import ModelError
from irc.value import Value


@dataclass(frozen=True)
class Listed:
    """A sequence: the tensors in it."""

    parts: tuple[Value, ...]


Entry = Value | Listed
"""What a name of a model stands for."""


def tensor(entry: Entry, what: str) -> Value:
    """An entry that must be a tensor; raises `ModelError` for a sequence."""
    if isinstance(entry, Listed):
        raise ModelError(f"{what} is a sequence of {len(entry.parts)} tensors, not a tensor")
    return entry


def tensors(entries: tuple[Entry, ...], what: str) -> tuple[Value, ...]:
    """Entries that must all be tensors."""
    return tuple(tensor(e, what) for e in entries)
