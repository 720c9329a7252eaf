"""Softmax row by row: all lengths, operand and result types, slices, rows of one value."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.shape import Slice
from irc.ops.softmax import QSoftmax
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.backends.harness import TARGETS, VECTORS, agree, examples, kernels_agree
from tests.ops.sampling import Sample, array, integer, pick

WIDE = (DType.U8, DType.I8, DType.U16, DType.I16)


def rows(x: Value, dtype: DType, scale: float, zero: int) -> QSoftmax:
    table = Const(fixedpoint.softmax_table(x.type.scale, x.type.dtype.bits))
    m, s = fixedpoint.softmax_multiplier(scale)
    return QSoftmax(x, table, len(x.shape) - 1, m, s, dtype, Quant(scale, zero))


@st.composite
def softmaxes(draw: st.DrawFn) -> Sample:
    dims = (integer(draw, 1, 3), integer(draw, 1, 4), integer(draw, 1, 150))
    dtype, result = pick(draw, WIDE), pick(draw, WIDE)
    extra = integer(draw, 0, 2)
    scale = pick(draw, [0.003, 0.05, 0.2])
    x = Input(dtype, (*dims[:2], dims[2] + extra), Quant(scale, 0), name="x")
    image = Slice(x, (0, 0, extra), x.shape, (1, 1, 1)) if extra else x
    zero = integer(draw, result.min, result.max) if result.bits == 8 else 0
    steps = pick(draw, [1 / 256, 1 / 4096, 1 / 300]) if result.bits == 8 else 1 / 32768
    y = rows(image, result, steps, zero)
    return Sample(Graph("s", (x,), (y,), ("y",)), {"x": array(draw, dtype, x.shape)})


@examples(10)
@given(softmaxes(), st.sampled_from(TARGETS))
def test_rows(drawn: Sample, target: str) -> None:
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert names[-1].startswith("qsoftmax_"), names


@examples(4)
@given(softmaxes(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


def test_steps_too_fine_for_32_bits() -> None:
    x = Input(DType.U8, (2, 5), Quant(0.1, 0), name="x")
    graph = Graph("s", (x,), (rows(x, DType.I16, 2.0**-32, 0),), ("y",))
    feed: Array = np.array([[0, 255, 30, 7, 200], [9, 9, 9, 9, 9]], np.uint8)
    agree(graph, {"x": feed}, VECTORS)


@pytest.mark.parametrize("dtype", WIDE)
def test_equal_elements(dtype: DType) -> None:
    """The sums of rows of one value are as large as they get, of one element as small."""
    for length in (1, 1000):
        x = Input(dtype, (2, length), Quant(0.1, 0), name="x")
        graph = Graph("s", (x,), (rows(x, DType.U8, 1 / 256, 0),), ("y",))
        feed: Array = np.full(x.shape, dtype.max, dtype.numpy)
        for target in VECTORS:
            kernels_agree(graph, {"x": feed}, target)
