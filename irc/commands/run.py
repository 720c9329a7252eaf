"""`irc run`: a compiled library on one input, or step after step where it has states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from irc import driver
from irc.commands.console import out
from irc.errors import DataError
from irc.model import Library
from irc.outputs import whole
from irc.streams import Stream
from irc.types import Array


def run_library(library: Path, inputs: Path, output: Path | None) -> None:
    """Run and print the outputs, or save them; raises `IRCError` where anything does not fit."""
    model = driver.open_library(library)
    arrays = driver.read_npz(inputs)
    states = {s.input for s in model.states}
    outputs: dict[str, Array] = _steps(model, arrays) if states - set(arrays) else model(arrays)
    if output is None:
        for name, array in outputs.items():
            out().print(_text(name, array))
        return
    with whole(output.parent) as folder, (folder / output.name).open("wb") as file:
        np.savez(file, allow_pickle=False, **outputs)


def _steps(model: Library, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a run over steps, from the states that the library begins with: `arrays` hold
    steps on an axis of their own, in front, or a single one without it."""
    first = {n: a.ndim > len(model.input_types[n].shape) for n, a in arrays.items()
             if n in model.input_types}  # fmt: skip
    stream = Stream(model)
    if not all(first.values()):
        return stream(arrays)
    counts = {n: len(a) for n, a in arrays.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise DataError(f"steps on the first axis are wanted, as many of each: {counts}")
    count = next(iter(counts.values()))
    made = [stream({n: a[i] for n, a in arrays.items()}) for i in range(count)]
    return {name: np.stack([m[name] for m in made]) for name in made[0]}


def _text(name: str, array: Array) -> str:
    head = f"{name}: {array.dtype}[{','.join(map(str, array.shape))}]"
    return f"{head}\n{np.array2string(array, threshold=200, precision=6)}"
