"""Matrix products whose words are multiplied in an order of their own: the order, and the kernel at
all its edges on every target that multiplies by `vpmaddubsw`."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm import kernels
from irc.backends.llvm.kernels.gemm.order import LIMIT, MATCHED, Table, best_order, like_signed
from irc.backends.llvm.kernels.gemm.ordered import ordereds
from irc.backends.llvm.target import Dot, Target, parse_target
from irc.backends.llvm.work import MicroKernel, Work
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.types import Array, DType, Quant
from tests.backends.harness import TARGETS, agree, each, examples
from tests.backends.products import convolutions, joined, linears
from tests.backends.test_gemm import check, extreme
from tests.ops.sampling import Sample

MADDUBS = [t for t in TARGETS if parse_target(t).dot is Dot.MADDUBS]


@pytest.fixture(params=["narrow", "wide"])
def wherever_possible(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where no words go together, or few; by blocks of one vector of channels or of two."""
    pick = {"narrow": min, "wide": max}[request.param]

    def always(work: Work, target: Target) -> MicroKernel | None:
        return pick(ordereds(work, target), key=_channels, default=None)

    monkeypatch.setattr(kernels, "CANDIDATES", (always, *kernels.CANDIDATES))


def _channels(kernel: MicroKernel) -> int:
    """Of a block, by its name: `qgemm_u8i8_4x16_…`."""
    return int(kernel.name.split("_")[2].split("x")[1])


def normal(seed: int, channels: int, words: int, deviation: float = 25) -> Array:
    """Weights i8 [channels, words, 4] that `vpmaddubsw` multiplies exactly."""
    drawn = np.random.default_rng(seed).normal(0, deviation, (channels, words, 4))
    return np.clip(np.rint(drawn), -64, 64).astype(np.int8)


# ------------------------------------------------------------ the order


@pytest.mark.parametrize("words", [0, 1, 2, 3, 17, MATCHED, MATCHED + 1, 3 * MATCHED + 1])
def test_an_order_has_every_word_once_and_its_pairs_fit(words: int) -> None:
    block = normal(words, 16, words)
    order = best_order(block)
    assert sorted(order.words) == list(range(words))
    sums = like_signed(block).astype(int)
    first, second = order.words[: 2 * order.pairs].reshape(-1, 2).T
    assert np.all(sums[first] + sums[second] <= LIMIT)


def test_most_words_of_a_deep_layer_find_a_partner() -> None:
    assert 2 * best_order(normal(1, 16, 64)).pairs >= 48
    assert 2 * best_order(normal(1, 16, 1000)).pairs >= 990


@pytest.mark.parametrize(("weight", "pairs"), [(32, 3), (33, 0), (-32, 3), (-33, 0), (0, 3)])
def test_the_last_sum_that_fits(weight: int, pairs: int) -> None:
    assert best_order(np.full((1, 6, 4), weight, np.int8)).pairs == pairs


def test_one_channel_is_enough_to_part_two_words() -> None:
    block = np.zeros((16, 2, 4), np.int8)
    block[7, :, 1] = 64
    assert best_order(block).pairs == 1
    block[7, 0, 0] = 1
    assert best_order(block).pairs == 0


@pytest.mark.parametrize(("far", "size"), [(2**16 - 1, 2), (2**16, 4)])
def test_a_table_counts_and_then_tells_where_words_lie(far: int, size: int) -> None:
    block = np.zeros((8, 3, 4), np.int8)
    block[0, 1, :2] = 64
    offsets = np.array([0, 4, far], np.int32)
    table = Table.of(offsets)
    content = table.content(best_order(block), offsets)
    assert list(content[:8].view(np.int32)) == [1, 1]
    words = content[8 : 8 + 3 * size].view(f"u{size}")
    assert sorted(words[:2]) == [0, far]
    assert words[2] == 4
    assert len(content) == table.nbytes


# ------------------------------------------------------------ the kernel


def assert_ordered(names: list[str], drawn: Sample) -> None:
    """`vpmaddubsw` that could saturate is not for this kernel."""
    first = next(name for name in names if name.startswith("qgemm_u8i8_"))
    others = ("_ordered_", "_split_", "_maddwd_")
    assert any(kind in first for kind in others), f"{names} for\n{drawn.graph}"


@pytest.mark.skipif(not MADDUBS, reason="needs a target with vpmaddubsw")
@pytest.mark.usefixtures("wherever_possible")
@examples(6)
@given(convolutions(), st.sampled_from(MADDUBS))
def test_convolutions(drawn: Sample, target: str) -> None:
    assert_ordered(check(drawn, target), drawn)


