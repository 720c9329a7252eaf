"""From each form of a graph to the next, by the passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.driver.data import samples
from irc.errors import GraphError
from irc.graph import Graph, the_graph
from irc.history import derived
from irc.names import by_keyword
from irc.outputs import whole
from irc.pipeline import Pass, Pipeline, Step, parse_passes
from irc.pixels import Pixels, take_pixels
from irc.progress import bar
from irc.properties import is_float, is_integer, is_qdq, is_scheduled

if TYPE_CHECKING:
    pass

NOISE_WARNING = (
    "calibrated on random noise: good for a first try, not for use; calibrate with real inputs"
)


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
