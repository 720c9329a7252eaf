"""Elementwise work with an operand that repeats along the image: gates, in place or not."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.qelementwise import QAdd, QMul
from irc.ops.quantization import Requantize
from irc.types import DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import TARGETS, examples, kernels_agree
from tests.ops.sampling import EIGHT_BITS, Sample, array, clamp, integer, pick, quant


@st.composite
def gates(draw: st.DrawFn) -> Sample:
    """`requantize(x) * gate (+ x)`: the product may be written over what it is of."""
    dims = (integer(draw, 1, 2), integer(draw, 1, 3), integer(draw, 1, 5), integer(draw, 1, 140))
    gate_dims = pick(draw, [(dims[0], 1, 1, dims[3]), (1, 1, dims[2], dims[3]), (dims[3],)])
    x = Input(DType.U8, dims, quant(draw, DType.U8), name="x")
    gate = Input(DType.U8, gate_dims, quant(draw, DType.U8), name="gate")
    image: Value = Requantize.to(x, TensorType(DType.U8, dims, Quant(0.11, 3)))
    dtype = pick(draw, EIGHT_BITS)
    made: Value = QMul(image, gate, 2**30 + 5, integer(draw, 36, 45), clamp(draw, dtype), dtype,
                       quant(draw, dtype))  # fmt: skip
    if draw(st.booleans()):
        made = QAdd.of(made, x, TensorType(DType.U8, dims, quant(draw, DType.U8)))
    feeds = {v.name: array(draw, v.dtype, v.dims) for v in (x, gate)}
    return Sample(Graph("gates", (x, gate), (made,), ("y",)), feeds)


@examples(15)
@given(gates(), st.sampled_from(TARGETS))
def test_gates(drawn: Sample, target: str) -> None:
    kernels_agree(drawn.graph, drawn.feeds, target)
