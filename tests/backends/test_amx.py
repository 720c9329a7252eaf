"""Products of tiles at all their edges, where this machine has AMX; what holds without it too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.audit import audit
from irc.backends.llvm import kernels
from irc.backends.llvm.amx_permission import tiles_permitted
from irc.backends.llvm.files.aot import save
from irc.backends.llvm.kernels.amx import tiling as amx_tiling
from irc.backends.llvm.kernels.amx.layers import amx, amxs
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import Target, parse_target
from irc.backends.llvm.work import MicroKernel, Work
from irc.graph import Graph, evaluate
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.qelementwise import QAdd
from irc.types import DType, Quant
from irc.value import Value
from tests.backends.harness import TARGETS, agree, examples, run_library, same_bits, schedule
from tests.backends.products import convolutions, linears, parameters, source, wrapped
from tests.backends.test_gemm import check, extreme
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, clamp, integer, pick, quant, steps

TARGET = "x86-64-v4+amx"
has_vnni512 = pytest.mark.skipif(
    "x86-64-v4+avx512vnni" not in TARGETS, reason="this machine has no AVX512-VNNI"
)
needs_amx = pytest.mark.skipif(not tiles_permitted(), reason="this machine has no AMX to lend")


@pytest.fixture(autouse=True, scope="module")
def tiles_wherever_possible() -> object:
    """AMX even where vectors are estimated to be faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "CANDIDATES", (partial(amx, always=True), *kernels.CANDIDATES))
        yield


def held(drawn: Sample) -> None:
    names = check(drawn, TARGET)
    assert any("_amx" in name for name in names), f"no AMX among {names}"


@needs_amx
@examples(13)
@given(convolutions())
def test_convolutions(drawn: Sample) -> None:
    held(drawn)


@needs_amx
@examples(8)
@given(linears())
def test_linears(drawn: Sample) -> None:
    check(drawn, TARGET)


