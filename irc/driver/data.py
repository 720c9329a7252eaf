"""Data of whatever form become feeds of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irc.graph import Graph
from irc.types import Array


def samples(graph: Graph, data: Any) -> Iterator[dict[str, Array]]:
    """Data, in any form that calibration takes, as one feed of the graph's inputs after another.

    Raises `DataError` for what does not fit the inputs.
    """
    from irc.passes.calibration.data import batches

    return batches(graph, data)


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz`; raises `DataError` where it can't be read."""
    from irc.passes.calibration.data import read_npz as read

    return read(path)
