"""Compare runners on a model in one interleaved, pinned run."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from bench.images import Floats
from bench.isa import NATIVE, Level
from bench.macs import count_macs
from bench.models import Model
from bench.ours import Irc
from bench.peers import peers
from bench.runners import Runner, Task
from bench.shapes import pin_shapes
from bench.standalone import generators
from bench.timing import Summary, Timings, interleaved, ratio
from bench.worker import Worker, WorkerError

OURS = "irc"


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
    facts: Mapping[str, float] = field(default_factory=dict)  # what irc's build tells besides


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
    every = (*peers(level), *generators(level))
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


def start_all(
    runners: Iterable[Runner], task: Task, folder: Path, feed: dict[str, Floats], stack: ExitStack
) -> tuple[list[Worker], dict[str, str]]:
    """Start every runner that can be; return them, and the reasons of the others by name.

    One runner's failure is a result, not the end of the run. The workers end with `stack`.
    """
    workers: list[Worker] = []
    skipped: dict[str, str] = {}
    for runner in runners:
        if reason := runner.missing():
            skipped[runner.name] = reason
            continue
        try:
            worker = Worker(runner, task, folder / runner.name, feed)
        except WorkerError as error:
            skipped[runner.name] = f"failed: {error}"[:400]
        else:
            workers.append(stack.enter_context(worker))
    return workers, skipped


def time_all(workers: Sequence[Worker], rounds: int) -> tuple[dict[str, Timings], dict[str, str]]:
    """Time the workers, interleaved; without those that fail meanwhile, whose reasons come second.

    A failure starts the rounds anew, so that all that are left were timed together.
    """
    failed: dict[str, str] = {}
    while left := [each for each in workers if each.name not in failed]:
        try:
            return interleaved({each.name: each.turn for each in left}, rounds=rounds), failed
        except WorkerError as error:
            failed[error.name] = f"failed: {error}"[:400]
    return {}, failed


def fastest_peer(timings: dict[str, Timings]) -> str:
    """Return the name of the peer with the least median, or irc's where it ran alone."""
    rivals = {name: each for name, each in timings.items() if name != OURS} or timings
    return min(rivals, key=lambda name: rivals[name].summary().median)


def make_rows(workers: Sequence[Worker], timings: dict[str, Timings], macs: int) -> tuple[Row, ...]:
    """Return one row per worker that was timed, with ratios to the fastest peer."""
    baseline = timings[fastest_peer(timings)]
    rows = []
    for worker in (each for each in workers if each.name in timings):
        mine = timings[worker.name]
        latency = mine.summary()
        rows.append(
            Row(
                worker.name,
                latency,
                ratio(mine, baseline),
                macs / latency.median / 1e6,
                **vars(worker.prepared),
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

    Raises ValueError if no runner could be timed.
    """
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        task, macs = make_task(model, folder, threads=threads, samples=calibration)
        feed = task.feeds(model.evaluation(1))[0]
        workers, skipped = start_all(runners, task, folder, feed, stack)
        timings, failed = time_all(workers, rounds)
        if not timings:
            raise ValueError(f"{model.name}: nothing could run: {skipped | failed}")
    return Comparison(
        model.name,
        model.trained,
        model.shape,
        macs,
        threads,
        cores,
        rounds,
        fastest_peer(timings),
        make_rows(workers, timings, macs),
        skipped | failed,
    )
