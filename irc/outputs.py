"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from irc.errors import ToolError

PREFIX = ".irc-"
"""How names of temporary folders begin."""


@contextmanager
def whole(directory: Path, stale: Iterable[Path] = ()) -> Iterator[Path]:
    """A temporary folder to write into; at the end its files, in sub-folders too, move into
    `directory`, and `stale` ones in there go, which must not stand beside them. On any error
    nothing changes. Raises `ToolError` where that can't be written."""
    made = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=PREFIX) as temporary:
            yield Path(temporary)
            _move(Path(temporary), directory, stale)
    except OSError as error:
        _remove(made)
        raise _refusal(directory, error) from None
    except BaseException:
        _remove(made)
        raise


def check_writable(directory: Path) -> None:
    """Raise the `ToolError` that `whole` would, before work is done in vain; leave no trace."""
    made = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=directory, prefix=PREFIX).cleanup()
    except OSError as error:
        raise _refusal(directory, error) from None
    finally:
        _remove(made)


def _refusal(directory: Path, error: OSError) -> ToolError:
    files = (p for p in (directory, *directory.parents) if p.exists() and not p.is_dir())
    why = next((f"{p} is a file, not a folder" for p in files), error.strerror or str(error))
    return ToolError(f"can't write to {_asked(directory)}: {why}")


def _asked(directory: Path) -> Path:
    """The folder that a caller named, where this one is temporary: `whole` inside of `whole`."""
    outer = [p.parent for p in (directory, *directory.parents) if p.name.startswith(PREFIX)]
    return outer[-1] if outer else directory


def _move(source: Path, directory: Path, stale: Iterable[Path]) -> None:
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    blocked = [f for f in files if (directory / f).is_dir()]
    blocked += [f for f in files if any((directory / p).is_file() for p in f.parents)]
    if blocked:
        raise ToolError(f"can't write {directory / blocked[0]}: the name is taken")
    old = [f for f in dict.fromkeys((*files, *stale)) if (directory / f).is_file()]
    with tempfile.TemporaryDirectory(dir=source) as aside:
        for f in files:
            (directory / f).parent.mkdir(parents=True, exist_ok=True)
        try:
            _replace(old, directory, Path(aside))  # so that old and new never stand side by side
            _replace(files, source, directory)
        except BaseException:
            _replace([f for f in files if not (source / f).exists()], directory, source)
            _replace([f for f in old if (Path(aside) / f).exists()], Path(aside), directory)
            raise


def _replace(files: Sequence[Path], source: Path, to: Path) -> None:
    for f in files:
        (to / f).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / f, to / f)


def _remove(folders: list[Path]) -> None:
    """Take away the folders that were made for nothing, innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
