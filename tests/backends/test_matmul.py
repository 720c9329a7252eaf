"""Products of two activations: all tails of their tiles, sides that lie transposed or in slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.amx_permission import tiles_permitted
from irc.backends.llvm.kernels.matmul import choice as matmul_choice
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import Dot, parse_target
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.linear import QMatMul
from irc.ops.shape import Transpose
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.backends.harness import TARGETS, agree, each, examples, kernels_agree, schedule
from tests.backends.products import bytes_of, joined, tail
from tests.ops.sampling import EIGHT_BITS, Draw, Sample, clamp, integer, pick, quant

needs_amx = pytest.mark.skipif(not tiles_permitted(), reason="this machine has no AMX to lend")


@st.composite
def products(draw: Draw, most: tuple[int, int, int] = (14, 40, 70)) -> Sample:
    """A batch of products; either side may lack the batch or be shared by it."""
    batch = (integer(draw, 1, 2), integer(draw, 1, 3))
    m, k, n = (integer(draw, 1, extent) for extent in most)
    a = _side(draw, "a", (*pick(draw, [batch, (1, batch[1]), (1,), ()]), m, k))
    b = _side(draw, "b", (*pick(draw, [batch, (1, batch[1]), (batch[0], 1), ()]), k, n))
    dtype = pick(draw, EIGHT_BITS)
    y = QMatMul(a, b, 2**30 + integer(draw, 0, 2**29), integer(draw, 30, 50), clamp(draw, dtype),
                dtype, quant(draw, dtype))  # fmt: skip
    made, more = tail(draw, y)
    inputs = (a, b, *more)
    return Sample(Graph("p", inputs, (made,), ("y",)), {v.name: bytes_of(draw, v) for v in inputs})


def _side(draw: Draw, name: str, dims: tuple[int, ...]) -> Input:
    dtype = pick(draw, EIGHT_BITS)
    return Input(dtype, dims, quant(draw, dtype), name=name)


@st.composite
def attention(draw: Draw) -> Sample:
    """Heads that lie side by side: read through transposes, and written through one."""
    n, heads = integer(draw, 1, 2), integer(draw, 1, 3)
    m, k, columns = integer(draw, 1, 9), integer(draw, 1, 35), integer(draw, 1, 40)
    scores = draw(st.booleans())
    a = _side(draw, "a", (n, m, heads, k))
    b = _side(draw, "b", (n, columns, heads, k) if scores else (n, k, heads, columns))
    right = Transpose(b, (0, 2, 3, 1) if scores else (0, 2, 1, 3))
    dtype = pick(draw, EIGHT_BITS)
    y = QMatMul(Transpose(a, (0, 2, 1, 3)), right, 2**30 + 77, integer(draw, 36, 50),
                clamp(draw, dtype), dtype, quant(draw, dtype))  # fmt: skip
    made: Value = y if draw(st.booleans()) else Transpose(y, (0, 2, 1, 3))
    return Sample(Graph("p", (a, b), (made,), ("y",)), {v.name: bytes_of(draw, v) for v in (a, b)})


@examples(5)
@given(attention(), st.sampled_from(TARGETS))
def test_transposes_are_read_and_written_through(drawn: Sample, target: str) -> None:
    (name,) = kernels_agree(drawn.graph, drawn.feeds, target)
    assert name.startswith(kinds(target))


@examples(6)
@given(products(), st.sampled_from(TARGETS))
def test_products(drawn: Sample, target: str) -> None:
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert any(name.startswith(kinds(target)) for name in names), names


def kinds(target: str) -> tuple[str, ...]:
    """What the names of kernels for a target begin with."""
    if parse_target(target).dot is not Dot.VPDPBUSD:
        return ("qmatmul_i16_",)
    return ("qmatmul_u8i8_", "qmatmul_i8i8_", "qmatmul_i16_")


@contextmanager
def tiles_always() -> Iterator[None]:
    """AMX for all products that it can compute, whether it pays or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul_choice, "pays", lambda found: True)
        yield


@needs_amx
@examples(5)
@given(st.one_of(products((40, 150, 150)), attention()), st.sampled_from((0, 3)))
def test_products_by_tiles(drawn: Sample, threads: int) -> None:
    with tiles_always():
        agree(drawn.graph, drawn.feeds, ["x86-64-v4+amx"], threads=threads)


@pytest.mark.parametrize(
    "target", ["wasm32-unknown-unknown:generic:", "armv7-unknown-linux-gnueabihf:generic:"]
)
def test_without_vectors_there_is_no_kernel(target: str) -> None:
    quant = Quant(0.5, 7)
    a, b = (Input(DType.U8, dims, quant, name=n) for n, dims in (("a", (4, 8)), ("b", (8, 5))))
    y = QMatMul(a, b, 2**30, 40, (0, 255), DType.U8, quant)
    graph = schedule(Graph("plain", (a, b), (y,), ("y",)))
    code = generate_library(graph, parse_target(target), "net", float_io=False)
    assert [k["kernel"] for k in code.manifest["kernels"]] == ["generic loops"]


@needs_amx
@pytest.mark.parametrize("k", [64, 197, 641])
def test_tiles_are_chosen(k: int) -> None:
    """The last run of k and the last tile of rows reach back."""
    names = kernels_agree(*far_apart((37, k, 70), (DType.U8, DType.I8), (255, -128)), "host")
    assert any(name.endswith("_amx") for name in names), names


@examples(5)
@given(products(), st.sampled_from(TARGETS))
def test_threads(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=3)


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("dtypes", [(a, b) for a in EIGHT_BITS for b in EIGHT_BITS])
def test_extremes(dtypes: tuple[DType, DType], target: str) -> None:
    low, high = (tuple(getattr(d, end) for d in dtypes) for end in ("min", "max"))
    ends = [far_apart((3, 33, 19), dtypes, zeros) for zeros in (low, high)]
    other = far_apart((17, 68, 5), dtypes, (high[0], low[1]))
    drawn = joined([Sample(*each) for each in (*ends, other)])
    assert len(kernels_agree(drawn.graph, drawn.feeds, target)) >= len(ends) + 1


def far_apart(
    sizes: tuple[int, int, int], dtypes: tuple[DType, ...], zeros: tuple[int, ...]
) -> tuple[Graph, dict[str, Array]]:
    """Elements as far from their zero points as can be, a few at the other end."""
    m, k, n = sizes
    quants = [Quant(0.5, z) for z in zeros]
    a = Input(dtypes[0], (m, k), quants[0], name="a")
    b = Input(dtypes[1], (k, n), quants[1], name="b")
    y = QMatMul(a, b, 2**30, 46, (0, 255), DType.U8, Quant(0.5, 3))
    feeds = {}
    for v, zero, d in zip((a, b), zeros, dtypes, strict=True):
        near, far = sorted((d.min, d.max), key=lambda end: abs(end - zero))
        array = np.full(v.shape, far, d.numpy)
        array.reshape(-1)[::7] = near
        feeds[v.name] = array
    return Graph("extremes", (a, b), (y,), ("y",)), feeds
