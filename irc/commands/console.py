"""How commands speak: results on stdout, warnings on stderr, files for other programs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from irc.outputs import whole

WIDE = 200


def out() -> Console:
    """Standard output; not cut to 80 columns where it is no terminal."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def note(message: str) -> None:
    """What to know, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"note: {message}")


def warn(message: str) -> None:
    """A warning on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    console.print(f"warning: {message}", style="yellow")


@contextmanager
def python_warnings() -> Iterator[None]:
    """What Python code warns of inside is shown as `warn` does, once it is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        warn(str(each.message))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Results for other programs; raises `IRCError` where the file can't be written."""
    with whole(path.parent) as folder:
        (folder / path.name).write_text(json.dumps(content, indent=1) + "\n")


def table(*columns: tuple[str, str]) -> Table:
    """A plain table; each column is its title and `left` or `right`."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in columns:
        made.add_column(title, justify="right" if side == "right" else "left", no_wrap=True)
    return made
