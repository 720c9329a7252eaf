"""Tables of 256 bytes by shuffles: alone and behind other work, at all lengths of their runs."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.kernels.tables.shuffle import ByteShuffle
from irc.backends.llvm.kernels.tables.swish import hard_swish
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.qelementwise import QMul
from irc.ops.quantization import Lookup
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import VECTORS, examples, kernels_agree
from tests.backends.products import joined, source, wrapped
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, array, integer, pick, quant


def lookup(draw: Draw, x: Value) -> Lookup:
    dtype = pick(draw, EIGHT_BITS)
    return Lookup(x, Const(array(draw, dtype, (256,)), name="last"), quant(draw, dtype))


@st.composite
def tables(draw: Draw) -> Sample:
    """A table of a tensor, which may be a slice, with what may follow it."""
    dims = (integer(draw, 1, 2), integer(draw, 1, 4), integer(draw, 1, 9), integer(draw, 1, 150))
    x, sliced = source(draw, dims)
    return wrapped(draw, x, lookup(draw, sliced))


@st.composite
def scaled_tables(draw: Draw) -> Sample:
    """A table of a product of two tensors."""
    dims = (integer(draw, 1, 3), integer(draw, 1, 150))
    a, b = (
        Input(dtype, shape, quant(draw, dtype), name=name)
        for name, shape, dtype in (("a", dims, DType.U8), ("b", dims[1:], DType.I8))
    )
    dtype = pick(draw, EIGHT_BITS)
    y = QMul(a, b, 2**30 + 12345, 38, (dtype.min, dtype.max), dtype, quant(draw, dtype))
    feeds = {v.name: array(draw, v.dtype, v.dims) for v in (a, b)}
    return Sample(Graph("scaled", (a, b), (lookup(draw, y),), ("y",)), feeds)


def every_byte(count: int, dtype: DType) -> Sample:
    """A table of so many bytes, counted up."""
    x = Input(dtype, (count,), Quant(0.5, 0), name="x")
    entries = np.random.default_rng(3).integers(0, 256, 256).astype(np.uint8)
    graph = Graph("bytes", (x,), (Lookup(x, Const(entries), Quant(0.5, 0)),), ("y",))
    feed: Array = np.arange(count).astype(np.uint8).view(dtype.numpy)
    return Sample(graph, {"x": feed})


@examples(10)
@given(tables(), st.sampled_from(VECTORS))
def test_alone(drawn: Sample, target: str) -> None:
    kernels_agree(drawn.graph, drawn.feeds, target)


@examples(8)
@given(scaled_tables(), st.sampled_from(VECTORS))
def test_behind_generic_loops(drawn: Sample, target: str) -> None:
    (name,) = kernels_agree(drawn.graph, drawn.feeds, target)
    assert "_table_" in name


@pytest.mark.parametrize("target", VECTORS)
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_every_byte(dtype: DType, target: str) -> None:
    drawn = joined([every_byte(count, dtype) for count in (1, 15, 16, 31, 33, 256, 700)])
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert len(names) == 7
    assert all(name.startswith("table_") for name in names)


@pytest.mark.parametrize("target", VECTORS)
@pytest.mark.parametrize("zero", [0, 39, 66, 92, 140, 255])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_hard_swish(zero: int, dtype: DType, target: str) -> None:
    x = Input(DType.U8, (259,), Quant(0.057, zero), name="x")
    real = (np.arange(256) - zero) * 0.057
    real = real * np.clip(real / 6 + 0.5, 0, 1)
    step = max(real.max() - real.min(), 0.1) / 250
    quant = Quant(step, dtype.min + round(-real.min() / step))
    entries = np.clip(np.rint(real / step) + quant.zero_point, dtype.min, dtype.max)
    table = Const(entries.astype(dtype.numpy))
    graph = Graph("swish", (x,), (Lookup(x, table, quant),), ("y",))
    feed = np.arange(259).astype(np.uint8)
    (name,) = kernels_agree(graph, {"x": feed}, target)
    computed = name.startswith(("table_hardswish", "table_vpermb"))
    assert computed or zero == 255  # all of it steep: nothing else than a table fits


def test_what_is_almost_hard_swish_is_looked_up() -> None:
    x, y = (TensorType(DType.U8, (256,), q) for q in (Quant(0.0513, 66), Quant(0.0407, 10)))
    real = (np.arange(256) - 66) * 0.0513
    entries = np.rint(real * np.clip(real / 6 + 0.5, 0, 1) / 0.0407) + 10
    right = np.clip(entries, 0, 255).astype(np.uint8)
    assert hard_swish(right, x, y, 32) is not None
    right[100] += 1
    assert hard_swish(right, x, y, 32) is None


def test_rows_hold_what_earlier_ones_lack() -> None:
    entries = np.random.default_rng(4).integers(0, 256, 256).astype(np.uint8)
    rows = ByteShuffle("pshufb", 16).stored(entries, DType.U8).reshape(16, 16)
    for h in range(16):
        counted = rows[max(0, h - 7) : h + 1]
        np.testing.assert_array_equal(np.bitwise_xor.reduce(counted), entries[16 * h :][:16])
