"""The inputs, outputs and stored tensors of a torch program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irc.errors import ModelError, ShapeError
from irc.frontends.builder import check_size
from irc.frontends.torch.carried import Carried, carried
from irc.frontends.torch.names import unique
from irc.frontends.torch.ops import Complex
from irc.frontends.torch.program import array_of, call_arguments, is_tensor, output_names
from irc.frontends.torch.values import Constants, Known, element_type, leaves
from irc.ops.core import Input
from irc.streams import State
from irc.types import Array, Shape
from irc.value import Value


def example_shapes(program: Any, example_inputs: Any) -> dict[str, Shape]:
    """The shapes of the examples by the names of the program's inputs, in order."""
    args, kwargs = call_arguments(example_inputs)
    names = [s.arg.name for s in program.graph_signature.input_specs if _is_input(s)]
    tensors = [v for v in leaves((args, kwargs)) if is_tensor(v)]
    if len(tensors) != len(names):
        raise ModelError(f"{len(tensors)} example tensors are given, the program takes {names}")
    return {n: tuple(int(d) for d in v.shape) for n, v in zip(names, tensors, strict=True)}


def _is_input(spec: Any) -> bool:
    """Whether an input of the program is a tensor that the caller gives."""
    return spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"


@dataclass(frozen=True)
class Interface:
    """What a program takes and gives; `shapes` pins its dynamic dimensions, by input name."""

    program: Any
    shapes: Mapping[str, Shape]

    @cached_property
    def carried(self) -> list[Carried]:
        """The states."""
        return carried(self.program)

    def placeholders(self) -> tuple[dict[Any, Any], dict[Any, Input]]:
        """What the program's inputs stand for: parameters, constants, and inputs of the graph, with
        buffers that are states behind the caller's own."""
        env: dict[Any, Any] = {}
        inputs: dict[Any, Input] = {}
        buffers = {c.before: c.name for c in self.carried if c.is_buffer}
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        pairs = list(zip(nodes, self.program.graph_signature.input_specs, strict=True))
        self.check_shapes([n.name for n, spec in pairs if _is_input(spec)])
        for node, spec in pairs:
            if _is_input(spec):
                inputs[node] = env[node] = self.input(node)
            elif node in buffers:
                env[node] = None  # below
            elif spec.kind.name == "USER_INPUT":
                env[node] = spec.arg.value
            elif spec.kind.name == "TOKEN":  # orders side effects
                env[node] = None
            else:
                env[node] = Known(self.stored(spec.target), spec.target)
        taken = {v.name for v in inputs.values()}
        for node, name in buffers.items():
            inputs[node] = env[node] = self.input(node, unique(name, taken))
        return env, inputs

    def check_shapes(self, names: list[str]) -> None:
        """Shapes are given for inputs alone."""
        for name in self.shapes:
            if name not in names:
                raise ModelError(f"a shape is given for {name!r}, the program's inputs are {names}")

    def stored(self, name: str) -> Any:
        """The tensor of a parameter, buffer or constant."""
        for place in (self.program.state_dict, self.program.constants):
            if name in place:
                return place[name]
        raise ModelError(f"{name!r} is no tensor of the program")

    def input(self, node: Any, name: str = "") -> Input:
        """An input of the graph; dynamic dimensions are those of the shape that is given."""
        fake = node.meta["val"]
        if fake.dtype.is_complex:
            raise ModelError(
                f"input {node.name!r} is complex, which no input can be: give its real and its"
                " imaginary part, and join them by torch.complex in the module"
            )
        dtype = element_type(fake.dtype, f"input {node.name!r}")
        given = self.shapes.get(node.name)
        dims = [d if isinstance(d, int) else None for d in fake.shape]
        if given is None:
            given = self.own_shape(node, dims)
        if len(given) != len(dims) or any(
            d not in (None, g) for d, g in zip(dims, given, strict=True)
        ):
            raise ModelError(
                f"input {node.name!r}: shape {list(given)} is given, the program says"
                f" [{', '.join(map(str, fake.shape))}]"
            )
        check_size(dtype.numpy.itemsize, given)
        return Input(dtype, given, name=name or node.name)

    def own_shape(self, node: Any, dims: list[int | None]) -> Shape:
        """The shape that the program states."""
        known = tuple(d for d in dims if d is not None)
        if len(known) == len(dims):
            return known
        example = ",".join("N" if d is None else str(d) for d in dims)
        raise ShapeError(
            f"input {node.name!r}: shape [{example}] has dynamic dimensions; pin them by example"
            f" inputs, or --shape {node.name}={example} with a number for each N",
            node.name,
            tuple(dims),
        )

    def outputs(
        self, results: Any, constants: Constants
    ) -> tuple[tuple[Value, ...], tuple[str, ...]]:
        """The graph's outputs and their names; what is no tensor is left out."""
        count = len(results) - len(self.carried)
        names = output_names(self.program, count)
        found: list[tuple[Value, str]] = []
        for entry, name in zip(results[:count], names, strict=True):
            if isinstance(entry, Known | Value | Complex):
                found.append((self.result(entry, name, constants), name))
        if not found:
            raise ModelError("the program has no tensor as its result")
        taken = {n for _, n in found}
        for c, entry in zip(self.carried, results[count:], strict=True):
            name = unique(f"{c.name}_next", taken)
            found.append((self.result(entry, name, constants), name))
        return tuple(v for v, _ in found), tuple(n for _, n in found)

    def result(self, entry: Known | Value | Complex, name: str, constants: Constants) -> Value:
        """A result as a value."""
        made = constants.value(entry)
        if isinstance(made, Complex):
            raise ModelError(
                f"the result {name!r} is complex, which no output can be: return"
                " torch.view_as_real of it, or its parts"
            )
        return made

    def states(self, inputs: Mapping[Any, Input], names: tuple[str, ...]) -> tuple[State, ...]:
        """The states: buffers begin as they are stored, arguments that a call changes as zeros."""
        if not self.carried:
            return ()
        outputs = names[-len(self.carried) :]
        return tuple(
            State(inputs[c.before].name, name, self.initial(c, inputs[c.before]))
            for c, name in zip(self.carried, outputs, strict=True)
        )

    def initial(self, c: Carried, v: Input) -> Array:
        """What a state holds before the first call."""
        if not c.is_buffer:
            return np.zeros(v.shape, v.dtype.numpy)
        return array_of(self.stored(c.name))  # type: ignore[no-any-return]
