"""Norms row by row: all lengths and types, with and without centring, tails, slices, extremes."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.qnorm import QNorm
from irc.ops.quantization import Requantize
from irc.ops.shape import Slice
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.backends.harness import TARGETS, VECTORS, agree, examples, kernels_agree
from tests.backends.products import joined, tail
from tests.ops.sampling import Draw, Sample, array, clamp, integer, pick, quant

WIDE = (DType.U8, DType.I8, DType.I16, DType.U16)


def affine(
    x: Value, centred: bool, epsilon: float, dtype: DType, bounds: tuple[int, int], q: Quant,
    row: tuple[Array, Array],
) -> QNorm:  # fmt: skip
    """A norm of x along its last axis; `row` are factors and offsets in steps of the result."""
    norm = fixedpoint.Norm.of(x.shape[-1], centred, epsilon, x.type)
    m, b, s = fixedpoint.affine_multipliers(row[0] * norm.unit, row[1])
    parts = (norm.lift, norm.epsilon, norm.shift, s)
    return QNorm(x, Const(m), Const(b), (len(x.shape) - 1,), centred, *parts, bounds, dtype, q)


@st.composite
def norms(draw: Draw) -> Sample:
    dims = (integer(draw, 1, 3), integer(draw, 1, 3), integer(draw, 1, 150))
    dtype, result = pick(draw, WIDE), pick(draw, WIDE[:3])
    extra = integer(draw, 0, 2)
    zero = integer(draw, dtype.min, dtype.max) if draw(st.booleans()) else 0
    x = Input(dtype, (*dims[:2], dims[2] + extra), Quant(0.01, zero), name="x")
    image = Slice(x, (0, 0, extra), x.shape, (1, 1, 1)) if extra else x
    rng = np.random.default_rng(integer(draw, 0, 2**32 - 1))
    length = pick(draw, [dims[2], dims[2], 1])
    scale = 40.0 if result.bits == 8 else 4000.0
    row = rng.normal(0, scale, length), rng.normal(0, scale, length)
    y: Value = affine(image, draw(st.booleans()), pick(draw, [0.0, 1e-5, 1.0]), result,
                      clamp(draw, result), quant(draw, result), row)  # fmt: skip
    inputs: list[Input] = [x]
    if result.bits == 8:
        y, more = tail(draw, y)
        inputs += more
    elif draw(st.booleans()):
        y = Requantize(y, 2**30 + 7, integer(draw, 33, 45), (0, 255), DType.U8, Quant(0.1, 9))
    feeds = {v.name: array(draw, v.dtype, v.dims) for v in inputs}
    return Sample(Graph("n", tuple(inputs), (y,), ("y",)), feeds)


@examples(8)
@given(norms(), st.sampled_from(TARGETS))
def test_rows(drawn: Sample, target: str) -> None:
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert any(name.startswith("qnorm_") for name in names), names


@examples(4)
@given(norms(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(("length", "centred"), [(7, False), (192, True)])
def test_extremes(length: int, centred: bool, dtype: DType) -> None:
    """Rows of one value, and those that lie as far apart as they can."""
    samples = []
    for zero in (dtype.min, dtype.max) if dtype.bits == 8 else (0,):
        x = Input(dtype, (5, length), Quant(0.02, zero), name="x")
        row = np.linspace(-60, 60, length), np.linspace(90, -90, length)
        y = affine(x, centred, 1e-5, DType.U8, (0, 255), Quant(0.1, 128), row)
        feed: Array = np.full(x.shape, dtype.max, dtype.numpy)
        feed[1], feed[2, ::2], feed[3, 0] = dtype.min, dtype.min, dtype.min
        feed[4] = np.arange(length) % 2
        samples.append(Sample(Graph("n", (x,), (y,), ("y",)), {"x": feed}))
    drawn = joined(samples)
    for target in VECTORS:
        kernels_agree(drawn.graph, drawn.feeds, target)
