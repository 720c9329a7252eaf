"""A library with AMX in a process that is refused it: its kernels with products by vectors."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given

from irc.backends.llvm import kernels
from irc.backends.llvm.code import dispatch
from irc.backends.llvm.files.aot import save
from irc.backends.llvm.host.library import Library
from irc.backends.llvm.kernels.amx import tiling as amx_tiling
from irc.backends.llvm.kernels.amx.layers import amx
from irc.backends.llvm.kernels.amx.stand_in import best_rows
from irc.backends.llvm.kernels.matmul.choice import matmuls
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import Target, parse_target
from irc.backends.llvm.work import MicroKernel, Work
from irc.graph import evaluate
from irc.types import DType
from tests.backends.harness import examples, run_library, same_bits, schedule
from tests.backends.products import convolutions, linears
from tests.backends.test_amx import TARGET, first_layers, has_vnni512, product
from tests.backends.test_gemm import extreme
from tests.backends.test_matmul import attention, far_apart, products
from tests.ops.sampling import EIGHT_BITS, Sample


def tiled(work: Work, target: Target) -> MicroKernel | None:
    """A product of two activations by tiles, pays it or not."""
    return next((m for m in matmuls(work, target) if m.name.endswith("_amx")), None)


@pytest.fixture(autouse=True, scope="module")
def refused() -> object:
    """AMX wherever possible, asked for by a number that Linux doesn't know."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "REQUEST", 0)
        best = (partial(amx, always=True), tiled, *kernels.CANDIDATES)
        patch.setattr(kernels, "CANDIDATES", best)
        yield


def held(drawn: Sample) -> None:
    graph = schedule(drawn.graph)
    made = run_library(graph, drawn.feeds, TARGET)
    same_bits("refused AMX", made, evaluate(drawn.graph, drawn.feeds), graph)


@has_vnni512
@examples(6)
@given(convolutions())
def test_convolutions(drawn: Sample) -> None:
    held(drawn)


@has_vnni512
@examples(6)
@given(linears())
def test_linears(drawn: Sample) -> None:
    held(drawn)


@has_vnni512
@examples(6)
@given(products((40, 150, 150)))
def test_products(drawn: Sample) -> None:
    held(drawn)


@has_vnni512
@examples(6)
@given(attention())
def test_attention(drawn: Sample) -> None:
    held(drawn)


@has_vnni512
@examples(6)
@given(first_layers())
def test_pairs_of_rows(drawn: Sample) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amx_tiling, "PAIR_CYCLES", -(10**9))
        held(drawn)


@has_vnni512
@pytest.mark.parametrize(
    "drawn",
    [
        product((7, 7, 64), 64, 3, pad=1, add=True),  # blocks of rows that reach back
        product((1, 1, 2048), 40),  # a single pixel
        product((3, 17, 68), 80),  # chunks that reach back over a word
        product((9, 9, 3), 16, 7, stride=2, pad=3),
        product((6, 50, 96), 24, groups=3, images=2),
        product((28, 28, 16), 96),  # results take longer than products
    ],
    ids=lambda d: str(d.graph.inputs[0].shape),
)
def test_edges(drawn: Sample) -> None:
    held(drawn)


@has_vnni512
@pytest.mark.parametrize("zero", [0, 255])
@pytest.mark.parametrize("w", [[127], [-127], [127, -127]], ids=str)
def test_extremes(w: list[int], zero: int) -> None:
    held(extreme(255, w, zero))


@has_vnni512
@pytest.mark.parametrize("dtypes", [(a, b) for a in EIGHT_BITS for b in EIGHT_BITS], ids=str)
def test_extreme_products(dtypes: tuple[DType, DType]) -> None:
    low, high = (tuple(getattr(d, end) for d in dtypes) for end in ("min", "max"))
    for zeros in (low, high):
        held(Sample(*far_apart((37, 197, 70), dtypes, zeros)))


@has_vnni512
def test_threads(tmp_path: Path) -> None:
    drawn = product((14, 14, 64), 64, 3, pad=1)
    save(schedule(drawn.graph), tmp_path, "net", TARGET, emit=("so",), threads=2)
    library = Library(tmp_path / "libnet.so")
    assert library.self_test()


def test_weights_are_there_once() -> None:
    """And so is all code but the products of tiles."""
    drawn = product((14, 14, 256), 256, 3, pad=1)
    graph = schedule(drawn.graph)
    code = generate_library(graph, parse_target(TARGET), "net")
    assert [k["kernel"] for k in code.manifest["kernels"]][-1].endswith("_amx")
    assert code.manifest["constant_bytes"] < 1.02 * 256 * 256 * 9
    assert code.manifest["functions"] == len(code.manifest["kernels"])


def test_which_tile_is_stored_is_found_by_comparisons(tmp_path: Path) -> None:
    """LLVM would make a table of jumps of them, which the audit can't follow."""
    save(schedule(product((7, 7, 96), 96, 1).graph), tmp_path, "net", TARGET, emit=("s",))
    assert not re.search(r"jmpq?\s+\*", (tmp_path / "net.s").read_text())


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_accumulators_fit_the_registers(vectors: int, *, signed: bool) -> None:
    for rows in range(1, 17):
        block = best_rows(rows, vectors, signed=signed)
        assert 1 <= block <= rows
        assert block * vectors + vectors * (2 if signed else 1) + 1 <= 32
