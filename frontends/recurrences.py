"""Recurrent layers, unrolled: what does not depend on the state is one product over all steps, and
each step adds what its state contributes.

    for each step t:  gates = a[t] + R h;  c = cell(gates, c);  h = hidden(gates, c)

Sequences are `[T, N, I]`; states are `[1, N, H]`, so that a step's result is a slice of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.ops.activation import Clip, Relu, Sigmoid, Tanh
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.recurrent import Gated, GruState, LstmCell, LstmHidden, Recurrent, TanhState
from irc.ops.selection import Where
from irc.ops.shape import Concat, Slice
from irc.types import Array
from irc.value import Value

MAX_STEPS = 4096
"""Sequences are unrolled; longer ones would make graphs that nothing can handle in good time."""

Function = Callable[[Builder, Value], Value]
"""An activation function."""


def sigmoid(b: Builder, x: Value) -> Value:
    """The logistic function."""
    return b.add(Sigmoid(x))


def tanh(b: Builder, x: Value) -> Value:
    """Hyperbolic tangent."""
    return b.add(Tanh(x))


def relu(b: Builder, x: Value) -> Value:
    """`max(x, 0)`."""
    return b.add(Relu(x))


@dataclass(frozen=True)
class Steps:
    """What all layers are given: x [T, N, I]; whether time runs backwards; the lengths of the
    batch's sequences where they are not all T."""

    builder: Builder
    x: Value
    reverse: bool = False
    lengths: Array | None = None

    def __post_init__(self) -> None:
        if self.x.shape[0] > MAX_STEPS:
            raise ModelError(
                f"a sequence of {self.x.shape[0]} steps is too long to be unrolled, the limit is"
                f" {MAX_STEPS}: pin a shorter one, and feed the states back"
            )

    def steps(self) -> list[int]:
        """The steps in the order of computation."""
        order = range(self.x.shape[0])
        return list(reversed(order) if self.reverse else order)

    def active(self, t: int) -> Array | None:
        """Which sequences of the batch have a step t, b1 [1, N, 1]; None if all do."""
        if self.lengths is None or np.all(self.lengths > t):
            return None
        return np.asarray(self.lengths > t).reshape(1, -1, 1)


@dataclass
class Run:
    """A layer's run over a sequence: its states, and the hidden state of each step."""

    sequence: Steps
    states: list[Value]
    outputs: dict[int, Value] = field(default_factory=dict)

    def step(self, t: int, states: Sequence[Value]) -> None:
        """Take the states after step t, where a sequence has that step."""
        mask = self.sequence.active(t)
        build = self.sequence.builder
        if mask is None:
            self.states, self.outputs[t] = list(states), states[0]
            return
        where = build.const(mask)
        zeros = build.const(np.zeros(states[0].shape, np.float32))
        self.outputs[t] = build.add(Where(where, states[0], zeros))
        self.states = [
            build.add(Where(where, new, old)) for new, old in zip(states, self.states, strict=True)
        ]

    @property
    def hidden(self) -> Value:
        """All hidden states, [T, N, H]."""
        found = [self.outputs[t] for t in range(len(self.outputs))]
        return self.sequence.builder.add(Concat(tuple(found), axis=0)) if found[1:] else found[0]


@dataclass(frozen=True)
class Cell:
    """What may vary of a cell: its functions, and the bound of their arguments."""

    functions: tuple[Function, ...]
    clip: float | None = None

    def call(self, b: Builder, index: int, x: Value) -> Value:
        """A function of an argument."""
        if self.clip is not None:
            x = b.add(Clip(x, -self.clip, self.clip))
        return self.functions[index](b, x)


LSTM = Cell((sigmoid, tanh, tanh))
GRU = Cell((sigmoid, tanh))
RNN = Cell((tanh,))


def zeros(x: Value, hidden: int) -> Const:
    """The state that a sequence begins with where none is given: [1, N, H]."""
    return Const(np.zeros((1, x.shape[1], hidden), np.float32))


def projected(b: Builder, x: Value, w: Value, bias: Value | None) -> Value:
    """What a layer's gates get from x, over all steps: [T, N, O]."""
    return b.add(Linear(x, w, bias))


def at_step(b: Builder, x: Value, t: int) -> Value:
    """Step t of [T, N, O], as [1, N, O]."""
    steps, *rest = x.shape
    if steps == 1:
        return x
    stops = (t + 1, *rest)
    return b.add(Slice(x, (t, *(0 for _ in rest)), stops, tuple(1 for _ in stops)))


def part(b: Builder, x: Value, index: int, count: int, axis: int) -> Value:
    """One of `count` equal parts along an axis."""
    width = x.shape[axis] // count
    return between(b, x, index * width, (index + 1) * width, axis)


def between(b: Builder, x: Value, start: int, stop: int, axis: int) -> Value:
    """Elements `start` to `stop` of an axis."""
    if (start, stop) == (0, x.shape[axis]):
        return x
    starts, stops = [0] * x.type.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return b.add(Slice(x, tuple(starts), tuple(stops), (1,) * x.type.rank))


def with_state(
    b: Builder, h: Value, r: Value, bias: Value | None, a: Value | None
) -> Value:
    """`a + h @ r.T + bias`; a state that is known is added as a number."""
    if not isinstance(h, Const):
        return b.add(Recurrent(h, r, bias, a))
    known = h.array.any() or bias is not None or a is None
    if not known:
        assert a is not None
        return a
    added = b.add(Linear(h, r, bias))
    return added if a is None else b.add(Add(a, added))


