"""Depthwise convolutions: every window, stride and tail, and strips of rows of large images."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.kernels.depthwise.rowpairs import best_tiles
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import parse_target
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.types import Array, DType, Quant
from tests.backends.harness import TARGETS, agree, each, examples, kernels_agree, schedule
from tests.backends.products import depthwise
from tests.ops.sampling import Sample


@examples(8)
@given(depthwise(), st.sampled_from(TARGETS))
def test_windows(drawn: Sample, target: str) -> None:
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert any(name.startswith("qdepthwise_u8i8_") for name in names), names


@examples(5)
@given(depthwise(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize(
    ("kernel", "stride", "height"),
    [(3, 1, 61), (5, 2, 53), *(
        pytest.param(*of, marks=pytest.mark.long) for of in ((3, 1, 60), (5, 1, 47), (3, 3, 70))
    )],
)  # fmt: skip
def test_strips(kernel: int, stride: int, height: int, target: str) -> None:
    """Images whose packed rows don't fit at once."""
    kernels_agree(*rows_of(kernel, stride, height), target)


def rows_of(
    kernel: int, stride: int, height: int, groups: int = 12
) -> tuple[Graph, dict[str, Array]]:
    """A depthwise convolution over rows of 90 pixels, and what it reads."""
    rng = np.random.default_rng(kernel + stride)
    x = Input(DType.U8, (1, height, 90, groups), Quant(0.5, 255), name="x")
    w = Const(rng.integers(-127, 128, (12, kernel, kernel, 1)).astype(np.int8))
    b = rng.integers(-9999, 9999, 12).astype(np.int32)
    m, s = np.full(12, 2**30 + 99, np.int32), np.full(12, 39, np.int8)
    half = kernel // 2
    y = QConv2d(x, w, Const(b), Const(m), Const(s), (stride, stride),
                (half, half, half, half), (1, 1), groups, (0, 255), DType.U8,
                Quant(0.5, 99))  # fmt: skip
    feed = rng.integers(0, 256, x.shape).astype(np.uint8)
    return Graph("strips", (x,), (y,), ("y",)), {"x": feed}


def test_a_byte_for_all_lanes_is_no_vector() -> None:
    """LLVM puts vectors of one byte together byte by byte."""
    graph, feeds = rows_of(3, 1, 7, groups=3)
    code = generate_library(schedule(graph), parse_target("x86-64-v2"), "net", float_io=False)
    assert "rowpairs" in code.manifest["kernels"][0]["kernel"]
    assert "<1 x i8>" not in code.text
    kernels_agree(graph, feeds, "host")


@pytest.mark.parametrize(
    ("kernel", "stride", "height"), [(3, 1, 7), (3, 1, 60), (5, 1, 13), (5, 2, 14), (3, 3, 9)]
)
def test_rows_on_threads(kernel: int, stride: int, height: int) -> None:
    """The rows of a thread in strips of its own, of which the last may be short."""
    agree(*rows_of(kernel, stride, height), ["host"], threads=[2, 5])


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize(
    ("height", "kernel", "stride", "pads", "zero"),
    [(2, 5, 1, (2, 2), 255), (7, 5, 1, (2, 2), 9), (7, 5, 2, (2, 2), 255), (5, 7, 3, (4, 3), 255),
     (4, 5, 1, (0, 4), 0), (6, 2, 1, (5, 4), 255)],
)  # fmt: skip
def test_rows_of_padding(
    height: int, kernel: int, stride: int, pads: tuple[int, int], zero: int, target: str
) -> None:
    """Windows that lie in the padding with one pair of rows, with several, or with all."""
    rng = np.random.default_rng(height * kernel)
    x = Input(DType.U8, (1, height, 11, 20), Quant(0.5, zero), name="x")
    w = Const(rng.integers(-127, 128, (20, kernel, 3, 1)).astype(np.int8))
    b = rng.integers(-9999, 9999, 20).astype(np.int32)
    m, s = np.full(20, 2**30 + 99, np.int32), np.full(20, 38, np.int8)
    y = QConv2d(x, w, Const(b), Const(m), Const(s), (stride, 1), (pads[0], 1, pads[1], 1), (1, 1),
                20, (0, 255), DType.U8, Quant(0.5, 99))  # fmt: skip
    feed = rng.integers(0, 256, x.shape).astype(np.uint8)
    (name,) = kernels_agree(Graph("padded", (x,), (y,), ("y",)), {"x": feed}, target)
    assert "rowpairs" in name


@pytest.mark.parametrize(
    ("target", "width", "tile"),
    [
        ("x86-64-v3", 112, 4), ("x86-64-v3", 28, 4), ("x86-64-v3", 3, 3),
        ("x86-64-v4+avx512vnni", 112, 8), ("x86-64-v4+avx512vnni", 28, 7), ("wasm32", 28, 7),
    ],
)  # fmt: skip
def test_sums_of_a_tile_stay_in_registers(target: str, width: int, tile: int) -> None:
    assert best_tiles(width, parse_target(target))[0] == tile
