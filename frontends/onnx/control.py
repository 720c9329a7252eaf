"""If, Loop and Scan: of an If whose condition is known at import the branch that is taken stands in
the graph, else both and a choice; the rounds of a loop, of known number, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import GraphProto, NodeProto

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.frontends.onnx.lists import Entry, tensors
from irc.frontends.onnx.ops import Node
from irc.frontends.onnx.pinned import cure
from irc.frontends.onnx.scope import Scope
from irc.frontends.onnx.structure import check_names, needed_in_order, subgraphs
from irc.frontends.onnx.vectorized_scans import mapped
from irc.frontends.recurrences import MAX_STEPS
from irc.ops.core import Const, Input
from irc.ops.selection import Where
from irc.ops.shape import Concat, Slice
from irc.value import Value

MAX_NODES = 200_000
"""No loop is unrolled to more nodes than this."""


class Importer(Protocol):
    """What runs the nodes of a body."""

    builder: Builder

    def check_supported(self, nodes: Iterable[NodeProto]) -> None:
        """Raise where an operator is not supported."""

    def scope(self, proto: GraphProto, outer: Scope) -> Scope:
        """What a body stores, and the values around it."""
        ...

    def run(self, nodes: Iterable[NodeProto], scope: Scope) -> None:
        """Import nodes; their outputs enter the scope."""


@dataclass(frozen=True)
class Control:
    """One node with bodies, the names that it sees, and who imports the bodies."""

    importer: Importer
    node: Node
    scope: Scope

    @property
    def builder(self) -> Builder:
        """Builds the nodes."""
        return self.importer.builder

    def body(self, attribute: str) -> Body:
        """The graph that is an attribute."""
        found = self.node.attribute(attribute)
        if found is None:
            self.node.fail(f"attribute {attribute!r} is missing")
        check_names(found.g, self.scope)
        nodes = needed_in_order(found.g)
        self.importer.check_supported(nodes)
        return Body(self, found.g, nodes, self.importer.scope(found.g, self.scope))

    def branch(self) -> tuple[Entry, ...]:
        """An If: the branch that it takes; both, and a choice, where that is known at run time."""
        self.node.ignore("then_branch", "else_branch")
        condition = self.node.x(0)
        if isinstance(condition, Const):
            taken = "then_branch" if self.node.scalar(0, "condition") else "else_branch"
            return self.body(taken).run(())
        if condition.type.size != 1:
            self.node.fail(f"its condition must be one number, it is {condition.type}")
        names = ("then_branch", "else_branch")
        branches = [tensors(self.body(n).run(()), f"a result of {n}") for n in names]
        self.check_alike(*branches)
        self.builder.name = self.node.proto.output[0]
        one = self.builder.reshape(condition, ())
        return tuple(
            self.builder.add(Where(one, a, b, name=name))
            for a, b, name in zip(*branches, self.node.proto.output, strict=False)
        )

    def check_alike(self, first: Sequence[Value], second: Sequence[Value]) -> None:
        """Refuse branches that give different types: which is taken is known at run time only."""
        types = [[v.type for v in values] for values in (first, second)]
        if types[0] != types[1]:
            shown = [", ".join(map(str, t)) for t in types]
            self.node.fail(
                f"its branches give {shown[0]} and {shown[1]}, and its condition"
                f" ({self.node.x(0).name!r}) is computed at run time; it must be a constant, or"
                f" depend on shapes alone{cure(self.node.x(0))}"
            )


@dataclass(frozen=True)
class Body:
    """A body's nodes in order, and what it stores."""

    control: Control
    graph: GraphProto
    nodes: Sequence[NodeProto]
    constants: Scope

    def run(self, inputs: Sequence[Entry]) -> tuple[Entry, ...]:
        """The values of its outputs for these inputs."""
        names = [v.name for v in self.graph.input]
        if len(names) != len(inputs):
            self.control.node.fail(f"its body takes {len(names)} inputs, {len(inputs)} are given")
        scope = self.constants.inner()
        scope.update(zip(names, inputs, strict=True))
        self.control.importer.run(self.nodes, scope)
        return tuple(scope[o.name] for o in self.graph.output)

    def check_outputs(self, least: int) -> None:
        """Refuse a body that does not give back what it carries."""
        count = len(self.graph.output)
        if count < least:
            self.control.node.fail(f"its body has {count} outputs, {least} are needed at least")

    def check_rounds(self, rounds: int) -> None:
        """Refuse to unroll too much."""
        size = _size(self.graph)
        if rounds > MAX_STEPS or rounds * size > MAX_NODES:
            self.control.node.fail(
                f"{rounds} rounds of {size} nodes are too many to be unrolled; the limits are"
                f" {MAX_STEPS} rounds and {MAX_NODES:,} nodes"
            )


