"""Sums whose multipliers and zero points are operands: one function, the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from irc.backends.llvm.code.numbers import lifted
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.module.emit import describe_work, works
from irc.backends.llvm.target import aim
from irc.graph import Graph
from irc.loops import Int, walk
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.linear import QMatMul
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Lookup
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
    assert work.numbers is not None
    assert list(work.numbers.values) == [128, 128], "zero points alone"
    values = [e.value for e in walk(work.loops.result.value) if isinstance(e, Int)]
    assert {LARGEST + 1, 1 << 20} <= set(values)
    assert lifted(work.loops) == (work.loops, None)


# ------------------------------------------------------------ zero points, products, tables


def products(*layers: tuple[int, int, int, int]) -> Graph:
    """Products of two inputs with zero points, a multiplier and a shift of their own."""
    inputs: list[Input] = []
    results: list[Value] = []
    for i, (za, zb, m, s) in enumerate(layers):
        a = Input(DType.U8, (18, 40), Quant(0.5, za), name=f"a{i}")
        b = Input(DType.U8, (40, 33), Quant(0.5, zb), name=f"b{i}")
        inputs += [a, b]
        results.append(QMatMul(a, b, m, s, (0, 255), DType.U8, Quant(0.5, 100 + i)))
    names = tuple(f"y{i}" for i in range(len(layers)))
    return Graph("products", tuple(inputs), tuple(results), names)


@pytest.mark.parametrize("target", ["host", "x86-64-v4+amx", "x86-64-v3", "aarch64"])
def test_products_that_differ_by_numbers_share_a_function(target: str) -> None:
    graph = schedule(products((133, 120, 2**30 + 5, 38), (1, 255, 2**31 - 1, 45)))
    assert functions_of(graph, target) == 1


def test_products_at_the_extremes_of_their_numbers() -> None:
    graph = products((255, 1, 2**31 - 1, 33), (1, 255, 2**30, 62), (128, 128, 2**30, 40))
    feeds = {v.name: np.full(v.shape, 255 * (i % 3 == 0), np.uint8)
             for i, v in enumerate(graph.inputs)}  # fmt: skip
    agree(graph, feeds, ["host", "x86-64-v3", "x86-64-v2"])


def functions_of(graph: Graph, target: str) -> int:
    """How many functions do its kernels."""
    kernels = generate_library(graph, aim(target), "net").manifest["kernels"]
    return len({k["function"] for k in kernels})


def looked_up(x: Value, zero: int) -> Value:
    """A convolution with a table behind it."""
    y = shortcut(x, 1, 1, (zero, zero), (0, 255))
    assert isinstance(y, QAdd)
    table = np.random.default_rng(zero).integers(0, 256, 256).astype(np.uint8)
    return Lookup(y.a, Const(table), Quant(0.5, 3))


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
def test_zero_points_and_tables_make_no_other_function(target: str) -> None:
    x = Input(DType.U8, (1, 5, 7, CHANNELS), Quant(0.5, 3), name="x")
    y = looked_up(looked_up(looked_up(x, 90), 140), 200)
    graph = Graph("tables", (x,), (y,), ("y",))
    feeds = {"x": np.random.default_rng(3).integers(0, 256, x.shape).astype(np.uint8)}
    agree(graph, feeds, [target])
    assert functions_of(schedule(graph), target) == 1


def test_tables_behind_different_layers_are_one_function() -> None:
    x = Input(DType.U8, (1, 5, 7, CHANNELS), Quant(0.5, 3), name="x")
    y = looked_up(x, 90)
    assert isinstance(y, Lookup)
    assert isinstance(y.x, QConv2d)
    wide = Const(np.ones((CHANNELS, 3, 3, CHANNELS), np.int8))
    first = replace(y, x=replace(y.x, w=wide, pads=(1, 1, 1, 1)))
    second = replace(y.x, x=first, w=wide, pads=(2, 2, 2, 2), dilations=(2, 2))
    graph = schedule(Graph("tables", (x,), (replace(y, x=second),), ("y",)))
    text = generate_library(graph, aim("x86-64-v3"), "net").text
    defined = [line for line in text.splitlines() if line.startswith("define")]
    assert sum("in_place" in line for line in defined) == 1
    assert functions_of(graph, "x86-64-v3") == 2
