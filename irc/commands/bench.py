"""`irc bench`: what a model or a library costs here, by itself or beside other runtimes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from irc import driver
from irc.commands.console import out, table, write_json
from irc.commands.inputs import Pins, load_model, need_calibration, read_data
from irc.commands.latency import CALLS, Result, Started, pinned, result_table
from irc.commands.rivals import Call, Turns, by_bench, check_rivals, onnxruntime_call
from irc.edge import to_integers
from irc.errors import ToolError
from irc.graph import Graph
from irc.outputs import check_writable
from irc.properties import is_float
from irc.types import Array

LIBRARIES = (".so", ".dylib", ".dll")
"""How the names of shared libraries end."""


@dataclass(frozen=True)
class Request:
    """The arguments of `irc bench`."""

    model: Path
    calibration: str | None
    pins: Pins
    target: str
    threads: int
    rounds: int
    layers: bool
    against: tuple[str, ...]
    json_file: Path | None

    @property
    def is_library(self) -> bool:
        """Whether there is nothing to compile any more."""
        return self.model.suffix in LIBRARIES

    def check_library(self) -> None:
        """Raise `ToolError` for what can't be asked of a library."""
        asked = {
            "--calibration": self.calibration, "--against": self.against, "--layers": self.layers,
            "--shape": self.pins.shapes, "--value": self.pins.values, "--state": self.pins.states,
            "--target": self.target != "host", "--threads": self.threads != 1,
        }  # fmt: skip
        if vain := [option for option, given in asked.items() if given]:
            raise ToolError(
                f"{self.model} is compiled already: {', '.join(vain)} would change nothing;"
                " give the model to irc bench instead"
            )


def bench_model(request: Request) -> None:
    """Measure, and print tables; raises `IRCError`."""
    if request.json_file is not None:
        check_writable(request.json_file.parent)
    content = _library(request) if request.is_library else _model(request)
    if request.json_file is not None:
        write_json(request.json_file, content)


def _library(request: Request) -> dict[str, Any]:
    """What a library costs that was compiled before, printed; and its content."""
    request.check_library()
    with pinned(driver.open_library(request.model).manifest["threads"]) as cores:
        result = Started.of(request.model).timed(request.model.name, request.rounds, cores)
    out().print(result_table(result))
    return {"result": asdict(result)}


def _model(request: Request) -> dict[str, Any]:
    """What a model costs, printed; and its content."""
    graph = load_model(request.model, request.pins, request.calibration)
    driver.check_here(request.target)
    with pinned(request.threads) as cores:
        return _measured(request, graph, cores)


def _measured(request: Request, graph: Graph, cores: tuple[int, ...]) -> dict[str, Any]:
    """All that is asked for, printed; and its content."""
    apart = bool(request.against) and check_rivals(request.against, request.target, graph)
    rivals = _by_bench(request, graph) if apart else None
    quantized, feed = _prepared(request, graph)
    scheduled = driver.schedule(driver.integerize(quantized))
    inputs, _ = to_integers(scheduled.input_types, feed)
    rival = None
    if request.against and not apart:
        rival = onnxruntime_call(request.model, feed, request.pins.values, request.threads)
    result, turns = _compiled(request, scheduled, inputs, cores, rival)
    out().print(result_table(result))
    content: dict[str, Any] = {"result": asdict(result)}
    if turns is not None:
        out().print(turns.table())
        content["comparison"] = turns.as_json()
    if request.layers:
        rounds = request.rounds * CALLS
        layers = driver.profile(scheduled, inputs, rounds, request.target, request.threads)
        out().print(layer_table(layers))
        content["layers"] = [asdict(layer) for layer in layers]
    if rivals is not None:
        out().print(rivals[0], markup=False, highlight=False)
        content["comparison"] = rivals[1]
    return content


def _prepared(request: Request, graph: Graph) -> tuple[Graph, dict[str, Array]]:
    """The quantized graph and one sample: of the calibration data, else noise."""
    if not is_float(graph) and request.calibration is None:
        return graph, next(driver.samples(graph, "random:1"))
    data = read_data(need_calibration(request.calibration), graph, None)
    missing = is_float(graph) or driver.unquantized(graph)
    quantized = driver.quantize(graph, data) if missing else graph
    return quantized, next(iter(driver.samples(quantized, data)))


def _by_bench(request: Request, graph: Graph) -> tuple[str, dict[str, Any]]:
    data = read_data(need_calibration(request.calibration), graph, None)
    return by_bench(
        request.model, graph, data, request.against, request.threads, request.rounds
    )


def _compiled(
    request: Request, graph: Graph, inputs: dict[str, Array], cores: tuple[int, ...],
    rival: Call | None = None,
) -> tuple[Result, Turns | None]:  # fmt: skip
    """Compile a scheduled graph to a library, load it, time it; in turns with a rival too."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = driver.compile(graph, target=request.target, threads=request.threads)
        model.save(Path(folder), "net", emit=("so",))
        seconds = time.perf_counter() - start
        started = Started.of(Path(folder) / "libnet.so", inputs)
        result = started.timed(request.model.stem, request.rounds, cores)
        turns = None
        if rival is not None:
            turns = started.against("onnxruntime, as it is", rival, request.rounds)
    return replace(result, compile_seconds=seconds), turns


def layer_table(layers: Sequence[Any]) -> Table:
    """The kernels in the order in which they run."""
    made = table(
        ("layer", "left"), ("kernel", "left"), ("us", "right"), ("%", "right"), ("MMAC", "right"),
        ("GMAC/s", "right"),
    )  # fmt: skip
    total = sum(layer.milliseconds for layer in layers) or 1.0
    for layer in layers:
        rate = f"{layer.gmacs:.1f}" if layer.macs else ""
        share = 100 * layer.milliseconds / total
        made.add_row(
            layer.layer, layer.kernel, f"{layer.milliseconds * 1e3:.1f}", f"{share:.1f}",
            f"{layer.macs / 1e6:.2f}" if layer.macs else "", rate,
        )  # fmt: skip
    return made
