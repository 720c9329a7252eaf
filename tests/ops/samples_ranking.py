"""Samples of the positions of extremes."""

from __future__ import annotations

import hypothesis.strategies as st

from irc.ops.ranking import ArgMax, ArgMin, TopK
from irc.types import DType
from tests.ops.sampling import (
    EIGHT_BITS,
    Draw,
    Feed,
    Sample,
    integer,
    operand,
    sample,
    sample_of,
    shape,
)


def position(draw: Draw, cls: type[ArgMax] | type[ArgMin]) -> Sample:
    """Any axis, any of several."""
    x = operand(draw, "x", shape(draw, 1, 4, 6), (*EIGHT_BITS, DType.I16))
    axis = integer(draw, 0, x.value.type.rank - 1)
    return sample_of(cls(x.value, axis, draw(st.booleans()), draw(st.booleans())), x)


@sample("argmax")
def argmax(draw: Draw) -> Sample:
    return position(draw, ArgMax)


@sample("argmin")
def argmin(draw: Draw) -> Sample:
    return position(draw, ArgMin)


@sample("topk")
def topk(draw: Draw) -> Sample:
    """Few values, so that there are ties."""
    x = operand(draw, "x", shape(draw, 1, 3, 7), (*EIGHT_BITS, DType.I16))
    axis = integer(draw, 0, x.value.type.rank - 1)
    few = draw(st.booleans())
    values = x.array % 3 if few else x.array
    k = integer(draw, 1, x.value.shape[axis])
    node = TopK(x.value, axis, k, draw(st.booleans()))
    return sample_of(node, Feed(x.value, values.astype(x.array.dtype)))
