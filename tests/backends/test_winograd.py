"""Winograd's convolutions at all their edges, on every target that runs here; when they are
chosen, and when they are refused."""

from __future__ import annotations

import re
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm import kernels
from irc.backends.llvm.kernels.anchor import find_anchor
from irc.backends.llvm.kernels.winograd.layers import winograd
from irc.backends.llvm.kernels.winograd.minimal import F2, F4, proved, result_bound
from irc.backends.llvm.kernels.winograd.tiling import best_cut, tiling
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.module.emit import works
from irc.backends.llvm.target import parse_target
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.types import DType, Quant, Shape
from tests.backends.harness import TARGETS, agree, examples, schedule
from tests.backends.products import joined, parameters, source, wrapped
from tests.backends.test_gemm import check
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, clamp, integer, pick, quant, steps

X86 = [t for t in TARGETS if t.startswith("x86") and "amx" not in t]


@pytest.fixture
def wherever_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the direct kernel is estimated to be faster."""
    always = partial(winograd, always=True)
    monkeypatch.setattr(kernels, "CANDIDATES", (always, *kernels.CANDIDATES))


@st.composite
def convolutions(draw: Draw) -> Sample:
    """3x3 taps side by side, of any extent, padding and number of channels."""
    channels = pick(draw, [1, 3, 8, 16, 20, 33, 40])
    pads = (integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2))
    height = integer(draw, max(1, 3 - pads[0] - pads[2]), 11)
    width = integer(draw, max(1, 3 - pads[1] - pads[3]), 14)
    x, image = source(draw, (integer(draw, 1, 2), height, width, channels))
    w, b, m, s = parameters(draw, (integer(draw, 1, 40), 3, 3, channels))
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, (1, 1), pads, (1, 1), 1, clamp(draw, dtype), dtype,
                quant(draw, dtype), **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


def convolution(
    image: Shape, weights: np.ndarray, given_x: np.ndarray, *, zero: int = 7, bias: int = 0
) -> Sample:
    """A padded convolution of one image."""
    out = len(weights)
    x = Input(DType.U8, (1, *image), Quant(0.5, zero), name="x")
    b = bias - zero * weights.reshape(out, -1).sum(1, dtype=np.int32)
    m, s = np.full(out, 2**30 + 1, np.int32), np.full(out, 46, np.int8)
    y = QConv2d(x, Const(weights), Const(b), Const(m), Const(s), (1, 1), (1, 1, 1, 1), (1, 1), 1,
                (0, 255), DType.U8, Quant(0.5, 128))  # fmt: skip
    return Sample(Graph("winograd", (x,), (y,), ("y",)), {"x": given_x})


def names(drawn: Sample, target: str) -> list[str]:
    return [name for name in check(drawn, target) if name.startswith("qwinograd_u8i8_")]


@pytest.mark.usefixtures("wherever_possible")
@examples(8)
@given(convolutions(), st.sampled_from(X86))
def test_convolutions(drawn: Sample, target: str) -> None:
    assert names(drawn, target), f"directly:\n{drawn.graph}"


@pytest.mark.usefixtures("wherever_possible")
@examples(3)
@given(convolutions(), st.sampled_from(X86), st.integers(2, 4))
def test_threads(drawn: Sample, target: str, threads: int) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=threads)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize("target", X86)
@pytest.mark.parametrize("zero", [0, 255])
def test_extremes(zero: int, target: str) -> None:
    kinds = [("low", 255), ("high", 255), ("checks", 255), ("checks", 0)]
    drawn = joined([extreme(kind, byte, zero) for kind, byte in kinds])
    assert len(names(drawn, target)) == len(kinds)


def extreme(kind: str, byte: int, zero: int) -> Sample:
    """Weights and pixels at their ends, alike or in turns."""
    checks = np.where(np.indices((3, 3)).sum(0) % 2, -127, 127)
    taps = {"low": np.full((3, 3), -127), "high": np.full((3, 3), 127), "checks": checks}[kind]
    weights = np.broadcast_to(taps[None, ..., None], (17, 3, 3, 96)).astype(np.int8)
    image = np.where(np.indices((10, 9)).sum(0) % 2, byte, 255 - byte * (kind != "checks"))
    x = np.broadcast_to(image[None, ..., None], (1, 10, 9, 96)).astype(np.uint8)
    return convolution((10, 9, 96), weights, x, zero=zero)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize(
    ("image", "out"), [((20, 20, 384), 40), ((40, 40, 96), 72)], ids=["chunks", "blocks"]
)
def test_weights_in_chunks_and_images_in_blocks(image: Shape, out: int) -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(-64, 65, (out, 3, 3, image[2])).astype(np.int8)
    x = rng.integers(0, 256, (1, *image)).astype(np.uint8)
    assert names(convolution(image, weights, x), "x86-64-v3")


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize(("cut", "image"), [("blocks", (56, 56, 16)), ("channels", (40, 40, 16))])
def test_weights_that_are_transformed_once(cut: str, image: Shape) -> None:
    """Blocks of images find those of all channels, also where threads share either."""
    rng = np.random.default_rng(5)
    weights = rng.integers(-64, 65, (40, 3, 3, image[2])).astype(np.int8)
    drawn = convolution(image, weights, rng.integers(0, 256, (1, *image)).astype(np.uint8))
    (anchor,) = map(find_anchor, works(schedule(drawn.graph)))
    assert anchor is not None
    assert all(tiling(anchor, F4, parse_target(target)).kept for target in X86)
    assert names(drawn, "host")
    assert best_cut(tiling(anchor, F4, parse_target("x86-64-v3")), 40)[0] == cut
    agree(drawn.graph, drawn.feeds, ["x86-64-v3"], threads=3)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize(
    ("image", "rows"), [((14, 14, 64), 8), ((28, 28, 64), 13), ((56, 56, 64), 14), ((7, 11, 32), 6)]
)
def test_register_tiles_are_as_large_as_takes_few_passes(image: Shape, rows: int) -> None:
    rng = np.random.default_rng(6)
    weights = rng.integers(-64, 65, (32, 3, 3, image[2])).astype(np.int8)
    drawn = convolution(image, weights, rng.integers(0, 256, (1, *image)).astype(np.uint8))
    (anchor,) = map(find_anchor, works(schedule(drawn.graph)))
    assert anchor is not None
    assert tiling(anchor, F4, parse_target("x86-64-v4+avx512vnni")).rows == rows
    assert tiling(anchor, F4, parse_target("x86-64-v3")).rows <= 6
    assert names(drawn, "host")


@pytest.mark.usefixtures("wherever_possible")
def test_chunks_are_as_large_as_the_cache_lets_them() -> None:
    rng = np.random.default_rng(7)
    weights = rng.integers(-64, 65, (33, 3, 3, 256)).astype(np.int8)
    drawn = convolution((14, 14, 256), weights, rng.integers(0, 256, (1, 14, 14, 256), np.uint8))
    (anchor,) = map(find_anchor, works(schedule(drawn.graph)))
    assert anchor is not None
    cpus = {"znver4": 64, "rocketlake": 64, "icelake-server": 128, "sapphirerapids": 128}
    chunks = {t: tiling(anchor, F4, parse_target(t)).chunk for t in cpus}
    assert chunks == cpus
    assert names(drawn, "host")


@pytest.mark.usefixtures("wherever_possible")
def test_rows_outside_of_the_image_are_not_finished() -> None:
    """Columns outside are finished with their neighbours; their addresses are chosen."""
    weights = np.random.default_rng(8).integers(-64, 65, (16, 3, 3, 16)).astype(np.int8)
    cycles, chosen = {}, {}
    for image in ((13, 13), (13, 16), (16, 13), (16, 16)):
        drawn = convolution((*image, 16), weights, np.zeros((1, *image, 16), np.uint8))
        (anchor,) = map(find_anchor, works(schedule(drawn.graph)))
        assert anchor is not None
        cycles[image] = tiling(anchor, F4, parse_target("x86-64-v3")).cycles
        code = generate_library(schedule(drawn.graph), parse_target("x86-64-v3"), "net")
        chosen[image] = len(re.findall("select +i1 ", code.text))
    assert cycles[13, 13] == cycles[13, 16] < cycles[16, 13] == cycles[16, 16]
    assert chosen[13, 13] == chosen[16, 13] > chosen[13, 16] == chosen[16, 16]


def weights_of(total: int) -> np.ndarray:
    """One channel whose weights are 127 or 0, and sum up to about `total`."""
    made = np.zeros((1, 3, 3, 256), np.int8)
    made.reshape(-1)[: total // 127] = 127
    return made


def test_what_is_not_proved_takes_fewer_or_no_products() -> None:
    """Results below 2^25 leave room for the multiples of F4, above it for those of F2."""
    small, large = weights_of(2**25 // 255), weights_of(2**25 // 255 + 127)
    assert result_bound(small) < 2**25 <= result_bound(large)
    assert (proved(F4, small), proved(F2, small)) == (True, True)
    assert (proved(F4, large), proved(F2, large)) == (False, True)
    assert (proved(F4, -large), proved(F2, -large)) == (False, True)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("more", [0, 127])
def test_results_at_the_limit(more: int, sign: int) -> None:
    weights = np.repeat(sign * weights_of(2**25 // 255 + more), 5, axis=0)
    drawn = convolution((8, 9, 256), weights, np.full((1, 8, 9, 256), 255, np.uint8))
    (name,) = names(drawn, "x86-64-v3")
    assert ("_f4_" in name) is (more == 0)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize("sign", [1, -1])
def test_a_bias_is_added_to_products_where_results_still_fit(sign: int) -> None:
    weights = np.repeat(sign * weights_of(2**24 // 255), 3, axis=0)
    room = sign * (2**25 - 1 - result_bound(weights))
    x = np.full((1, 8, 9, 256), 255, np.uint8)
    made = [convolution((8, 9, 256), weights, x, zero=0, bias=b) for b in (room, room + sign)]
    keys = []
    for drawn in made:
        assert names(drawn, "x86-64-v3")
        (work,) = works(schedule(drawn.graph))
        kernel = winograd(work, parse_target("x86-64-v3"), always=True)
        assert kernel is not None
        keys.append(kernel.key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("image", "out", "target", "chosen"),
    [
        ((56, 56, 64), 64, "x86-64-v3", True),
        ((14, 14, 256), 256, "x86-64-v3", True),
        ((28, 28, 4), 8, "x86-64-v3", False),
        ((14, 14, 256), 256, "x86-64-v4+avx512vnni", False),
        ((14, 14, 256), 256, "znver4", True),
        ((7, 7, 512), 512, "znver4", False),
    ],
)
def test_the_cheaper_kernel_is_chosen(image: Shape, out: int, target: str, chosen: bool) -> None:
    weights = np.random.default_rng(1).integers(-30, 31, (out, 3, 3, image[2])).astype(np.int8)
    drawn = convolution(image, weights, np.zeros((1, *image), np.uint8))
    code = generate_library(schedule(drawn.graph), parse_target(target), "net")
    (kernel,) = code.manifest["kernels"]
    assert kernel["kernel"].startswith("qwinograd") is chosen
    assert not chosen or ("times as fast" in kernel["reason"] and "2^32" in kernel["proof"])