def _size(graph: GraphProto) -> int:
    return sum(1 + sum(map(_size, subgraphs(n))) for n in graph.node)


# ---------------------------------------------------------------- Loop


def loop(control: Control) -> tuple[Entry, ...]:
    """Rounds as long as the condition holds, at most as many as stated; then what is carried, and
    what each round gave, stacked."""
    node, body = control.node, control.body("body")
    count = len(node.inputs) - 2
    body.check_outputs(1 + count)
    carried = [node.entry(i + 2) for i in range(count)]
    limit = int(node.scalar(0, "trip count")) if node.has(0) else None
    goes_on = bool(node.scalar(1, "condition")) if node.has(1) else True
    given: list[Sequence[Entry]] = []
    while goes_on and (limit is None or len(given) < limit):
        body.check_rounds(len(given) + 1)
        number = control.builder.const(np.asarray(len(given), np.int64))
        results = body.run((number, control.builder.const(np.asarray(True)), *carried))
        carried = list(results[1 : 1 + count])
        given.append(results[1 + count :])
        goes_on = _goes_on(control, results[0], last=len(given) == limit)
    outputs = len(body.graph.output) - 1 - count
    return (*carried, *(_stacked(control, [g[i] for g in given], 0) for i in range(outputs)))


def _goes_on(control: Control, condition: Entry, *, last: bool) -> bool:
    if isinstance(condition, Const):
        return bool(condition.array.reshape(-1)[0])
    if not last:
        control.node.fail(
            "whether it goes on is computed at run time; the number of rounds must be known"
        )
    return False


def _stacked(control: Control, rounds: Sequence[Entry], axis: int) -> Value:
    """The values of all rounds along a new axis."""
    if not rounds:
        control.node.fail("it makes no round, so that the shapes of its outputs are not known")
    build = control.builder
    found = tensors(tuple(rounds), "what its rounds give")
    apart = [build.reshape(v, _with_axis(v.shape, axis)) for v in found]
    if len({v.shape for v in apart}) > 1:
        control.node.fail("its rounds give outputs of different shapes")
    return build.add(Concat(tuple(apart), axis)) if apart[1:] else apart[0]


def _with_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis:])


# ---------------------------------------------------------------- Scan


def scan(control: Control) -> tuple[Entry, ...]:
    """A round per slice of the scanned inputs; then the states, and what each round gave."""
    node = control.node
    scanned = node.integer("num_scan_inputs")
    if node.opset < 9:
        return _batched_scan(control, scanned)
    states = [node.x(i) for i in range(len(node.inputs) - scanned)]
    inputs = [node.x(len(states) + i) for i in range(scanned)]
    axes = _listed(control, "scan_input_axes", scanned)
    backward = _listed(control, "scan_input_directions", scanned)
    body = control.body("body")
    body.check_outputs(len(states))
    outputs = len(body.graph.output) - len(states)
    out_axes = _listed(control, "scan_output_axes", outputs)
    out_backward = _listed(control, "scan_output_directions", outputs)
    axes = tuple(node.axis(a, x.type.rank) for a, x in zip(axes, inputs, strict=True))
    if not any((*backward, *out_backward)):
        at_once = _at_once(control, body, states, inputs, axes, out_axes)
        if at_once is not None:
            return (*states, *at_once)
    states, given = _rounds(control, body, states, inputs, axes, backward)
    made = []
    for i in range(outputs):
        rounds = [g[i] for g in given]
        axis = node.axis(out_axes[i], (rounds[0].type.rank if rounds else 0) + 1)
        made.append(_stacked(control, rounds[::-1] if out_backward[i] else rounds, axis))
    return (*states, *made)


