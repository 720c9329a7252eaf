"""Samples of moving, selecting and comparing: all integer dtypes, with and without a scale."""

from __future__ import annotations

from math import prod

import hypothesis.strategies as st
import numpy as np

from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.logic import And, Equal, Less, LessOrEqual, Not, Or, Relation
from irc.ops.scatter import Scatter
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.types import DType, Quant, Shape
from tests.ops.sampling import (
    Draw,
    Feed,
    Sample,
    array,
    broadcastable,
    integer,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    shape,
)

PLAIN = (DType.U8, DType.I8, DType.I16, DType.I32, DType.I64, DType.BOOL)


def plain(draw: Draw, name: str, dims: Shape, dtype: DType, q: Quant | None = None) -> Feed:
    """An input of that very type."""
    return Feed(Input(dtype, dims, q, name=name), array(draw, dtype, dims))


def anything(draw: Draw, dims: Shape) -> Feed:
    """A quantized activation, or plain numbers or booleans."""
    if draw(st.booleans()):
        return operand(draw, "x", dims)
    return plain(draw, "x", dims, pick(draw, PLAIN))


def split(draw: Draw, number: int) -> Shape:
    """Factors of a number, in any order, ones among them."""
    found = []
    while number > 1:
        f = pick(draw, [d for d in range(2, number + 1) if number % d == 0])
        found.append(f)
        number //= f
    return tuple(draw(st.permutations(found + [1] * integer(draw, 0, 2))))


@sample("reshape")
def reshape(draw: Draw) -> Sample:
    dims = draw(st.lists(st.integers(1, 6), max_size=4))
    # Some axes merged and split at random, some kept as they are.
    made = [d for d in dims if draw(st.booleans())]
    rest = prod(dims) // max(1, prod(made))
    at = integer(draw, 0, len(made))
    x = anything(draw, tuple(dims))
    return sample_of(Reshape(x.value, (*made[:at], *split(draw, rest), *made[at:])), x)


@sample("transpose")
def transpose(draw: Draw) -> Sample:
    x = anything(draw, shape(draw, 0, 5))
    rank = len(x.value.shape)
    return sample_of(Transpose(x.value, tuple(draw(st.permutations(range(rank))))), x)


@sample("concat")
def concat(draw: Draw) -> Sample:
    dims = shape(draw, 1, 4)
    axis = integer(draw, 0, len(dims) - 1)
    dtype = pick(draw, PLAIN)
    q = quant(draw, dtype) if dtype.is_integer and draw(st.booleans()) else None
    parts = [
        plain(draw, f"x{i}", (*dims[:axis], integer(draw, 1, 4), *dims[axis + 1 :]), dtype, q)
        for i in range(integer(draw, 1, 4))
    ]
    return sample_of(Concat(tuple(p.value for p in parts), axis), *parts)


@sample("slice")
def slice_(draw: Draw) -> Sample:
    x = anything(draw, shape(draw, 1, 4, 7))
    entries = []
    for d in x.value.shape:
        step = pick(draw, [1, 1, 2, 3, -1, -2])
        start = integer(draw, 0, d - 1)
        stop = integer(draw, start + 1, d) if step > 0 else integer(draw, -1, start - 1)
        entries.append((start, stop, step))
    starts, stops, steps = zip(*entries, strict=True)
    return sample_of(Slice(x.value, starts, stops, steps), x)


@sample("pad")
def pad(draw: Draw) -> Sample:
    x = anything(draw, shape(draw, 1, 4))
    mode = pick(draw, ["constant", "edge", "reflect"])
    pads = []
    for d in x.value.shape:
        largest = d - 1 if mode == "reflect" else 3
        pads.append((integer(draw, 0, largest), integer(draw, 0, largest)))
    quantized = x.value.type.quant is not None
    value = draw(st.floats(-1000, 1000)) if quantized else float(integer(draw, 0, 1))
    return sample_of(Pad(x.value, tuple(pads), value, mode), x)


