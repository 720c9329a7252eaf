"""PyTorch modules become graphs: `load`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irc.frontends.infinities import without_infinities
from irc.frontends.torch.calls import Calls
from irc.frontends.torch.interface import Interface, example_shapes
from irc.frontends.torch.program import bare, decomposed, exported, opened
from irc.frontends.torch.regions import check_supported
from irc.graph import Graph
from irc.names import identifier
from irc.types import Shape


def load(
    module: Any, example_inputs: Any = None, dynamic: Any = None, name: str | None = None
) -> Graph:
    """The graph of an `nn.Module` or `ExportedProgram`: NHWC inside, constants folded.

    `example_inputs` are the arguments of one call: a tensor, a tuple, or a dictionary by name.
    Their shapes are the graph's; `dynamic` goes to torch.export as `dynamic_shapes`, for modules
    that it takes no other way. float16, bfloat16 and float64 become f32. Raises `ModelError` for
    what can't be exported and for what is not supported, all operators at once.
    """
    module = bare(module)
    program = exported(module, example_inputs, dynamic)
    title = name or _title(module)
    shapes = None if example_inputs is None else example_shapes(program, example_inputs)
    return _graph(decomposed(program), shapes or {}, title)


def load_file(path: Path, shapes: Mapping[str, Shape]) -> Graph:
    """The graph of a `.pt2` file; `shapes` pins dynamic dimensions by input name."""
    return _graph(decomposed(opened(path)), shapes, identifier(path.stem))


def _title(module: Any) -> str:
    kind = type(module).__name__
    return "model" if kind in ("ExportedProgram", "GraphModule") else identifier(kind.lower())


def _graph(program: Any, shapes: Mapping[str, Shape], name: str) -> Graph:
    """The whole program."""
    interface, calls = Interface(program, shapes), Calls()
    env, inputs = interface.placeholders()
    check_supported(program.graph_module, set(inputs))
    results = calls.run(program.graph_module, env)
    outputs, names = interface.outputs(results, calls.constants)
    states = interface.states(inputs, names)
    given = tuple(inputs.values())
    return without_infinities(Graph(name, given, outputs, names, states=states))
