"""What an op takes where it has no integer form over the operands that a model states."""

import warnings

import numpy as np
import pytest

from irc.graph import Graph, evaluate
from irc.ops.activation import Gelu
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.logic import Equal, Not
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.selection import Where
from irc.passes.integer.integerize import integerize
from irc.passes.integer.prove import prove
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.passes.nets import reals, sqnr

WIDE = Quant(1e-4, 30000)
X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def pair(v: Value, quant: Quant, dtype: DType = DType.U16) -> Value:
    return Dequantize(Quantize(v, dtype, quant, name=f"{v.name}.q"), name=f"{v.name}.dq")


def graph_of(y: Value, *inputs: Input) -> Graph:
    return Graph("fitted", inputs, (y,), ("y",))


def image(name: str = "x") -> Input:
    return Input(DType.F32, (4, 8), name=name)


def noise(graph: Graph, feed: dict[str, Array]) -> float:
    integer = integerize(graph)
    prove(integer)
    return sqnr(evaluate(graph, feed)["y"], reals(integer, feed)["y"])


@pytest.mark.parametrize("far", [1e36, 1.0])
def test_a_constant_far_out_saturates_the_sum(far: float) -> None:
    """A mask in a scale of its own, and zeros that were given the scale 1."""
    hidden = np.arange(32).reshape(4, 8) % 3 == 0
    stored = np.where(hidden & (far > 1), 0, 255).astype(np.uint8)
    x = image()
    y = Add(pair(x, WIDE), Dequantize(Const(stored, Quant(far, 255), name="mask")), name="sum")
    graph = graph_of(pair(y, WIDE), x)
    assert noise(graph, {"x": X}) > 60
    found = reals(integerize(graph), {"x": X})["y"]
    assert np.all((found < -2.9) == (hidden & (far > 1)))


def test_products_of_two_values_of_16_bits_read_the_upper_8_of_one() -> None:
    x, z = image(), image("z")
    product = Mul(pair(x, WIDE), pair(z, WIDE), name="product")
    graph = graph_of(pair(product, Quant(5e-4, 30000)), x, z)
    with pytest.warns(UserWarning, match=r"1 nodes read values of 16 bits.*mul %product"):
        assert noise(graph, {"x": X, "z": X[::-1]}) > 30


def test_functions_of_16_bits_are_tables_of_the_upper_8() -> None:
    x = image()
    assert noise(graph_of(pair(Gelu(pair(x, WIDE), name="gelu"), WIDE), x), {"x": X}) > 30


def test_a_condition_that_holds_for_no_integer_of_16_bits_is_none() -> None:
    x = image()
    wide = pair(x, WIDE)
    missing = Not(Equal(wide, wide, name="same"), name="missing")
    y = Where(missing, Const(np.zeros((4, 8), np.float32)), wide, name="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert noise(graph_of(pair(y, WIDE), x), {"x": X}) > 60
