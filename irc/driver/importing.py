"""Models become graphs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.errors import ModelError
from irc.graph import Graph
from irc.history import Source, derived, imported
from irc.pipeline import Step
from irc.streams import linked
from irc.types import Shape

if TYPE_CHECKING:
    import onnx


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
    found = {} if shapes is None else shapes
    if not isinstance(found, Mapping):
        raise ModelError(f"shapes: a {type(found).__name__} is given; they are told by input name,"
                         " as in {'x': (1, 3, 224, 224)}")  # fmt: skip
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
