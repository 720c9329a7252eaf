"""i8 activations as u8: the same reals, the same interface."""

from __future__ import annotations

import numpy as np
import pytest

import irc
import irc.driver
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.pool import MaxPool2d
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.shape import Concat, Slice, Transpose
from irc.passes.integer.integerize import integerize
from irc.passes.integer.unsigned import unsigned
from irc.types import DType, Quant, TensorType
from irc.value import Value

RNG = np.random.default_rng(0)


def pair(v: Value, quant: Quant, dtype: DType = DType.I8, name: str = "") -> Value:
    return Dequantize(Quantize(v, dtype, quant, name=name), name=name)


def conv(x: Value, name: str) -> Value:
    w = RNG.integers(-127, 128, (4, 3, 3, 4)).astype(np.int8)
    weights = Dequantize(Const(w, Quant((0.01,) * 4, 0, 0)))
    return Conv2d(x, weights, None, pads=(1, 1, 1, 1), name=name)


def residual() -> Graph:
    """A block in which all is i8, the image channels first."""
    x = Input.of(TensorType(DType.F32, (1, 4, 6, 6)), "x")
    seen = pair(Transpose(x, (0, 2, 3, 1)), Quant(0.05, -3), name="seen")
    first = pair(Relu(conv(seen, "a")), Quant(0.1, -128), name="first")
    pooled = MaxPool2d(first, (3, 3), pads=(1, 1, 1, 1))
    y = pair(Add(conv(pooled, "b"), seen, name="sum"), Quant(0.2, 7), name="y")
    return Graph("block", (x,), (y,), ("y",))


def test_no_value_changes() -> None:
    graph = residual()
    made = unsigned(graph)
    feed = {"x": RNG.normal(size=(1, 4, 6, 6)).astype(np.float32) * 3}
    np.testing.assert_array_equal(evaluate(made, feed)["y"], evaluate(graph, feed)["y"])
    before, after = integerize(graph), integerize(made)
    assert [v.type for v in before.inputs] == [v.type for v in after.inputs]
    assert [v.type for v in before.outputs] == [v.type for v in after.outputs]
    image = RNG.integers(-128, 128, (1, 4, 6, 6)).astype(np.int8)
    found, wanted = (evaluate(g, {"x": image})["y"] for g in (after, before))
    np.testing.assert_array_equal(found, wanted)


def test_layers_read_u8() -> None:
    integer = irc.driver.integerize(residual())
    layers = [v for v in integer.order if v.op == "qconv2d"]
    assert {v.operands[0].type.dtype for v in layers} == {DType.U8}
    assert integer.inputs[0].type.dtype is DType.I8
    assert integer.outputs[0].type.dtype is DType.I8


def joined(*, outside: bool) -> Graph:
    """Integers of two layers put side by side, or of a layer and the input."""
    x = Input.of(TensorType(DType.F32, (1, 6, 6, 4)), "x")
    seen = pair(x, Quant(0.05, -3), name="seen")
    whole = Quant(0.1, -20)
    parts = [Quantize(conv(seen, n), DType.I8, whole, name=n) for n in "ab"]
    if outside:
        parts[1] = Quantize(x, DType.I8, whole, name="again")
    both = Dequantize(Slice(Concat(tuple(parts), 3), (0, 0, 0, 2), (1, 6, 6, 6), (1, 1, 1, 1)))
    y = pair(conv(both, "c"), Quant(0.2, 7), name="y")
    return Graph("joined", (x,), (y,), ("y",))


@pytest.mark.parametrize("outside", [False, True])
def test_what_is_put_together_is_u8(outside: bool) -> None:
    graph = joined(outside=outside)
    made = unsigned(graph)
    feed = {"x": RNG.normal(size=(1, 6, 6, 4)).astype(np.float32) * 3}
    np.testing.assert_array_equal(evaluate(made, feed)["y"], evaluate(graph, feed)["y"])
    layers = [v for v in irc.driver.integerize(graph).order if v.op == "qconv2d"]
    assert {v.operands[0].type.dtype for v in layers} == {DType.U8}


def wide() -> Graph:
    x = Input.of(TensorType(DType.F32, (1, 4)), "x")
    y = pair(Relu(pair(x, Quant(0.001, 5), DType.I16)), Quant(0.1, 0), DType.U8)
    return Graph("wide", (x,), (y,), ("y",))


def public() -> Graph:
    """Integers that are an output themselves."""
    x = Input.of(TensorType(DType.F32, (1, 4)), "x")
    q = Quantize(Relu(x), DType.I8, Quant(0.1, 0), name="q")
    return Graph("public", (x,), (q, Relu(Dequantize(q))), ("q", "y"))


def moved() -> Graph:
    """An output that is transposed after it is quantized."""
    x = Input.of(TensorType(DType.F32, (1, 2, 3)), "x")
    y = Transpose(pair(Relu(pair(x, Quant(0.1, 0), DType.U8)), Quant(0.1, 0)), (0, 2, 1))
    return Graph("moved", (x,), (y,), ("y",))


@pytest.mark.parametrize("make", [wide, public, moved])
def test_others_stay(make: object) -> None:
    graph = make()  # type: ignore[operator]
    assert str(unsigned(graph)) == str(graph)
