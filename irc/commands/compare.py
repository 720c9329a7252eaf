"""`irc compare`: float against integer, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from irc import driver
from irc.commands.console import out, table, warn, write_json
from irc.commands.inputs import Pins, load_model, need_calibration, parse_pixels, read_data
from irc.compare import LayerError, explanation, worst_first
from irc.errors import GraphError
from irc.history import history_of
from irc.outputs import check_writable
from irc.properties import is_float


def compare_model(
    path: Path,
    calibration: str | None,
    data: str | None,
    pins: Pins,
    pixels_text: str | None,
    json_file: Path | None = None,
) -> None:
    """Print every layer's SQNR, the worst first, or write them too."""
    pixels = parse_pixels(pixels_text)
    if json_file is not None:
        check_writable(json_file.parent)
    graph = driver.as_float(load_model(path, pins, calibration))
    if not is_float(graph):
        raise GraphError(f"{path} is quantized already: there is no float model to compare with")
    chosen = read_data(need_calibration(calibration), graph, pixels)
    measured = chosen if data is None else read_data(data, graph, pixels)
    quantized = driver.quantize(graph, chosen)
    for message in history_of(quantized).warnings:
        warn(message)
    found = driver.compare(graph, quantized, measured, None)
    errors = worst_first(found)
    if json_file is not None:
        write_json(json_file, {"model": str(path), "layers": [e.as_json() for e in errors]})
    out().print(error_table(errors))
    if why := explanation(found):
        out().print(why)


def error_table(errors: Sequence[LayerError]) -> Table:
    """The layers in the order given."""
    made = table(
        ("layer", "left"), ("op", "left"), ("shape", "left"), ("SQNR dB", "right"),
        ("alone dB", "right"), ("largest error", "right"), ("largest value", "right"),
    )  # fmt: skip
    for e in errors:
        made.add_row(
            e.name, e.op, str(list(e.type.shape)), f"{e.sqnr:.1f}", f"{e.alone:.1f}",
            f"{e.error:.4g}", f"{e.magnitude:.4g}",
        )  # fmt: skip
    return made
