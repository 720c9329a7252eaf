"""Graphs become compiled models and libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.driver.forms import integerize, schedule
from irc.errors import CompileError
from irc.graph import Graph, the_graph
from irc.history import history_of
from irc.model import CompiledModel, Deferred, Library
from irc.names import there_are
from irc.outputs import check_writable, whole
from irc.progress import bar

if TYPE_CHECKING:
    from irc.report import Findings

BACKENDS = ("llvm", "numba", "reference")
SAVED = ("emit", "float_io", "choose", "findings", "report")
"""Options of saving."""


def compile(
    graph: Graph,
    *,
    target: str = "host",
    backend: str = "llvm",
    threads: int = 1,
    optimize: str = "speed",
    tune: bool = False,
) -> CompiledModel:
    """Compile a QDQ, integer or scheduled graph.

    `backend` is `llvm`, `numba` or `reference`; all agree bit for bit, for any number of `threads`.
    With llvm, a library of more than one has a pool of its own, and `optimize` says whether its
    code is to be fast or short: `speed` or `size`; `tune` times the kernels that could do each
    layer on this machine, which must be able to run the target, takes the fastest, the bits being
    the same, and remembers the times (`IRC_TUNE_CACHE` or the user's cache folder). Raises
    `GraphError` for a float graph, `CompileError` for what can't be compiled.
    """
    if backend not in BACKENDS:
        raise CompileError(f"backend {backend!r} does not exist; {there_are(backend, BACKENDS)}")
    if not isinstance(threads, int) or threads < 1:
        raise CompileError(f"threads must be at least 1, a whole number, not {threads!r}")
    if not isinstance(target, str):
        raise CompileError(f"target must be a text, as 'host', not {target!r}")
    _check_target(target, backend, threads, optimize, tune=tune)
    scheduled = schedule(integerize(the_graph(graph)))
    chosen = {"choose": _tuned(scheduled, target, optimize)} if tune else {}
    special = {"optimize": optimize, **chosen} if backend == "llvm" else {}
    executable = Deferred(partial(_backend(backend), scheduled, target, threads, **special))
    save = partial(_save, target=target, threads=threads, optimize=optimize, **chosen)
    return CompiledModel(scheduled, backend, target, executable, save)


def _check_target(target: str, backend: str, threads: int, optimize: str, *, tune: bool) -> None:
    if backend == "llvm":
        from irc.backends.llvm import aim, check_threads, check_timeable

        aimed = aim(target, optimize)
        check_threads(threads, aimed)
        if tune:
            check_timeable(aimed)
    elif tune:
        raise CompileError(f"backend {backend} has no kernels to choose from: tune with llvm")
    elif target != "host":
        raise CompileError(f"backend {backend} runs on this machine only, not on {target}")


def _tuned(graph: Graph, target: str, optimize: str) -> Any:
    """What chooses kernels by their times on this machine."""
    from irc.backends.llvm import tune

    with bar("tune") as shown:
        return tune(graph, target, optimize, shown)


def _backend(name: str) -> Callable[..., Any]:
    """What compiles for one of `BACKENDS`."""
    compiler: Callable[..., Any] = importlib.import_module(f"irc.backends.{name}").compile
    return compiler


def _save(
    graph: Graph,
    directory: Path,
    name: str,
    *,
    target: str,
    threads: int,
    optimize: str,
    findings: Findings | None = None,
    report: str | None = None,
    **options: Any,
) -> list[Path]:
    """The library's files and its report, all or none; `report` names that, else it stands beside
    those of other libraries."""
    from irc.backends.llvm.files.aot import save
    from irc.passes.integer.prove import prove
    from irc.report import Findings, report_file, write_report

    if unknown := [name for name in options if name not in SAVED]:
        raise CompileError(f"save has no option {unknown[0]!r}; {there_are(unknown[0], SAVED)}")
    history = history_of(graph)
    arena, least = arena_bounds(graph)
    notes: dict[str, Any] = {
        "arena_bytes": arena,
        "arena_least_bytes": least,
        "passes": [s.name for s in history.steps],
        "proofs": [p.as_json() for p in prove(graph)],
    }
    if history.source is not None:
        notes["model"] = {"name": history.source.name, "sha256": history.source.sha256}
    with whole(directory, leftovers(directory, name)) as folder:
        save(
            graph, folder, name, target, threads=threads, optimize=optimize, notes=notes, **options
        )
        path = folder / (report or report_file(directory, name))
        write_report(path, graph, history, findings or Findings())
        names = sorted(p.name for p in folder.iterdir())
    return [directory / n for n in names]


def leftovers(directory: Path, name: str) -> list[Path]:
    """What a library saved earlier under that name left in a folder, relative to it."""
    from irc.backends.llvm.files.aot import leftovers as of_library

    return of_library(directory, name)


def open_library(path: str | Path) -> Library:
    """A saved library as a callable, with the manners of a `CompiledModel`.

    Raises `ToolError` where the file can't be loaded or is no library of ours.
    """
    from irc.backends.llvm.host import library

    return library.open_library(path)


def check_request(
    directory: Path, name: str, target: str, *, threads: int, optimize: str, tune: bool,
    emit: Sequence[str] | None,
) -> None:  # fmt: skip
    """Raise what compiling and saving would refuse of any graph, before work is done in vain."""
    from irc.backends.llvm import aim
    from irc.backends.llvm.files.aot import check

    _check_target(target, "llvm", threads, optimize, tune=tune)
    check(name, aim(target, optimize), emit)
    check_writable(directory)


def check_here(target: str) -> None:
    """Raise `CompileError` for a target whose code does not run on this machine."""
    from irc.backends.llvm import parse_target
    from irc.backends.llvm.host.jit import foreign

    if why := foreign(parse_target(target)):
        raise CompileError(f"target {target} can't be measured here: {why}")


def arena_bounds(graph: Graph) -> tuple[int, int]:
    """Bytes of a scheduled graph's arena, and those that are alive at one time, of which no plan
    needs fewer."""
    from irc.passes.schedule.plan import lower_bound

    assert graph.plan is not None, "a scheduled graph has a plan"
    return graph.plan.arena, lower_bound(graph)
