"""Recurrent networks, a step at a time: the matrix product with the state, and the cells.

A frontend unrolls a sequence into these. States and what the gates are computed from are kept in
16 bits (arithmetic.md (13)); the twins stand in `irc.ops.qrecurrent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irc.errors import TypeCheckError
from irc.ops import bytewise
from irc.ops import qrecurrent as twins
from irc.ops.activation import sigmoid
from irc.ops.linear import linear_shape
from irc.ops.quantization import constant
from irc.types import Array, TensorType
from irc.value import Value, op

PRECISE: Mapping[str, frozenset[str]] = {
    "recurrent": frozenset({"x", "a"}),
    "lstm_cell": frozenset({"gates", "c"}),
    "lstm_hidden": frozenset({"gates", "c"}),
    "gated": frozenset({"gates", "x"}),
    "gru_state": frozenset({"gates", "n", "h"}),
    "tanh_state": frozenset({"x"}),
}
"""The ops whose results are kept in 16 bits, and their operands that are."""
CARRIED: Mapping[str, str] = {"recurrent": "a", "lstm_cell": "c", "gru_state": "h"}
"""The operand whose scale is also the result's, so that all steps agree."""


@op("recurrent")
class Recurrent(Value):
    """`a + x @ w.T + b`: what one step's gates are computed from, and what a state adds to it.

    x [..., K], a state; w [O, K]; b [O]; a [..., O], the part that does not depend on the state.
    """

    x: Value
    w: Value
    b: Value | None
    a: Value | None

    def infer(self) -> TensorType:
        """Float operands that fit each other."""
        shape = linear_shape(self.x.shape, self.w.shape)
        _need_floats(self)
        if self.b is not None and self.b.shape != (shape[-1],):
            raise TypeCheckError(f"b must have {shape[-1]} entries, it is {self.b.type}")
        if self.a is not None and self.a.shape != shape:
            raise TypeCheckError(f"a must be {list(shape)}, it is {self.a.type}")
        return TensorType(self.x.type.dtype, shape)

    def evaluate(self, x: Array, w: Array, b: Array | None, a: Array | None) -> Array:
        """By BLAS."""
        y = np.asarray(x @ w.T)
        y = y if b is None else y + b
        return y if a is None else y + a

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """Both bytes of the state by one `qlinear`, then `qrecurrent`."""
        given = list(operands)
        x, w = given.pop(0), constant(given.pop(0), "the weights of recurrent")
        b = given.pop(0) if self.b is not None else None
        a = given.pop(0) if self.a is not None else None
        return bytewise.multiplied(x, w, b, a, result, self.name)


@dataclass(frozen=True, eq=False)
class _LstmState(Value):
    """Base of the two states of an LSTM, functions of its gates and its cell state."""

    gates: Value
    c: Value
    order: str = "ifgo"

    def infer(self) -> TensorType:
        """The type of c."""
        _need_floats(self)
        twins.need_gates(self.gates, self.c.shape, 4)
        twins.need_order(self.order)
        return self.c.type


@op("lstm_cell")
class LstmCell(_LstmState):
    """The next cell state, `sigmoid(f) * c + sigmoid(i) * tanh(g)`.

    gates [..., 4H] holds the four arguments side by side, as `order` says; c [..., H].
    """

    def evaluate(self, gates: Array, c: Array) -> Array:
        """The formula in float64, rounded to the operands' dtype."""
        i, f, g = (_part(gates, self.order.index(n), 4) for n in "ifg")
        return np.asarray(sigmoid(f) * c + sigmoid(i) * np.tanh(g)).astype(c.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qlstm_cell`."""
        return twins.lstm_cell(operands, self.order, result, self.name)


@op("lstm_hidden")
class LstmHidden(_LstmState):
    """The next hidden state, `sigmoid(o) * tanh(c)`, of the gates and the *next* cell state."""

    def evaluate(self, gates: Array, c: Array) -> Array:
        """The formula in float64, rounded to the operands' dtype."""
        o = _part(gates, self.order.index("o"), 4)
        return np.asarray(sigmoid(o) * np.tanh(c.astype(np.float64))).astype(c.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qlstm_hidden`."""
        return twins.lstm_hidden(operands, self.order, result, self.name)


@op("gated")
class Gated(Value):
    """`sigmoid(gate) * x`: x [..., H], the gate's argument is the part `index` of `gates`."""

    gates: Value
    x: Value
    index: int = 0

    def infer(self) -> TensorType:
        """The type of x."""
        _need_floats(self)
        twins.need_part(self.gates, self.x.shape, self.index)
        return self.x.type

    def evaluate(self, gates: Array, x: Array) -> Array:
        """The formula in float64, rounded to the operands' dtype."""
        parts = gates.shape[-1] // x.shape[-1]
        return np.asarray(sigmoid(_part(gates, self.index, parts)) * x).astype(x.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qgated`."""
        return twins.gated(operands, self.index, result, self.name)


@op("gru_state")
class GruState(Value):
    """The next state of a GRU, `z * h + (1 - z) * tanh(n)` with `z = sigmoid(gate)`.

    h and n [..., H]; the gate's argument is the part `index` of `gates`.
    """

    gates: Value
    n: Value
    h: Value
    index: int = 0

    def infer(self) -> TensorType:
        """The type of h."""
        _need_floats(self)
        twins.need_part(self.gates, self.h.shape, self.index)
        if self.n.shape != self.h.shape:
            raise TypeCheckError(f"n {self.n.type} and h {self.h.type} must have one shape")
        return self.h.type

    def evaluate(self, gates: Array, n: Array, h: Array) -> Array:
        """The formula in float64, rounded to the operands' dtype."""
        parts = gates.shape[-1] // h.shape[-1]
        z = sigmoid(_part(gates, self.index, parts))
        return np.asarray(z * h + (1 - z) * np.tanh(n.astype(np.float64))).astype(h.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qgru_state`."""
        return twins.gru_state(operands, self.index, result, self.name)


@op("tanh_state")
class TanhState(Value):
    """The next state of a plain recurrent layer, `tanh(x)`, kept as finely as all states."""

    x: Value

    def infer(self) -> TensorType:
        """The type of x."""
        _need_floats(self)
        return self.x.type

    def evaluate(self, x: Array) -> Array:
        """In float64, rounded to the operand's dtype."""
        return np.asarray(np.tanh(x.astype(np.float64))).astype(x.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """Lines, or `qtanh_state`."""
        return twins.tanh_state(operands[0], result, self.name)


def _part(gates: Array, index: int, parts: int) -> Array:
    return np.split(gates, parts, axis=-1)[index].astype(np.float64)


def _need_floats(v: Value) -> None:
    types = {o.type.dtype for o in v.operands}
    if len(types) > 1 or not all(t.is_float for t in types):
        listed = ", ".join(str(o.type) for o in v.operands)
        raise TypeCheckError(f"operands must be of one float type: {listed}")
