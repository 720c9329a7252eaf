"""A graph: named inputs, named outputs, and whatever nodes the outputs reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.errors import DataError, GraphError
from irc.ops.core import Const, Input
from irc.streams import State, check_states
from irc.types import Array, TensorType, signature
from irc.value import Value, attribute_fields, operand_fields

if TYPE_CHECKING:
    from irc.plan import Plan


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A pure function from its inputs to its outputs, both in a fixed order.

    `plan`, the memory plan, is there only once the graph is scheduled. `states` tell which outputs
    are inputs of the next run.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    plan: Plan | None = None
    states: tuple[State, ...] = ()

    def __post_init__(self) -> None:
        if len(self.outputs) != len(self.output_names):
            raise GraphError(f"graph {self.name}: outputs and their names differ in number")
        for kind, names in (
            ("input", [v.name for v in self.inputs]),
            ("output", list(self.output_names)),
        ):
            if len(set(names)) != len(names):
                raise GraphError(f"graph {self.name}: two {kind}s share one name in {names}")
        known = set(self.inputs)
        stray = [v.name for v in self.order if isinstance(v, Input) and v not in known]
        if stray:
            raise GraphError(f"graph {self.name}: uses inputs it does not declare: {stray}")
        check_states(self.states, self.input_types, self.output_types, self.name)

    @cached_property
    def order(self) -> tuple[Value, ...]:
        """Every node once, operands before users; the inputs first, in their order."""
        return tuple(ancestors(*self.inputs, *self.outputs))

    @cached_property
    def users(self) -> Mapping[Value, tuple[Value, ...]]:
        """The nodes that read each node, a node once per use. Outputs count as no use."""
        found: dict[Value, list[Value]] = {v: [] for v in self.order}
        for v in self.order:
            for operand in v.operands:
                found[operand].append(v)
        return {v: tuple(us) for v, us in found.items()}

    def uses(self, value: Value) -> int:
        """How often a node is read, by other nodes or as an output."""
        return len(self.users[value]) + sum(out is value for out in self.outputs)

    @property
    def input_types(self) -> dict[str, TensorType]:
        """Types of the inputs by name."""
        return {v.name: v.type for v in self.inputs}

    @property
    def output_types(self) -> dict[str, TensorType]:
        """Types of the outputs by name."""
        return {n: v.type for n, v in zip(self.output_names, self.outputs, strict=True)}

    @cached_property
    def carried(self) -> dict[str, Input]:
        """The inputs that are states, by the output that they come from."""
        inputs = {v.name: v for v in self.inputs}
        return {s.output: inputs[s.input] for s in self.states}

    @property
    def links(self) -> Iterator[tuple[Input, Value]]:
        """The states: the input that holds one, and what it becomes."""
        for name, after in zip(self.output_names, self.outputs, strict=True):
            if name in self.carried:
                yield self.carried[name], after

    @property
    def constants(self) -> tuple[Const, ...]:
        """The constants that the outputs reach, bodies left aside."""
        return tuple(v for v in self.order if isinstance(v, Const))

    def with_outputs(self, outputs: tuple[Value, ...]) -> Graph:
        """The same interface over other nodes; a plan no longer holds and is dropped."""
        return dataclasses.replace(self, outputs=outputs, plan=None)

    def __str__(self) -> str:
        from irc.printer import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        types = signature(self.input_types, self.output_types)
        return f"<Graph {self.name}, {len(self.order)} nodes: {types}>"


def ancestors(*roots: Value) -> Iterator[Value]:
    """Values and all that they are computed from, operands first."""
    done: set[Value] = set()
    for root in roots:
        stack: list[tuple[Value, bool]] = [(root, False)]
        while stack:
            v, expanded = stack.pop()
            if v in done:
                continue
            if expanded:
                done.add(v)
                yield v
                continue
            stack.append((v, True))
            stack.extend((o, False) for o in reversed(v.operands) if o not in done)


def the_graph(given: object) -> Graph:
    """What a public function is given for a graph; raises `GraphError` where it is something else,
    a path perhaps."""
    if not isinstance(given, Graph):
        kind = type(given).__name__
        raise GraphError(f"a graph is wanted, not a {kind}: irc.load or irc.from_torch makes one")
    return given


Observer = Callable[[Value, Array], None]
STATES_LACK = "; states begin as their initial values, and irc.Stream(...) keeps them between runs"


def evaluate(
    graph: Graph, inputs: Mapping[str, Any], *, observe: Observer | None = None
) -> dict[str, Array]:
    """Reference semantics: the outputs by name, for any graph (float, QDQ, integer, scheduled).

    `inputs` maps every input's name to an array of exactly its shape; integers must come in
    their own dtype, floats are converted. `observe(value, array)` sees every node's result once.
    Memory is freed after the last use. Raises `DataError` for inputs that don't fit.
    """
    the_graph(graph)
    arrays: dict[Value, Array] = dict(zip(graph.inputs, check_inputs(graph, inputs), strict=True))
    left = {v: graph.uses(v) for v in graph.order}
    for v in graph.order:
        if v not in arrays:
            arrays[v] = _call(v, arrays)
        if observe is not None:
            observe(v, arrays[v])
        for operand in v.operands:
            left[operand] -= 1
            if left[operand] == 0:
                del arrays[operand]
    return {n: arrays[v] for n, v in zip(graph.output_names, graph.outputs, strict=True)}


def _call(v: Value, arrays: Mapping[Value, Array]) -> Array:
    result = np.asarray(v.call(arrays.__getitem__))
    if result.shape != v.shape or result.dtype != v.type.dtype.numpy:
        made = f"{result.dtype}{list(result.shape)}"
        raise GraphError(f"{v.op} %{v.name}: evaluates to {made}, its type says {v.type}")
    return result


def check_inputs(graph: Graph, inputs: Mapping[str, Any]) -> list[Array]:
    """The input arrays in the graph's order; raises `DataError` where one does not fit."""
    check_mapping(graph.input_types, inputs)
    expected = {v.name for v in graph.inputs}
    if set(inputs) != expected:
        cure = STATES_LACK if any(s.input not in inputs for s in graph.states) else ""
        raise DataError(
            f"inputs {sorted(inputs)} given, {graph.name} takes {sorted(expected)}"
            f"{cure or cure_unread(graph, inputs)}"
        )
    return [_fit(v, np.asarray(inputs[v.name])) for v in graph.inputs]


