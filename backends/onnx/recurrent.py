"""The steps of recurrent layers as ONNX: unrolled, as they stand in a graph."""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.writer import Writer, exports
from irc.ops.recurrent import Gated, GruState, LstmCell, LstmHidden, Recurrent, TanhState
from irc.value import Value


@exports(Recurrent)
def _recurrent(w: Writer, v: Recurrent) -> str:
    """A product, and what is added to it, the bias first."""
    added = [o for o in (v.b, v.a) if o is not None]
    columns = w.emit("Transpose", [w.read(v.w)], perm=[1, 0])
    y = w.emit("MatMul", [w.read(v.x), columns], name="" if added else v.name)
    for o in added:
        y = w.emit("Add", [y, w.read(o)], name=v.name if o is added[-1] else "")
    return y


@exports(LstmCell)
def _cell(w: Writer, v: LstmCell) -> str:
    kept = w.emit("Mul", [_gate(w, v.gates, v.order.index("f"), 4), w.read(v.c)])
    new = w.emit("Tanh", [_part(w, v.gates, v.order.index("g"), 4)])
    taken = w.emit("Mul", [_gate(w, v.gates, v.order.index("i"), 4), new])
    return w.emit("Add", [kept, taken], name=v.name)


@exports(LstmHidden)
def _hidden(w: Writer, v: LstmHidden) -> str:
    seen = _gate(w, v.gates, v.order.index("o"), 4)
    return w.emit("Mul", [seen, w.emit("Tanh", [w.read(v.c)])], name=v.name)


@exports(Gated)
def _gated(w: Writer, v: Gated) -> str:
    parts = v.gates.shape[-1] // v.x.shape[-1]
    return w.emit("Mul", [_gate(w, v.gates, v.index, parts), w.read(v.x)], name=v.name)


@exports(GruState)
def _state(w: Writer, v: GruState) -> str:
    z = _gate(w, v.gates, v.index, v.gates.shape[-1] // v.h.shape[-1])
    other = w.emit("Sub", [w.constant(np.ones((), v.type.dtype.numpy)), z])
    new = w.emit("Mul", [other, w.emit("Tanh", [w.read(v.n)])])
    return w.emit("Add", [w.emit("Mul", [z, w.read(v.h)]), new], name=v.name)


@exports(TanhState)
def _tanh(w: Writer, v: TanhState) -> str:
    return w.emit("Tanh", [w.read(v.x)], name=v.name)


def _gate(w: Writer, gates: Value, index: int, parts: int) -> str:
    return w.emit("Sigmoid", [_part(w, gates, index, parts)])


def _part(w: Writer, gates: Value, index: int, parts: int) -> str:
    """One of so many equal parts of the last axis."""
    size = gates.shape[-1] // parts
    bounds = (w.integers([size * at]) for at in (index, index + 1))
    return w.emit("Slice", [w.read(gates), *bounds, w.integers([gates.type.rank - 1])])
