"""Samples of plain integers: exact arithmetic that wraps around, bits, running sums; and of what
lies between them, booleans and reals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import hypothesis.strategies as st

from irc import fixedpoint
from irc.loops import CompareKind
from irc.ops.activation import Clip, Relu
from irc.ops.bits import BitAnd, BitOr, BitXor, Shift
from irc.ops.core import Const, Input
from irc.ops.cumulative import CumSum, QCumSum
from irc.ops.elementwise import Add, Div, Mod, Mul, Sub
from irc.ops.reduce import ReduceSum
from irc.ops.truth import QCast, QCompare, Truth
from irc.ops.unary import Abs, Neg, Sign
from irc.types import DType, Shape, TensorType
from irc.value import Value
from tests.ops.sampling import (
    EIGHT_BITS,
    Draw,
    Feed,
    Sample,
    array,
    broadcastable,
    clamp,
    integer,
    multiplier,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    shape,
)

WHOLE = (DType.I64, DType.I64, DType.I32, DType.U32, DType.I16, DType.U16, DType.I8, DType.U8)
NARROW = tuple(d for d in WHOLE if d.bits < 64)


def plain(draw: Draw, name: str, dims: Shape, dtype: DType) -> Feed:
    """Numbers over the whole range."""
    return Feed(Input(dtype, dims, name=name), array(draw, dtype, dims))


def two(draw: Draw, dtypes: Sequence[DType] = WHOLE) -> tuple[Feed, Feed]:
    """Operands that broadcast."""
    dims, dtype = shape(draw), pick(draw, dtypes)
    a = plain(draw, "a", dims, dtype)
    return a, plain(draw, "b", broadcastable(draw, dims), dtype)


def of_two(made: Callable[[Value, Value], Value]) -> Callable[[Draw], Sample]:
    """Samples of an op without attributes."""

    def draw_sample(draw: Draw) -> Sample:
        a, b = two(draw)
        return sample_of(made(a.value, b.value), a, b)

    return draw_sample


OF_TWO: dict[str, Callable[[Value, Value], Value]] = {
    "add": Add, "sub": Sub, "mul": Mul, "bit_and": BitAnd, "bit_or": BitOr, "bit_xor": BitXor,
}  # fmt: skip
for _op, _made in OF_TWO.items():
    sample(_op)(of_two(_made))


@sample("neg")
def neg(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw), pick(draw, WHOLE))
    return sample_of(Neg(x.value), x)


@sample("abs")
def absolute(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw), pick(draw, WHOLE))
    return sample_of(Abs(x.value), x)


@sample("sign")
def sign(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw), pick(draw, WHOLE))
    return sample_of(Sign(x.value), x)


@sample("relu")
def relu(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw), pick(draw, WHOLE))
    return sample_of(Relu(x.value), x)


@sample("clip")
def clip(draw: Draw) -> Sample:
    """Between two bounds, or to one side of a single one."""
    x = plain(draw, "x", shape(draw), pick(draw, WHOLE))
    ends = st.one_of(st.integers(-300, 300).map(float), st.sampled_from((-inf, inf, 0.5, -0.5)))
    return sample_of(Clip(x.value, draw(ends), draw(ends)), x)


def divided(draw: Draw) -> tuple[Feed, Feed]:
    """Numbers, and divisors, often small."""
    a, b = two(draw)
    small = b.array // max(1, b.value.type.dtype.max // 4) if draw(st.booleans()) else b.array
    return a, Feed(b.value, small.astype(b.array.dtype))


@sample("div")
def div(draw: Draw) -> Sample:
    a, b = divided(draw)
    return sample_of(Div(a.value, b.value), a, b)


@sample("mod")
def mod(draw: Draw) -> Sample:
    a, b = divided(draw)
    return sample_of(Mod(a.value, b.value, draw(st.booleans())), a, b)


@sample("shift")
def shift(draw: Draw) -> Sample:
    """By any number, most often by one that leaves bits in."""
    a, b = two(draw, NARROW)
    dtype = b.value.type.dtype
    few = array(draw, dtype, b.value.shape, (0, dtype.bits + 1))
    by = b.array if draw(st.booleans()) else few
    return sample_of(Shift(a.value, b.value, draw(st.booleans())), a, Feed(b.value, by))


@sample("reduce_sum")
def reduce_sum(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw, 1, 4, 5), pick(draw, WHOLE))
    over = draw(st.sets(st.integers(0, x.value.type.rank - 1)))
    return sample_of(ReduceSum(x.value, tuple(sorted(over)), draw(st.booleans())), x)


@sample("cumsum")
def cumsum(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw, 1, 3, 6), pick(draw, WHOLE))
    axis = integer(draw, 0, x.value.type.rank - 1)
    return sample_of(CumSum(x.value, axis, draw(st.booleans()), draw(st.booleans())), x)


@sample("qcumsum")
def qcumsum(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 1, 3, 6), (*EIGHT_BITS, DType.I16))
    axis = integer(draw, 0, x.value.type.rank - 1)
    m, s = multiplier(draw, 20, 50)
    dtype = pick(draw, EIGHT_BITS)
    node = QCumSum(
        x.value, axis, draw(st.booleans()), draw(st.booleans()), m, s, clamp(draw, dtype),
        dtype, quant(draw, dtype),
    )  # fmt: skip
    return sample_of(node, x)


@sample("truth")
def truth(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw), (*EIGHT_BITS, DType.I16))
    dtype = pick(draw, [DType.BOOL, *EIGHT_BITS, DType.I32, DType.I64])
    count = 1 << x.value.type.dtype.bits
    return sample_of(Truth(x.value, Const(array(draw, dtype, (count,)), name="t")), x)


@sample("qcompare")
def qcompare(draw: Draw) -> Sample:
    """Values of unlike scales, and of one scale, which are often equal."""
    relations: tuple[CompareKind, ...] = ("lt", "le", "eq")
    dims = shape(draw)
    a = operand(draw, "a", dims, (*EIGHT_BITS, DType.I16))
    like, kind = a.value.type if draw(st.booleans()) else None, pick(draw, relations)
    b = operand(draw, "b", broadcastable(draw, dims), (*EIGHT_BITS, DType.I16), like=like)
    if draw(st.booleans()):
        real = Const(fixedpoint.dequantize(b.array, b.value.type), name="c")
        first = draw(st.booleans())
        return sample_of(QCompare.with_constant(kind, a.value, real, first=first), a)
    return sample_of(QCompare.of(kind, a.value, b.value), a, b)


@sample("qcast")
def qcast(draw: Draw) -> Sample:
    x = plain(draw, "x", shape(draw), pick(draw, (*WHOLE, DType.BOOL)))
    dtype = pick(draw, EIGHT_BITS)
    result = TensorType(dtype, x.value.shape, quant(draw, dtype))
    return sample_of(QCast.of(x.value, result), x)
