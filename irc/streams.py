"""State: what one run leaves for the next, an output that goes into an input as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from irc import fixedpoint
from irc.errors import GraphError
from irc.types import Array, TensorType

if TYPE_CHECKING:
    from irc.graph import Graph
    from irc.model import CompiledModel, Library


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """What the output `output` gives is what the input `input`, of the very same type, takes in the
    next run; in the first it takes `initial`, an array of its dtype and shape."""

    input: str
    output: str
    initial: Array

    def __repr__(self) -> str:
        begins = "numbers that differ" if self.fill is None else self.fill
        return f"<State {self.output} -> {self.input}, begins with {begins}>"

    def in_type(self, t: TensorType) -> State:
        """The same with its initial reals as the integers that stand for them."""
        if self.initial.dtype == t.dtype.numpy:
            return self
        return State(self.input, self.output, fixedpoint.quantize(self.initial, t))

    @property
    def fill(self) -> Any:
        """The one number that all elements begin with; None where they differ."""
        first = self.initial.reshape(-1)[:1]
        return first[0].item() if first.size and np.all(self.initial == first[0]) else None


def check_states(
    states: Sequence[State],
    inputs: Mapping[str, TensorType],
    outputs: Mapping[str, TensorType],
    name: str,
) -> None:
    """Raise `GraphError` for states whose tensors do not exist, or differ in type."""
    ends = (("input", [s.input for s in states]), ("output", [s.output for s in states]))
    for what, names in ends:
        if len(set(names)) != len(names):
            raise GraphError(f"graph {name}: two states share one {what} in {names}")
    for s in states:
        if s.input not in inputs or s.output not in outputs:
            raise GraphError(
                f"graph {name}: no state goes from {s.output!r} to {s.input!r}: the inputs are"
                f" {list(inputs)}, the outputs {list(outputs)}"
            )
        before, after = inputs[s.input], outputs[s.output]
        if before != after:
            raise GraphError(f"graph {name}: state {s.input!r} is {before}, but {s.output!r}, which"
                             f" follows it, is {after}")  # fmt: skip
        if (s.initial.dtype, s.initial.shape) != (before.dtype.numpy, before.shape):
            raise GraphError(f"graph {name}: state {s.input!r} is {before}, but begins as"
                             f" {s.initial.dtype}{list(s.initial.shape)}")  # fmt: skip


def linked(graph: Graph, links: Mapping[str, str]) -> Graph:
    """The graph with states besides its own: by input the output that it goes on from, zeros
    first. Raises `GraphError` for those that do not exist or differ in type."""
    types = graph.input_types
    made = tuple(
        State(name, output, np.zeros(types[name].shape, types[name].dtype.numpy))
        for name, output in links.items() if name in types
    )  # fmt: skip
    if missing := [name for name in links if name not in types]:
        raise GraphError(f"graph {graph.name}: there is no input {missing[0]!r} that could be a"
                         f" state, but {list(types)}")  # fmt: skip
    return replace(graph, states=(*graph.states, *made))


def initial_states(states: Sequence[State]) -> dict[str, Array]:
    """What the first run takes, by input."""
    return {s.input: s.initial for s in states}


def next_states(states: Sequence[State], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the next run takes of the outputs of one, by input."""
    return {s.input: outputs[s.output] for s in states}


def names_of(states: Sequence[State]) -> frozenset[str]:
    """The inputs and outputs that are states."""
    return frozenset(name for s in states for name in (s.input, s.output))


def left_as_integers(states: Sequence[State], inputs: Mapping[str, Any]) -> frozenset[str]:
    """The outputs that stay integers beside others that become reals: states that came as such."""
    given = ((s, np.asarray(inputs[s.input]).dtype) for s in states)
    return frozenset(s.output for s, dtype in given if dtype.kind != "f")


class Stream:
    """A graph or compiled model that is run step after step, and keeps its states in between.

        stream = irc.Stream(model)
        for frame in frames:
            y = stream({"x": frame})["output"]

    `states` holds what the next step takes, by input; `reset` puts back what the first one took.
    """

    def __init__(self, model: Graph | CompiledModel | Library) -> None:
        from irc.graph import Graph, evaluate

        if not callable(model) and not isinstance(model, Graph):
            raise GraphError(f"a graph, model or library is wanted, not a {type(model).__name__}")
        run = partial(evaluate, model) if isinstance(model, Graph) else model
        self._run: Callable[[Mapping[str, Any]], dict[str, Array]] = run
        self._states = model.states
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.states = initial_states(self._states)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs of one step by name, states left out; `inputs` are all others, and states
        that are to be replaced."""
        found = self._run({**self.states, **inputs})
        self.states = next_states(self._states, found)
        kept = {s.output for s in self._states}
        return {name: array for name, array in found.items() if name not in kept}
