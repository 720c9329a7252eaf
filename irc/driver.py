"""The composition root: the public functions, and the one file that imports the sibling packages
(lazily, so that importing `irc` stays quick)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.errors import CompileError, GraphError
from irc.graph import Graph
from irc.model import CompiledModel
from irc.pipeline import Pipeline
from irc.properties import is_float, is_integer, is_qdq, is_scheduled
from irc.types import Shape

if TYPE_CHECKING:
    import onnx

BACKENDS = ("llvm", "numba", "reference")
Progress = Callable[[str, int], None]
"""Told what is being done and how many samples are behind it."""


def load(
    model: str | Path | bytes | onnx.ModelProto, shapes: Mapping[str, Shape] | None = None
) -> Graph:
    """Import an ONNX model (a path, its bytes, or a `ModelProto`), or read an `.irc` file.

    `shapes` pins dynamic dimensions by input name. Raises `ModelError` for whatever can't be read
    or is not supported, all unsupported ops at once.
    """
    if isinstance(model, str | Path) and Path(model).suffix == ".irc":
        from irc.text import read

        return read(model)
    from irc.frontends.onnx import load as load_onnx

    return load_onnx(model, dict(shapes or {}))


def simplify(graph: Graph) -> Graph:
    """The float passes: fold, canonicalize, fuse batch norms, lay out as NHWC. Works on float and
    QDQ graphs; the interface stays as it is."""
    from irc.passes import PIPELINES

    return Pipeline(PIPELINES["float"])(graph)


def quantize(
    graph: Graph, calibration: Any, *, progress: Callable[[int], None] | None = None, **options: Any
) -> Graph:
    """Quantize a float graph into QDQ form.

    `calibration`: an iterable of samples `{name: array}` (or arrays, for one input), a mapping of
    stacked arrays, an `.npz` path, or `"random:N"`. `options` are those of the quantize pass.
    `progress` is told the number of samples seen. Raises `DataError` for bad data, `GraphError`
    for a graph that is not float.
    """
    if not is_float(graph):
        raise GraphError(f"graph {graph.name} is quantized already: compile it as it is")
    from irc.passes.quantize import quantize as quantize_float

    return quantize_float(simplify(graph), calibration, progress=progress, **options)


def integerize(graph: Graph) -> Graph:
    """A QDQ graph as the exact integer graph that is compiled; integer graphs pass unchanged."""
    if is_integer(graph):
        return graph
    if not is_qdq(graph):
        raise GraphError(
            f"graph {graph.name} is float: quantize it first, irc.quantize(graph, calibration=...)"
            " in Python or --calibration DATA on the command line"
        )
    from irc.passes import PIPELINES

    return Pipeline(PIPELINES["integer"])(simplify(graph))


def schedule(graph: Graph) -> Graph:
    """An integer graph as fused kernels with a memory plan; scheduled graphs pass unchanged."""
    if is_scheduled(graph):
        return graph
    from irc.passes import PIPELINES

    return Pipeline(PIPELINES["schedule"])(graph)


def compile(
    graph: Graph, *, target: str = "host", backend: str = "llvm", threads: int = 1
) -> CompiledModel:
    """Compile a QDQ, integer or scheduled graph.

    `backend` is `llvm`, `numba` or `reference`; all agree bit for bit. Raises `GraphError` for a
    float graph, `CompileError` for what can't be compiled.
    """
    if backend not in BACKENDS:
        raise CompileError(f"backend {backend!r} does not exist; there are {', '.join(BACKENDS)}")
    if threads < 1:
        raise CompileError(f"threads must be at least 1, not {threads}")
    scheduled = schedule(integerize(graph))
    executable = _backend(backend)(scheduled, target, threads)
    return CompiledModel(scheduled, backend, target, executable, partial(_save, target=target))


def _backend(name: str) -> Callable[[Graph, str, int], Any]:
    match name:
        case "llvm":
            from irc.backends.llvm import compile as build
        case "numba":
            from irc.backends.numba import compile as build
        case _:
            from irc.backends.reference import compile as build
    return build


def _save(
    graph: Graph, directory: Path, name: str, *, target: str, **options: Any
) -> list[Path]:
    from irc.backends.llvm.aot import save

    return save(graph, directory, name, target, **options)


def open_library(path: str | Path) -> Any:
    """A saved library as a callable, with the manners of a `CompiledModel`.

    Raises `ToolError` where the file can't be loaded or is no library of ours.
    """
    from irc.backends.llvm.library import Library

    return Library(path)
