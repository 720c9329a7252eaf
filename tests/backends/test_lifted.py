"""Layers whose weights are of nine bits: what `LiftWeights` makes of them, on every target, has the
bits of the layer itself."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.graph import Graph, evaluate
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.ops.quantization import full_range
from irc.passes.integer.lift_weights import LiftWeights
from irc.types import Array, DType, Quant, Shape, TensorType
from tests.backends.harness import TARGETS, each, examples, kernels_agree
from tests.backends.products import extent, source, wrapped
from tests.ops.sampling import (
    EIGHT_BITS,
    Draw,
    Sample,
    array,
    clamp,
    integer,
    multipliers,
    pick,
    quant,
    steps,
)

PLAIN = TensorType(DType.I32, (), Quant(1.0))


def weights(draw: Draw, dims: Shape) -> Const:
    """u8 less a zero point: one for all, or one for each channel."""
    zeros = array(draw, DType.U8, dims[:1] if draw(st.booleans()) else (1,))
    less = zeros.astype(np.int16).reshape(-1, *[1] * (len(dims) - 1))
    return Const(array(draw, DType.U8, dims).astype(np.int16) - less, name="w")


@st.composite
def convolutions(draw: Draw) -> Sample:
    """One convolution: of one group, several, or as many as there are channels."""
    kind = pick(draw, ["one", "one", "one", "two", "depthwise"])
    channels = pick(draw, [1, 3, 8, 13, 16, 20, 33, 64, 70, 130])
    out = integer(draw, 1, 40)
    groups = {"one": 1, "two": 2, "depthwise": channels}[kind]
    if kind == "two":
        channels, out = 2 * channels, 2 * out
    out = channels if kind == "depthwise" else out
    kernel = pick(draw, [(1, 1), (1, 1), (3, 3), (1, 3), (2, 1), (5, 5)])
    strides, dilations = (
        (pick(draw, [1, 1, 2, 3]), pick(draw, [1, 1, 2, 3])),
        (pick(draw, [1, 1, 2]), pick(draw, [1, 1, 2])),
    )
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    if draw(st.booleans()):
        pads = (integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2))
    height = extent(draw, kernel[0], dilations[0], pads[0] + pads[2], 5)
    width = extent(draw, kernel[1], dilations[1], pads[1] + pads[3], 20)
    x, image = source(draw, (integer(draw, 1, 2), height, width, channels))
    w, bits = weights(draw, (out, *kernel, channels // groups)), pick(draw, [0, 0, 3])
    b = Const(array(draw, DType.I32, (out,), (-(2**24), 2**24)), name="b")
    m, s = multipliers(draw, out, 36, 45)
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, strides, pads, dilations, groups, clamp(draw, dtype), dtype,
                quant(draw, dtype), fraction=bits, **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


@st.composite
def linears(draw: Draw) -> Sample:
    """One linear layer."""
    lead = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    x, rows = source(draw, (*lead, integer(draw, 1, 130)))
    out = integer(draw, 1, 40)
    b = Const(array(draw, DType.I32, (out,), (-(2**24), 2**24)), name="b")
    m, s = multipliers(draw, out, 36, 45)
    dtype = pick(draw, EIGHT_BITS)
    y = QLinear(rows, weights(draw, (out, rows.shape[-1])), b, m, s, clamp(draw, dtype), dtype,
                quant(draw, dtype), **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


def lifted(graph: Graph) -> Graph:
    """The graph, by the pass."""
    return LiftWeights().run(graph)


def check(drawn: Sample, target: str) -> list[str]:
    """The kernels' names, of a graph that has the bits it had."""
    made = lifted(drawn.graph)
    for name, expected in evaluate(drawn.graph, drawn.feeds).items():
        np.testing.assert_array_equal(evaluate(made, drawn.feeds)[name], expected)
    return kernels_agree(made, drawn.feeds, target)


@examples(10)
@given(convolutions(), st.sampled_from(TARGETS))
def test_convolutions(drawn: Sample, target: str) -> None:
    check(drawn, target)


@examples(8)
@given(linears(), st.sampled_from(TARGETS))
def test_linears(drawn: Sample, target: str) -> None:
    check(drawn, target)


