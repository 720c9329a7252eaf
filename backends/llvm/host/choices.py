"""Choices among candidate kernels by their times on this machine, and the file that keeps these.

The file is `IRC_TUNE_CACHE`, or `irc/tune.json` in `XDG_CACHE_HOME` or `~/.cache`. An entry is
found by what the work is, its candidates, the target, the CPU's model and the version of irc, so
that it is never taken for something else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import irc
from irc.backends.llvm.kernels import candidates
from irc.backends.llvm.module.emit import describe_work
from irc.backends.llvm.target import Target, host
from irc.backends.llvm.work import MicroKernel, Work

FORMAT = 1
MOST = 8
"""Candidates of one work that are timed."""
MARGIN = 0.03
"""By so much of its time the cost model's choice must be beaten: less may be noise."""

Times = Mapping[str, float]
"""Microseconds by a kernel's name, the cost model's choice first."""


@dataclass(frozen=True)
class Measured:
    """The candidates' times, and the name of the one that is taken."""

    kernel: str
    microseconds: Times


def options(work: Work, target: Target) -> list[MicroKernel]:
    """The candidates that are timed, the cost model's choice first."""
    return list(islice(candidates(work, target), MOST))


def work_key(work: Work, target: Target, ways: Sequence[MicroKernel]) -> str:
    """SHA-256 of all that the times of these candidates depend on."""
    named = [(m.name, m.key) for m in ways]
    cpu = replace(target, name="", levels=())
    text = f"{irc.__version__} {cpu_model()} {cpu} {named} {describe_work(work)}"
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def cpu_model() -> str:
    """This machine's CPU: LLVM's name of it, and the system's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{host().cpu} {next(names, platform.processor())}"


@dataclass(frozen=True)
class Choices:
    """Chooses what was `measured` best, by work; the cost model's choice where nothing was."""

    measured: Mapping[str, Measured]

    def __call__(self, work: Work, target: Target) -> MicroKernel:
        """How to do a work."""
        ways = options(work, target)
        found = self.measured.get(work_key(work, target, ways))
        if found is None:
            return replace(ways[0], choice="the only candidate") if len(ways) == 1 else ways[0]
        (chosen,) = (m for m in ways if m.name == found.kernel)
        return replace(chosen, choice=_told(found))


def fastest(times: Times) -> str:
    """The kernel of least time; the cost model's, which is the first, if it is nearly that."""
    first, best = next(iter(times)), min(times, key=lambda name: times[name])
    return best if times[best] < times[first] * (1 - MARGIN) else first


def _told(found: Measured) -> str:
    chosen, times = found.kernel, found.microseconds
    first = next(iter(times))
    others = [
        f"{name}{' (the cost model)' if name == first else ''} {time:.4g} µs"
        for name, time in sorted(times.items(), key=lambda item: item[1])
        if name != chosen
    ]
    agreed = ", as the cost model chose" if chosen == first else ""
    return "; ".join((f"measured {times[chosen]:.4g} µs{agreed}", *others))


# ------------------------------------------------------------ the file


def cache_file() -> Path:
    """Where times are kept."""
    given = os.environ.get("IRC_TUNE_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "irc" / "tune.json"


def read_measured(path: Path) -> dict[str, Measured]:
    """What a file knows, by work; nothing where there is no such file, or, with a warning, where it
    holds something else."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        return {key: _checked(entry) for key, entry in content["works"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(f"{path}: ignored, it holds no kernels' times: {error}", stacklevel=2)
        return {}


def _checked(entry: Any) -> Measured:
    """An entry of the file; raises `ValueError` or the like where it is something else."""
    found = Measured(**entry)
    times = found.microseconds
    if found.kernel not in times or not all(isinstance(t, float) for t in times.values()):
        raise ValueError("an entry is no choice among kernels")
    return found


def write_measured(path: Path, measured: Mapping[str, Measured]) -> None:
    """Add to what a file knows, at once or not at all; a warning where it can't be written."""
    works = {key: asdict(m) for key, m in {**read_measured(path), **measured}.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(json.dumps({"format": FORMAT, "works": works}, indent=1) + "\n")
        os.replace(file.name, path)
    except OSError as error:
        warnings.warn(f"{path}: kernels' times are not kept: {error.strerror}", stacklevel=2)
