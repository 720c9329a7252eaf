"""Compare runners on a model in one interleaved, pinned run."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from bench.isa import NATIVE, Level
from bench.macs import count_macs
from bench.models import Model
from bench.ours import Irc
from bench.peers import peers
from bench.runners import Runner, Task
from bench.shapes import pin_shapes
from bench.timing import Summary, Timings, interleaved, ratio

OURS = "irc"


@dataclass(frozen=True)
class Prepared:
    """A runner that is loaded, and what it took to get there."""

    runner: Runner
    build_seconds: float
    artefact_bytes: int
    start_ms: float  # load and first inference


@dataclass(frozen=True)
class Row:
    """One runner on one model: times in ms, ratios to the fastest peer (below 1: faster)."""

    runner: str
    latency: Summary
    ratio: Summary
    gmacs: float  # billions of multiply-accumulates a second, by the float model's count
    build_seconds: float
    artefact_bytes: int
    start_ms: float


@dataclass(frozen=True)
class Comparison:
    """One model's results: rows in running order, and the runners left out with their reasons."""

    model: str
    trained: bool
    shape: tuple[int, ...]
    macs: int
    threads: int
    cores: tuple[int, ...]
    rounds: int
    fastest_peer: str
    rows: tuple[Row, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for json.dump."""
        return asdict(self)


def select(names: Sequence[str], level: Level = NATIVE) -> list[Runner]:
    """Return irc and the peers whose name, or the part before its dash, is in `names`.

    Raises ValueError for a name that fits no peer.
    """
    every = peers(level)
    known = {name for peer in every for name in (peer.name, peer.name.partition("-")[0])}
    if unknown := [name for name in names if name not in known and name != OURS]:
        raise ValueError(f"no peer is called {unknown[0]}; there are {', '.join(sorted(known))}")
    chosen = [p for p in every if p.name in names or p.name.partition("-")[0] in names]
    return [Irc(target=level.target), *chosen]


def make_task(model: Model, folder: Path, *, threads: int, samples: int = 16) -> tuple[Task, int]:
    """Write the model with pinned shapes into `folder`; return its task and its MACs."""
    proto = onnx.load(model.obtain())
    pin_shapes(proto, {model.input: model.shape})
    path = folder / "model.onnx"
    onnx.save(proto, path)
    task = Task(
        model.name, path, model.input, model.shape, model.calibration(samples), threads=threads
    )
    return task, count_macs(proto)


def prepare(runner: Runner, task: Task, folder: Path) -> Prepared:
    """Build, load and run once, each step timed."""
    folder.mkdir(parents=True)
    start = time.perf_counter()
    files = runner.build(task, folder)
    built = time.perf_counter()
    runner.load(task, files)
    runner.run(task.feeds(task.calibration[:1])[0])
    started = time.perf_counter()
    size = sum(file.stat().st_size for file in files)
    return Prepared(runner, built - start, size, (started - built) * 1e3)


def prepare_all(
    runners: Iterable[Runner], task: Task, folder: Path
) -> tuple[list[Prepared], dict[str, str]]:
    """Prepare every runner that can be; return them, and the reasons of the others by name."""
    ready: list[Prepared] = []
    skipped: dict[str, str] = {}
    for runner in runners:
        if reason := runner.missing():
            skipped[runner.name] = reason
            continue
        try:
            ready.append(prepare(runner, task, folder / runner.name))
        except Exception as error:  # a peer's failure is a result, not the end of the run
            skipped[runner.name] = f"failed: {type(error).__name__}: {error}"[:400]
    return ready, skipped


def fastest_peer(timings: dict[str, Timings]) -> str:
    """Return the name of the peer with the least median, or irc's where it ran alone."""
    rivals = {name: each for name, each in timings.items() if name != OURS} or timings
    return min(rivals, key=lambda name: rivals[name].summary().median)


def make_rows(ready: Sequence[Prepared], timings: dict[str, Timings], macs: int) -> tuple[Row, ...]:
    """Return one row per prepared runner, with ratios to the fastest peer."""
    baseline = timings[fastest_peer(timings)]
    rows = []
    for each in ready:
        mine = timings[each.runner.name]
        latency = mine.summary()
        rows.append(
            Row(
                each.runner.name,
                latency,
                ratio(mine, baseline),
                macs / latency.median / 1e6,
                each.build_seconds,
                each.artefact_bytes,
                each.start_ms,
            )
        )
    return tuple(rows)


def compare(
    model: Model,
    runners: Sequence[Runner],
    *,
    threads: int = 1,
    rounds: int = 10,
    calibration: int = 16,
    cores: tuple[int, ...] = (),
) -> Comparison:
    """Time the runners on a model, interleaved. `cores` only records what the process is pinned to.

    Raises ValueError if no runner could be prepared.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        task, macs = make_task(model, folder, threads=threads, samples=calibration)
        ready, skipped = prepare_all(runners, task, folder)
        if not ready:
            raise ValueError(f"{model.name}: nothing could run: {skipped}")
        feed = task.feeds(model.evaluation(1))[0]
        calls = {each.runner.name: _caller(each.runner, feed) for each in ready}
        timings = interleaved(calls, rounds=rounds)
    return Comparison(
        model.name,
        model.trained,
        model.shape,
        macs,
        threads,
        cores,
        rounds,
        fastest_peer(timings),
        make_rows(ready, timings, macs),
        skipped,
    )


def _caller(runner: Runner, feed: dict[str, Any]) -> Callable[[], object]:
    return lambda: runner.run(feed)