def layer(w: Array, size: Shape = (9, 20), groups: int = 1, pad: int = 1) -> Sample:
    """A convolution of i16 weights over noise."""
    out = len(w)
    rng = np.random.default_rng(1)
    x = Input(DType.U8, (1, *size, w.shape[3] * groups), Quant(0.5, 77), name="x")
    b = rng.integers(-9999, 9999, out).astype(np.int32)
    m, s = np.full(out, 2**30 + 3, np.int32), np.full(out, 43, np.int8)
    pads = (pad, pad, pad, pad)
    y = QConv2d(x, Const(w), Const(b), Const(m), Const(s), (1, 1), pads, (1, 1), groups, (0, 255),
                DType.U8, Quant(0.5, 128))  # fmt: skip
    image = rng.integers(0, 256, x.shape).astype(np.uint8)
    return Sample(Graph("layer", (x,), (y,), ("y",)), {"x": image})


def nine_bits(dims: Shape, zeros: list[int]) -> Array:
    """Weights that reach both ends of u8, around zero points that channels have by turns."""
    rng = np.random.default_rng(2)
    w = rng.integers(0, 256, dims)
    w.reshape(dims[0], -1)[:, :2] = 0, 255
    return np.asarray(w - np.resize(zeros, (dims[0], 1, 1, 1)), np.int16)


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize(
    ("dims", "pad", "kind"),
    [((32, 3, 3, 20), 1, "windows"), ((32, 1, 1, 20), 0, "pixels"), ((32, 1, 1, 5), 1, "windows")],
)  # fmt: skip
@pytest.mark.parametrize(
    "zeros",
    [[0], [0, 200, 255], *(pytest.param([z], marks=pytest.mark.long) for z in (100, 255))],
    ids=str,
)
def test_one_sum_serves_all_channels(
    zeros: list[int], dims: Shape, pad: int, kind: str, target: str
) -> None:
    drawn = layer(nine_bits(dims, zeros), pad=pad)
    (node,) = lifted(drawn.graph).outputs
    assert isinstance(node, QConv2d)
    assert node.w.type.dtype is DType.I8
    assert (node.share is None) == (len(zeros) == 1)
    sums, product = check(drawn, target)
    assert sums == f"qsums_u8_{kind}"
    assert "generic" not in product


@pytest.mark.parametrize("target", each(TARGETS))
def test_a_mean_is_no_sum(target: str) -> None:
    rng = np.random.default_rng(1)
    x = Input(DType.U8, (5, 32), Quant(0.5, 77), name="x")
    b, m, s = np.zeros(1, np.int32), np.full(1, 2**30, np.int32), np.full(1, 30, np.int8)
    y = QLinear(x, Const(np.ones((1, 32), np.int8)), Const(b), Const(m), Const(s),
                full_range(PLAIN), DType.I32, Quant(1.0), power=5)  # fmt: skip
    feeds = {"x": rng.integers(0, 256, x.shape).astype(np.uint8)}
    names = kernels_agree(Graph("layer", (x,), (y,), ("y",)), feeds, target)
    assert not names[0].startswith("qsums")


@pytest.mark.parametrize("target", each(TARGETS))
def test_depthwise_layers_multiply_sixteen_bits(target: str) -> None:
    drawn = layer(nine_bits((20, 3, 3, 1), [100]), groups=20)
    assert lifted(drawn.graph) is drawn.graph
    (name,) = check(drawn, target)
    assert name.startswith("qdepthwise")


def test_groups_and_very_long_sums_are_in_parts() -> None:
    for dims, groups, size in (((6, 3, 3, 4), 2, (9, 20)), ((2, 1, 1, 70_000), 1, (1, 1))):
        drawn = layer(nine_bits(dims, [100]), size, groups, 0)
        (node,) = lifted(drawn.graph).outputs
        assert isinstance(node, QConv2d)
        assert (node.w.type.dtype, node.w.shape[3], node.common) == (DType.I8, 2 * dims[3], None)
        made, expected = (evaluate(g, drawn.feeds)["y"] for g in (lifted(drawn.graph), drawn.graph))
        np.testing.assert_array_equal(made, expected)
