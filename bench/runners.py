"""What is compared: a uniform protocol, and the task that every runner is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.images import Floats

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One model to run: an ONNX file of pinned shapes, and what to calibrate it with."""

    name: str
    path: Path
    input: str
    shape: tuple[int, ...]
    calibration: Floats = field(repr=False)  # samples on the first axis
    threads: int = 1

    def feeds(self, samples: Floats) -> list[dict[str, Floats]]:
        """Return one {input: array} per sample, each of the model's shape."""
        return [{self.input: np.ascontiguousarray(x.reshape(self.shape))} for x in samples]


class Runner(Protocol):
    """A runtime in one configuration: built once (offline), loaded (start-up), run many times."""

    name: str

    def missing(self) -> str:
        """Return why the runner can't be used here and what to install; empty if it can."""
        ...

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Write into `folder` what a program would ship: quantized model, library; return it."""
        ...

    def facts(self) -> Mapping[str, float]:
        """Return what else is known of what was built, by name; seconds or bytes."""
        ...

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Get ready to run from the files that `build` returned."""
        ...

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch of float inputs and return the outputs, as floats."""
        ...
