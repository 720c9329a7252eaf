"""Transposed convolutions as convolutions: the same bits."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irc.graph import Graph, evaluate
from irc.ops.conv import QConvTranspose2d
from irc.ops.core import Const, Input
from irc.passes.integer.transposed import SplitTransposed
from irc.types import DType, Quant

PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


def transposed(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    extra: tuple[int, int],
    groups: int = 1,
) -> QConvTranspose2d | None:
    """A node over random weights; None where the pads leave nothing."""
    canvas = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, k, s, d, e in zip(size, kernel, strides, dilations, extra, strict=True)
    ]
    if canvas[0] <= pads[0] + pads[2] or canvas[1] <= pads[1] + pads[3]:
        return None
    rng = np.random.default_rng(0)
    x = Input(DType.U8, (2, *size, 3 * groups), Quant(0.1, 7), name="x")
    w = rng.integers(-127, 128, (5 * groups, *kernel, 3)).astype(np.int8)
    out = len(w)
    b = rng.integers(-9999, 9999, out).astype(np.int32)
    m = rng.integers(2**30, 2**31, out).astype(np.int32)
    s = rng.integers(36, 40, out).astype(np.int8)
    return QConvTranspose2d(
        x, Const(w), Const(b), Const(m), Const(s), strides=strides, pads=pads,
        dilations=dilations, groups=groups, output_padding=extra, clamp=(3, 250), dtype=DType.U8,
        quant=Quant(0.2, 100), fraction=3, name="y",
    )  # fmt: skip


@settings(max_examples=80)
@given(
    PAIR, PAIR, PAIR, PAIR, st.tuples(*[st.integers(0, 3)] * 4),
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from([1, 1, 2, 3]),
)  # fmt: skip
@example((1, 1), (1, 1), (4, 4), (1, 1), (0, 0, 0, 0), (0, 0), 1)  # most phases have no tap
@example((5, 4), (4, 4), (2, 2), (1, 1), (1, 1, 1, 1), (0, 0), 2)
@example((5, 4), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), (1, 1), 1)
@example((4, 4), (2, 2), (2, 2), (1, 1), (3, 3, 3, 3), (0, 0), 1)  # pads cut off whole pixels
def test_the_same_bits(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    extra: tuple[int, int],
    groups: int,
) -> None:
    node = transposed(size, kernel, strides, dilations, pads, extra, groups)
    if node is None or max(strides) == 1:
        return
    x = node.x
    assert isinstance(x, Input)
    graph = Graph("g", (x,), (node,), ("y",))
    split = SplitTransposed()(graph)
    assert "qconv_transpose2d" not in {v.op for v in split.order}
    assert split.output_types == graph.output_types
    array = np.random.default_rng(1).integers(0, 256, x.shape).astype(np.uint8)
    assert np.array_equal(evaluate(graph, {"x": array})["y"], evaluate(split, {"x": array})["y"])
