"""Expressions rendered on vectors and on scalars mean what `interpret` says."""

from collections.abc import Callable

import numpy as np
import pytest

from irc.backends.llvm.code.address import Place, flat_index, slope
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.host.jit import compile_graph
from irc.backends.llvm.kernels.generic import choose_lanes
from irc.backends.llvm.target import NAMED
from irc.graph import Graph, evaluate
from irc.loops import Expr, Int, Load, Reduce, Source, Var, axes, clamp, elementwise, load
from irc.ops.core import Input
from irc.ops.quantization import Requantize
from irc.types import DType, Quant, TensorType
from tests.backends.llvm.nets import random_inputs, scheduled


def requantize(m: int, s: int, size: int) -> Graph:
    x = Input.of(TensorType(DType.I16, (size,), Quant(1.0, 0)), "x")
    y = Requantize(x, m, s, (-(2**15), 2**15 - 1), DType.I16, Quant(1.0, 11))
    return scheduled(Graph("requantize", (x,), (y,), ("y",)))


@pytest.mark.parametrize("size", [1, 3, 4, 7, 16, 37, 128])
@pytest.mark.parametrize("s", [1, 15, 30, 31, 32, 33, 34, 47, 62])
def test_equation_6_on_every_shift_and_length(s: int, size: int) -> None:
    m = 2**31 - 1 if s > 30 else 2 ** (s // 2)
    graph = requantize(m, s, size)
    inputs = random_inputs(graph, s)
    got, wanted = compile_graph(graph)(inputs), evaluate(graph, inputs)
    np.testing.assert_array_equal(got["y"], wanted["y"])


def test_slopes() -> None:
    i, j = Var("i", 4), Var("j", 5)
    assert slope(i * 3 + j - 1, i) == 3
    assert slope(j - i * 2, i) == -2
    assert slope(j * 7, i) == 0
    assert slope(i // 2, i) is None
    assert slope(j // 2, i) == 0
    assert slope(i * j, i) is None


def test_flat_index_uses_strides() -> None:
    i, j = Var("i", 4), Var("j", 5)
    flat = flat_index((i, j), (10, 1))
    assert (slope(flat, i), slope(flat, j)) == (10, 1)


@pytest.mark.parametrize(
    ("expression", "interval"),
    [
        (lambda i, x: i * 2 - 1, (-1, 13)),
        (lambda i, x: (i - 3) // 2, (-2, 2)),
        (lambda i, x: (i - 3) % 4, (0, 3)),
        (lambda i, x: clamp(i, 2, 5), (2, 5)),
        (lambda i, x: x.cast(DType.I32) * -3, (-765, 0)),
        (lambda i, x: Reduce("add", (Var("k", 10),), x.cast(DType.I32)), (0, 2550)),
        (lambda i, x: Int(5, DType.I32) - x.cast(DType.I32), (-250, 5)),
    ],
)
def test_intervals(expression: Callable[[Expr, Expr], Expr], interval: tuple[int, int]) -> None:
    i = Var("i", 8)
    x = load(Input.of(TensorType(DType.U8, (8,)), "x"), i)
    assert Ranges().of(expression(i, x)) == interval


def test_lanes_where_loads_are_of_neighbours() -> None:
    x = Input.of(TensorType(DType.U8, (4, 64), Quant(1.0, 0)), "x")
    target = NAMED["x86-64-v3"]

    def lanes(value: Callable[..., Expr], shape: tuple[int, int] = (4, 64)) -> int:
        nest = elementwise(shape, value).result
        places: dict[Source, Place] = {x: Place(None, (64, 1), DType.U8)}
        result = Place(None, (shape[1], 1), DType.U8)
        return choose_lanes(nest, places, result, Ranges(), target)

    assert lanes(lambda i, j: load(x, i, j)) == 16
    assert lanes(lambda i, j: load(x, i, 0)) == 16
    assert lanes(lambda i, j: load(x, j, i), (64, 4)) == 1
    assert lanes(lambda i, j: load(x, i, j), (4, 6)) == 4
    assert lanes(lambda i, j: load(x, i, j - 1, fill=0)) == 1
    assert lanes(lambda i, j: load(x, i - 1, j, fill=0)) == 16


def test_loads_know_where_they_lie() -> None:
    i = axes((4,))[0]
    x = Input.of(TensorType(DType.U8, (8,)), "x")
    assert isinstance(load(x, i * 2), Load)
    assert Ranges().within(i * 2, 0, 7)
    assert not Ranges().within(i * 2 + 2, 0, 7)
