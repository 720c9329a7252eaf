"""`irc show`: a model as text or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from irc import driver
from irc.commands.console import out, table
from irc.commands.inputs import Pins, load_model, read_data
from irc.errors import GraphError
from irc.graph import Graph
from irc.summary import Layer, layers


def show_model(
    path: Path, after: str | None, summary: bool, calibration: str | None, pins: Pins
) -> None:
    """Print the model as imported, or as it is after a pass."""
    graph = load_model(path, pins)
    if after is not None:
        graph = _after(graph, after, calibration)
    if summary:
        out().print(summary_table(layers(graph)))
    else:
        print(graph)


def _after(graph: Graph, wanted: str, calibration: str | None) -> Graph:
    """The graph behind the last run of a pass (some run twice)."""
    data = None if calibration is None else read_data(calibration, graph, None)
    found: Graph | None = None
    names: list[str] = []
    for name, each in driver.stages(graph, data):
        names.append(name)
        if name == wanted:
            found = each
    if found is None:
        cure = "" if data is not None else "; with --calibration DATA more are run"
        listed = ", ".join(dict.fromkeys(names))
        raise GraphError(f"no pass {wanted!r} is run; there are {listed}{cure}")
    return found


def summary_table(rows: Sequence[Layer]) -> Table:
    """The layers and their totals."""
    made = table(
        ("layer", "left"), ("op", "left"), ("shape", "left"), ("MACs", "right"),
        ("parameters", "right"), ("bytes", "right"),
    )  # fmt: skip
    for row in rows:
        made.add_row(
            row.name, row.op, f"{row.type.dtype.value}{list(row.type.shape)}", f"{row.macs:,}",
            f"{row.parameters:,}", f"{row.nbytes:,}",
        )  # fmt: skip
    made.add_section()
    macs, parameters = sum(r.macs for r in rows), sum(r.parameters for r in rows)
    nbytes = sum(r.nbytes for r in rows)
    made.add_row("total", f"{len(rows)} layers", "", f"{macs:,}", f"{parameters:,}", f"{nbytes:,}")
    return made
