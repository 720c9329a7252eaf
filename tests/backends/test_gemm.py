"""The matrix-product kernel at all its edges, on every target that runs here."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm import kernels
from irc.backends.llvm.kernels.gemm import loops as gemm_loops
from irc.backends.llvm.kernels.gemm.layers import gemms
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import Dot, Target, parse_target
from irc.backends.llvm.work import MicroKernel, Work
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.ops.quantization import Lookup
from irc.types import DType, Quant
from tests.backends.harness import TARGETS, agree, each, examples, kernels_agree, schedule
from tests.backends.products import convolutions, joined, linears
from tests.ops.sampling import Sample


def check(drawn: Sample, target: str) -> list[str]:
    """The names of the kernels that were selected, held to the reference."""
    return kernels_agree(drawn.graph, drawn.feeds, target)


def assert_selected(names: list[str], drawn: Sample) -> None:
    """Else the generic loops were tested, and nothing was said of the micro-kernel."""
    selected = [name for name in names if name.startswith("qgemm_u8i8_")]
    assert selected, f"no matrix product among {names} for\n{drawn.graph}"


@examples(10)
@given(convolutions(), st.sampled_from(TARGETS))
def test_convolutions(drawn: Sample, target: str) -> None:
    assert_selected(check(drawn, target), drawn)


@examples(8)
@given(linears(), st.sampled_from(TARGETS))
def test_linears(drawn: Sample, target: str) -> None:
    names = check(drawn, target)
    # Rows of several axes may lie unevenly: those are for the generic loops.
    if len(drawn.graph.outputs[0].shape) <= 2:
        assert_selected(names, drawn)


def test_rows_in_front_of_a_table_are_one_row() -> None:
    x = Input(DType.U8, (2, 3, 8), Quant(0.5, 7), name="x")
    b, m, s = np.zeros(16, np.int32), np.full(16, 2**30, np.int32), np.full(16, 37, np.int8)
    y = QLinear(x, Const(np.full((16, 8), 5, np.int8)), Const(b), Const(m), Const(s), (0, 255),
                DType.U8, Quant(0.5, 20))  # fmt: skip
    table = Const(np.arange(255, -1, -1, dtype=np.uint8))
    graph = Graph("rows", (x,), (Lookup(y, table, Quant(0.5, 20)),), ("y",))
    drawn = Sample(graph, {"x": np.arange(48, dtype=np.uint8).reshape(2, 3, 8) * 5})
    for target in TARGETS:
        assert_selected(check(drawn, target), drawn)


def extreme(
    x: int, w: list[int], zero: int, *, rows: int = 5, out: int = 33, depth: int = 37,
    shift: int = 44,
) -> Sample:  # fmt: skip
    """A linear layer of constant bytes and weights that repeat a pattern."""
    pattern = np.resize(np.array(w, np.int8), (out, depth))
    b = -zero * pattern.sum(1, dtype=np.int32)
    m, s = np.full(out, 2**30 + 1, np.int32), np.full(out, shift, np.int8)
    quant = Quant(0.5, zero)
    given_x = Input(DType.U8, (rows, depth), quant, name="x")
    y = QLinear(given_x, Const(pattern), Const(b), Const(m), Const(s), (0, 255), DType.U8,
                Quant(0.5, 128))  # fmt: skip
    graph = Graph("extreme", (given_x,), (y,), ("y",))
    return Sample(graph, {"x": np.full((rows, depth), x, np.uint8)})


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("zero", [0, 255])
def test_pairs_at_the_edge_of_saturation(zero: int, target: str) -> None:
    safe, unsafe = [[64], [-64]], [[127], [-127], [127, 127, -127, -127], [65, 64], [-65, -64]]
    drawn = joined([extreme(255, w, zero) for w in (*safe, *unsafe)])
    names = check(drawn, target)
    assert len(names) == len(safe) + len(unsafe)
    assert all(name.startswith("qgemm_u8i8_") for name in names), names
    if parse_target(target).dot.value == "maddubs":
        apart = ["_split_" in name or "_maddwd_" in name for name in names]
        assert apart == [False] * len(safe) + [True] * len(unsafe)


MADDUBS = [t for t in TARGETS if parse_target(t).dot is Dot.MADDUBS]


@pytest.fixture(params=["split", "maddwd"])
def one_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two that multiply pairs which could saturate, wherever there are any."""

    def chosen(work: Work, target: Target) -> MicroKernel | None:
        return next((k for k in gemms(work, target) if f"_{request.param}_" in k.name), None)

    monkeypatch.setattr(kernels, "CANDIDATES", (chosen, *kernels.CANDIDATES))


@pytest.mark.skipif(not MADDUBS, reason="needs a target with vpmaddubsw")
@pytest.mark.usefixtures("one_kind")
@examples(5)
@given(convolutions(), st.sampled_from(MADDUBS))
def test_pairs_that_could_saturate(drawn: Sample, target: str) -> None:
    assert_selected(check(drawn, target), drawn)


