"""Kernels at all their edges on CPUs that are emulated."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from llvmlite import ir

from irc.backends.llvm.kernels.gemm import loops as gemm_loops
from irc.backends.llvm.kernels.vectors import dot
from irc.backends.llvm.kernels.vectors.lanes import part
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.types import DType, Quant
from tests.backends.foreign import EMULATED, run_emulated
from tests.backends.harness import examples
from tests.backends.products import convolutions, depthwise, joined, linears
from tests.backends.test_gemm import extreme
from tests.backends.test_matmul import attention, products
from tests.backends.test_norm import norms
from tests.backends.test_softmax import softmaxes
from tests.backends.test_table import every_byte, scaled_tables, tables
from tests.ops.sampling import EIGHT_BITS, Sample

pytestmark = pytest.mark.slow


def check(drawn: Sample, target: str) -> list[str]:
    """The names of the kernels that were selected, held to the reference."""
    with tempfile.TemporaryDirectory() as folder:
        found, kernels = run_emulated(drawn.graph, drawn.feeds, target, Path(folder))
    for name, wanted in evaluate(drawn.graph, drawn.feeds).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=f"{target}\n{drawn.graph}")
    return kernels


KINDS = {
    "qgemm_u8i8_": convolutions() | linears(),
    "qdepthwise_u8i8_": depthwise(),
    "qmatmul_i16_": products() | attention(),
    "qsoftmax_": softmaxes(),
    "qnorm_": norms(),
}


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("kind", KINDS)
@examples(1)
@given(st.data())
def test_kernels(target: str, kind: str, data: st.DataObject) -> None:
    kernels = check(joined(data.draw(st.lists(KINDS[kind], min_size=12, max_size=12))), target)
    assert sum(name.startswith(kind) for name in kernels) >= 6, kernels


@examples(1)
@given(st.data())
def test_pieces(data: st.DataObject) -> None:
    """Pixels that are widened tile by tile."""
    drawn = data.draw(st.lists(convolutions() | linears(), min_size=12, max_size=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm_loops, "PIECE_BYTES", 1)
        check(joined(drawn), "wasm32")


@pytest.mark.parametrize("zero", [0, 255])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("saturating", [False, True])
def test_engines(saturating: bool, signed: bool, zero: int) -> None:
    """The relaxed dot product as engines may have it, by code that does the same."""
    target = "wasm32+relaxed-simd"
    weights = [[127], [-127], [64, 64, -64, -64], [127, 1, -127, -1], [0, 0, -127]]
    drawn = [extreme(x, w, zero) for w in weights for x in (0, 1, 127, 128, 255)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dot, "_relaxed", partial(relaxed, signed=signed, saturating=saturating))
        kernels = check(joined(drawn), target)
    assert sum("_relaxed_" in name for name in kernels) >= 15, kernels


def relaxed(
    builder: Any, acc: Any, x: Any, w: Any, *, signed: bool, saturating: bool
) -> Any:
    """`acc` and the products of i8 weights by i8 or u8, pairs added in 16 bits or in 32."""
    wide = ir.VectorType(ir.IntType(16 if saturating else 32), 16)
    extend = builder.sext if signed else builder.zext
    products = builder.mul(extend(x, wide), builder.sext(w, wide))
    even, odd = (part(builder, products, range(side, 16, 2)) for side in (0, 1))
    if saturating:
        pairs = dot.call(builder, "llvm.sadd.sat.v8i16", even.type, [even, odd])
        pairs = builder.sext(pairs, ir.VectorType(ir.IntType(32), 8))
    else:
        pairs = builder.add(even, odd)
    halves = (part(builder, pairs, range(side, 8, 2)) for side in (0, 1))
    return builder.add(acc, builder.add(*halves))


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("zero", [0, 255])
def test_extremes(target: str, zero: int) -> None:
    weights = [[127], [-127], [127, 127, -127, -127], [127, -127], [0, 0, -127]]
    drawn = [extreme(x, w, zero) for w in weights for x in (0, 127, 128, 255)]
    kernels = check(joined(drawn), target)
    assert all(name.startswith("qgemm_u8i8_") for name in kernels), kernels


def rescaled(low: int, high: int, bound: int) -> Sample:
    """Sums far beyond a byte on both sides, and beside the ends of what is left of them, behind
    shifts from `low` to `high`."""
    rng = np.random.default_rng(low)
    shifts = np.array([low, high, *rng.integers(low, high + 1, 18)], np.int8)
    ends = [sign * min(bound * 2.0 ** (s - 31.0), 2.0**30) for s in shifts for sign in (1, -1)]
    channels = 2 * len(shifts)
    w = np.tile(np.array([[1], [-1]], np.int8), (len(shifts), 1))
    b, s = np.array(ends, np.int32), np.repeat(shifts, 2)
    m = rng.integers(2**30, 2**31, channels).astype(np.int32)
    x = Input(DType.U8, (256, 1), Quant(0.5, 0), name="x")
    y = QLinear(x, Const(w), Const(b), Const(m), Const(s), (0, 255), DType.U8, Quant(0.5, 128))
    feeds = {"x": np.arange(256, dtype=np.uint8)[:, None]}
    return Sample(Graph("rescaled", (x,), (y,), ("y",)), feeds)


@pytest.mark.parametrize("target", EMULATED)
def test_shifts(target: str) -> None:
    spreads = [(25, 37), (31, 33), (32, 44), (33, 34), (33, 45), (39, 51), (45, 57), (33, 62)]
    check(joined([rescaled(*s, bound) for s in spreads for bound in (127, 600)]), target)


@examples(1)
@given(st.data(), st.sampled_from(["aarch64", "wasm32"]))
def test_tables(data: st.DataObject, target: str) -> None:
    drawn = data.draw(st.lists(tables() | scaled_tables(), min_size=12, max_size=12))
    kernels = check(joined(drawn), target)
    assert all("table_" in name for name in kernels if name != "generic loops"), kernels


@pytest.mark.parametrize("target", ["aarch64", "wasm32"])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_every_byte_of_a_table(dtype: DType, target: str) -> None:
    kernels = check(joined([every_byte(count, dtype) for count in (1, 15, 16, 33, 256)]), target)
    assert all(name.startswith("table_") for name in kernels), kernels


@pytest.mark.parametrize("target", EMULATED)
def test_the_least_weight(target: str) -> None:
    kernels = check(joined([extreme(x, [-128], 3) for x in (0, 255)]), target)
    # Two products of 128 by 128 leave the 16 bits in which `smlal` adds them.
    exact = target not in ("aarch64", "armv7")
    assert all(name.startswith("qgemm_") == exact for name in kernels), kernels
