"""Samples of the steps of recurrent networks."""

from __future__ import annotations

import numpy as np

from irc import fixedpoint
from irc.curve import UNIT, Curve
from irc.ops.activation import sigmoid
from irc.ops.bytewise import JoinBytes, SplitBytes
from irc.ops.core import Const
from irc.ops.qrecurrent import (
    QGated,
    QGruState,
    QLstmCell,
    QLstmHidden,
    QTanhState,
)
from irc.ops.spectrum import QMagnitude
from irc.types import DType, Quant, TensorType
from tests.ops.sampling import (
    Draw,
    Feed,
    Sample,
    array,
    clamp,
    integer,
    multipliers,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    scale,
    shape,
)

ORDERS = ("ifgo", "iofg", "gofi")


@sample("split_bytes")
def split_bytes(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 1, 3, 9), (DType.I16,))
    return sample_of(SplitBytes(x.value), x)


@sample("join_bytes")
def join_bytes(draw: Draw) -> Sample:
    """Sums are constants: as an input they would leave what weights bound them to."""
    dims = shape(draw, 1, 3, 9)
    wide = pick(draw, [False, True])
    largest = 2**22 if wide else 2**21
    sums = Const(array(draw, DType.I32, (2, *dims), (-largest, largest)), Quant(1.0), name="sums")
    b = array(draw, DType.I64 if wide else DType.I32, dims[-1:], (-(2**29), 2**29))
    m, s = multipliers(draw, dims[-1], 32, 62)
    dtype = pick(draw, [DType.I16, DType.U8, DType.I8])
    q = quant(draw, dtype)
    added = pick(draw, [DType.I16, DType.U8])
    zero = integer(draw, added.min, added.max)
    a = operand(draw, "a", dims, like=TensorType(added, dims, Quant(q.tensor_scale, zero)))
    bounds = clamp(draw, dtype)
    node = JoinBytes(sums, Const(b, name="b"), m, s, a.value, bounds, dtype, q, wide)
    return sample_of(node, a)


@sample("qlstm_cell")
def qlstm_cell(draw: Draw) -> Sample:
    dims = shape(draw, 1, 3, 9)
    gates, tables = _arguments(draw, "gates", (*dims[:-1], 4 * dims[-1]))
    c = _state(draw, "c", dims, max(scale(draw), UNIT))
    m, s = fixedpoint.multiplier(UNIT / c.value.type.scale)
    order = pick(draw, ORDERS)
    return sample_of(QLstmCell(gates.value, c.value, *tables, order, m, s), gates, c)


@sample("qlstm_hidden")
def qlstm_hidden(draw: Draw) -> Sample:
    dims = shape(draw, 1, 3, 9)
    gates, (logistic, _) = _arguments(draw, "gates", (*dims[:-1], 4 * dims[-1]))
    c, (_, tanh) = _arguments(draw, "c", dims)
    dtype, q, m, s = _result(draw, UNIT * UNIT)
    order = pick(draw, ORDERS)
    node = QLstmHidden(gates.value, c.value, logistic, tanh, order, m, s, dtype, q)
    return sample_of(node, gates, c)


@sample("qgated")
def qgated(draw: Draw) -> Sample:
    dims, parts = shape(draw, 1, 3, 9), integer(draw, 1, 3)
    gates, (logistic, _) = _arguments(draw, "gates", (*dims[:-1], parts * dims[-1]))
    x = _state(draw, "x", dims, UNIT)
    dtype, q, m, s = _result(draw, UNIT * UNIT)
    node = QGated(gates.value, x.value, logistic, integer(draw, 0, parts - 1), m, s, dtype, q)
    return sample_of(node, gates, x)


@sample("qgru_state")
def qgru_state(draw: Draw) -> Sample:
    dims, parts = shape(draw, 1, 3, 9), integer(draw, 1, 3)
    gates, (logistic, _) = _arguments(draw, "gates", (*dims[:-1], parts * dims[-1]))
    n, (_, tanh) = _arguments(draw, "n", dims)
    h = _state(draw, "h", dims, max(scale(draw), UNIT))
    m, s = fixedpoint.multiplier(UNIT / h.value.type.scale)
    index = integer(draw, 0, parts - 1)
    node = QGruState(gates.value, n.value, h.value, logistic, tanh, index, m, s)
    return sample_of(node, gates, n, h)


@sample("qtanh_state")
def qtanh_state(draw: Draw) -> Sample:
    x, (_, tanh) = _arguments(draw, "x", shape(draw, 1, 3, 9))
    dtype, q, m, s = _result(draw, UNIT)
    return sample_of(QTanhState(x.value, tanh, m, s, dtype, q), x)


@sample("qmagnitude")
def qmagnitude(draw: Draw) -> Sample:
    dims, step = shape(draw, 1, 3, 9), scale(draw)
    a, b = (_state(draw, name, dims, step) for name in "ab")
    dtype, q, m, s = _result(draw, 2.0**-10)
    return sample_of(QMagnitude(a.value, b.value, m, s, dtype, q), a, b)


def _state(draw: Draw, name: str, dims: tuple[int, ...], step: float) -> Feed:
    return operand(draw, name, dims, like=TensorType(DType.I16, dims, Quant(step)))


def _arguments(
    draw: Draw, name: str, dims: tuple[int, ...]
) -> tuple[Feed, tuple[Const, Const]]:
    """What a curve is looked up for, and the tables of sigmoid and tanh over its scale."""
    x = _state(draw, name, dims, scale(draw))
    step = x.value.type.scale
    curve = Curve.of(step)
    return x, (Const(curve.table(sigmoid, step)), Const(curve.table(np.tanh, step)))


def _result(draw: Draw, unit: float) -> tuple[DType, Quant, int, int]:
    """A result of at most 1, in 8 or 16 bits, and the multiplier that takes `unit` to it."""
    dtype = pick(draw, [DType.I16, DType.U8, DType.I8])
    step = max(scale(draw), UNIT)
    m, s = fixedpoint.multiplier(unit / step)
    return dtype, Quant(step, integer(draw, dtype.min, dtype.max)), m, s
