"""What a compiled library costs on this machine: latency, start, size, memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from irc import driver
from irc.commands.console import table
from irc.commands.rivals import Call, Turns, in_turns
from irc.model import Library
from irc.types import Array, TensorType

WARM, CALLS = 3, 5
"""Calls that are not timed, and calls of a round."""


@dataclass(frozen=True)
class Result:
    """What was measured: milliseconds, bytes."""

    model: str
    threads: int
    cores: tuple[int, ...]
    median: float
    lower: float
    upper: float
    best: float
    start: float
    """To load the library and run it once."""
    library_bytes: int
    workspace_bytes: int
    arena_bytes: int
    arena_bound: int
    compile_seconds: float | None = None
    """None where it was compiled before."""


@dataclass(frozen=True)
class Started:
    """A library in this process, and the milliseconds it took to load and run once."""

    library: Library
    feed: Mapping[str, Array]
    first: float

    @classmethod
    def of(cls, path: Path, feed: Mapping[str, Array] | None = None) -> Started:
        """Of a file, run on integers, any that it takes if none are given; raises `ToolError`."""
        start = time.perf_counter()
        library = driver.open_library(path)
        given = _any_integers(library.input_types) if feed is None else feed
        library.run(given)
        return cls(library, given, (time.perf_counter() - start) * 1e3)

    def call(self) -> object:
        """One run."""
        return self.library.run(self.feed)

    def timed(self, model: str, rounds: int, cores: tuple[int, ...]) -> Result:
        """What it costs by itself."""
        times = in_turns({"irc": self.call}, rounds, WARM, CALLS).times["irc"]
        lower, median, upper = (float(q) for q in np.percentile(times, (25, 50, 75)))
        said = self.library.manifest
        return Result(
            model, said["threads"], cores, median, lower, upper, min(times), self.first,
            self.library.path.stat().st_size, self.library.workspace_bytes,
            said["arena_bytes"], said["arena_least_bytes"],
        )  # fmt: skip

    def against(self, name: str, rival: Call, rounds: int) -> Turns:
        """What it costs in turns with another runtime."""
        return in_turns({"irc": self.call, name: rival}, rounds, WARM, CALLS)


def _any_integers(types: Mapping[str, TensorType]) -> dict[str, Array]:
    """Numbers that stand for reals are random; all others, perhaps places in a table, are zero."""
    rng = np.random.default_rng(0)
    return {name: _any(t, rng) for name, t in types.items()}


def _any(t: TensorType, rng: np.random.Generator) -> Array:
    if t.quant is None:
        return np.zeros(t.shape, t.dtype.numpy)
    return rng.integers(t.dtype.min, t.dtype.max, t.shape, t.dtype.numpy, endpoint=True)


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


def result_table(r: Result) -> Table:
    """One row per figure."""
    made = table((r.model, "left"), ("", "right"))
    cores = f" on cores {', '.join(map(str, r.cores))}" if r.cores else ""
    ratio = r.arena_bytes / r.arena_bound if r.arena_bound else 1.0
    compiled = "" if r.compile_seconds is None else f"{r.compile_seconds:.1f} s"
    for label, value in (
        ("threads", f"{r.threads}{cores}"),
        ("latency, median", f"{r.median:.3f} ms"),
        ("latency, quartiles", f"{r.lower:.3f} to {r.upper:.3f} ms"),
        ("latency, best", f"{r.best:.3f} ms"),
        ("load and first run", f"{r.start:.1f} ms"),
        ("compile, save, link", compiled),
        ("library", f"{r.library_bytes:,} bytes"),
        ("workspace", f"{r.workspace_bytes:,} bytes"),
        ("arena / least possible", f"{r.arena_bytes:,} / {r.arena_bound:,} bytes, {ratio:.2f}"),
    ):
        if value:
            made.add_row(label, value)
    return made
