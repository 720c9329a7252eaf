"""LSTM and plain recurrent cells that exporters wrote out, recognised: their states then keep 16
bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irc.ops.activation import Sigmoid, Tanh
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.moving import origin
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.recurrent import LstmCell, LstmHidden, Recurrent, TanhState
from irc.ops.selection import Where
from irc.ops.shape import Slice
from irc.types import Shape
from irc.value import Value

GATES = 4
MOST_TERMS = 16
"""More terms than these of a sum are not told apart: values that are read in many ways make more of
them than anybody could count."""


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a vector of gates, which is `source` or some rows of it."""

    source: Value
    rows: tuple[tuple[int, int], ...]
    index: int
    count: int

    @property
    def shape(self) -> Shape:
        """What each part is."""
        return (*(stop - start for start, stop in self.rows), self.source.shape[-1] // self.count)

    @property
    def gates(self) -> Value:
        """The vectors that this is a part of."""
        x = self.source
        return x if self.of(x) else Slice(x, *self._ends, (1,) * x.type.rank, name=x.name)

    @property
    def _ends(self) -> tuple[Shape, Shape]:
        starts, stops = zip(*self.rows, (0, self.source.shape[-1]), strict=True)
        return starts, stops

    def beside(self, *others: Part) -> bool:
        """Whether these are parts of the same vectors."""
        return all(o.source is self.source and o.rows == self.rows for o in others)

    def of(self, gates: Value) -> bool:
        """Whether this is a part of `gates`."""
        if self.source is gates:
            return self.rows == tuple((0, n) for n in gates.shape[:-1])
        if not isinstance(gates, Slice) or gates.x is not self.source or set(gates.steps) != {1}:
            return False
        return (gates.starts, gates.stops) == self._ends


def lstm_cell(v: Value) -> Value | None:
    """The next cell state, from quarters of one vector of gates.

        (%g: f32[1,8], %c: f32[1,2])
        %i = slice(%g) {starts = [0, 0], stops = [1, 2], steps = [1, 1]} : f32[1,2]
        %f = slice(%g) {starts = [0, 2], stops = [1, 4], steps = [1, 1]} : f32[1,2]
        %n = slice(%g) {starts = [0, 4], stops = [1, 6], steps = [1, 1]} : f32[1,2]
        %si = sigmoid(%i) : f32[1,2]
        %sf = sigmoid(%f) : f32[1,2]
        %tn = tanh(%n) : f32[1,2]
        %kept = mul(%sf, %c) : f32[1,2]
        %new = mul(%si, %tn) : f32[1,2]
        %y = add(%kept, %new) : f32[1,2]
        ->
        %y = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,2]
    """
    match v:
        case Add(a=Mul() as kept, b=Mul() as new):
            return _cell(kept, new) or _cell(new, kept)
    return None


def _cell(kept: Mul, new: Mul) -> Value | None:
    for candidate, gate in ((new.a, new.b), (new.b, new.a)):
        i, g = _argument(gate, Sigmoid), _argument(candidate, Tanh)
        for c, forget in ((kept.a, kept.b), (kept.b, kept.a)):
            f = _argument(forget, Sigmoid)
            if i is None or f is None or g is None or c.shape != kept.shape:
                continue
            order = _order(i, f, g)
            if order and i.shape == c.shape:
                return LstmCell(i.gates, c, order)
    return None


def _argument(v: Value, function: type[Sigmoid] | type[Tanh]) -> Part | None:
    """The quarter that a function is computed of."""
    return _quarter(v.operands[0]) if isinstance(v, function) else None


def _quarter(v: Value) -> Part | None:
    found = part_of(v)
    return found if found is not None and found.count == GATES else None


def part_of(v: Value) -> Part | None:
    """A slice of the last axis as the part that it is of equal ones, None for any other value."""
    if not isinstance(v, Slice) or not v.shape or set(v.steps) != {1}:
        return None
    width, whole = v.shape[-1], v.x.shape[-1]
    if not width or whole % width or v.starts[-1] % width:
        return None
    rows = tuple(zip(v.starts[:-1], v.stops[:-1], strict=True))
    return Part(v.x, rows, v.starts[-1] // width, whole // width)


def _order(i: Part, f: Part, g: Part) -> str:
    """The order of the gates, "" where they are not three quarters of one vector."""
    if not i.beside(f, g) or len({i.index, f.index, g.index}) < 3:
        return ""
    names = {i.index: "i", f.index: "f", g.index: "g"}
    return "".join(names.get(n, "o") for n in range(GATES))


def lstm_hidden(v: Value) -> Value | None:
    """The next hidden state, from the quarter that the cell state left.

        (%g: f32[1,8], %c: f32[1,2])
        %n = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,2]
        %o = slice(%g) {starts = [0, 6], stops = [1, 8], steps = [1, 1]} : f32[1,2]
        %so = sigmoid(%o) : f32[1,2]
        %t = tanh(%n) : f32[1,2]
        %y = mul(%so, %t) : f32[1,2]
        ->
        %n = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,2]
        %y = lstm_hidden(%g, %n) {order = "ifgo"} : f32[1,2]
    """
    match v:
        case Mul(a=Sigmoid(x=gate), b=Tanh(x=c)) | Mul(a=Tanh(x=c), b=Sigmoid(x=gate)):
            cell, o = stored(c), _quarter(gate)
        case _:
            return None
    if not isinstance(cell, LstmCell) or o is None or not o.of(cell.gates):
        return None
    return LstmHidden(cell.gates, c, cell.order) if o.index == cell.order.index("o") else None


def stored(v: Value) -> Value:
    """What a value was before it was quantized, if it was."""
    match v:
        case Dequantize(x=Quantize(x=x)):
            return x
    return v


def state_product(v: Value) -> Value | None:
    """The product with the state among the sums that make the gates.

        (%x: f32[1,4], %h: f32[1,1], %c: f32[1,1])
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[4,1]
        %p = linear(%h, %r, -) : f32[1,4]
        %g = add(%x, %p) : f32[1,4]
        %y = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,1]
        ->
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[4,1]
        %g = recurrent(%h, %r, -, %x) : f32[1,4]
        %y = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,1]

        (%x: f32[1,4], %v: f32[1,4], %h: f32[1,1], %c: f32[1,1], %m: b1[1,1])
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[4,1]
        %d = lstm_cell(%v, %c) {order = "ifgo"} : f32[1,1]
        %k = lstm_hidden(%v, %d) {order = "ifgo"} : f32[1,1]
        %i = where(%m, %k, %h) : f32[1,1]
        %e = where(%m, %d, %c) : f32[1,1]
        %p = linear(%i, %r, -) : f32[1,4]
        %g = add(%x, %p) : f32[1,4]
        %y = lstm_cell(%g, %e) {order = "ifgo"} : f32[1,1]
        ->
        %d = lstm_cell(%v, %c) {order = "ifgo"} : f32[1,1]
        %k = lstm_hidden(%v, %d) {order = "ifgo"} : f32[1,1]
        %i = where(%m, %k, %h) : f32[1,1]
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[4,1]
        %g = recurrent(%i, %r, -, %x) : f32[1,4]
        %e = where(%m, %d, %c) : f32[1,1]
        %y = lstm_cell(%g, %e) {order = "ifgo"} : f32[1,1]
    """
    match v:
        case LstmCell(gates=Add() as gates, c=c):
            made = _with_state(gates, c)
        case LstmHidden(gates=Add() as gates, c=LstmCell(c=c)):
            made = _with_state(gates, c)
        case _:
            return None
    return None if made is None else dataclasses.replace(v, gates=made)


def _with_state(gates: Add, c: Value) -> Value | None:
    """A sum, rewritten as what a state adds to the rest of it."""
    terms = _terms(gates)
    found = [t for t in terms if isinstance(t, Linear) and _is_state(t.x, c)]
    if not found:
        return None
    # One input often holds both states; another of their width may be anything.
    state = min(found, key=lambda t: origin(t.x) is not origin(c))
    return _added(gates, terms, state)


def _added(gates: Add, terms: Sequence[Value], state: Linear) -> Value | None:
    """What a state adds to the other terms of a sum."""
    rest = list(terms)
    rest.remove(state)
    total = next((t for t in rest if t.shape == gates.shape), None)
    if total is None or state.shape != gates.shape:
        return None
    rest.remove(total)
    for t in rest:
        total = Add(total, t, name=gates.name)
    return Recurrent(state.x, state.w, state.b, total, name=gates.name)


def _terms(v: Value) -> list[Value]:
    """What is added up, in order, sums among them where there are many."""
    terms = [v]
    while len(terms) < MOST_TERMS:
        first = next((i for i, t in enumerate(terms) if isinstance(t, Add)), None)
        if first is None:
            break
        terms[first : first + 1] = terms[first].operands
    return terms


def _is_state(h: Value, c: Value) -> bool:
    """Whether h is the hidden state that goes with the cell state c: the same cell's, or, where c
    is an input, an input too."""
    before, cell = origin(h), origin(c)
    if isinstance(before, Where) and isinstance(cell, Where):
        return before.condition is cell.condition and _is_state(before.a, cell.a)
    if isinstance(cell, LstmCell):
        return isinstance(before, LstmHidden) and origin(before.c) is cell
    return isinstance(cell, Input) and isinstance(before, Input) and h.shape[-1] == c.shape[-1]


def tanh_state(v: Value) -> Value | None:
    """The state of a plain recurrent layer: what it is multiplied by was multiplied before.

        (%x: f32[1,2], %z: f32[1,2], %s: f32[1,2])
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[2,2]
        %p = linear(%s, %r, -) : f32[1,2]
        %a = add(%z, %p) : f32[1,2]
        %h = tanh(%a) : f32[1,2]
        %q = linear(%h, %r, -) : f32[1,2]
        %b = add(%q, %x) : f32[1,2]
        %y = tanh(%b) : f32[1,2]
        ->
        %r = const [0.5, 1.5, -1.0, 2.0] : f32[2,2]
        %p = linear(%s, %r, -) : f32[1,2]
        %a = add(%z, %p) : f32[1,2]
        %h = tanh(%a) : f32[1,2]
        %b = recurrent(%h, %r, -, %x) : f32[1,2]
        %y = tanh_state(%b) : f32[1,2]
    """
    if not isinstance(v, Tanh) or not isinstance(v.x, Add):
        return None
    terms = _terms(v.x)
    for state in terms:
        if isinstance(state, Linear) and _again(state):
            made = _added(v.x, terms, state)
            return None if made is None else TanhState(made)
    return None


def _again(state: Linear) -> bool:
    """Whether a step before this one multiplied its state by the same weights."""
    match origin(state.x):
        case TanhState(x=Recurrent(w=w)):
            before: list[Value] = [w]
        case Tanh(x=Add() as total):
            before = [t.w for t in _terms(total) if isinstance(t, Linear)]
        case _:
            return False
    return any(_equal(w, state.w) for w in before)


def _equal(w: Value, u: Value) -> bool:
    if not isinstance(w, Const) or not isinstance(u, Const):
        return False
    return w is u or (w.type == u.type and np.array_equal(w.array, u.array))


RULES = (lstm_cell, lstm_hidden, state_product, tanh_state)