def cure_unread(graph: Graph, given: Collection[str]) -> str:
    """What to do about inputs that are not given and that nothing reads: exporters leave some of
    constants that they folded, as Keras's does."""
    unread = [v.name for v in graph.inputs if v.name not in given and not graph.uses(v)]
    if not unread:
        return ""
    flags = " ".join(f"--value {name}=0" for name in unread)
    values = ", ".join(f"{name!r}: 0" for name in unread)
    return f"; nothing reads {unread}: {flags} leaves that out (irc.load(..., values={{{values}}}))"


def check_mapping(names: Iterable[str], inputs: object) -> None:
    """Raise `DataError` for what is no mapping of inputs by name, an array perhaps."""
    if not isinstance(inputs, Mapping):
        raise DataError(f"inputs are given by name, as {{{', '.join(names)}: …}}, not as one"
                        f" {type(inputs).__name__}")  # fmt: skip


def _fit(v: Input, array: Array) -> Array:
    if array.shape != v.shape:
        raise DataError(f"input {v.name}: shape {list(array.shape)} given, {v.type} wanted")
    if v.type.dtype.is_float and np.issubdtype(array.dtype, np.number):
        return array.astype(v.type.dtype.numpy, copy=False)
    if array.dtype != v.type.dtype.numpy:
        raise DataError(f"input {v.name}: dtype {array.dtype} given, {v.type} wanted")
    return array


def same(a: Graph, b: Graph) -> bool:
    """Whether two graphs are equal node for node: ops, attributes, types, constants, names."""
    if len(a.order) != len(b.order) or a.output_names != b.output_names or a.plan != b.plan:
        return False
    if not _same_states(a.states, b.states):
        return False
    number = {v: i for i, v in enumerate(a.order)}
    other = {v: i for i, v in enumerate(b.order)}
    return (
        a.name == b.name
        and [number[v] for v in a.outputs] == [other[v] for v in b.outputs]
        and [number[v] for v in a.inputs] == [other[v] for v in b.inputs]
        and all(_same_node(x, y, number, other) for x, y in zip(a.order, b.order, strict=True))
    )


def _same_states(a: tuple[State, ...], b: tuple[State, ...]) -> bool:
    return len(a) == len(b) and all(
        (x.input, x.output) == (y.input, y.output) and same_attribute(x.initial, y.initial)
        for x, y in zip(a, b, strict=True)
    )


def _same_node(x: Value, y: Value, nx: Mapping[Value, int], ny: Mapping[Value, int]) -> bool:
    if type(x) is not type(y) or x.name != y.name or x.type != y.type:
        return False
    return all(
        _numbers(getattr(x, f), nx) == _numbers(getattr(y, f), ny) for f in operand_fields(type(x))
    ) and all(same_attribute(getattr(x, f), getattr(y, f)) for f in attribute_fields(type(x)))


def _numbers(entry: Value | tuple[Value, ...] | None, number: Mapping[Value, int]) -> object:
    if entry is None:
        return None
    return number[entry] if isinstance(entry, Value) else [number[v] for v in entry]


def same_attribute(a: object, b: object) -> bool:
    """Equality of attributes: arrays by bits, bodies by structure, the rest by `==`."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Graph) and isinstance(b, Graph):
        return same(a, b)
    return type(a) is type(b) and a == b
