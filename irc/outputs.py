"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
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
    `directory`, and `stale` ones in there go, which must not stand beside them. Each file takes
    the place of one of its name at once. On any error nothing changes. Raises `ToolError` where
    that can't be written."""
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
    present = [f for f in files if os.path.lexists(directory / f)]
    stale = [f for f in dict.fromkeys(stale) if f not in files and _is_there(directory / f)]
    with tempfile.TemporaryDirectory(dir=source) as temporary:
        aside = Path(temporary)
        for f in files:
            (directory / f).parent.mkdir(parents=True, exist_ok=True)
        for f in present:
            _keep(directory / f, aside / f)
        try:
            _replace(stale, directory, aside)  # before, so that they never stand beside new ones
            _replace(files, source, directory)
        except BaseException:
            moved = [f for f in files if not os.path.lexists(source / f)]
            _replace([f for f in moved if f in present], aside, directory)
            _replace([f for f in moved if f not in present], directory, source)
            _replace([f for f in stale if os.path.lexists(aside / f)], aside, directory)
            raise


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a link, even one that leads nowhere."""
    return os.path.lexists(path) and not path.is_dir()


def _keep(path: Path, to: Path) -> None:
    """The file, or link, under another name too; `path` itself is always there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to, follow_symlinks=False)
    except OSError:  # a file system without, or another's file
        shutil.copy2(path, to, follow_symlinks=False)


def _replace(files: Sequence[Path], source: Path, to: Path) -> None:
    for f in files:
        (to / f).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / f, to / f)


def _remove(folders: list[Path]) -> None:
    """Take away the folders that were made for nothing, innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
