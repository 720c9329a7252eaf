"""Sums whose multipliers and zero points are operands: one function, the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from irc.backends.llvm.emit import describe_work, works
from irc.backends.llvm.numbers import lifted
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.qelementwise import QAdd
from irc.types import DType, Quant
from irc.value import Value
from tests.backends.harness import agree, schedule

CHANNELS = 32
Layer = tuple[int, int, tuple[int, int], tuple[int, int]]
"""Multipliers, zero points of the convolution and of the sum, bounds of the convolution."""


def shortcut(x: Value, ma: int, mb: int, zeros: tuple[int, int], clamp: tuple[int, int]) -> Value:
    """A 1x1 convolution with its input added to it."""
    rng = np.random.default_rng(abs(ma) + zeros[0])
    w = rng.integers(-127, 128, (CHANNELS, 1, 1, CHANNELS)).astype(np.int8)
    b = rng.integers(-1000, 1000, CHANNELS).astype(np.int32)
    m = rng.integers(2**30, 2**31, CHANNELS).astype(np.int32)
    s = np.full(CHANNELS, 38, np.int8)
    y = QConv2d(x, Const(w), Const(b), Const(m), Const(s), (1, 1), (0, 0, 0, 0), (1, 1), 1, clamp,
                DType.U8, Quant(0.5, zeros[0]))  # fmt: skip
    return QAdd(y, x, ma, mb, 22, (0, 255), DType.U8, Quant(0.5, zeros[1]))


def chain(*layers: Layer) -> Graph:
    """The layers one behind the other."""
    x = Input(DType.U8, (1, 5, 7, CHANNELS), Quant(0.5, layers[0][2][1]), name="x")
    y: Value = x
    for layer in layers:
        y = shortcut(y, *layer)
    return Graph("chain", (x,), (y,), ("y",))


LARGEST = 2**23 - 1
SUMS: list[list[Layer]] = [
    [(4_900_000, 4_100_000, (131, 131), (0, 255)), (4_700_001, 3_600_001, (123, 131), (0, 255))],
    [(4_100_001, 4_100_000, (0, 0), (0, 255)), (LARGEST // 2, -LARGEST // 2, (255, 0), (0, 255))],
    [(-4_000_000, 4_000_001, (255, 255), (0, 255)), (1 << 22, 1 << 20, (0, 255), (0, 255))],
    [(4_000_000, 4_000_001, (100, 7), (20, 230)), (4_000_003, 1, (7, 7), (20, 230))],
]


@pytest.mark.parametrize("layers", SUMS, ids=str)
@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2"])
def test_sums_at_their_extremes(layers: list[Layer], target: str) -> None:
    graph = chain(*layers)
    x = np.random.default_rng(3).integers(0, 256, (1, 5, 7, CHANNELS)).astype(np.uint8)
    x[0, 0] = 0
    x[0, 1] = 255
    agree(graph, {"x": x}, [target])


def test_layers_that_differ_by_numbers_alone_are_one_work() -> None:
    layers = SUMS[0]
    first, second, *_ = works(schedule(chain(*layers, layers[0])))
    assert first.numbers is not None
    assert second.numbers is not None
    assert list(first.numbers.values) != list(second.numbers.values)
    assert describe_work(first).splitlines()[1:] == describe_work(second).splitlines()[1:]


def test_numbers_too_large_stay_where_they_are() -> None:
    large: list[Layer] = [(LARGEST + 1, 1 << 20, (128, 128), (0, 255))]
    (work,) = works(schedule(chain(*large)))
    assert work.numbers is None
    assert lifted(work.loops) == (work.loops, None)
