"""A compiled model: callable in this process, and a library to be saved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from irc.edge import to_integers, to_reals
from irc.graph import Graph
from irc.names import identifier
from irc.streams import State, left_as_integers
from irc.types import Array, TensorType, signature


class Executable(Protocol):
    """What a backend makes of a scheduled graph: integer arrays to integer arrays, by name."""

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run once. Reentrant."""
        ...

    def attempt(self, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
        """Run once on arrays that it takes just as they are: integers to integers or, with a float
        edge of its own that gives the bits of the one in Python, float32 to float32. Else None."""
        ...


class Deferred:
    """An executable that is built when it is first called: a model that is only saved, perhaps
    for another CPU, needs none in this process."""

    def __init__(self, build: Callable[[], Executable]) -> None:
        self._build = build
        self._built: Executable | None = None
        self._lock = threading.Lock()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run once, after building what runs."""
        return self._ready()(inputs)

    def attempt(self, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
        """Run once, where what runs takes the inputs as they are."""
        return self._ready().attempt(inputs)

    def _ready(self) -> Executable:
        if self._built is None:
            with self._lock:
                self._built = self._built or self._build()
        return self._built


class Library(Protocol):
    """Made by `irc.open_library`: a saved library, with the manners of a `CompiledModel`. Threads
    may share it."""

    path: Path
    name: str
    manifest: dict[str, Any]
    """What the library says of itself: tensors, kernels, proofs, versions."""
    input_types: dict[str, TensorType]
    output_types: dict[str, TensorType]
    states: tuple[State, ...]
    """What one run leaves for the next."""
    workspace_bytes: int

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, as of a `CompiledModel`."""
        ...

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run`: integer arrays in, integer arrays out."""
        ...

    def run_f32(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run_f32`: the library's own float edge. Raises `ToolError` if it was left out."""
        ...

    def self_test(self) -> bool:
        """Whether the golden vector inside the library comes out right, bit by bit."""
        ...


Saver = Callable[..., list[Path]]


@dataclass(frozen=True, eq=False, repr=False)
class CompiledModel:
    """Made by `irc.compile`. `graph` is the scheduled integer graph that it executes."""

    graph: Graph
    backend: str
    target: str
    executable: Executable
    saver: Saver

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, each of its type's shape.

        Float arrays are quantized at the edge, integer arrays are taken as they are. If any input
        came as floats the outputs are float32, else the model's own integers; states that came as
        integers stay so. Raises `DataError` for inputs that don't fit.
        """
        made = self.executable.attempt(inputs)
        if made is not None:
            return made
        integers, real = to_integers(self.graph.input_types, inputs)
        outputs = self.executable(integers)
        if not real:
            return outputs
        return to_reals(self.graph.output_types, outputs, left_as_integers(self.states, inputs))

    @property
    def states(self) -> tuple[State, ...]:
        """What one run leaves for the next."""
        return self.graph.states

    def __repr__(self) -> str:
        types = signature(self.graph.input_types, self.graph.output_types)
        return f"<CompiledModel {self.graph.name} ({self.backend}, {self.target}): {types}>"

    def save(self, directory: str | Path, name: str | None = None, **options: Any) -> list[Path]:
        """Write the library, header, manifest and report into `directory`, whole or not at all;
        returns the paths. `options`: `emit`, kinds of files (of so, a, o, ll, s, irc); `float_io`;
        `findings`, what was measured, for the report; `report`, its file's name."""
        name = name or identifier(self.graph.name)
        return self.saver(self.graph, Path(directory), name, **options)
