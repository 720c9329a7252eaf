"""Elementwise work with an operand that repeats along the image: gates, in place or not."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.kernels.gate import gate_factors
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.qelementwise import QAdd, QMul
from irc.ops.quantization import Bounds, Requantize
from irc.types import DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import TARGETS, agree, each, examples, kernels_agree
from tests.backends.products import joined
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, array, clamp, integer, pick, quant


@st.composite
def gates(draw: Draw) -> Sample:
    """`requantize(x) * gate (+ x)`: the product may be written over what it is of."""
    dims = (integer(draw, 1, 2), integer(draw, 1, 3), integer(draw, 1, 20), integer(draw, 1, 140))
    gate_dims = pick(draw, [(1, 1, 1, dims[3]), (dims[0], 1, 1, dims[3]), (1, 1, dims[2], dims[3]),
                            (dims[3],)])  # fmt: skip
    x = Input(DType.U8, dims, quant(draw, DType.U8), name="x")
    sort = pick(draw, EIGHT_BITS)
    gate = Input(sort, gate_dims, quant(draw, sort), name="gate")
    inner = pick(draw, EIGHT_BITS)
    image: Value = Requantize.to(x, TensorType(inner, dims, Quant(0.11, 3)))
    dtype = pick(draw, EIGHT_BITS)
    a, b = draw(st.permutations([image, gate]))
    made: Value = QMul(a, b, 2**30 + integer(draw, 0, 2**30 - 1), integer(draw, 36, 45),
                       clamp(draw, dtype), dtype, quant(draw, dtype))  # fmt: skip
    if draw(st.booleans()):
        made = QAdd.of(made, x, TensorType(DType.U8, dims, quant(draw, DType.U8)))
    feeds = {v.name: array(draw, v.dtype, v.dims) for v in (x, gate)}
    return Sample(Graph("gates", (x, gate), (made,), ("y",)), feeds)


@examples(15)
@given(gates(), st.sampled_from(TARGETS))
def test_gates(drawn: Sample, target: str) -> None:
    kernels_agree(drawn.graph, drawn.feeds, target)


@examples(4)
@given(gates(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


def whole(x: TensorType, gate: TensorType, m: int, s: int, bounds: Bounds) -> Sample:
    """Every byte times every gate, and some channels more."""
    dims = (1, 16, 16, 256 + 45)
    image = Input(x.dtype, dims, x.quant, name="x")
    gates = Input(gate.dtype, (1, 1, 1, dims[3]), gate.quant, name="gate")
    y = QMul(image, gates, m, s, bounds, DType.U8, Quant(0.5, 77))
    pixels = np.arange(x.dtype.min, x.dtype.max + 1).astype(x.dtype.numpy)
    feeds = {
        "x": np.broadcast_to(pixels.reshape((1, 16, 16, 1)), dims),
        "gate": np.resize(np.arange(gate.dtype.min, gate.dtype.max + 1), gates.shape),
    }
    kinds = {"x": x.dtype.numpy, "gate": gate.dtype.numpy}
    made = {name: np.ascontiguousarray(feed, kinds[name]) for name, feed in feeds.items()}
    return Sample(Graph("gates", (image, gates), (y,), ("y",)), made)


def of(dtype: DType, zero: int) -> TensorType:
    return TensorType(dtype, (), Quant(0.5, zero))


Case = tuple[TensorType, TensorType, int, int, Bounds]
WHOLE: list[Case] = [
    (of(DType.U8, 0), of(DType.U8, 0), 2**30, 38, (0, 255)),  # 1/256: halves are ties
    (of(DType.U8, 255), of(DType.U8, 255), 2**31 - 1, 37, (0, 255)),
    (of(DType.U8, 3), of(DType.I8, -128), 1_987_654_321, 39, (0, 255)),
    (of(DType.I8, -128), of(DType.I8, 127), 1_234_567_891, 36, (3, 250)),
    (of(DType.I8, 127), of(DType.U8, 0), -1_500_000_000, 38, (0, 255)),
    (of(DType.U8, 128), of(DType.U8, 7), 0, 40, (0, 255)),
    (of(DType.U8, 126), of(DType.U8, 0), 1_077_947_136, 38, (0, 255)),  # 255 is nearly 1
]


@pytest.mark.parametrize("target", each(TARGETS))
def test_all_bytes_times_all_gates(target: str) -> None:
    drawn = joined([whole(*case) for case in WHOLE])
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert [name.split("_")[:3] for name in names] == [
        ["qmul", case[0].dtype.value, "gates"] for case in WHOLE
    ]


@pytest.mark.parametrize("case", WHOLE)
def test_factors_give_equation_6(case: Case) -> None:
    x, gate, m, s, _ = case
    node = whole(*case).graph.outputs[0]
    assert isinstance(node, QMul)
    found = gate_factors(node, x, gate)
    assert found is not None
    factors, shift = found
    u = np.arange(x.dtype.min, x.dtype.max + 1)[:, None] - x.zero
    d = np.arange(gate.dtype.min, gate.dtype.max + 1) - gate.zero
    exact = (u * d * m + (1 << (s - 1))) >> s
    assert np.array_equal((u * factors.astype(np.int64) + (1 << (shift - 1))) >> shift, exact)
    assert np.abs(factors).max() < 2**23
