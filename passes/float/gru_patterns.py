"""GRU cells that exporters wrote out, recognised: their states then keep 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.ops.activation import Sigmoid, Tanh
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.recurrent import Gated, GruState, Recurrent
from irc.ops.shape import Slice
from irc.passes.float.constants import uniform
from irc.passes.float.recurrent_patterns import Part, part_of
from irc.value import Value


def gru_state(v: Value) -> Value | None:
    """The next state, of thirds of what the input gives and of the product with the state.

        (%a: f32[1,3], %h: f32[1,1])
        %r = const [0.5, -1.5, 2.0] : f32[3,1]
        %c = const [0.25, 0.5, -0.5] : f32[3]
        %one = const [1.0] : f32[]
        %p = linear(%h, %r, %c) : f32[1,3]
        %az = slice(%a) {starts = [0, 0], stops = [1, 1], steps = [1, 1]} : f32[1,1]
        %ar = slice(%a) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %an = slice(%a) {starts = [0, 2], stops = [1, 3], steps = [1, 1]} : f32[1,1]
        %pz = slice(%p) {starts = [0, 0], stops = [1, 1], steps = [1, 1]} : f32[1,1]
        %pr = slice(%p) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %pn = slice(%p) {starts = [0, 2], stops = [1, 3], steps = [1, 1]} : f32[1,1]
        %bz = add(%az, %pz) : f32[1,1]
        %z = sigmoid(%bz) : f32[1,1]
        %br = add(%ar, %pr) : f32[1,1]
        %s = sigmoid(%br) : f32[1,1]
        %q = mul(%s, %pn) : f32[1,1]
        %m = add(%an, %q) : f32[1,1]
        %t = tanh(%m) : f32[1,1]
        %kept = mul(%z, %h) : f32[1,1]
        %rest = sub(%one, %z) : f32[1,1]
        %new = mul(%rest, %t) : f32[1,1]
        %y = add(%kept, %new) : f32[1,1]
        ->
        %r = const [0.5, -1.5] : f32[2,1]
        %c = const [0.25, 0.5] : f32[2]
        %a#2 = slice(%a) {starts = [0, 0], stops = [1, 2], steps = [1, 1]} : f32[1,2]
        %bz = recurrent(%h, %r, %c, %a#2) : f32[1,2]
        %an = slice(%a) {starts = [0, 2], stops = [1, 3], steps = [1, 1]} : f32[1,1]
        %r#2 = const [2.0] : f32[1,1]
        %c#2 = const [-0.5] : f32[1]
        %pn = recurrent(%h, %r#2, %c#2, -) : f32[1,1]
        %q = gated(%bz, %pn) {index = 1} : f32[1,1]
        %m = add(%an, %q) : f32[1,1]
        %y = gru_state(%bz, %m, %h) {index = 0} : f32[1,1]

        (%a: f32[1,3], %h: f32[1,1])
        %r = const [0.5, -1.5] : f32[2,1]
        %u = const [2.0] : f32[1,1]
        %p = linear(%h, %r, -) : f32[1,2]
        %az = slice(%a) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %ar = slice(%a) {starts = [0, 0], stops = [1, 1], steps = [1, 1]} : f32[1,1]
        %an = slice(%a) {starts = [0, 2], stops = [1, 3], steps = [1, 1]} : f32[1,1]
        %pz = slice(%p) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %pr = slice(%p) {starts = [0, 0], stops = [1, 1], steps = [1, 1]} : f32[1,1]
        %bz = add(%pz, %az) : f32[1,1]
        %z = sigmoid(%bz) : f32[1,1]
        %br = add(%ar, %pr) : f32[1,1]
        %s = sigmoid(%br) : f32[1,1]
        %q = mul(%s, %h) : f32[1,1]
        %v = linear(%q, %u, -) : f32[1,1]
        %m = add(%an, %v) : f32[1,1]
        %t = tanh(%m) : f32[1,1]
        %change = sub(%h, %t) : f32[1,1]
        %step = mul(%z, %change) : f32[1,1]
        %y = add(%step, %t) : f32[1,1]
        ->
        %r = const [0.5, -1.5] : f32[2,1]
        %a#2 = slice(%a) {starts = [0, 0], stops = [1, 2], steps = [1, 1]} : f32[1,2]
        %bz = recurrent(%h, %r, -, %a#2) : f32[1,2]
        %q = gated(%bz, %h) {index = 0} : f32[1,1]
        %u = const [2.0] : f32[1,1]
        %an = slice(%a) {starts = [0, 2], stops = [1, 3], steps = [1, 1]} : f32[1,1]
        %m = recurrent(%q, %u, -, %an) : f32[1,1]
        %y = gru_state(%bz, %m, %h) {index = 1} : f32[1,1]
    """
    update = update_of(v)
    if update is None:
        return None
    z = _argument(update.z, update.h)
    if z is None:
        return None
    for own, reset in _candidates(update.n):
        made = _reset_after(update, z, own, reset) or _reset_before(update, z, own, reset)
        if made is not None:
            return made
    return None


@dataclass(frozen=True)
class Update:
    """`sigmoid(z) * h + (1 - sigmoid(z)) * tanh(n)`."""

    z: Value
    n: Value
    h: Value


def update_of(v: Value) -> Update | None:
    """What a GRU's next state is made of; None for any other value."""
    if not isinstance(v, Add):
        return None
    for kept, new in ((v.a, v.b), (v.b, v.a)):
        match kept, new:
            case Mul(), Mul():
                found = _mixed(kept, new)
            case Mul(), Tanh():
                found = _moved(kept, new)
            case _:
                continue
        if found is not None and v.shape == found.h.shape == found.n.shape == found.z.shape:
            return found
    return None


def _mixed(kept: Mul, new: Mul) -> Update | None:
    """`z * h + (1 - z) * n`."""
    for rest, n in ((new.a, new.b), (new.b, new.a)):
        match rest, n:
            case Sub(a=one, b=Sigmoid() as z), Tanh() if uniform(one) == 1 and z in kept.operands:
                return Update(z.x, n.x, kept.b if kept.a is z else kept.a)
    return None


def _moved(step: Mul, n: Tanh) -> Update | None:
    """`z * (h - n) + n`."""
    for z, change in ((step.a, step.b), (step.b, step.a)):
        match z, change:
            case Sigmoid(), Sub(a=h, b=Tanh() as end) if end is n:
                return Update(z.x, n.x, h)
    return None


@dataclass(frozen=True)
class _Argument:
    """A gate's argument: its part of what the input gives, and of what the state gives."""

    given: Part
    state: Part
    product: Linear


def _argument(v: Value, h: Value) -> _Argument | None:
    if not isinstance(v, Add):
        return None
    for given, state in ((v.a, v.b), (v.b, v.a)):
        g, s = part_of(given), part_of(state)
        if g is None or s is None or not _is_product(s.source, h):
            continue
        assert isinstance(s.source, Linear)
        whole = s.of(s.source) and g.shape == s.shape == h.shape
        return _Argument(g, s, s.source) if whole else None
    return None


def _is_product(v: Value, h: Value) -> bool:
    """Whether a value is h times known weights."""
    return isinstance(v, Linear) and v.x is h and all(isinstance(o, Const) for o in v.operands[1:])


def _candidates(n: Value) -> tuple[tuple[Value, Value], ...]:
    """The two ways to tell what the input gives from what the reset gate is in."""
    return ((n.a, n.b), (n.b, n.a)) if isinstance(n, Add) else ()


def _reset_after(u: Update, z: _Argument, own: Value, reset: Value) -> Value | None:
    """With `n = own + sigmoid(r) * (h @ R)`, a third of one product as both gates are."""
    if not isinstance(reset, Mul):
        return None
    for gate, product in ((reset.a, reset.b), (reset.b, reset.a)):
        third = part_of(product)
        if not isinstance(gate, Sigmoid) or third is None or not third.of(z.product):
            continue
        r = _argument(gate.x, u.h)
        gates = None if r is None else _gates(u, z, r)
        if r is None or gates is None or third.count != 3:
            return None
        weights, bias = _rows(z.product, third.index, third.index + 1, third.count)
        state = Recurrent(u.h, weights, bias, None, name=product.name)
        gated = Gated(gates, state, int(r.state.index > z.state.index), name=reset.name)
        return _next(u, z, r, gates, Add(own, gated, name=u.n.name))
    return None


def _reset_before(u: Update, z: _Argument, own: Value, reset: Value) -> Value | None:
    """With `n = own + (sigmoid(r) * h) @ R`."""
    if not isinstance(reset, Linear) or not isinstance(reset.x, Mul) or own.shape != u.n.shape:
        return None
    if not all(isinstance(o, Const) for o in reset.operands[1:]):
        return None
    for gate, h in ((reset.x.a, reset.x.b), (reset.x.b, reset.x.a)):
        if not isinstance(gate, Sigmoid) or h is not u.h:
            continue
        r = _argument(gate.x, u.h)
        gates = None if r is None else _gates(u, z, r)
        if r is None or gates is None:
            return None
        gated = Gated(gates, u.h, int(r.state.index > z.state.index), name=reset.x.name)
        return _next(u, z, r, gates, Recurrent(gated, reset.w, reset.b, own, name=u.n.name))
    return None


def _next(u: Update, z: _Argument, r: _Argument, gates: Value, n: Value) -> Value:
    return GruState(gates, n, u.h, int(z.state.index > r.state.index))


def _gates(u: Update, z: _Argument, r: _Argument) -> Value | None:
    """What both gates are computed from, where they stand side by side, in one order."""
    if r.product is not z.product or not r.given.beside(z.given):
        return None
    step = r.state.index - z.state.index
    if abs(step) != 1 or r.given.index - z.given.index != step:
        return None
    first = min(z.state.index, r.state.index)
    weights, bias = _rows(z.product, first, first + 2, z.state.count)
    given = _parts(z.given, min(z.given.index, r.given.index), u.h.shape[-1])
    return Recurrent(u.h, weights, bias, given, name=u.z.name)


def _rows(v: Linear, start: int, stop: int, count: int) -> tuple[Const, Const | None]:
    """Weights and bias of some of the equal parts of a product."""
    w, b = v.w, v.b
    assert isinstance(w, Const)
    width = w.shape[0] // count
    rows = slice(start * width, stop * width)
    bias = Const(b.array[rows], name=b.name) if isinstance(b, Const) else None
    return Const(np.ascontiguousarray(w.array[rows]), name=w.name), bias


def _parts(part: Part, start: int, width: int) -> Value:
    """Two parts side by side."""
    x = part.gates
    if part.count == 2:
        return x
    *rest, _ = x.shape
    starts = (*(0 for _ in rest), start * width)
    return Slice(x, starts, (*rest, (start + 2) * width), (1,) * x.type.rank, name=x.name)


RULES = (gru_state,)
