"""The integer twins of the cells of `irc.ops.recurrent`, equation (13): states of 16 bits around
zero, gates by curves of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.curve import UNIT, Curve
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Loops, MulShift, clamp, elementwise, load
from irc.ops.activation import sigmoid
from irc.ops.bytewise import need_state, state_type
from irc.ops.core import Const
from irc.ops.interpolate import interpolated
from irc.ops.moving import in_type
from irc.ops.quantization import full_range, magnitude, scalars
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

HALF = 1 << 14
"""Half of a unit of a product with a curve."""
CURVE_NEAR = 1 / 64
"""As near as curves are, in steps of 8 bits."""
Operands = tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class _QLstmState(Value):
    """Base of the two states of an LSTM: functions of its gates and its cell state, both i16 of
    zero point 0, by the curves of `sigmoid` and `tanh` and one rescaling."""

    gates: Value
    c: Value
    sigmoid: Value
    tanh: Value
    order: str
    m: int
    s: int

    def check_gates(self) -> None:
        """Raise `TypeCheckError` for gates that don't go with the state or with the curve."""
        need_state("gates", self.gates)
        need_state("c", self.c)
        need_gates(self.gates, self.c.shape, 4)
        need_order(self.order)
        Curve.of(self.gates.type.scale).check(self.sigmoid)


@op("qlstm_cell")
class QLstmCell(_QLstmState):
    """`c' = clamp((f*c + rescaled(i*g) + 2^14) >> 15)`, f, i and g curves in units of 2^-15.

    gates i16 [..., 4H] in `order`, c i16 [..., H] whose type is the result's; both have zero point
    0. m and s take `i*g`, of scale 2^-30, to the scale of `f*c`.
    """

    def infer(self) -> TensorType:
        """The type of c."""
        self.check_gates()
        Curve.of(self.gates.type.scale).check(self.tanh)
        _check_factor(self.m, self.s)
        return self.c.type

    def evaluate(self, gates: Array, c: Array, sigmoid: Array, tanh: Array) -> Array:
        """The formula."""
        i, f = (_looked_up(self.gates, gates, 4, self.order.index(n), sigmoid) for n in "if")
        g = _looked_up(self.gates, gates, 4, self.order.index("g"), tanh)
        new = fixedpoint.mul_shift(i * g, self.m, self.s)
        return _saturated((f * c + new + HALF) >> 15)

    def loops(self) -> Loops:
        """Three curves, two products."""

        def value(*at: Expr) -> Expr:
            i, f = (self._gate(at, n, self.sigmoid) for n in "if")
            g = self._gate(at, "g", self.tanh)
            c = load(self.c, *at).cast(DType.I32)
            new = MulShift(i * g, *scalars(self.m, self.s))
            return _clamped((f * c + new + HALF) >> 15)

        return elementwise(self.shape, value)

    def _gate(self, at: tuple[Expr, ...], name: str, table: Value) -> Expr:
        return _gate(self.gates, at, self.order.index(name) * self.shape[-1], table)


def lstm_cell(operands: Operands, order: str, result: TensorType, name: str) -> Value:
    """The next cell state in the type `result`."""
    gates, c = operands
    kept = state_type(result, UNIT)
    gates, c = in_type(gates, state_type(gates.type)), in_type(c, kept.with_shape(c.shape))
    m, s = fixedpoint.multiplier(UNIT / kept.scale)
    made = QLstmCell(gates, c, *_tables(gates), order, m, s, name=name)
    return in_type(made, result)