@dataclass(frozen=True)
class Lstm:
    """An LSTM layer in one direction: r [4H, H], its gates in `order`; peepholes [H] of the gates
    i, f and o; `coupled` says that the forget gate is what the input gate leaves. With a
    `projection` [P, H] the hidden state is its product with what the cell gives, r [4H, P]."""

    r: Value
    order: str
    cell: Cell = LSTM
    peepholes: dict[str, Value] | None = None
    coupled: bool = False
    projection: Value | None = None

    def run(self, s: Steps, w: Value, bias: Value | None, h: Value, c: Value) -> Run:
        """Over a sequence, with w [4H, I] and the sum of both biases."""
        a, run = projected(s.builder, s.x, w, bias), Run(s, [h, c])
        for t in s.steps():
            h, c = run.states
            gates = with_state(s.builder, h, self.r, None, at_step(s.builder, a, t))
            h, c = self.after(s.builder, gates, c)
            run.step(t, (self.projected(s.builder, h), c))
        return run

    def projected(self, b: Builder, h: Value) -> Value:
        """The hidden state, of what the cell gives."""
        return h if self.projection is None else b.add(Linear(h, self.projection, None))

    def after(self, b: Builder, gates: Value, c: Value) -> tuple[Value, Value]:
        """The next h and c."""
        plain = self.cell is LSTM and self.peepholes is None and not self.coupled
        if plain:
            c = b.add(LstmCell(gates, c, self.order))
            return b.add(LstmHidden(gates, c, self.order)), c
        arguments = {
            n: part(b, gates, i, 4, gates.type.rank - 1) for i, n in enumerate(self.order)
        }
        i = self.cell.call(b, 0, self.peeped(b, "i", arguments["i"], c))
        if self.coupled:
            f = b.add(Sub(b.const(np.ones((), np.float32)), i))
        else:
            f = self.cell.call(b, 0, self.peeped(b, "f", arguments["f"], c))
        g = self.cell.call(b, 1, arguments["g"])
        c = b.add(Add(b.add(Mul(f, c)), b.add(Mul(i, g))))
        o = self.cell.call(b, 0, self.peeped(b, "o", arguments["o"], c))
        return b.add(Mul(o, self.cell.functions[2](b, c))), c

    def peeped(self, b: Builder, gate: str, x: Value, c: Value) -> Value:
        """A gate's argument with what it sees of the cell state."""
        if self.peepholes is None:
            return x
        return b.add(Add(x, b.add(Mul(self.peepholes[gate], c))))


@dataclass(frozen=True)
class Gru:
    """A GRU layer in one direction: r [3H, H] with two gates, then the candidate; `update` tells
    which of the two is z. The reset gate acts behind the product with the state if
    `reset_after`."""

    r: Value
    update: int
    reset_after: bool
    cell: Cell = GRU

    def run(self, s: Steps, w: Value, wb: Value | None, rb: Value | None, h: Value) -> Run:
        """Over a sequence, with w [3H, I] and the biases of both products."""
        b = s.builder
        inside = rb if self.reset_after else None
        added = wb if rb is None else rb if wb is None else b.add(Add(wb, rb))
        gates = projected(b, s.x, self.gates(b, w), added and self.gates(b, added))
        outer = wb if self.reset_after else added
        candidates = projected(b, s.x, self.candidate(b, w), outer and self.candidate(b, outer))
        run = Run(s, [h])
        for t in s.steps():
            (h,) = run.states
            z = with_state(b, h, self.gates(b, self.r), None, at_step(b, gates, t))
            n = self.argument(b, z, at_step(b, candidates, t), h, inside)
            run.step(t, [self.after(b, z, n, h)])
        return run

    def gates(self, b: Builder, w: Value) -> Value:
        """The part of weights or biases that belongs to the gates."""
        return between(b, w, 0, w.shape[0] // 3 * 2, 0)

    def candidate(self, b: Builder, w: Value) -> Value:
        """The part that belongs to the candidate."""
        return between(b, w, w.shape[0] // 3 * 2, w.shape[0], 0)

    def argument(
        self, b: Builder, gates: Value, a: Value, h: Value, bias: Value | None
    ) -> Value:
        """What the candidate is a function of."""
        weights = self.candidate(b, self.r)
        if self.reset_after:
            own = with_state(b, h, weights, bias and self.candidate(b, bias), None)
            return b.add(Add(a, self.gate(b, gates, own)))
        if isinstance(h, Const) and not h.array.any():
            return a
        return b.add(Recurrent(self.gate(b, gates, h), weights, None, a))

    def gate(self, b: Builder, gates: Value, x: Value) -> Value:
        """x times the reset gate."""
        if self.cell is GRU:
            return b.add(Gated(gates, x, 1 - self.update))
        argument = part(b, gates, 1 - self.update, 2, gates.type.rank - 1)
        return b.add(Mul(self.cell.call(b, 0, argument), x))

    def after(self, b: Builder, gates: Value, n: Value, h: Value) -> Value:
        """The next state."""
        if self.cell is GRU:
            return b.add(GruState(gates, n, h, self.update))
        z = self.cell.call(b, 0, part(b, gates, self.update, 2, gates.type.rank - 1))
        new = self.cell.call(b, 1, n)
        rest = b.add(Sub(b.const(np.ones((), np.float32)), z))
        return b.add(Add(b.add(Mul(z, h)), b.add(Mul(rest, new))))


def rnn(
    s: Steps, r: Value, cell: Cell, w: Value, bias: Value | None, h: Value
) -> Run:
    """A layer of `h = f(W x + R h + bias)` in one direction."""
    b, run = s.builder, Run(s, [h])
    a = projected(b, s.x, w, bias)
    for t in s.steps():
        argument = with_state(b, run.states[0], r, None, at_step(b, a, t))
        run.step(t, [b.add(TanhState(argument)) if cell is RNN else cell.call(b, 0, argument)])
    return run
