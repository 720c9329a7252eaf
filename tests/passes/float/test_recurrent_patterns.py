"""Cells that were written out, where their parts repeat, broadcast or are many."""

from collections.abc import Callable

import numpy as np
import pytest

from irc.graph import Graph
from irc.ops.activation import Sigmoid, Tanh
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.shape import Slice
from irc.passes.float.canonicalize import Canonicalize
from irc.types import DType, Shape
from irc.value import Value
from tests.passes.rules import check_equal

RNG = np.random.default_rng(0)
Cell = Callable[[Value, Value], Value]
ONE = Const(np.ones((), np.float32))


def given(name: str, *shape: int) -> Input:
    return Input(DType.F32, shape, name=name)


def weights(*shape: int) -> Const:
    return Const(RNG.standard_normal(shape).astype(np.float32))


def part(x: Value, index: int, width: int) -> Value:
    *rest, _ = x.shape
    starts = (*(0 for _ in rest), index * width)
    return Slice(x, starts, (*rest, (index + 1) * width), (1,) * x.type.rank)


def ops(inputs: tuple[Input, ...], *outputs: Value) -> list[str]:
    """What is there after the pass; the meaning is checked on the way."""
    before = Graph("g", inputs, outputs, tuple(f"y{i}" for i in range(len(outputs))))
    after = Canonicalize()(before)
    check_equal(before, after)
    return [v.op for v in after.order]


def gru(h: Value, a: Value, one: Value = ONE) -> Value:
    """PyTorch's cell, its reset gate after the product."""
    width, third = h.shape[-1], a.shape[-1] // 3
    p = Linear(h, weights(3 * width, width), weights(3 * width))
    z, r = (Sigmoid(Add(part(a, i, third), part(p, i, width))) for i in (0, 1))
    n = Tanh(Add(part(a, 2, third), Mul(r, part(p, 2, width))))
    return Add(Mul(z, h), Mul(Sub(one, z), n))


def lstm(c: Value, g: Value) -> Value:
    """The next cell state."""
    i, f, n = (part(g, k, g.shape[-1] // 4) for k in range(3))
    return Add(Mul(Sigmoid(f), c), Mul(Sigmoid(i), Tanh(n)))


@pytest.mark.parametrize("cell", [gru, lstm])
@pytest.mark.parametrize(
    "shape", [(1, 12), (12,), (3, 3), (1, 3)], ids=["row", "vector", "numbers", "number"]
)
def test_gates_that_broadcast_stay(cell: Cell, shape: Shape) -> None:
    parts = 3 if cell is gru else 4
    h, a = given("h", 3, 4), given("a", *shape[:-1], shape[-1] // 3 * parts)
    assert not {"gru_state", "lstm_cell"} & set(ops((h, a), cell(h, a)))


def test_ones_of_more_rows_stay() -> None:
    h, a = given("h", 1, 4), given("a", 1, 12)
    assert "gru_state" in ops((h, a), gru(h, a))
    assert "gru_state" not in ops((h, a), gru(h, a, Const(np.ones((5, 4), np.float32))))


def test_terms_that_repeat_count_twice() -> None:
    start, x = given("h", 2, 3), given("x", 2, 3)
    r = weights(3, 3)
    h: Value = start
    for _ in range(3):
        p = Linear(h, r)
        h = Tanh(Add(Add(Add(x, p), p), x))
    assert "tanh_state" in ops((start, x), h)


def test_sums_of_very_many_terms() -> None:
    x, y = given("x", 1, 2), given("y", 1, 2)
    chain: Value = x
    for _ in range(1500):
        chain = Add(chain, y)
    a: Value = x
    b: Value = y
    for _ in range(60):
        a, b = Add(a, b), a
    assert ops((x, y), Tanh(a), Tanh(chain)).count("tanh") == 2
