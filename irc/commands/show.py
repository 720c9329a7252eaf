"""`irc show`: a model as text or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from irc import driver
from irc.commands.console import out, table
from irc.commands.inputs import Pins, load_model, read_data
from irc.errors import DataError, GraphError
from irc.graph import Graph
from irc.names import there_are
from irc.outputs import whole
from irc.summary import Layer, layers
from irc.text import write


def show_model(
    path: Path,
    after: str | None,
    summary: bool,
    output: Path | None,
    calibration: str | None,
    pins: Pins,
) -> None:
    """Print the model as imported, or as it is after a pass; or write it as IR text."""
    if summary and output is not None:
        raise DataError("--output writes IR text, --summary prints a table: ask for one of them")
    graph = load_model(path, pins)
    if after is not None:
        graph = _after(graph, after, calibration)
    if summary:
        out().print(summary_table(layers(graph)))
    else:
        print_or_write(graph, output)


def print_or_write(graph: Graph, output: Path | None) -> None:
    """A graph's text, printed; or written with the `.npz` of its long constants, so that it can
    be read again. Raises `IRCError` where that can't be."""
    if output is None:
        print(graph)
        return
    if output.suffix != ".irc":
        raise DataError(f"{output}: IR text goes to a file named *.irc, its constants to *.npz")
    with whole(output.parent) as folder:
        write(graph, folder / output.name)


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
        known = there_are(wanted, dict.fromkeys(names))
        raise GraphError(f"no pass {wanted!r} is run; {known}{cure}")
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
