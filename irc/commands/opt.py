"""`irc opt`: passes over IR text."""

from __future__ import annotations

from pathlib import Path

from irc import driver
from irc.commands.inputs import load_model
from irc.commands.show import print_or_write
from irc.errors import ModelError


def optimize(path: Path, passes: str, output: Path | None) -> None:
    """Print, or write, the graph in `path` after the passes."""
    if path.suffix != ".irc":
        raise ModelError(f"{path}: IR text is wanted: irc show {path} -o FILE.irc writes it")
    print_or_write(driver.run_passes(load_model(path), passes), output)
