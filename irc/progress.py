"""Progress bars on stderr: for what takes over a second, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 1.0
"""Seconds before a bar is shown."""

Advance = Callable[[int], None]
"""Told how many steps are done."""


def silent(done: int) -> None:
    """Tells nobody."""


class _Bar:
    """A bar that appears once its work turns out to be long."""

    def __init__(self, title: str, total: int | None) -> None:
        self.title, self.total = title, total
        self.start = time.monotonic()
        self.progress: Progress | None = None

    def __call__(self, done: int) -> None:
        if self.progress is None and time.monotonic() - self.start > PATIENCE:
            self.progress = self._shown()
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], completed=done)

    def _shown(self) -> Progress:
        from rich import progress as bars
        from rich.console import Console

        progress = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.add_task(self.title, total=self.total)
        progress.start()
        return progress

    def stop(self) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.stop()


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Advance]:
    """A progress bar for the work inside; silent where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    shown = _Bar(title, total)
    try:
        yield shown
    finally:
        shown.stop()