@op("qlstm_hidden")
class QLstmHidden(_QLstmState):
    """`h = rescaled(o * t)`, o and t the curves of a gate and of the cell state.

    gates i16 [..., 4H] in `order`, c i16 [..., H], both of zero point 0; the product of scale
    2^-30 goes to the result by m and s, equation (6).
    """

    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of c."""
        self.check_gates()
        Curve.of(self.c.type.scale).check(self.tanh)
        result = TensorType(self.dtype, self.c.shape, self.quant)
        _check_rescaled(self.m, self.s, result, UNIT * UNIT)
        return result

    def evaluate(self, gates: Array, c: Array, sigmoid: Array, tanh: Array) -> Array:
        """The formula."""
        o = _looked_up(self.gates, gates, 4, self.order.index("o"), sigmoid)
        t = _looked_up(self.c, c, 1, 0, tanh)
        bounds = full_range(self.type)
        return fixedpoint.requantize(o * t, self.m, self.s, self.type.zero, bounds, self.dtype)

    def loops(self) -> Loops:
        """Two curves, a product."""

        def value(*at: Expr) -> Expr:
            offset = self.order.index("o") * self.shape[-1]
            o = _gate(self.gates, at, offset, self.sigmoid)
            t = Curve.of(self.c.type.scale).expression(load(self.c, *at).cast(DType.I32), self.tanh)
            y = MulShift(o * t, *scalars(self.m, self.s)) + self.type.zero
            return clamp(y, *full_range(self.type)).cast(self.dtype)

        return elementwise(self.shape, value)


def lstm_hidden(operands: Operands, order: str, result: TensorType, name: str) -> Value:
    """The next hidden state in the type `result`."""
    gates, c = operands
    gates, c = in_type(gates, state_type(gates.type)), in_type(c, state_type(c.type))
    (logistic, _), (_, tanh) = _tables(gates), _tables(c)
    m, s = fixedpoint.multiplier(UNIT * UNIT / result.scale)
    quant = fixedpoint.quant_of(result)
    return QLstmHidden(gates, c, logistic, tanh, order, m, s, result.dtype, quant, name=name)


@op("qgated")
class QGated(Value):
    """`rescaled(g * x)`, g the curve of the part `index` of gates, in units of 2^-15.

    gates i16 [..., n*H] and x i16 [..., H], both of zero point 0; m and s as in equation (6).
    """

    gates: Value
    x: Value
    sigmoid: Value
    index: int
    m: int
    s: int
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of x."""
        need_state("gates", self.gates)
        need_state("x", self.x)
        need_part(self.gates, self.x.shape, self.index)
        Curve.of(self.gates.type.scale).check(self.sigmoid)
        result = TensorType(self.dtype, self.x.shape, self.quant)
        _check_rescaled(self.m, self.s, result, UNIT * UNIT)
        return result

    def evaluate(self, gates: Array, x: Array, sigmoid: Array) -> Array:
        """The formula."""
        g = _looked_up(self.gates, gates, gates.shape[-1] // x.shape[-1], self.index, sigmoid)
        bounds = full_range(self.type)
        return fixedpoint.requantize(g * x, self.m, self.s, self.type.zero, bounds, self.dtype)

    def loops(self) -> Loops:
        """A curve, a product."""

        def value(*at: Expr) -> Expr:
            g = _gate(self.gates, at, self.index * self.shape[-1], self.sigmoid)
            product = g * load(self.x, *at).cast(DType.I32)
            y = MulShift(product, *scalars(self.m, self.s)) + self.type.zero
            return clamp(y, *full_range(self.type)).cast(self.dtype)

        return elementwise(self.shape, value)


def gated(operands: Operands, index: int, result: TensorType, name: str) -> Value:
    """`sigmoid(gate) * x` in the type `result`."""
    gates, x = operands
    gates, x = in_type(gates, state_type(gates.type)), in_type(x, state_type(x.type))
    logistic, _ = _tables(gates)
    m, s = fixedpoint.multiplier(UNIT * x.type.scale / result.scale)
    quant = fixedpoint.quant_of(result)
    return QGated(gates, x, logistic, index, m, s, result.dtype, quant, name=name)


@op("qgru_state")
class QGruState(Value):
    """`h' = clamp(t + ((z * (h - t) + 2^14) >> 15))`, z a gate's curve in units of 2^-15, t the
    curve of n taken to the scale of h by m and s.

    gates i16 [..., k*H], n i16 and h i16 [..., H], all of zero point 0; the type of h is the
    result's.
    """

    gates: Value
    n: Value
    h: Value
    sigmoid: Value
    tanh: Value
    index: int
    m: int
    s: int

    def infer(self) -> TensorType:
        """The type of h."""
        for what, v in (("gates", self.gates), ("n", self.n), ("h", self.h)):
            need_state(what, v)
        need_part(self.gates, self.h.shape, self.index)
        if self.n.shape != self.h.shape:
            raise TypeCheckError(f"n {self.n.type} and h {self.h.type} must have one shape")
        Curve.of(self.gates.type.scale).check(self.sigmoid)
        Curve.of(self.n.type.scale).check(self.tanh)
        _check_rescaled(self.m, self.s, self.h.type, UNIT)
        return self.h.type

    def evaluate(
        self, gates: Array, n: Array, h: Array, sigmoid: Array, tanh: Array
    ) -> Array:
        """The formula."""
        parts = gates.shape[-1] // h.shape[-1]
        z = _looked_up(self.gates, gates, parts, self.index, sigmoid)
        t = _looked_up(self.n, n, 1, 0, tanh)
        t = _saturated(fixedpoint.mul_shift(t, self.m, self.s)).astype(np.int64)
        return _saturated(t + ((z * (h - t) + HALF) >> 15))

    def loops(self) -> Loops:
        """Two curves, two products; `32767 * 65535 + 2^14` is below 2^31."""

        def value(*at: Expr) -> Expr:
            z = _gate(self.gates, at, self.index * self.shape[-1], self.sigmoid)
            t = Curve.of(self.n.type.scale).expression(load(self.n, *at).cast(DType.I32), self.tanh)
            t = clamp(MulShift(t, *scalars(self.m, self.s)), DType.I16.min, DType.I16.max)
            h = load(self.h, *at).cast(DType.I32)
            return _clamped(t + ((z * (h - t) + HALF) >> 15))

        return elementwise(self.shape, value)


def gru_state(operands: Operands, index: int, result: TensorType, name: str) -> Value:
    """The next state of a GRU in the type `result`."""
    gates, n, h = operands
    kept = state_type(result)
    gates, n = in_type(gates, state_type(gates.type)), in_type(n, state_type(n.type))
    h = in_type(h, kept.with_shape(h.shape))
    (logistic, _), (_, tanh) = _tables(gates), _tables(n)
    m, s = fixedpoint.multiplier(UNIT / kept.scale)
    made = QGruState(gates, n, h, logistic, tanh, index, m, s, name=name)
    return in_type(made, result)


@op("qtanh_state")
class QTanhState(Value):
    """`rescaled(t)`, t the curve of x, in units of 2^-15; m and s as in equation (6)."""

    x: Value
    tanh: Value
    m: int
    s: int
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of x."""
        need_state("x", self.x)
        Curve.of(self.x.type.scale).check(self.tanh)
        result = TensorType(self.dtype, self.x.shape, self.quant)
        _check_rescaled(self.m, self.s, result, UNIT)
        return result

    def evaluate(self, x: Array, tanh: Array) -> Array:
        """The formula."""
        t, bounds = _looked_up(self.x, x, 1, 0, tanh), full_range(self.type)
        return fixedpoint.requantize(t, self.m, self.s, self.type.zero, bounds, self.dtype)

    def loops(self) -> Loops:
        """A curve and a multiplication."""

        def value(*at: Expr) -> Expr:
            t = _gate(self.x, at, 0, self.tanh)
            y = MulShift(t, *scalars(self.m, self.s)) + self.type.zero
            return clamp(y, *full_range(self.type)).cast(self.dtype)

        return elementwise(self.shape, value)


def tanh_state(x: Value, result: TensorType, name: str) -> Value:
    """`tanh(x)` in the type `result`: by lines over the range of x, or, where this is too wide for
    them, by the curve that gates have."""
    x = in_type(x, state_type(x.type))
    try:
        return interpolated(x, np.tanh, result, "tanh", CURVE_NEAR).replace(name=name)
    except IRCError:
        pass
    _, tanh = _tables(x)
    m, s = fixedpoint.multiplier(UNIT / result.scale)
    return QTanhState(x, tanh, m, s, result.dtype, fixedpoint.quant_of(result), name=name)


# ---------------------------------------------------------------- what they share


def need_gates(gates: Value, state: Shape, parts: int) -> None:
    """Raise `TypeCheckError` unless `gates` holds `parts` arguments for each state."""
    if not state or gates.shape != (*state[:-1], parts * state[-1]):
        raise TypeCheckError(f"gates {gates.type} are not {parts} per state of {list(state)}")


def need_part(gates: Value, state: Shape, index: int) -> None:
    """Raise `TypeCheckError` unless `gates` holds whole parts, and one of that index."""
    parts = gates.shape[-1] // max(state[-1], 1) if state and gates.shape else 0
    need_gates(gates, state, parts)
    if not 0 <= index < parts:
        raise TypeCheckError(f"gates {gates.type} have no part {index}")


def need_order(order: str) -> None:
    """Raise `TypeCheckError` unless `order` names the four gates of an LSTM."""
    if sorted(order) != sorted("ifgo"):
        raise TypeCheckError(f"order {order!r} must name i, f, g and o")


def _check_factor(m: int, s: int) -> None:
    """A factor of at most 1: `32767 * 32768 + 32767 * 32767 + 2^14` is below 2^31."""
    if not 1 <= s <= fixedpoint.MAX_SHIFT or not 0 <= m < 2**31 or m > 2**s:
        raise TypeCheckError(f"m = {m}, s = {s} would not make a product of gates smaller")


def _tables(x: Value) -> tuple[Const, Const]:
    """The tables of sigmoid and tanh over the scale of an operand."""
    curve, scale = Curve.of(x.type.scale), x.type.scale
    return Const(curve.table(sigmoid, scale)), Const(curve.table(np.tanh, scale))


def _gate(gates: Value, at: tuple[Expr, ...], offset: int, table: Value) -> Expr:
    """The curve of the gate that stands `offset` behind the state's index."""
    argument = load(gates, *at[:-1], at[-1] + offset).cast(DType.I32)
    return Curve.of(gates.type.scale).expression(argument, table)


def _looked_up(x: Value, array: Array, parts: int, index: int, table: Array) -> Array:
    """The curve of one of the parts of an operand."""
    argument = np.split(array.astype(np.int64), parts, axis=-1)[index]
    return Curve.of(x.type.scale).apply(argument, table)


def _saturated(y: Array) -> Array:
    return np.asarray(np.clip(y, DType.I16.min, DType.I16.max), np.int16)


def _clamped(y: Expr) -> Expr:
    return clamp(y, DType.I16.min, DType.I16.max).cast(DType.I16)


def _check_rescaled(m: int, s: int, result: TensorType, unit: float) -> None:
    """What goes through m and s, at most 1 / unit, must stay within 32 bits."""
    if not 1 <= s <= fixedpoint.MAX_SHIFT or not 0 <= m < 2**31:
        raise TypeCheckError(f"m = {m}, s = {s} is no multiplier")
    if (int(1 / unit) * m >> s) + 1 + magnitude(result) >= 2**31:
        raise TypeCheckError(f"m = {m}, s = {s}: states would leave 32 bits")
