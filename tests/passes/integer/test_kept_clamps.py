"""Clamps behind a dequantize that layers read: their integers are those that are clamped."""

from collections.abc import Callable

import numpy as np
import pytest

import irc
from irc.errors import CompileError
from irc.ops.activation import Clip, Relu
from irc.ops.conv import Conv2d
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.pool import MaxPool2d
from irc.ops.shape import Concat, Pad, Transpose
from irc.passes.integer.integerize import integerize
from irc.passes.quantize import Islands
from irc.value import Value
from tests.passes.integer.test_integerize import graph_of, image, quantized, weights

POINTWISE = (4, 1, 1, 4)


def layer(x: Value, name: str) -> Value:
    return Conv2d(x, weights(POINTWISE), name=name)


def read(made: Value) -> Value:
    """Quantized, clamped at zero, pooled and moved there and back, read by a layer and a sum."""
    clamped = Relu(quantized(made, 0.04, 117), name="r")
    pooled = MaxPool2d(clamped, (2, 2), strides=(1, 1), pads=(0, 1, 0, 1), name="p")
    there = Transpose(pooled, (0, 3, 1, 2))
    back = Transpose(there, (0, 2, 3, 1))
    return quantized(Add(layer(back, "second"), pooled, name="sum"), 0.1)


def test_a_layer_reads_a_clamp_of_integers_as_integers() -> None:
    graph = graph_of(read(layer(image(), "first")))
    assert {v.name for v in Islands(graph).open} == {"second"}  # the sum's other term
    integer = integerize(graph)
    clamped = next(v for v in integer.order if v.name == "r")
    assert (clamped.op, clamped.clamp[0]) == ("qconv2d", 117)  # type: ignore[attr-defined]
    x = np.random.default_rng(1).uniform(-5, 7, integer.inputs[0].shape).astype(np.float32)
    model = irc.compile(graph)
    found, expected = model({"x": x}), irc.evaluate(graph, {"x": x})
    (name,) = found
    assert np.abs(found[name] - expected[name]).max() < 1e-5


def test_bounds_between_integers_are_listed() -> None:
    clamped = Clip(quantized(layer(image(), "first"), 0.07, 100), 0.0, 6.0, name="six")
    with pytest.raises(CompileError, match="clip %six: conv2d %second reads it unquantized"):
        integerize(graph_of(quantized(layer(clamped, "second"), 0.1)))


def test_bounds_beyond_all_integers_clamp_nothing() -> None:
    clamped = Clip(quantized(layer(image(), "first"), 0.03, 100), 0.0, 6.0, name="six")
    graph = graph_of(quantized(layer(clamped, "second"), 0.1))
    assert not Islands(graph).open
    assert integerize(graph)


@pytest.mark.parametrize("made", [
    lambda x: Clip(x, 10.0, 20.0, name="far"),  # the range ends at 4.65
    lambda x: Clip(x, -20.0, -10.0, name="far"),
    lambda x: Concat((x, Const(np.full(x.shape, 1000.0, np.float32))), 1, name="far"),
])  # fmt: skip
def test_what_no_integer_of_the_type_stands_for_is_not_kept(made: Callable[[Value], Value]) -> None:
    far = made(quantized(layer(image(), "first"), 0.03, 100))
    graph = graph_of(quantized(layer(far, "second"), 0.5))
    assert {v.name for v in Islands(graph).open} == {"far"}
    with pytest.raises(CompileError, match="%far: conv2d %second reads it unquantized"):
        integerize(graph)


@pytest.mark.parametrize(("value", "stands"), [(0.0, True), (6.9, True), (8.5, False)])
def test_padding_that_no_integer_stands_for_is_listed(value: float, stands: bool) -> None:
    around = Pad(image(), ((0, 0), (1, 1), (1, 1), (0, 0)), value, name="around")
    graph = graph_of(quantized(layer(around, "second"), 0.1))
    assert stands is not bool(Islands(graph).open)
    if stands:
        assert integerize(graph)
    else:
        with pytest.raises(CompileError, match="pad %around: conv2d %second reads it unquantized"):
            integerize(graph)


def test_padding_has_the_integers_of_its_result() -> None:
    around = Pad(image(), ((0, 0), (1, 1), (1, 1), (0, 0)), 20.0)
    graph = graph_of(quantized(around, 0.1, 20))
    x = {"x": np.zeros(graph.inputs[0].shape, np.float32)}
    assert irc.compile(graph, backend="reference")(x)["y0"].max() == np.float32(20.0)
