"""`irc bench`: what a model costs on this machine, by itself or beside other runtimes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from irc import driver
from irc.commands.console import out, table, write_json
from irc.commands.inputs import Pins, load_model, need_calibration, read_data
from irc.commands.rivals import (
    Call,
    Turns,
    by_bench,
    check_rivals,
    in_turns,
    onnxruntime_call,
)
from irc.edge import to_integers
from irc.graph import Graph
from irc.outputs import check_writable
from irc.properties import is_float
from irc.types import Array

WARM, CALLS = 3, 5
"""Calls that are not timed, and calls of a round."""


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


@dataclass(frozen=True)
class Result:
    """What was measured: milliseconds, bytes, seconds."""

    model: str
    threads: int
    cores: tuple[int, ...]
    median: float
    lower: float
    upper: float
    best: float
    start: float
    """To load the library and run it once."""
    compile_seconds: float
    library_bytes: int
    workspace_bytes: int
    arena_bytes: int
    arena_bound: int


def bench_model(request: Request) -> None:
    """Measure, and print tables; raises `IRCError`."""
    graph = load_model(request.model, request.pins)
    driver.check_here(request.target)
    if request.json_file is not None:
        check_writable(request.json_file.parent)
    with pinned(request.threads) as cores:
        content = _measured(request, graph, cores)
    if request.json_file is not None:
        write_json(request.json_file, content)


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
    result, turns = measure(request, scheduled, inputs, cores, rival)
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


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Bind this process to its last cores, as many as threads, and give these; none where the
    system has no such call or there are too few."""
    before = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(before) < threads:
        yield ()
        return
    os.sched_setaffinity(0, before[-threads:])
    try:
        yield tuple(before[-threads:])
    finally:
        os.sched_setaffinity(0, before)


def _prepared(request: Request, graph: Graph) -> tuple[Graph, dict[str, Array]]:
    """The quantized graph and one sample: of the calibration data, else noise."""
    if not is_float(graph) and request.calibration is None:
        return graph, next(driver.samples(graph, "random:1"))
    data = read_data(need_calibration(request.calibration), graph, None)
    missing = is_float(graph) or driver.unquantized(graph)
    quantized = driver.quantize(graph, data) if missing else graph
    return quantized, next(iter(driver.samples(graph, data)))


def _by_bench(request: Request, graph: Graph) -> tuple[str, dict[str, Any]]:
    data = read_data(need_calibration(request.calibration), graph, None)
    return by_bench(
        request.model, graph, data, request.against, request.threads, request.rounds
    )


def measure(
    request: Request, graph: Graph, inputs: dict[str, Array], cores: tuple[int, ...],
    rival: Call | None = None,
) -> tuple[Result, Turns | None]:  # fmt: skip
    """Compile a scheduled graph to a library, load it, time it; in turns with a rival too."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = driver.compile(graph, target=request.target, threads=request.threads)
        model.save(Path(folder), "net", emit=("so",))
        compiled = time.perf_counter() - start
        size = (Path(folder) / "libnet.so").stat().st_size
        start = time.perf_counter()
        library = driver.open_library(Path(folder) / "libnet.so")
        library.run(inputs)
        first = time.perf_counter() - start
        ours: dict[str, Call] = {"irc": lambda: library.run(inputs)}
        times = in_turns(ours, request.rounds, WARM, CALLS).times["irc"]
        turns = None
        if rival is not None:
            both = {**ours, "onnxruntime, as it is": rival}
            turns = in_turns(both, request.rounds, WARM, CALLS)
    lower, median, upper = (float(q) for q in np.percentile(times, (25, 50, 75)))
    arena, bound = driver.arena_bounds(graph)
    result = Result(
        request.model.stem, request.threads, cores, median, lower, upper, min(times), first * 1e3,
        compiled, size, library.workspace_bytes, arena, bound,
    )  # fmt: skip
    return result, turns


def result_table(r: Result) -> Table:
    """One row per figure."""
    made = table((r.model, "left"), ("", "right"))
    cores = f" on cores {', '.join(map(str, r.cores))}" if r.cores else ""
    ratio = r.arena_bytes / r.arena_bound if r.arena_bound else 1.0
    for label, value in (
        ("threads", f"{r.threads}{cores}"),
        ("latency, median", f"{r.median:.3f} ms"),
        ("latency, quartiles", f"{r.lower:.3f} to {r.upper:.3f} ms"),
        ("latency, best", f"{r.best:.3f} ms"),
        ("load and first run", f"{r.start:.1f} ms"),
        ("compile, save, link", f"{r.compile_seconds:.1f} s"),
        ("library", f"{r.library_bytes:,} bytes"),
        ("workspace", f"{r.workspace_bytes:,} bytes"),
        ("arena / least possible", f"{r.arena_bytes:,} / {r.arena_bound:,} bytes, {ratio:.2f}"),
    ):
        made.add_row(label, value)
    return made


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