@pytest.mark.parametrize("target", MADDUBS)
def test_a_first_layer_is_multiplied_as_words(target: str) -> None:
    """One channel and many results: the copy of 16 bits is soon paid for. Threads copy the rows
    that each reads."""
    x = Input(DType.U8, (1, 9, 9, 1), Quant(0.5, 7), name="x")
    w = Const(np.tile(np.array([127, 126, -125], np.int8), (24, 3, 1))[..., None])
    b, m, s = np.zeros(24, np.int32), np.full(24, 2**30, np.int32), np.full(24, 38, np.int8)
    y = QConv2d(x, w, Const(b), Const(m), Const(s), (1, 1), (1, 1, 1, 1), (1, 1), 1, (0, 255),
                DType.U8, Quant(0.5, 3))  # fmt: skip
    image = np.arange(81, dtype=np.uint8).reshape(1, 9, 9, 1) * 3
    drawn = Sample(Graph("first", (x,), (y,), ("y",)), {"x": image})
    assert "_maddwd_" in check(drawn, target)[0]
    agree(drawn.graph, drawn.feeds, (target,), threads=(2, 3))


@pytest.mark.skipif("x86-64-v3" not in TARGETS, reason="needs AVX2")
@pytest.mark.parametrize("pixels", [7, 3000])
def test_a_copy_by_pieces_takes_scratch_for_one(
    pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 32 KiB, or of all pixels where these are fewer; and no result depends on it."""
    found: list[MicroKernel] = []

    def chosen(work: Work, target: Target) -> MicroKernel | None:
        found.extend(k for k in gemms(work, target) if "_maddwd_" in k.name)
        return found[-1] if found else None

    monkeypatch.setattr(kernels, "CANDIDATES", (chosen, *kernels.CANDIDATES))
    drawn = extreme(255, [127], 0, rows=pixels, depth=16)
    assert "_maddwd_" in check(drawn, "x86-64-v3")[0]
    agree(drawn.graph, drawn.feeds, ("x86-64-v3",), threads=3)
    assert {k.scratch <= min(32 * pixels, gemm_loops.PIECE_BYTES) + 64 for k in found} == {True}


@examples(5)
@given(convolutions() | linears(), st.sampled_from(TARGETS))
def test_blocks_that_ask_for_the_next_ones_weights(drawn: Sample, target: str) -> None:
    """As only large ones do, so that here all do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm_loops, "AHEAD_BYTES", 1)
        check(drawn, target)


@pytest.mark.parametrize(
    ("target", "rows", "depth", "asked"),
    [
        ("x86-64-v3", 40, 512, True),
        ("x86-64-v4+avx512vnni", 40, 512, True),
        ("x86-64-v4+avx512vnni", 40, 32, False),
        ("x86-64-v4+avx512vnni", 1, 512, False),
        ("wasm32", 40, 512, False),
    ],
)
def test_weights_are_asked_for_where_others_are_used_more_than_once(
    target: str, rows: int, depth: int, asked: bool
) -> None:
    graph = schedule(extreme(255, [1, 2, 3], 7, rows=rows, out=128, depth=depth).graph)
    text = generate_library(graph, parse_target(target), "net", float_io=False).text
    assert ("call void @\"llvm.prefetch" in text) == asked


@pytest.mark.parametrize(
    ("target", "out", "bits"),
    [("znver4", 24, 256), ("znver4", 64, 512), ("x86-64-v4+avx512vnni", 24, 512)],
)
def test_half_the_width_where_lanes_would_be_empty(target: str, out: int, bits: int) -> None:
    """On a CPU that does wide vectors in two turns, which loses nothing by it."""
    graph = schedule(extreme(255, [1, 2, 3], 7, out=out, depth=64).graph)
    (kernel,) = generate_library(graph, parse_target(target), "net").manifest["kernels"]
    assert kernel["kernel"].endswith(f"_vpdpbusd_{bits}")


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("w", [[127], [-127], [127, -127]], ids=str)
def test_results_far_beyond_a_byte_are_clamped(w: list[int], target: str) -> None:
    assert_selected(check(extreme(255, w, 7, out=128, shift=33), target), extreme(255, w, 7))


@pytest.mark.parametrize("target", each(TARGETS))
def test_the_last_bytes_of_an_image_are_not_overread(target: str) -> None:
    """Runs of 3 channels and words of 4: memory ends behind the image's last byte."""
    x = Input(DType.U8, (1, 3, 5, 3), Quant(0.5, 7), name="x")
    w = Const(np.full((4, 3, 3, 3), -3, np.int8))
    b, m, s = np.zeros(4, np.int32), np.full(4, 2**30, np.int32), np.full(4, 37, np.int8)
    y = QConv2d(x, w, Const(b), Const(m), Const(s), (1, 1), (0, 0, 0, 0), (1, 1), 1, (0, 255),
                DType.U8, Quant(0.5, 200))  # fmt: skip
    image = np.arange(45, dtype=np.uint8).reshape(1, 3, 5, 3)
    drawn = Sample(Graph("edge", (x,), (y,), ("y",)), {"x": image})
    assert_selected(check(drawn, target), drawn)
