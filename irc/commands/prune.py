"""`irc prune`: fewer channels, written as an ONNX model."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from irc import driver
from irc.commands.console import out, table, warn
from irc.commands.inputs import Pins, load_model, parse_pixels, read_data
from irc.compare import compare_outputs
from irc.graph import Graph
from irc.outputs import check_writable
from irc.summary import layers, widths


def prune_model(
    path: Path,
    output: Path,
    ratio: float,
    calibration: str | None,
    pins: Pins,
    pixels_text: str | None,
) -> None:
    """Write the pruned model, then print what each layer has lost."""
    pixels = parse_pixels(pixels_text)
    graph = load_model(path, pins, calibration)
    check_writable(output.parent)
    data = None if calibration is None else read_data(calibration, graph, pixels)
    pruned = driver.prune(graph, ratio, data)
    if data is None:
        warn("pruned by its weights alone: with --calibration DATA much less accuracy is lost")
    driver.to_onnx(pruned, output)
    before = driver.simplify(graph)
    out().print(width_table(before, pruned))
    if data is not None:
        for e in compare_outputs(before, pruned, driver.samples(graph, data)):
            out().print(f"output {e.name}: SQNR {e.sqnr:.1f} dB against the model before")
    out().print(f"wrote {output}")


def width_table(before: Graph, after: Graph) -> Table:
    """Channels of each layer before and after, and the totals of both graphs."""
    made = table(("layer", "left"), ("op", "left"), ("before", "right"), ("after", "right"))
    for w in widths(before, after):
        made.add_row(w.name, w.op, str(w.before), str(w.after))
    made.add_section()
    old, new = layers(before), layers(after)
    for what, a, b in (
        ("MACs", sum(r.macs for r in old), sum(r.macs for r in new)),
        ("parameters", sum(r.parameters for r in old), sum(r.parameters for r in new)),
    ):
        made.add_row("total", what, f"{a:,}", f"{b:,}")
    return made
