"""Samples of matrix products, elementwise ops, activations, reductions and softmax."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np

from irc import fixedpoint
from irc.ops.core import Const, Input
from irc.ops.elementwise import Maximum, Minimum
from irc.ops.interpolate import ENTRIES, LARGEST, VALUES, Interpolate, WideLookup
from irc.ops.linear import QLinear, QMatMul
from irc.ops.prelu import QPRelu
from irc.ops.qelementwise import QAdd, QDiv, QMul, reach
from irc.ops.quantization import Lookup, Requantize
from irc.ops.reduce import QReduceSum, ReduceMax, ReduceMin
from irc.ops.softmax import QSoftmax
from irc.types import DType, Quant, Shape
from tests.ops.sampling import (
    EIGHT_BITS,
    RESULTS,
    Draw,
    Feed,
    Sample,
    array,
    broadcastable,
    clamp,
    fraction,
    integer,
    multiplier,
    multipliers,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    scale,
    shape,
    steps,
    weights,
)

MIXED = (DType.U8, DType.I8, DType.I16)


@sample("qlinear")
def qlinear(draw: Draw) -> Sample:
    x = operand(draw, "x", (*shape(draw, 0, 3), integer(draw, 1, 40)))
    out, dtype = integer(draw, 1, 9), pick(draw, RESULTS)
    w = weights(draw, (out, x.value.shape[-1]))
    b = Const(array(draw, DType.I32, (out,), (-(2**24), 2**24)), name="b")
    m, s = multipliers(draw, out, 27, 50)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    node = QLinear(
        x.value, w, b, m, s, bounds, dtype, q, fraction=fraction(draw), **steps(draw, b)
    )
    return sample_of(node, x)


@sample("qmatmul")
def qmatmul(draw: Draw) -> Sample:
    batch, k = shape(draw, 0, 2, 3), integer(draw, 1, 40)
    rows = (integer(draw, 1, 4),) if draw(st.booleans()) else ()
    columns = (integer(draw, 1, 4),) if draw(st.booleans()) else ()
    a_shape: Shape = (*(broadcastable(draw, batch) if rows else ()), *rows, k)
    b_shape: Shape = (*(broadcastable(draw, batch) if columns else ()), k, *columns)
    a = operand(draw, "a", a_shape, MIXED, constant=True)
    narrow = EIGHT_BITS if a.value.type.dtype.bits > 8 else MIXED  # (6) holds no larger sums
    b = operand(draw, "b", b_shape, narrow, constant=isinstance(a.value, Const) is False)
    m, s = multiplier(draw, 22, 50)
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(QMatMul(a.value, b.value, m, s, bounds, dtype, q), a, b)


def pair(draw: Draw, dtypes: tuple[DType, ...] = MIXED) -> tuple[Feed, Feed]:
    """Two operands that broadcast, the first of any of the dtypes; at least one an input."""
    full = shape(draw, 0, 4)
    a, b = (
        operand(draw, "a", full, dtypes),
        operand(draw, "b", broadcastable(draw, full), MIXED, constant=True),
    )
    return (a, b) if draw(st.booleans()) else (b, a)


@sample("qadd")
def qadd(draw: Draw) -> Sample:
    a, b = pair(draw)
    if draw(st.booleans()):  # a sum of products that is not rounded first
        dims = a.value.shape
        wide = Input(DType.I32, dims, Quant(2.0**-20), name=a.value.name)
        a = Feed(wide, array(draw, DType.I32, dims))
    dtype = pick(draw, RESULTS)
    q = quant(draw, dtype)
    sign = pick(draw, [1, -1])
    fine = a.value.type.dtype is DType.I32
    factors = (2.0**-20 if fine else scale(draw), sign * scale(draw))
    (ma, mb), shift = fixedpoint.common_multipliers(
        factors, (reach(a.value.type), reach(b.value.type))
    )
    bounds, nudge = clamp(draw, dtype), pick(draw, [0, 0, -1, -100])
    even = not fine and draw(st.booleans())
    if even:
        ma, mb, shift = 1 << pick(draw, [0, 3]), sign << pick(draw, [1, 2]), pick(draw, [1, 2, 4])
    sum_ = QAdd(a.value, b.value, ma, mb, shift, bounds, dtype, q, nudge, even)
    return sample_of(sum_, a, b)


@sample("qmul")
def qmul(draw: Draw) -> Sample:
    a, b = pair(draw, EIGHT_BITS)
    m, s = multiplier(draw, 1, 62)
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(QMul(a.value, b.value, m, s, bounds, dtype, q), a, b)


@sample("qdiv")
def qdiv(draw: Draw) -> Sample:
    a, b = pair(draw)
    m, s = fixedpoint.quotient_multiplier(2.0 ** draw(st.floats(-45, 20)))
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(QDiv(a.value, b.value, m, s, bounds, dtype, q), a, b)


def choice(draw: Draw, cls: type[Minimum] | type[Maximum]) -> Sample:
    """Two operands of one quantization."""
    full = shape(draw, 0, 4)
    a = operand(draw, "a", full)
    b = operand(draw, "b", broadcastable(draw, full), constant=True, like=a.value.type)
    first, second = (a, b) if draw(st.booleans()) else (b, a)
    return sample_of(cls(first.value, second.value), first, second)


@sample("minimum")
def minimum(draw: Draw) -> Sample:
    return choice(draw, Minimum)


@sample("maximum")
def maximum(draw: Draw) -> Sample:
    return choice(draw, Maximum)


@sample("qprelu")
def qprelu(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 1, 4), MIXED)
    slopes = broadcastable(draw, x.value.shape)
    count = int(np.prod(slopes))
    m, s = multipliers(draw, count, 20, 45)
    signs = np.asarray(draw(st.lists(st.sampled_from([1, -1]), min_size=count, max_size=count)))
    m_neg = Const((m.array * signs).astype(np.int32).reshape(slopes), name="m_neg")
    s_neg = Const(s.array.reshape(slopes), name="s_neg")
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    wide = draw(st.booleans())
    node = QPRelu(x.value, *multiplier(draw, 20, 45), m_neg, s_neg, bounds, dtype, q, wide)
    return sample_of(node, x)


def reduced(draw: Draw) -> tuple[Feed, tuple[int, ...], bool]:
    """An operand, the axes to reduce, and whether to keep them."""
    x = operand(draw, "x", shape(draw, 1, 4, 5), MIXED)
    rank = len(x.value.shape)
    over = draw(st.sets(st.integers(0, rank - 1), max_size=rank))
    return x, tuple(sorted(over)), draw(st.booleans())


@sample("reduce_max")
def reduce_max(draw: Draw) -> Sample:
    x, over, keepdims = reduced(draw)
    return sample_of(ReduceMax(x.value, over, keepdims), x)


@sample("reduce_min")
def reduce_min(draw: Draw) -> Sample:
    x, over, keepdims = reduced(draw)
    return sample_of(ReduceMin(x.value, over, keepdims), x)


@sample("qreduce_sum")
def qreduce_sum(draw: Draw) -> Sample:
    x, over, keepdims = reduced(draw)
    m, s = multiplier(draw, 1, 50)
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(QReduceSum(x.value, over, keepdims, m, s, bounds, dtype, q), x)


@sample("qsoftmax")
def qsoftmax(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 1, 4, 9), (*EIGHT_BITS, DType.I16, DType.U16))
    axis = integer(draw, 0, len(x.value.shape) - 1)
    t = x.value.type
    table = Const(fixedpoint.softmax_table(t.scale, t.dtype.bits), name="exp")
    dtype = pick(draw, RESULTS)
    q = quant(draw, dtype)
    m, s = fixedpoint.softmax_multiplier(q.tensor_scale)
    return sample_of(QSoftmax(x.value, table, axis, m, s, dtype, q), x)


@sample("requantize")
def requantize(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 0, 4), MIXED)
    m, s = multiplier(draw, 1, 62)
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(Requantize(x.value, m, s, bounds, dtype, q), x)


@sample("interpolate")
def interpolate(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 0, 4), (DType.I16,))
    count = pick(draw, ENTRIES)
    table = Const(array(draw, DType.I32, (count,), (-LARGEST, LARGEST)), name="table")
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    return sample_of(Interpolate(x.value, table, integer(draw, 0, 16), bounds, dtype, q), x)


@sample("lookup_wide")
def lookup_wide(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 0, 4), (DType.I16,))
    dtype = pick(draw, RESULTS)
    table = Const(array(draw, dtype, (VALUES,)), name="table")
    return sample_of(WideLookup(x.value, table, quant(draw, dtype)), x)


@sample("lookup")
def lookup(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 0, 4))
    dtype = pick(draw, RESULTS)
    table = Const(array(draw, dtype, (256,)), name="table")
    return sample_of(Lookup(x.value, table, quant(draw, dtype)), x)
