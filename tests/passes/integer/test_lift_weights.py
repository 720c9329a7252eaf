"""Weights of nine bits as eight; what code makes of them is in `tests/backends/test_lifted.py`."""

import numpy as np
import pytest

from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.passes.integer.lift_weights import LiftWeights, lifted, lifts_of
from irc.types import Array, DType, Quant
from tests.passes.rules import check_rule


def test_the_rule() -> None:
    check_rule(lifted)


@pytest.mark.parametrize(
    ("low", "high", "lifts"),
    [
        ([-127, -3], [127, 5], [0, 0]),
        ([-128, -3], [127, 5], [0, 0]),
        ([-100], [155], [28]),  # all 256 numbers: -128 is one of them
        ([-100], [154], [27]),
        ([0], [255], [128]),
        ([-255], [0], [-127]),
        ([-100, 20], [20, 150], [23, 23]),  # one number serves both
        ([-200, 0], [20, 200], [-73, 73]),
        ([-200, 0, -9], [20, 200, 9], [-73, 73, 0]),
    ],
)
def test_the_least_that_leaves_eight_bits(
    low: list[int], high: list[int], lifts: list[int]
) -> None:
    found = lifts_of(np.array(low), np.array(high))
    np.testing.assert_array_equal(found, lifts)


def layer(w: Array, **more: Const) -> QLinear:
    """A linear layer over u8."""
    x, n = Input(DType.U8, (3, w.shape[1]), Quant(0.5, 77), name="x"), len(w)
    b, m, s = np.full(n, 9, np.int32), np.full(n, 2**30, np.int32), np.full(n, 45, np.int8)
    y = QLinear(x, Const(w.astype(np.int16), name="w"), Const(b), Const(m), Const(s), (0, 255),
                DType.U8, Quant(0.5, 128), name="y")  # fmt: skip
    return y.replace(**more)


NOISE = np.random.default_rng(0).integers


@pytest.mark.parametrize(
    "w",
    [NOISE(-300, 300, (4, 50)), NOISE(-(2**15), 2**15, (4, 5)), NOISE(-(2**15), -32600, (4, 50)),
     np.array([[-200, 56], [0, 1]]), np.array([[-200, 55], [0, 1]]), np.full((1, 7), -200),
     np.full((1, 7), 200), np.zeros((2, 0)), np.zeros((1, 0))],
    ids=lambda w: f"{w.shape} {w.min(initial=0)}",
)  # fmt: skip
@pytest.mark.parametrize("common", [False, True])
def test_whatever_the_weights_the_bits_stay(w: Array, common: bool) -> None:
    more = {"common": Const(np.array([[-999], [0], [999]], np.int32))} if common else {}
    y = layer(w, **more)
    graph = Graph("layer", (y.x,), (y,), ("y",))  # type: ignore[arg-type]
    made = LiftWeights().run(graph)
    (node,) = made.outputs
    assert isinstance(node, QLinear)
    assert node.w.type.dtype is DType.I8
    x = {"x": NOISE(0, 256, y.x.shape).astype(np.uint8)}
    np.testing.assert_array_equal(evaluate(made, x)["y"], evaluate(graph, x)["y"])
