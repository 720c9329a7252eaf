"""Products of two activations: all tails of their tiles, sides that lie transposed or in slices."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.linear import QMatMul
from irc.ops.shape import Transpose
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.backends.harness import TARGETS, agree, examples, kernels_agree
from tests.backends.products import bytes_of, tail
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, clamp, integer, pick, quant


@st.composite
def products(draw: Draw) -> Sample:
    """A batch of products; either side may lack the batch or be shared by it."""
    batch = (integer(draw, 1, 2), integer(draw, 1, 3))
    m, k, n = integer(draw, 1, 14), integer(draw, 1, 40), integer(draw, 1, 70)
    a = _side(draw, "a", (*pick(draw, [batch, (1, batch[1]), (1,), ()]), m, k))
    b = _side(draw, "b", (*pick(draw, [batch, (1, batch[1]), (batch[0], 1), ()]), k, n))
    dtype = pick(draw, EIGHT_BITS)
    y = QMatMul(a, b, 2**30 + integer(draw, 0, 2**29), integer(draw, 30, 50), clamp(draw, dtype),
                dtype, quant(draw, dtype))  # fmt: skip
    made, more = tail(draw, y)
    inputs = (a, b, *more)
    return Sample(Graph("p", inputs, (made,), ("y",)), {v.name: bytes_of(draw, v) for v in inputs})


def _side(draw: Draw, name: str, dims: tuple[int, ...]) -> Input:
    dtype = pick(draw, EIGHT_BITS)
    return Input(dtype, dims, quant(draw, dtype), name=name)


@st.composite
def attention(draw: Draw) -> Sample:
    """Heads that lie side by side: read through transposes, and written through one."""
    n, heads = integer(draw, 1, 2), integer(draw, 1, 3)
    m, k, columns = integer(draw, 1, 9), integer(draw, 1, 35), integer(draw, 1, 40)
    scores = draw(st.booleans())
    a = _side(draw, "a", (n, m, heads, k))
    b = _side(draw, "b", (n, columns, heads, k) if scores else (n, k, heads, columns))
    right = Transpose(b, (0, 2, 3, 1) if scores else (0, 2, 1, 3))
    dtype = pick(draw, EIGHT_BITS)
    y = QMatMul(Transpose(a, (0, 2, 1, 3)), right, 2**30 + 77, integer(draw, 36, 50),
                clamp(draw, dtype), dtype, quant(draw, dtype))  # fmt: skip
    made: Value = y if draw(st.booleans()) else Transpose(y, (0, 2, 1, 3))
    return Sample(Graph("p", (a, b), (made,), ("y",)), {v.name: bytes_of(draw, v) for v in (a, b)})


@examples(15)
@given(attention(), st.sampled_from(TARGETS))
def test_transposes_are_read_and_written_through(drawn: Sample, target: str) -> None:
    (name,) = kernels_agree(drawn.graph, drawn.feeds, target)
    assert name.startswith("qmatmul_i16_")


@examples(20)
@given(products(), st.sampled_from(TARGETS))
def test_products(drawn: Sample, target: str) -> None:
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert any(name.startswith("qmatmul_i16_") for name in names), names


@examples(10)
@given(products(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("zero", [0, 255])
def test_extremes(zero: int, target: str) -> None:
    quant = Quant(0.5, zero)
    a, b = Input(DType.U8, (3, 33), quant, name="a"), Input(DType.U8, (33, 19), quant, name="b")
    y = QMatMul(a, b, 2**30, 46, (0, 255), DType.U8, Quant(0.5, 3))
    feeds: dict[str, Array] = {
        "a": np.full((3, 33), 255 - zero, np.uint8), "b": np.full((33, 19), 255 - zero, np.uint8)
    }  # fmt: skip
    kernels_agree(Graph("extremes", (a, b), (y,), ("y",)), feeds, target)
