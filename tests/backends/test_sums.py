"""Sums of a layer's 16 bits and a byte, at the ends of what their instructions hold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import aim
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Bounds
from irc.types import Array, DType, Quant
from tests.backends.harness import TARGETS, agree, schedule

WORD = (-(2**15), 2**15 - 1)
LARGEST = 2**23 - 1


def summed(
    channels: int, ma: int, mb: int, byte: tuple[DType, int], clamp: Bounds = WORD, zero: int = 0
) -> Graph:
    """A 1x1 convolution, many of whose results leave 16 bits, and a byte with its zero point. Its
    shifts begin at 31, so that sums are shifted left."""
    rng = np.random.default_rng(channels)
    x = Input(DType.U8, (1, 3, 7, channels), Quant(0.5, 0), name="x")
    w = rng.integers(-127, 128, (channels, 1, 1, channels)).astype(np.int8)
    b = rng.integers(-100_000, 100_000, channels).astype(np.int32)
    m = rng.integers(2**30, 2**31, channels).astype(np.int32)
    s = rng.integers(31, 36, channels).astype(np.int8)
    y = QConv2d(x, Const(w), Const(b), Const(m), Const(s), (1, 1), (0, 0, 0, 0), (1, 1), 1, clamp,
                DType.I16, Quant(0.5, zero))  # fmt: skip
    r = Input(byte[0], y.shape, Quant(0.5, byte[1]), name="r")
    total = QAdd(r, y, mb, ma, 12, (0, 255), DType.U8, Quant(0.5, 117))
    return Graph("sum", (x, r), (total,), ("y",))


def feeds(graph: Graph) -> dict[str, Array]:
    """Noise, and pixels of the least and the largest numbers."""
    rng, found = np.random.default_rng(4), dict[str, Array]()
    for v in graph.inputs:
        low, high = v.type.dtype.min, v.type.dtype.max
        array = rng.integers(low, high + 1, v.shape).astype(v.type.dtype.numpy)
        array[0, 0, :3], array[0, 1, :3] = low, high
        found[v.name] = array
    return found


SUMS: dict[str, tuple[Any, ...]] = {
    "ordinary": (25_471, 3_002_076, (DType.U8, 126)),
    "both negative": (-25_471, -3_002_076, (DType.I8, 3)),
    "largest of words": (65_534, 1, (DType.U8, 128)),
    "least of words": (-65_534, -1, (DType.U8, 128)),
    "one more": (65_535, 1, (DType.U8, 0)),
    "largest of u8": (1, LARGEST, (DType.U8, 0)),
    "least of u8": (-1, -LARGEST, (DType.U8, 255)),
    "largest of i8": (1, LARGEST, (DType.I8, -128)),
    "least of i8": (1, -LARGEST, (DType.I8, 127)),
    "more than a byte's": (1, LARGEST + 1, (DType.U8, 128)),
    "small factors": (1, -1, (DType.I8, -1)),
    "a relu between": (30_000, 2_000_001, (DType.U8, 9), (0, 2**15 - 1)),
    "bounds between": (-30_000, 2_000_255, (DType.I8, 9), (-20_001, 15_000)),
    "a zero point between": (20_000, 2_000_256, (DType.U8, 9), WORD, 1000),
    "bytes between": (60_000, 200_000, (DType.U8, 9), (-100, 100)),
}


DIFFERENT = ("host", "x86-64-v3+avxvnni", "x86-64-v3")
"""Targets with instructions of their own for it."""


@pytest.mark.parametrize("case", SUMS)
def test_sums_at_their_extremes(case: str) -> None:
    graph = summed(64, *SUMS[case])
    agree(graph, feeds(graph), [t for t in DIFFERENT if t in TARGETS])


@pytest.mark.parametrize("channels", [16, 20, 37, 48])
def test_sums_of_few_channels(channels: int) -> None:
    graph = summed(channels, *SUMS["ordinary"])
    agree(graph, feeds(graph), [t for t in DIFFERENT if t in TARGETS])


@pytest.mark.parametrize(
    ("target", "instructions"),
    [
        ("x86-64-v4+amx", ("packssdw.512", "pshuf.b.512", "vpdpwssd.512")),
        ("x86-64-v3+avxvnni", ("avx2.packssdw", "avx2.pshuf.b", "vpdpwssd.256")),
        ("x86-64-v3", ("avx2.packssdw", "avx2.pmadd.wd")),
    ],
)
def test_their_instructions(target: str, instructions: tuple[str, ...]) -> None:
    text = generate_library(schedule(summed(64, *SUMS["ordinary"])), aim(target), "net").text
    assert [i for i in instructions if i not in text] == []


def test_bytes_with_a_zero_point_of_their_own() -> None:
    """Whose factor is no operand, for something else is out of the ordinary."""
    graph = schedule(summed(64, *SUMS["a zero point between"]))
    text = generate_library(graph, aim("x86-64-v4+avx512vnni"), "net").text
    assert "vpdpwssd.512" in text
    assert "mul <16 x i32>" not in text
    assert "mul <32 x i32>" not in text


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4+avx512vnni"])
def test_registers_on_the_stack_lie_within_lines(target: str) -> None:
    """A sum leaves many there; all at multiples of their size, or they would be moved unaligned."""
    aimed = aim(target)
    module, machine = generate_library(
        schedule(summed(64, *SUMS["ordinary"])), aimed, "net"
    ).optimized()
    kernel = machine.emit_assembly(module).partition("\nnet_k0_")[2].partition(".Lfunc_end")[0]
    letter = {32: "y", 64: "z"}[aimed.vector_bytes]
    moved = re.findall(
        rf"(vmov\w+)\t(?:%{letter}mm\d+, -?\d*\(%rsp\)|-?\d*\(%rsp\), %{letter}mm)",
        kernel,
    )
    assert moved
    assert {name for name in moved if not name.startswith(("vmovdqa", "vmovaps"))} == set()


def test_factors_too_large_for_them() -> None:
    counts = []
    for case in ("ordinary", "one more", "bytes between"):
        graph = schedule(summed(64, *SUMS[case]))
        text = generate_library(graph, aim("x86-64-v3"), "net").text
        counts.append(text.count('call <8 x i32> @"llvm.x86.avx2.pmadd.wd"'))
    assert counts[0] > counts[1] == counts[2]