@pytest.mark.skipif(not MADDUBS, reason="needs a target with vpmaddubsw")
@pytest.mark.usefixtures("wherever_possible")
@examples(6)
@given(linears(), st.sampled_from(MADDUBS))
def test_linears(drawn: Sample, target: str) -> None:
    names = check(drawn, target)
    if len(drawn.graph.outputs[0].shape) <= 2:
        assert_ordered(names, drawn)


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize("target", each(MADDUBS))
@pytest.mark.parametrize("zero", [0, 255])
def test_sums_at_the_edge_of_sixteen_bits(zero: int, target: str) -> None:
    weights = [[32], [-32], [33], [-33], [64, 64, -64, -64], [32, 32, 0]]
    drawn = joined([extreme(255, w, zero) for w in weights])
    names = check(drawn, target)
    assert len(names) == len(weights)
    for name in names:
        assert_ordered([name], drawn)


def deep(channels: int, depth: int) -> Sample:
    """A linear layer of random weights, seven rows."""
    w = normal(5, channels, depth // 4).reshape(channels, depth)
    b = -9 * w.sum(1, dtype=np.int32)
    m, s = np.full(channels, 2**30 + 1, np.int32), np.full(channels, 42, np.int8)
    x = Input(DType.U8, (7, depth), Quant(0.5, 9), name="x")
    y = QLinear(x, Const(w), Const(b), Const(m), Const(s), (0, 255), DType.U8, Quant(0.5, 128))
    rng = np.random.default_rng(2)
    feeds = {"x": rng.integers(0, 256, (7, depth)).astype(np.uint8)}
    return Sample(Graph("deep", (x,), (y,), ("y",)), feeds)


@pytest.mark.parametrize("target", [t for t in MADDUBS if t == "x86-64-v3"])
def test_deep_layers_take_it_and_share_it(target: str) -> None:
    """Blocks of 8 channels, the last of which has 5, cut for threads."""
    drawn = deep(53, 512)
    assert "_ordered_" in check(drawn, target)[0]
    for threads in (2, 3):
        agree(drawn.graph, drawn.feeds, (target,), threads=threads)


@pytest.mark.parametrize("target", MADDUBS)
def test_words_without_partners_are_not_worth_an_order(target: str) -> None:
    assert "_ordered_" not in check(extreme(255, [33], 7, depth=256), target)[0]


def tall(rows: int, columns: int, inputs: int, channels: int) -> Graph:
    """A convolution by a window of so many rows and columns over a picture of 30 by 30."""
    x = Input(DType.U8, (1, 29 + rows, 29 + columns, inputs), Quant(0.5, 7), name="x")
    w = normal(3, channels, rows * columns * inputs, 10)[..., 0]
    w = w.reshape(channels, rows, columns, inputs)
    b, m = np.zeros(channels, np.int32), np.full(channels, 2**30, np.int32)
    s = np.full(channels, 40, np.int8)
    y = QConv2d(x, Const(w), Const(b), Const(m), Const(s), (1, 1), (0, 0, 0, 0), (1, 1), 1,
                (0, 255), DType.U8, Quant(0.5, 3))  # fmt: skip
    return Graph("tall", (x,), (y,), ("y",))


@pytest.mark.skipif("x86-64-v3" not in TARGETS, reason="needs AVX2")
@pytest.mark.parametrize(
    "graph", [tall(15, 1, 4, 32), tall(7, 7, 4, 64)], ids=["15 rows", "7 rows"]
)
def test_a_tall_window_costs_something_and_keeps_its_tile(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of taps, which are no loops here, take nothing off a tile: small tiles are no gain."""
    found: list[MicroKernel] = []

    def asked(work: Work, target: Target) -> None:
        found.extend(ordereds(work, target))

    monkeypatch.setattr(kernels, "CANDIDATES", (asked, *kernels.CANDIDATES))
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, graph.inputs[0].shape).astype(np.uint8)
    check(Sample(graph, {"x": x}), "x86-64-v3")
    assert found
    for kernel in found:
        pixels, channels = (int(n) for n in kernel.name.split("_")[2].split("x"))
        assert pixels * channels // 8 >= 7, kernel.name
        gain = float(kernel.reason.split("estimated ")[1].split()[0])
        assert 0.5 < gain < 2, kernel.reason
