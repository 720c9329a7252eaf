"""Cells in integers against the reals that their operands stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc import fixedpoint
from irc.curve import UNIT, Curve
from irc.errors import IRCError, TypeCheckError
from irc.graph import Graph, evaluate
from irc.ops.activation import sigmoid
from irc.ops.core import Const, Input
from irc.ops.recurrent import Gated, GruState, LstmCell, LstmHidden, Recurrent, TanhState
from irc.ops.spectrum import Magnitude
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

HIDDEN = 7
GATES, CELL, STATE = 2.0**-11, 2.0**-12, 2.0**-15


def state(name: str, seed: int, spread: float, scale: float, *dims: int) -> tuple[Input, Array]:
    """A 16-bit input, and integers that it may hold."""
    t = TensorType(DType.I16, dims, Quant(scale))
    real = np.random.default_rng(seed).normal(0, spread, dims)
    return Input.of(t, name), fixedpoint.quantize(real, t)


def error(node: Value, given: list[tuple[Input, Array]], result: TensorType) -> float:
    """The largest distance of the twin from the float node, in steps of the result."""
    reals = [fixedpoint.dequantize(a, v.type, DType.F64) for v, a in given]
    twin = node.quantized(tuple(v for v, _ in given), result)
    assert twin.type == result
    graph = Graph("twin", tuple(v for v, _ in given), (twin,), ("y",))
    found = evaluate(graph, {v.name: a for v, a in given})["y"]
    wanted = fixedpoint.quantize(node.evaluate(*reals), result)
    return float(np.abs(found.astype(np.int64) - wanted).max())


def floats(*dims: int) -> Input:
    return Input(DType.F64, dims)


@pytest.mark.parametrize("scale", [2.0**-13, 2.0**-11, 0.0007, 2.0**-8, 0.3, 4.0])
@pytest.mark.parametrize("f", [sigmoid, np.tanh])
def test_a_curve_is_close_to_its_function(f: Callable[[Array], Array], scale: float) -> None:
    curve = Curve.of(scale)
    q = np.arange(-32768, 32768)
    found = curve.apply(q, curve.table(f, scale)) * UNIT
    assert np.abs(found - f(q * scale)).max() < 1.5e-4
    assert curve.entries <= 2049


@pytest.mark.parametrize("order", ["ifgo", "iofg"])
def test_cell_state(order: str) -> None:
    gates = state("gates", 0, 3.0, GATES, 1, 2, 4 * HIDDEN)
    c = state("c", 1, 2.0, CELL, 1, 2, HIDDEN)
    node = LstmCell(floats(1, 2, 4 * HIDDEN), floats(1, 2, HIDDEN), order)
    assert error(node, [gates, c], c[0].type) <= 2


def test_cell_state_saturates() -> None:
    gates = state("gates", 0, 3.0, GATES, 1, 4 * HIDDEN)
    c = state("c", 1, 9.0, CELL, 1, HIDDEN)
    node = LstmCell(floats(1, 4 * HIDDEN), floats(1, HIDDEN))
    assert error(node, [gates, c], c[0].type) <= 2


@pytest.mark.parametrize("dtype", [DType.I16, DType.U8])
def test_hidden_state(dtype: DType) -> None:
    gates = state("gates", 0, 3.0, GATES, 1, 4 * HIDDEN)
    c = state("c", 1, 2.0, CELL, 1, HIDDEN)
    node = LstmHidden(floats(1, 4 * HIDDEN), floats(1, HIDDEN))
    quant = Quant(STATE) if dtype is DType.I16 else Quant(1 / 128, 128)
    result = TensorType(dtype, (1, HIDDEN), quant)
    assert error(node, [gates, c], result) <= (8 if dtype is DType.I16 else 1)


@pytest.mark.parametrize("index", [0, 1])
def test_gated(index: int) -> None:
    gates = state("gates", 0, 3.0, GATES, 3, 2 * HIDDEN)
    x = state("x", 1, 0.4, STATE, 3, HIDDEN)
    node = Gated(floats(3, 2 * HIDDEN), floats(3, HIDDEN), index)
    assert error(node, [gates, x], x[0].type) <= 3


@pytest.mark.parametrize("index", [0, 1])
def test_state_of_a_gru(index: int) -> None:
    gates = state("gates", 0, 3.0, GATES, 3, 2 * HIDDEN)
    n = state("n", 2, 2.0, GATES, 3, HIDDEN)
    h = state("h", 1, 0.4, STATE, 3, HIDDEN)
    node = GruState(floats(3, 2 * HIDDEN), floats(3, HIDDEN), floats(3, HIDDEN), index)
    assert error(node, [gates, n, h], h[0].type) <= 8


def test_state_of_a_plain_layer() -> None:
    x = state("x", 0, 3.0, GATES, 2, HIDDEN)
    result = TensorType(DType.I16, (2, HIDDEN), Quant(STATE))
    assert error(TanhState(floats(2, HIDDEN)), [x], result) <= 5


@pytest.mark.parametrize("batch", [1, 3])
def test_product_with_the_state(batch: int) -> None:
    rng = np.random.default_rng(0)
    x = state("x", 1, 0.4, STATE, 1, batch, HIDDEN)
    a = state("a", 2, 2.0, GATES, 1, batch, 5)
    scales = rng.uniform(0.001, 0.01, 5)
    w = Const(rng.integers(-127, 128, (5, HIDDEN)).astype(np.int8), Quant(tuple(scales), 0, 0))
    real = Const(w.array * scales[:, None])
    node = Recurrent(floats(1, batch, HIDDEN), real, None, floats(1, batch, 5))
    twin = node.quantized((x[0], w, a[0]), a[0].type)
    graph = Graph("twin", (x[0], a[0]), (twin,), ("y",))
    found = evaluate(graph, {"x": x[1], "a": a[1]})["y"]
    reals = (fixedpoint.dequantize(v, t.type, DType.F64) for t, v in (x, a))
    exact = node.evaluate(next(reals), real.array, None, next(reals))
    assert np.abs(found - fixedpoint.quantize(exact, twin.type)).max() <= 1


def test_states_that_are_too_many_are_refused() -> None:
    x = Input.of(TensorType(DType.I16, (1, 600), Quant(STATE)), "x")
    w = Const(np.full((2, 600), 127, np.int8), Quant((0.1, 0.1), 0, 0))
    node = Recurrent(floats(1, 600), Const(w.array * 0.1), None, None)
    with pytest.raises(IRCError, match="64 bits"):
        node.quantized((x, w), TensorType(DType.I16, (1, 2), Quant(GATES)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LstmCell(floats(1, 9), floats(1, 2)), "not 4 per state"),
        (lambda: LstmCell(floats(1, 8), floats(1, 2), "ifff"), "must name"),
        (lambda: Gated(floats(1, 4), floats(1, 2), 2), "no part 2"),
        (lambda: GruState(floats(1, 4), floats(2, 2), floats(1, 2)), "one shape"),
        (lambda: Recurrent(floats(1, 4), floats(3, 4), None, floats(1, 4)), "a must be"),
        (lambda: Recurrent(floats(1, 4), floats(3, 4), floats(2), None), "b must have"),
    ],
)
def test_operands_that_do_not_fit(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(TypeCheckError, match=said):
        make()


def test_magnitude() -> None:
    a, b = (state(n, i, 0.3, STATE, 3, HIDDEN) for i, n in enumerate("ab"))
    node = Magnitude(floats(3, HIDDEN), floats(3, HIDDEN))
    assert error(node, [a, b], TensorType(DType.I16, (3, HIDDEN), Quant(STATE))) <= 1
    assert error(node, [a, b], TensorType(DType.U8, (3, HIDDEN), Quant(1 / 128))) <= 1
