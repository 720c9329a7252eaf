"""Samples of the positions of extremes."""

from __future__ import annotations

import hypothesis.strategies as st

from irc.ops.ranking import ArgMax, ArgMin
from irc.types import DType
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, integer, operand, sample, sample_of, shape


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
