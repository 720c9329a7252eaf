"""The composition root: the public functions, and the one file that imports the sibling packages
(lazily, so that importing `irc` stays quick)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.errors import CompileError, GraphError, ModelError
from irc.graph import Graph, the_graph
from irc.history import Source, derived, history_of, imported
from irc.model import CompiledModel, Deferred, Library
from irc.names import by_keyword, there_are
from irc.outputs import check_writable, whole
from irc.pipeline import Pass, Pipeline, Step, parse_passes
from irc.pixels import Pixels, take_pixels
from irc.progress import bar
from irc.properties import is_float, is_integer, is_qdq, is_scheduled
from irc.streams import linked
from irc.types import Array, Shape

if TYPE_CHECKING:
    import onnx

    from irc.compare import LayerError
    from irc.report import Findings

BACKENDS = ("llvm", "numba", "reference")
SAVED = ("emit", "float_io", "choose", "findings", "report")
"""Options of saving."""
NOISE_WARNING = (
    "calibrated on random noise: good for a first try, not for use; calibrate with real inputs"
)


def load(
    model: str | Path | bytes | onnx.ModelProto,
    shapes: Mapping[str, Shape] | None = None,
    values: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
) -> Graph:
    """Import an ONNX model (a path, its bytes, or a `ModelProto`), a `.pt2` file that
    `torch.export.save` wrote, or read an `.irc` file.

    By input name, `shapes` pins dynamic dimensions, `values` turns inputs of an ONNX model into
    constants (a sampling rate, a mask), `states` names the output that goes into an input in the
    next run, from zeros on: `{"state": "stateN"}` (PyTorch's buffers need no naming). Raises
    `ModelError` for whatever can't be read or is not supported, all unsupported ops at once.
    """
    start = time.perf_counter()
    graph = _read(model, _pinned(shapes), dict(values or {}))
    imported(graph, Source.of(model), Step.since(start, "import", graph))
    if not states:
        return graph
    result = linked(graph, states)
    derived(result, graph, [])
    return result


def _pinned(shapes: Mapping[str, Shape] | None) -> dict[str, Shape]:
    """Shapes by input name; raises `ModelError` for what is none."""
    found = shapes or {}
    if not isinstance(found, Mapping):
        raise ModelError(f"shapes={found!r}: they are given by input name, as in"
                         " {'x': (1, 3, 224, 224)}")  # fmt: skip
    for name, shape in found.items():
        if not isinstance(shape, Sequence) or not all(isinstance(d, Integral) for d in shape):
            raise ModelError(f"input {name!r}: shape {shape!r} is given; numbers are wanted, as in"
                             " (1, 3, 224, 224)")  # fmt: skip
    return {name: tuple(map(int, shape)) for name, shape in found.items()}


def _read(
    model: str | Path | bytes | onnx.ModelProto, shapes: dict[str, Shape], values: dict[str, Any]
) -> Graph:
    path = Path(model) if isinstance(model, str | Path) else Path()
    if path.suffix not in (".irc", ".pt2"):
        from irc.frontends.onnx import load as load_onnx

        return load_onnx(model, shapes, values=values)
    if values:
        raise ModelError(f"{path}: only inputs of an ONNX model can be given values")
    if path.suffix == ".pt2":
        from irc.frontends.torch import load_file

        return load_file(path, shapes)
    from irc.text import read

    return read(path)


def from_torch(
    module: Any, example_inputs: Any = None, *, dynamic: Any = None, name: str | None = None
) -> Graph:
    """Import a PyTorch `nn.Module` or `ExportedProgram`, by torch.export; needs `irc-nn[torch]`.

    `example_inputs` are the arguments of one call: a tensor, a tuple, or a dictionary by name; a
    program may go without. The graph has their shapes. `dynamic` goes to torch.export as
    `dynamic_shapes`, `name` names the graph. Graphs quantized by PT2E come out in QDQ form. Raises
    `ModelError` for what can't be exported or is not supported, all unsupported ops at once.
    """
    from irc.frontends.torch import load as load_torch

    start = time.perf_counter()
    graph = load_torch(module, example_inputs, dynamic, name)
    imported(graph, None, Step.since(start, "import", graph))
    return graph


def simplify(graph: Graph) -> Graph:
    """The float passes: fold, canonicalize, fuse batch norms, lay out as NHWC. Works on float and
    QDQ graphs; the interface stays as it is."""
    from irc.passes import PIPELINES

    return _run(PIPELINES["float"], graph, "simplify")


def quantize(
    graph: Graph, calibration: Any, *, progress: Callable[[int], None] | None = None, **options: Any
) -> Graph:
    """Quantize a float graph into QDQ form, or what a QDQ graph has left float; scales that it
    states are kept, but for those of weights where no activation has any.

    `calibration`: an iterable of samples `{name: array}` (or arrays, for one input), a mapping of
    stacked arrays, an `.npz` path, or `"random:N"`. `options` are those of the quantize pass.
    `progress` is told the number of samples seen (default: a bar on stderr). Raises `DataError`
    for bad data, `GraphError` for a graph that has nothing left to quantize.
    """
    from irc.passes.quantize import complete
    from irc.passes.quantize import quantize as quantize_float

    graph = as_float(the_graph(graph))
    run = quantize_float if is_float(graph) else complete
    if is_integer(graph) or (run is complete and not unquantized(graph)):
        raise GraphError(f"graph {graph.name} is quantized already: compile it as it is")
    simple = simplify(graph)
    start = time.perf_counter()
    result = run(simple, calibration, progress=progress, **options)
    step = Step.since(start, "quantize", result, simple)
    noise = isinstance(calibration, str) and calibration.startswith("random:")
    derived(result, simple, [step], [NOISE_WARNING] if noise else [])
    return result


def prune(graph: Graph, ratio: float, calibration: Any = None, **options: Any) -> Graph:
    """Remove the least important channels of a float graph: of each group of layers that are tied
    to each other the share `ratio`. Inputs and outputs stay as they are.

    With `calibration` (as for `quantize`) importance is measured on it, and the weights that
    remain are refitted to make up for those that go: much better than weights alone. `options` are
    those of `irc.passes.prune.Options`. Raises `GraphError` for a graph that is not float or has
    no channel that can go.
    """
    from irc.passes.prune import Options
    from irc.passes.prune import prune as prune_float

    chosen = by_keyword(Options, "prune", {"ratio": ratio, **options})
    if not is_float(the_graph(graph)):
        raise GraphError(f"graph {graph.name} is quantized: prune the float model, then quantize")
    simple = simplify(graph)
    data = None if calibration is None else samples(simple, calibration)
    start = time.perf_counter()
    with bar("prune") as shown:
        result = prune_float(simple, data, chosen, shown)
    derived(result, simple, [Step.since(start, "prune", result, simple)])
    return result


def to_onnx(graph: Graph, path: str | Path) -> None:
    """Write a float or QDQ graph as an ONNX model with the same inputs and outputs.

    Raises `GraphError` for integer graphs and for ops that ONNX has no operator for; then no file
    appears.
    """
    from irc.backends.onnx import export

    if is_integer(the_graph(graph)) or is_scheduled(graph):
        raise GraphError(f"graph {graph.name} is integer: write its float or QDQ form")
    path = Path(path)
    model = export(graph).SerializeToString()
    with whole(path.parent) as folder:
        (folder / path.name).write_bytes(model)


def as_float(graph: Graph) -> Graph:
    """A graph that quantizes nothing but what it stores, as dynamically quantized models do, as the
    float graph that it is; others as they are."""
    if is_integer(graph) or is_scheduled(graph):
        return graph
    from irc.passes.quantize import with_real_weights

    result = with_real_weights(graph)
    derived(result, graph, [])
    return result


def unquantized(graph: Graph) -> tuple[str, ...]:
    """The names of what a QDQ graph leaves float: values that layers read without a scale, and
    layers whose weights are reals."""
    if is_integer(graph) or is_scheduled(graph):
        return ()
    from irc.passes.quantize import Islands

    islands = Islands(simplify(graph))
    return tuple(v.name for v in (*islands.open, *islands.real_weights))


def camera(graph: Graph, pixels: Pixels) -> Graph:
    """A QDQ graph that takes u8 pixels [N,H,W,C] in place of its normalised image."""
    if is_float(graph) or is_integer(graph):
        raise GraphError(f"graph {graph.name} must be quantized to take pixels")
    start = time.perf_counter()
    result = take_pixels(graph, pixels)
    derived(result, graph, [Step.since(start, "take_pixels", result, graph)])
    return result


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

    return _run(PIPELINES["integer"], simplify(graph), "integerize")


def schedule(graph: Graph) -> Graph:
    """An integer graph as fused kernels with a memory plan; scheduled graphs pass unchanged."""
    if is_scheduled(graph):
        return graph
    from irc.passes import PIPELINES

    return _run(PIPELINES["schedule"], graph, "schedule")


def run_passes(graph: Graph, text: str) -> Graph:
    """The passes of `"fold,quantize{weights=8}"` in that order."""
    import irc.passes  # registers the passes  # noqa: F401

    return _run(parse_passes(text), graph, "passes")


def _run(passes: Sequence[Pass], graph: Graph, title: str) -> Graph:
    with bar(title, len(passes)) as shown:
        pipeline = Pipeline(passes, progress=shown)
        result = pipeline(graph)
    derived(result, graph, pipeline.steps)
    return result


def stages(graph: Graph, calibration: Any | None) -> Iterator[tuple[str, Graph]]:
    """The graph after import and after every pass up to the memory plan, by the pass's name.

    Ends after the float passes where a float graph has no `calibration`.
    """
    from irc.passes import PIPELINES

    yield "import", graph
    for name in ("float", "quantize", "float", "integer", "schedule"):
        if name == "quantize":
            graph = as_float(graph)
            if is_float(graph):
                if calibration is None:
                    return
                graph = quantize(graph, calibration)
            yield name, graph
            continue
        for each in PIPELINES[name]:
            graph = each(graph)
            yield each.name, graph


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
    from irc.backends.llvm.aot import save
    from irc.passes.prove import prove
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
    with whole(directory) as folder:
        save(
            graph, folder, name, target, threads=threads, optimize=optimize, notes=notes, **options
        )
        path = folder / (report or report_file(directory, name))
        write_report(path, graph, history, findings or Findings())
        names = sorted(p.name for p in folder.iterdir())
    return [directory / n for n in names]


def open_library(path: str | Path) -> Library:
    """A saved library as a callable, with the manners of a `CompiledModel`.

    Raises `ToolError` where the file can't be loaded or is no library of ours.
    """
    from irc.backends.llvm import library

    return library.open_library(path)


# ---------------------------------------------------------------- for the command line


def check_request(
    directory: Path, name: str, target: str, *, threads: int, optimize: str, tune: bool,
    emit: Sequence[str] | None,
) -> None:  # fmt: skip
    """Raise what compiling and saving would refuse of any graph, before work is done in vain."""
    from irc.backends.llvm import aim
    from irc.backends.llvm.aot import check

    _check_target(target, "llvm", threads, optimize, tune=tune)
    check(name, aim(target, optimize), emit)
    check_writable(directory)


def check_here(target: str) -> None:
    """Raise `CompileError` for a target whose code does not run on this machine."""
    from irc.backends.llvm import parse_target
    from irc.backends.llvm.jit import foreign

    if why := foreign(parse_target(target)):
        raise CompileError(f"target {target} can't be measured here: {why}")


def samples(graph: Graph, data: Any) -> Iterator[dict[str, Array]]:
    """Data, in any form that calibration takes, as one feed of the graph's inputs after another.

    Raises `DataError` for what does not fit the inputs.
    """
    from irc.passes.data import batches

    return batches(graph, data)


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz`; raises `DataError` where it can't be read."""
    from irc.passes.data import read_npz as read

    return read(path)


def compare(graph: Graph, quantized: Graph, data: Any, count: int | None) -> list[LayerError]:
    """The error of each layer of a quantized graph against the float graph it was made of, over
    `count` samples of `data` (None: all)."""
    from irc.compare import compare as compare_layers

    real, integer = simplify(graph), integerize(quantized)
    with bar("compare", count) as shown:
        return compare_layers(real, integer, islice(samples(graph, data), count), shown)


def host_target() -> Any:
    """This machine as the LLVM backend sees it: name, triple, cpu, vector width, dot product."""
    from irc.backends.llvm import parse_target

    return parse_target("host")


def linker() -> list[str]:
    """The command that links libraries for this machine; raises `ToolError` where there is none."""
    from irc.backends.llvm.link import compiler

    return compiler(host_target())


def arena_bounds(graph: Graph) -> tuple[int, int]:
    """Bytes of a scheduled graph's arena, and those that are alive at one time, of which no plan
    needs fewer."""
    from irc.passes.plan import lower_bound

    assert graph.plan is not None, "a scheduled graph has a plan"
    return graph.plan.arena, lower_bound(graph)


def profile(
    graph: Graph, inputs: Mapping[str, Any], rounds: int, target: str = "host", threads: int = 1
) -> Sequence[Any]:
    """The time of every kernel of a scheduled graph, compiled for a target that this CPU runs and
    so many threads: layer, kernel, macs, milliseconds, nbytes, gmacs."""
    from irc.backends.llvm.profile import profile as time_kernels

    return time_kernels(graph, inputs, rounds, target, threads)