@sample("expand")
def expand(draw: Draw) -> Sample:
    dims = shape(draw, 0, 4)
    return sample_of(Expand((x := anything(draw, broadcastable(draw, dims))).value, dims), x)


@sample("gather")
def gather(draw: Draw) -> Sample:
    x = anything(draw, shape(draw, 1, 3))
    axis = integer(draw, 0, len(x.value.shape) - 1)
    extent, dims = x.value.shape[axis], shape(draw, 0, 2)
    dtype = pick(draw, [DType.I32, DType.I64])
    if draw(st.booleans()):
        at = Const(array(draw, dtype, dims, (-extent, extent - 1)), name="at")
        return sample_of(Gather(x.value, at, axis), x)
    # Indices of run time may be anything: they are clamped.
    bounds = pick(draw, [(-extent, extent - 1), (-9, 9), (dtype.min, dtype.max)])
    run_time = Feed(Input(dtype, dims, name="at"), array(draw, dtype, dims, bounds))
    return sample_of(Gather(x.value, run_time.value, axis), x, run_time)


@sample("cast")
def cast(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw, 0, 3), pick(draw, PLAIN))
    source = x.value.type.dtype
    wider = [d for d in PLAIN if d.min <= source.min and source.max <= d.max]
    return sample_of(Cast(x.value, pick(draw, [*wider, DType.BOOL])), x)


@sample("where")
def where(draw: Draw) -> Sample:
    dims = shape(draw, 0, 4)
    condition = plain(draw, "condition", broadcastable(draw, dims), DType.BOOL)
    dtype = pick(draw, PLAIN)
    q = quant(draw, dtype) if dtype.is_integer and draw(st.booleans()) else None
    a = plain(draw, "a", broadcastable(draw, dims), dtype, q)
    b = plain(draw, "b", dims, dtype, q)
    return sample_of(Where(condition.value, a.value, b.value), condition, a, b)


def relation(draw: Draw, cls: type[Relation], dtype: DType) -> Sample:
    """Two operands that broadcast, often equal ones."""
    dims = shape(draw, 0, 3)
    q = quant(draw, dtype) if dtype.is_integer and draw(st.booleans()) else None
    a = plain(draw, "a", dims, dtype, q)
    b = plain(draw, "b", broadcastable(draw, dims), dtype, q)
    if a.array.shape == b.array.shape and draw(st.booleans()):
        b = Feed(b.value, np.where(np.arange(a.array.size).reshape(dims) % 2, a.array, b.array))
    return sample_of(cls(a.value, b.value), a, b)


@sample("equal")
def equal(draw: Draw) -> Sample:
    return relation(draw, Equal, pick(draw, PLAIN))


@sample("less")
def less(draw: Draw) -> Sample:
    return relation(draw, Less, pick(draw, PLAIN))


@sample("less_or_equal")
def less_or_equal(draw: Draw) -> Sample:
    return relation(draw, LessOrEqual, pick(draw, PLAIN))


@sample("and")
def and_(draw: Draw) -> Sample:
    return relation(draw, And, DType.BOOL)


@sample("or")
def or_(draw: Draw) -> Sample:
    return relation(draw, Or, DType.BOOL)


@sample("not")
def not_(draw: Draw) -> Sample:
    dims = shape(draw, 0, 3, 5)
    x = Feed(Input(DType.BOOL, dims, name="x"), array(draw, DType.BOOL, dims))
    return sample_of(Not(x.value), x)


@sample("scatter")
def scatter(draw: Draw) -> Sample:
    """Places inside and outside, some of them twice."""
    dims = shape(draw, 1, 3, 5)
    count = integer(draw, 0, 5)
    x = anything(draw, dims)
    updates = Feed(Input(x.value.type.dtype, (count, *dims[1:]), x.value.type.quant, name="u"),
                   array(draw, x.value.type.dtype, (count, *dims[1:])))  # fmt: skip
    at = Feed(Input(DType.I64, (count,), name="at"),
              array(draw, DType.I64, (count,), (-2, dims[0] + 1)))  # fmt: skip
    return sample_of(Scatter(x.value, updates.value, at.value), x, updates, at)