def _listed(control: Control, name: str, count: int) -> tuple[int, ...]:
    found = control.node.integers(name)
    if found is None:
        return (0,) * count
    if len(found) != count:
        control.node.fail(f"{name} has {len(found)} entries, {count} are needed")
    return found


def _at_once(
    control: Control, body: Body, states: Sequence[Value], inputs: Sequence[Value],
    axes: Sequence[int], out_axes: Sequence[int],
) -> list[Value] | None:  # fmt: skip
    """What all rounds give, where none changes a state; None where one does, or it isn't known how
    to compute them at once."""
    build, fronts, slots = control.builder, [], []
    for x, a in zip(inputs, axes, strict=True):
        perm = (a, *(i for i in range(x.type.rank) if i != a))
        fronts.append(build.transpose(x, perm))
        slots.append(Input(x.type.dtype, fronts[-1].shape[1:], name=f"{x.name}.slice"))
    if len({x.shape[0] for x in fronts}) != 1 or not fronts[0].shape[0]:
        return None
    try:
        results = tensors(body.run((*states, *slots)), "what its body gives")
    except ModelError:  # it must know its slices
        return None
    if any(r is not s for r, s in zip(results, states, strict=False)):
        return None
    made = []
    of: dict[Value, Value] = dict(zip(slots, fronts, strict=True))
    for result, axis in zip(results[len(states) :], out_axes, strict=True):
        found = mapped(build, result, of)
        if found is None:
            return None
        rank = found.type.rank
        at = control.node.axis(axis, rank)
        order = list(range(1, rank))
        order.insert(at, 0)
        made.append(build.transpose(found, tuple(order)))
    return made


def _rounds(
    control: Control,
    body: Body,
    states: list[Value],
    inputs: Sequence[Value],
    axes: Sequence[int],
    backward: Sequence[int],
) -> tuple[list[Value], list[Sequence[Value]]]:
    lengths = {x.shape[a] for x, a in zip(inputs, axes, strict=True)}
    if len(lengths) != 1:
        control.node.fail(f"the scanned inputs differ in length: {sorted(lengths)}")
    (length,) = lengths
    body.check_rounds(length)
    given: list[Sequence[Value]] = []
    for t in range(length):
        places = [length - 1 - t if b else t for b in backward]
        slices = [
            _taken(control.builder, x, a, p) for x, a, p in zip(inputs, axes, places, strict=True)
        ]
        results = tensors(body.run((*states, *slices)), "what its body gives")
        states = list(results[: len(states)])
        given.append(results[len(states) :])
    return states, given


def _taken(b: Builder, x: Value, axis: int, index: int) -> Value:
    """One entry of an axis, without the axis."""
    starts, stops = [0] * x.type.rank, list(x.shape)
    starts[axis], stops[axis] = index, index + 1
    whole = b.add(Slice(x, tuple(starts), tuple(stops), (1,) * x.type.rank))
    return b.reshape(whole, (*x.shape[:axis], *x.shape[axis + 1 :]))


def _batched_scan(control: Control, scanned: int) -> tuple[Value, ...]:
    """The first form of the operator, which scans each sequence of a batch by itself."""
    node = control.node
    if node.has(0):
        node.fail("lengths of sequences are not supported")
    given = [node.x(i + 1) for i in range(len(node.inputs) - 1)]
    backward = _listed(control, "directions", scanned)
    body = control.body("body")
    count = len(given) - scanned
    body.check_outputs(count)
    per_sequence: list[list[Value]] = []
    for n in range(given[0].shape[0]):
        own = [_taken(control.builder, v, 0, n) for v in given]
        zeros = (0,) * scanned
        states, rounds = _rounds(control, body, own[:count], own[count:], zeros, backward)
        outputs = len(body.graph.output) - count
        stacked = [_stacked(control, [r[i] for r in rounds], 0) for i in range(outputs)]
        per_sequence.append([*states, *stacked])
    columns = zip(*per_sequence, strict=True)
    return tuple(_stacked(control, column, 0) for column in columns)


CONTROL: dict[str, Callable[[Control], tuple[Entry, ...]]] = {
    "If": Control.branch,
    "Loop": loop,
    "Scan": scan,
}
"""The operators with bodies."""
