"""`irc run`: a compiled library on one input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irc import driver
from irc.commands.console import out
from irc.outputs import whole
from irc.types import Array


def run_library(library: Path, inputs: Path, output: Path | None) -> None:
    """Run and print the outputs, or save them; raises `IRCError` where anything does not fit."""
    model = driver.open_library(library)
    outputs: dict[str, Array] = model(driver.read_npz(inputs))
    if output is None:
        for name, array in outputs.items():
            out().print(_text(name, array))
        return
    with whole(output.parent) as folder, (folder / output.name).open("wb") as file:
        np.savez(file, allow_pickle=False, **outputs)


def _text(name: str, array: Array) -> str:
    head = f"{name}: {array.dtype}[{','.join(map(str, array.shape))}]"
    return f"{head}\n{np.array2string(array, threshold=200, precision=6)}"
