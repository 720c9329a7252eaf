"""Other runtimes on the same model: `python -m bench` where it takes the model, which lets every
peer quantize it; else onnxruntime on the file as it is, turn by turn with the library."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import irc
from irc import driver
from irc.commands.console import table
from irc.commands.inputs import parse_values
from irc.errors import DataError, ToolError
from irc.graph import Graph
from irc.properties import is_float
from irc.types import Array

KINDS = {"float": "float32", "double": "float64"}
"""Element types as onnxruntime names them, where NumPy has another name."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Turns:
    """Milliseconds of each runtime's calls, made in turns."""

    times: Mapping[str, Sequence[float]]

    def as_json(self) -> dict[str, Any]:
        """Medians and bests."""
        return {n: {"median": float(np.median(t)), "best": min(t)} for n, t in self.times.items()}

    def table(self) -> Table:
        """One row a runtime; the last column says how often the first goes into its time."""
        made = table(("interleaved", "left"), ("median ms", "right"), ("best ms", "right"),
                     ("ratio", "right"))  # fmt: skip
        first = float(np.median(next(iter(self.times.values()))))
        for name, times in self.times.items():
            middle = float(np.median(times))
            made.add_row(name, f"{middle:.3f}", f"{min(times):.3f}", f"{middle / first:.2f}")
        return made


def in_turns(calls: Mapping[str, Call], rounds: int, warm: int, count: int) -> Turns:
    """Time `count` calls of each, `rounds` times in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(warm):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(count):
                start = time.perf_counter_ns()
                call()
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return Turns(times)


def source_tree() -> Path | None:
    """The folder that bench/ lies in: where irc is installed from, or the working folder."""
    for folder in (Path(irc.__file__).parents[1], Path.cwd()):
        if (folder / "bench" / "__main__.py").is_file() and (folder / "irc").is_dir():
            return folder
    return None


def check_rivals(against: Sequence[str], target: str, graph: Graph) -> bool:
    """Whether `python -m bench` compares; raises `IRCError` where nothing can."""
    if target != "host":
        raise DataError("--against measures this CPU as it is; `python -m bench --isa` limits all")
    real = [t.dtype.is_float for t in graph.input_types.values()]
    quantizable = is_float(graph) and real == [True]
    if quantizable and source_tree() is not None:
        return True
    if tuple(against) == ("onnxruntime",):
        return False
    if not quantizable:
        raise DataError(
            "peers quantize float models of one input; any other is compared as it is:"
            " --against onnxruntime"
        )
    raise ToolError(
        f"--against {','.join(against)} needs bench/, the measurements of irc's source tree, which"
        " is not installed with it: install irc from that tree, `pip install -e .[bench]`;"
        " --against onnxruntime runs the model as it is"
    )


def onnxruntime_call(
    path: Path, feed: Mapping[str, Array], pins: Sequence[str], threads: int
) -> Call:
    """One run of a model's file by onnxruntime; raises `ToolError` where it can't be had."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ToolError("--against onnxruntime needs it: pip install onnxruntime") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = {**feed, **parse_values(pins)}
        arrays = {i.name: _typed(given[i.name], i) for i in session.get_inputs()}
        session.run(None, arrays)
    except Exception as error:  # its own classes, which have no public base
        raise ToolError(f"onnxruntime can't run {path.name}: {str(error).strip()}") from None
    return lambda: session.run(None, arrays)


def _typed(array: Array, argument: Any) -> Array:
    kind = str(argument.type).removeprefix("tensor(").removesuffix(")")
    return np.asarray(array, KINDS.get(kind, kind)).reshape(
        array.shape if argument.shape else ()
    )


def by_bench(
    model: Path, graph: Graph, data: Any, against: Sequence[str], threads: int, rounds: int
) -> tuple[str, dict[str, Any]]:
    """The tables of an interleaved comparison, and its content: `python -m bench` makes it, in a
    process of its own."""
    samples = _samples(graph, data)
    with tempfile.TemporaryDirectory() as name:
        file, results = Path(name) / "samples.npz", Path(name) / "results.json"
        arrays: dict[str, Any] = {graph.inputs[0].name: samples}
        np.savez(file, **arrays)
        command = [
            sys.executable, "-m", "bench", str(model.resolve()), "--samples", str(file),
            "--against", ",".join(against), "--threads", str(threads),
            "--rounds", str(rounds), "--calibration", str(len(samples)), "--json", str(results),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=source_tree()
        )
        if done.returncode:
            why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ToolError(f"--against {','.join(against)}: {why[-1]}")
        content: dict[str, Any] = json.loads(results.read_text())
    return done.stdout, content


def _samples(graph: Graph, data: Any) -> Array:
    """Calibration samples on the first axis, without the batch axis of 1."""
    feeds = islice(driver.samples(graph, data), 64)
    (name,) = graph.input_types
    return np.stack([np.asarray(feed[name], np.float32)[0] for feed in feeds])
