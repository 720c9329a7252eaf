"""Samples of the norms by a row's own statistics."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np

from irc import fixedpoint
from irc.ops.core import Const
from irc.ops.qnorm import QNorm
from irc.types import DType
from tests.ops.sampling import (
    EIGHT_BITS,
    RESULTS,
    Draw,
    Sample,
    array,
    broadcastable,
    clamp,
    integer,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    shape,
)


@sample("qnorm")
def qnorm(draw: Draw) -> Sample:
    x = operand(draw, "x", shape(draw, 1, 4, 9), (*EIGHT_BITS, DType.I16))
    dims = x.value.shape
    over = tuple(sorted(draw(st.sets(st.integers(0, len(dims) - 1), min_size=1))))
    count, epsilon = int(np.prod([dims[a] for a in over])), pick(draw, [0.0, 1e-12, 1e-5, 1.0])
    norm = fixedpoint.Norm.of(count, draw(st.booleans()), epsilon, x.value.type)
    affine = broadcastable(draw, dims)
    m = Const(array(draw, DType.I32, affine), name="m")
    s = integer(draw, 1, 62)
    b = Const(array(draw, DType.I64, affine, (-(2**62), 2**62)), name="b")
    dtype = pick(draw, RESULTS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    node = QNorm(
        x.value, m, b, over, norm.centred, norm.lift, norm.epsilon, norm.shift, s, bounds, dtype, q
    )
    return sample_of(node, x)
