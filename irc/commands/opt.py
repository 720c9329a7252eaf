"""`irc opt`: passes over IR text."""

from __future__ import annotations

from pathlib import Path

from irc import driver
from irc.commands.inputs import load_model
from irc.errors import ModelError


def optimize(path: Path, passes: str) -> None:
    """Print the graph in `path` after the passes."""
    if path.suffix != ".irc":
        raise ModelError(f"{path}: IR text is wanted, a file named *.irc (see irc show)")
    print(driver.run_passes(load_model(path), passes))