def product(
    image: tuple[int, int, int], out: int, kernel: int = 1, *, stride: int = 1, pad: int = 0,
    groups: int = 1, images: int = 1, add: bool = False,
) -> Sample:  # fmt: skip
    """A convolution of random bytes over all their range, with another tensor added to it."""
    rng = np.random.default_rng(7)
    shape = (images, *image)
    x = Input(DType.U8, shape, Quant(0.5, 7), name="x")
    w = rng.integers(-127, 128, (out, kernel, kernel, image[2] // groups)).astype(np.int8)
    b = rng.integers(-1000, 1000, out).astype(np.int32)
    m = rng.integers(2**30, 2**31, out).astype(np.int32)
    s = rng.integers(36, 44, out).astype(np.int8)
    y = QConv2d(x, Const(w), Const(b), Const(m), Const(s), (stride, stride),
                (pad, pad, pad, pad), (1, 1), groups, (0, 255), DType.U8,
                Quant(0.5, 20))  # fmt: skip
    feeds = {"x": rng.integers(0, 256, shape).astype(np.uint8)}
    if not add:
        return Sample(Graph("product", (x,), (y,), ("y",)), feeds)
    z = Input(DType.U8, y.shape, Quant(0.5, 20), name="z")
    total = QAdd(y, z, 2**14, 2**14, 15, (0, 255), DType.U8, Quant(0.5, 20))
    feeds["z"] = rng.integers(0, 256, y.shape).astype(np.uint8)
    return Sample(Graph("product", (x, z), (total,), ("y",)), feeds)


@needs_amx
@pytest.mark.parametrize(
    "drawn",
    [
        product((7, 7, 64), 64, 3, pad=1, add=True),  # rows of tiles that reach back
        product((5, 33, 20), 48, 3, pad=1),  # three tiles a row; runs of 60 bytes
        product((1, 1, 2048), 40),  # a single pixel, many chunks
        product((3, 17, 68), 80),  # chunks that reach back over a word
        product((9, 9, 3), 16, 7, stride=2, pad=3),  # a first layer
        product((6, 50, 96), 24, groups=3, images=2),
        product((300, 300, 12), 16, add=True),  # more than one part
        product((5, 5, 64), 48, 3, pad=1, add=True),  # tiles that go on in the next row
        product((7, 7, 512), 64, 3, pad=1),  # weights fetched ahead
        product((14, 14, 256), 64, 3, stride=2, pad=1, images=2),  # rows copied ahead
    ],
    ids=lambda d: str(d.graph.inputs[0].shape),
)
def test_edges(drawn: Sample) -> None:
    held(drawn)


@st.composite
def first_layers(draw: Draw, *, wide: bool = False) -> Sample:
    """A convolution of stride 2 over few channels, or many, padded or with odd rows."""
    channels = pick(draw, [12, 20, 64, 68]) if wide else integer(draw, 1, 8)
    out = integer(draw, 1, 70)
    kernel = (integer(draw, 1, 7), integer(draw, 1, 7))
    pads = tuple(integer(draw, 0, 3) for _ in range(4))
    height = integer(draw, max(1, kernel[0] - pads[0] - pads[2]), 24)
    width = integer(draw, max(1, kernel[1] - pads[1] - pads[3]), 50)
    x, image = source(draw, (integer(draw, 1, 2), height, width, channels))
    w, b, m, s = parameters(draw, (out, *kernel, channels))
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, (2, 2), (pads[0], pads[1], pads[2], pads[3]), (1, 1), 1,
                clamp(draw, dtype), dtype, quant(draw, dtype), **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


@needs_amx
@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wide", [False, True])
def test_pairs_of_rows(wide: bool, count: int) -> None:
    """Wherever they are possible: all but a whole image of words, which needs no copy."""

    @examples(count)
    @given(first_layers(wide=wide), st.integers(0, 3))
    def paired(drawn: Sample, threads: int) -> None:
        names = check(drawn, TARGET)
        assert any("_pairs_amx" in name for name in names) or not _copied(drawn.graph.order), names
        agree(drawn.graph, drawn.feeds, [TARGET], threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amx_tiling, "WIDE_PAIR_CYCLES" if wide else "PAIR_CYCLES", -(10**9))
        paired()


@st.composite
def strided(draw: Draw) -> Sample:
    """A convolution that passes over pixels, maybe with another tensor added to it."""
    strides = pick(draw, [(2, 2), (3, 2), (1, 2), (2, 3)])
    images, channels, out = integer(draw, 1, 2), 4 * integer(draw, 1, 20), integer(draw, 1, 70)
    x, image = source(draw, (images, integer(draw, 1, 17), integer(draw, 4, 40), channels))
    w, b, m, s = parameters(draw, (out, 1, 1, channels))
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, strides, (0, 0, 0, 0), (1, 1), 1, clamp(draw, dtype), dtype,
                quant(draw, dtype), **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


@needs_amx
@pytest.mark.parametrize("count", [4, pytest.param(15, marks=pytest.mark.slow)])
def test_pixels_that_are_gathered(count: int) -> None:
    @examples(count)
    @given(strided(), st.integers(0, 3))
    def gathered(drawn: Sample, threads: int) -> None:
        held(drawn)
        agree(drawn.graph, drawn.feeds, [TARGET], threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amx_tiling, "GATHERED_BYTES", -1e-9)
        gathered()


def _copied(order: Sequence[Value]) -> bool:
    """Whether the convolution reads a padded copy."""
    (conv,) = (v for v in order if isinstance(v, QConv2d))
    return any(conv.pads) or conv.w.shape[2] * conv.w.shape[3] % 4 != 0


def test_a_first_layer_of_three_channels_takes_pairs() -> None:
    """Seven rows of 21 bytes are four of 48."""
    drawn = product((224, 224, 3), 64, 7, stride=2, pad=3)
    code = generate_library(schedule(drawn.graph), parse_target(TARGET), "net")
    assert [k["kernel"] for k in code.manifest["kernels"]] == ["qgemm_u8i8_16x64_pairs_amx"]


@needs_amx
@pytest.mark.parametrize("number", range(12))
def test_every_tiling(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks of channels and a rest, by tilings that no cost model would take."""
    module = sys.modules["irc.backends.llvm.kernels.amx.layers"]
    monkeypatch.setattr(module, "TILINGS", 99)

    def nth(work: Work, target: Target) -> MicroKernel | None:
        return next(islice(amxs(work, target), number, None), None)

    monkeypatch.setattr(kernels, "CANDIDATES", (nth, *kernels.CANDIDATES))
    held(product((6, 9, 68), 152, 3, pad=1, add=True))


@needs_amx
@pytest.mark.parametrize(
    "drawn",
    [
        product((7, 7, 64), 64, 3, pad=1, add=True),
        product((5, 33, 20), 48, 3, pad=1, add=True),
        product((1, 1, 2048), 80),
        product((6, 50, 96), 24, groups=3, images=2),
    ],
    ids=lambda d: str(d.graph.inputs[0].shape),
)
@pytest.mark.parametrize("threads", [2, 5])
def test_parts_for_threads(drawn: Sample, threads: int) -> None:
    agree(drawn.graph, drawn.feeds, [TARGET], threads=threads)


@needs_amx
@pytest.mark.parametrize("zero", [0, 255])
@pytest.mark.parametrize("w", [[127], [-127], [127, -127]], ids=str)
def test_extremes(w: list[int], zero: int) -> None:
    held(extreme(255, w, zero))


def test_code_for_amx_beside_code_without() -> None:
    """Tile instructions stand in the assembly, and nowhere but in the tiles' own kernels."""
    graph = schedule(product((14, 14, 64), 64, 3, pad=1).graph)
    code = generate_library(graph, parse_target(TARGET), "net")
    module, machine = code.optimized()
    assembly = machine.emit_assembly(module)
    for word in ("ldtilecfg", "tileloadd", "tdpbusd", "tilestored", "tilerelease", "vpdp"):
        assert word in assembly
    assert assembly.count("syscall") == 1
    assert code.manifest["levels"] == [f"{TARGET} without AMX", TARGET]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with AMX."""
    folder = tmp_path_factory.mktemp("amx")
    save(schedule(product((14, 14, 64), 64, 3, pad=1).graph), folder, "net", TARGET, emit=("so",))
    return folder / "libnet.so"


@has_vnni512
def test_the_audit_knows_the_one_system_call(library: Path) -> None:
    checks = audit(library)
    assert [c for c in checks if c.holds is False] == []
    assert any("asking Linux to lend AMX" in c.seen for c in checks)


REFUSING = """
import ctypes, struct, sys
program = b"".join(struct.pack("HBBI", *i) for i in (
    (0x20, 0, 0, 0),  # the number of the system call
    (0x15, 0, 1, 158),  # arch_prctl
    (0x06, 0, 0, 0x50001),  # fails with EPERM
    (0x06, 0, 0, 0x7FFF0000),  # all else goes on
))
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter, 0, 0) == 0
from irc.backends.llvm.host.library import Library
from irc.backends.llvm.amx_permission import tiles_permitted
assert not tiles_permitted()
library = Library(sys.argv[1])
assert library.self_test()
"""


@has_vnni512
@pytest.mark.skipif(sys.platform != "linux", reason="filters of system calls are Linux's")
def test_a_library_does_without_what_the_system_refuses(library: Path) -> None:
    command = [sys.executable, "-c", REFUSING, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@has_vnni512
def test_a_library_runs_with_and_without_amx() -> None:
    drawn = product((14, 14, 64), 64, 3, pad=1)
    made = run_library(schedule(drawn.graph), drawn.feeds, TARGET)
    same_bits("library", made, evaluate(drawn.graph, drawn.feeds), drawn.graph)
