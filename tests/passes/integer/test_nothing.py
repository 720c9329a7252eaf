"""Tensors without elements: sums of no products are biases, outputs without elements no work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import irc
from irc.errors import CompileError, ParseError
from irc.graph import Graph, evaluate
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.linear import Linear, MatMul
from irc.ops.shape import Concat
from irc.passes.integer.integerize import integerize
from irc.types import DType, Shape
from irc.value import Value

BIAS = Const(np.asarray([1.0, -2.0, 3.0], np.float32))


def zeros(*shape: int) -> Const:
    return Const(np.zeros(shape, np.float32))


def graph_of(shape: Shape, made: Callable[[Value], Value]) -> Graph:
    x = Input(DType.F32, shape, name="x")
    return Graph("nothing", (x,), (made(x).replace(name="y"),), ("y",))


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        ((1, 4, 4, 0), lambda x: Conv2d(x, zeros(3, 3, 3, 0), BIAS, pads=(1, 1, 1, 1))),
        ((1, 4, 4, 0), lambda x: Conv2d(x, zeros(3, 1, 1, 0), BIAS)),
        ((2, 0), lambda x: Linear(x, zeros(3, 0), BIAS)),
        ((2, 0), lambda x: MatMul(x, zeros(0, 3))),
        ((2, 3), lambda x: Concat((Linear(x, zeros(0, 3), None), x), 1)),
    ],
)
def test_what_reads_nothing_is_known(shape: Shape, made: Callable[[Value], Value]) -> None:
    graph = graph_of(shape, made)
    feed = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    library = irc.compile(irc.quantize(graph, [feed] * 2))
    np.testing.assert_allclose(library(feed)["y"], evaluate(graph, feed)["y"], atol=0.05)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 4, 4, 3)])
def test_outputs_without_elements_are_refused(shape: Shape) -> None:
    graph = graph_of(shape, lambda x: Conv2d(x, zeros(0 if shape[0] else 3, 3, 3, 3), None))
    assert evaluate(graph, {"x": np.zeros(shape, np.float32)})["y"].size == 0
    with pytest.raises(CompileError, match='output "y": has no elements'):
        irc.quantize(graph, [{"x": np.zeros(shape, np.float32)}])


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("reduce_max(%x) {axes = [0], keepdims = false} : f32[3]", "nothing has no maximum"),
        ("reduce_mean(%x) {axes = [0], keepdims = false} : f32[3]", "nothing has no mean"),
        ("argmax(%x) {axis = 0, keepdims = false, select_last = false} : i64[3]", "is empty"),
        ("gather(%x, %i) {axis = 0} : f32[2,3]", "axis 0 .* is empty, there is nothing to select"),
    ],
)
def test_what_nothing_has_not_is_refused(op: str, said: str) -> None:
    text = f"graph @none(%x: f32[0,3], %i: i64[2]) {{\n  %y = {op}\n  return %y\n}}"
    with pytest.raises(ParseError, match=f"^line 2: .*{said}"):
        irc.parse(text)


def test_a_float_graph_with_nothing_in_it_has_no_integer_form() -> None:
    """The range of a constant without elements is asked for on the way."""
    graph = graph_of((2, 3), lambda x: Concat((x, zeros(2, 0)), 1))
    with pytest.raises(CompileError):
        integerize(graph)
