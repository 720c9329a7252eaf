"""The runner for irc itself, by its public API only."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.peers import absent
from bench.runners import Arrays, Task


@dataclass
class Irc:
    """irc: quantized, compiled ahead of time for this CPU, and run from the shared library."""

    name: str = "irc"
    target: str = "host"
    _library: Any = None

    def missing(self) -> str:
        """Return a reason if irc is not installed or not complete."""
        if reason := absent("irc"):
            return reason
        irc = importlib.import_module("irc")
        wanted = ("load", "quantize", "compile", "open_library")
        lacking = [name for name in wanted if not hasattr(irc, name)]
        return f"this irc has no {', '.join(lacking)}" if lacking else ""

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Import, quantize, compile and save; the library is all that a program ships."""
        irc = importlib.import_module("irc")
        graph = irc.load(task.path, shapes={task.input: task.shape})
        quantized = irc.quantize(graph, calibration=task.feeds(task.calibration))
        model = irc.compile(quantized, target=self.target, backend="llvm", threads=task.threads)
        model.save(folder, name=task.name)
        return (folder / f"lib{task.name}.so",)

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Open the library."""
        self._library = importlib.import_module("irc").open_library(files[0])

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one inference, floats in and floats out like the peers."""
        return dict(self._library(dict(inputs)))
