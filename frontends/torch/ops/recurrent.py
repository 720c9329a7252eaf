"""LSTM, GRU and plain recurrent layers, stacked and in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.recurrences import RNN, Cell, Gru, Lstm, Run, Steps, between, relu, rnn
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.elementwise import Add
from irc.value import Value

Weights = tuple[Value, Value, Value | None, Value | None, Value | None]
"""W, R, their biases, and the projection of an LSTM's state, of one layer in one direction."""
Layer = Callable[[Steps, Weights, Sequence[Value]], Run]
"""Runs one over a sequence from its initial states."""


@handles("aten.lstm")
def lstm(node: Node) -> Results:
    """Gates in the order i, f, g, o."""

    def layer(s: Steps, given: Weights, states: Sequence[Value]) -> Run:
        w, r, wb, rb, projection = given
        return Lstm(r, "ifgo", projection=projection).run(s, w, _sum(s.builder, wb, rb), *states)

    return _Stack.of(node, node.xs("hx")).results(layer)


@handles("aten.gru")
def gru(node: Node) -> Results:
    """Gates in the order r, z, then the candidate; the reset gate acts behind the product."""

    def layer(s: Steps, given: Weights, states: Sequence[Value]) -> Run:
        w, r, wb, rb, _ = given
        return Gru(r, 1, True).run(s, w, wb, rb, *states)

    return _Stack.of(node, (node.x("hx"),)).results(layer)


@handles("aten.rnn_tanh", "aten.rnn_relu")
def simple(node: Node) -> Results:
    """One function of the sum."""
    cell = RNN if node.op == "aten.rnn_tanh" else Cell((relu,))

    def layer(s: Steps, given: Weights, states: Sequence[Value]) -> Run:
        w, r, wb, rb, _ = given
        return rnn(s, r, cell, w, _sum(s.builder, wb, rb), *states)

    return _Stack.of(node, (node.x("hx"),)).results(layer)


def _sum(b: Builder, x: Value | None, y: Value | None) -> Value | None:
    return x if y is None else y if x is None else b.add(Add(x, y))


@dataclass(frozen=True)
class _Stack:
    """The layers of a call: x [T, N, I], initial states [layers * directions, N, H], and for each
    layer and direction its weights."""

    node: Node
    x: Value
    states: tuple[Value, ...]
    weights: list[Weights]
    directions: int
    batch_first: bool

    @classmethod
    def of(cls, node: Node, states: tuple[Value, ...]) -> _Stack:
        """Read from a call that is no training and holds no packed sequences."""
        if not node.has("input"):
            node.fail("packed sequences are not supported; pad them to one length")
        node.ignore("dropout")
        if node.flag("train") and node.number("dropout") > 0:
            node.fail("dropout is active: call .eval() before exporting")
        batch_first = node.flag("batch_first")
        x = node.x("input")
        x = node.builder.transpose(x, (1, 0, 2)) if batch_first else x
        directions = 2 if node.flag("bidirectional") else 1
        each = 4 if node.flag("has_biases") else 2
        weights = cls._grouped(node, each, node.integer("num_layers") * directions)
        return cls(node, x, states, weights, directions, batch_first)

    @classmethod
    def _grouped(cls, node: Node, each: int, count: int) -> list[Weights]:
        """The weights of each layer and direction: an LSTM's may end in a projection."""
        params = node.xs("params")
        if len(params) == count * (each + 1):
            each += 1
        if len(params) != each * count:
            node.fail(f"{len(params)} weights for {count} layers and directions")
        groups = (params[i : i + each] for i in range(0, len(params), each))
        return [cls._one(group) for group in groups]

    @staticmethod
    def _one(group: Sequence[Value]) -> Weights:
        w, r, *rest = group
        biases = rest[:2] if len(rest) > 1 else [None, None]
        return (w, r, biases[0], biases[1], rest[-1] if len(rest) % 2 else None)

    def results(self, layer: Layer) -> tuple[Value, ...]:
        """The last layer's hidden states, and the last states of all."""
        build, x = self.node.builder, self.x
        runs: list[Run] = []
        for first in range(0, len(self.weights), self.directions):
            both = [self._run(layer, x, first + d, reverse=d == 1) for d in range(self.directions)]
            x = forms.concat(build, [r.hidden for r in both], 2)
            runs += both
        states = zip(*(r.states for r in runs), strict=True)
        last = [forms.concat(build, each, 0) for each in states]
        return (build.transpose(x, (1, 0, 2)) if self.batch_first else x, *last)

    def _run(self, layer: Layer, x: Value, number: int, *, reverse: bool) -> Run:
        build = self.node.builder
        states = [between(build, s, number, number + 1, 0) for s in self.states]
        return layer(Steps(build, x, reverse), self.weights[number], states)
