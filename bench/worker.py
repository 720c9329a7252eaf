"""A runner in a process of its own, so that one runtime can neither crash nor disturb another.

The process inherits this one's cores and environment, and sleeps whenever it is not its turn.
"""

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.images import Floats
from bench.runners import Runner, Task
from bench.timing import timed_turn

LIMIT = 240.0  # seconds for one answer: building, or a turn
_SPAWN = multiprocessing.get_context("spawn")  # a fork would share what runtimes have loaded


class WorkerError(RuntimeError):
    """The runner `name` failed, or its process ended."""

    def __init__(self, name: str, reason: str) -> None:
        """Keep the runner's name beside the reason."""
        super().__init__(reason)
        self.name = name


@dataclass(frozen=True)
class Prepared:
    """What it took until a runner was ready."""

    build_seconds: float
    artefact_bytes: int
    start_ms: float  # load and first inference
    facts: Mapping[str, float] = field(default_factory=dict)  # Runner.facts


def prepare(runner: Runner, task: Task, folder: Path) -> Prepared:
    """Build, load and run once, each step timed; `folder` is made."""
    folder.mkdir(parents=True)
    start = time.perf_counter()
    files = runner.build(task, folder)
    built = time.perf_counter()
    runner.load(task, files)
    runner.run(task.feeds(task.calibration[:1])[0])
    started = time.perf_counter()
    size = sum(file.stat().st_size for file in files)
    return Prepared(built - start, size, (started - built) * 1e3, dict(runner.facts()))


def _serve(
    connection: Connection, runner: Runner, task: Task, folder: Path, feed: dict[str, Floats]
) -> None:
    """Prepare, then answer each number of calls with their milliseconds, until None comes."""
    try:
        connection.send(prepare(runner, task, folder))
        while (calls := connection.recv()) is not None:
            connection.send(timed_turn(lambda: runner.run(feed), calls))
    except Exception as error:  # any failure of a runtime is an answer
        connection.send(f"{type(error).__name__}: {error}")


class Worker:
    """One runner's process; a context manager that ends it."""

    def __init__(self, runner: Runner, task: Task, folder: Path, feed: dict[str, Floats]) -> None:
        """Start the process and wait until its runner is ready, or raise WorkerError."""
        self.name = runner.name
        self._connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, runner, task, folder, feed)
        self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends our waiting
        try:
            self.prepared: Prepared = self._answer()
        except WorkerError:
            self.close()
            raise

    def _answer(self) -> Any:
        if not self._connection.poll(LIMIT):
            self._process.terminate()
            raise WorkerError(self.name, f"took more than {LIMIT:.0f} s")
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise WorkerError(self.name, f"crashed with exit code {code}") from None
        if isinstance(answer, str):
            raise WorkerError(self.name, answer)
        return answer

    def turn(self, calls: int) -> list[float]:
        """Return the milliseconds of `calls` calls after one that is not timed."""
        self._connection.send(calls)
        answer: list[float] = self._answer()
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
