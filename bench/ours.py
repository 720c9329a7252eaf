"""The runner for irc itself, by its public API only."""

import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from bench.peers import absent
from bench.runners import Arrays, Task

MANIFEST_FACTS = ("workspace_bytes", "arena_bytes", "arena_least_bytes")


def file_facts(library: Path, manifest: Path) -> dict[str, float]:
    """Return the bytes of machine code in a library and of the memory its manifest asks for."""
    with library.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        code = text["sh_size"] if text is not None else 0
    content = json.loads(manifest.read_text())
    return {"text_bytes": code, **{name: content[name] for name in MANIFEST_FACTS}}


@dataclass
class Irc:
    """irc: quantized, compiled ahead of time for this CPU, and run from the shared library."""

    name: str = "irc"
    target: str = "host"
    _library: Any = None
    _facts: Mapping[str, float] = field(default_factory=dict)

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
        start = time.perf_counter()
        model = irc.compile(quantized, target=self.target, backend="llvm", threads=task.threads)
        model.save(folder, name=task.name)
        library = folder / f"lib{task.name}.so"
        self._facts = {
            "compile_seconds": time.perf_counter() - start,
            **file_facts(library, folder / f"{task.name}.json"),
        }
        return (library,)

    def facts(self) -> Mapping[str, float]:
        """Return what compiling took, and the sizes of code and memory."""
        return self._facts

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Open the library."""
        self._library = importlib.import_module("irc").open_library(files[0])

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one inference, floats in and floats out like the peers."""
        return dict(self._library(dict(inputs)))
