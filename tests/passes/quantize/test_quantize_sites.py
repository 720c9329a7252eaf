"""Ranges that calibration alone does not know: constants among activations, integers as numbers,
scales that a concat must not force on others."""

import numpy as np
import pytest

from irc.driver import integerize
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu, Sigmoid
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Maximum, Mul, Sub
from irc.ops.logic import And, Less
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Pad, Slice, Transpose
from irc.ops.unary import Exp
from irc.passes.quantize import quantize
from irc.properties import is_integer
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.passes.nets import Net, reals, sqnr


def scalar(x: float) -> Const:
    return Const(np.array(x, np.float32))


def noise(n: Net, graph: Graph) -> dict[str, float]:
    """SQNR of each output on a sample that calibration has not seen."""
    calibration, probe = n.samples(16), n.samples(17)[16]
    integer = integerize(quantize(graph, [{"x": s} for s in calibration]))
    assert is_integer(integer)
    wanted, got = evaluate(graph, {"x": probe}), reals(integer, {"x": probe})
    return {k: sqnr(wanted[k], got[k]) for k in wanted}


def test_a_pad_with_a_value_beyond_the_range() -> None:
    n = Net()
    small = Mul(Sigmoid(n.conv(n.x, 8), name="s"), scalar(0.1), name="small")
    padded = Pad(small, ((0, 0), (2, 0), (1, 0), (0, 0)), 0.5, name="p")
    assert noise(n, n.graph(n.conv(padded, 4)))["y0"] > 30


def test_a_pad_with_nearly_minus_infinity_saturates() -> None:
    n = Net()
    padded = Pad(Relu(n.conv(n.x, 8), name="r"), ((0, 0), (0, 0), (0, 0), (0, 1)), -3e38, name="p")
    kept = Slice(padded, (0, 0, 0, 0), (1, 8, 8, 8), (1, 1, 1, 1), name="kept")
    assert noise(n, n.graph(n.conv(kept, 4)))["y0"] > 30


@pytest.mark.parametrize("far", [-3e38, -1e9, -65504.0])
@pytest.mark.parametrize("extreme", [ReduceMax, ReduceMin])
def test_what_is_far_off_and_never_an_extreme_takes_no_bits(
    far: float, extreme: type[ReduceMax | ReduceMin]
) -> None:
    """Chosen among, and, where it stands for infinity, added to."""
    n = Net()
    x, sign = n.conv(n.x, 4), -1.0 if extreme is ReduceMin else 1.0
    kept = Where(Less(scalar(-0.2), n.conv(n.x, 4)), x, scalar(sign * far), name="kept")
    total = Add(kept, n.conv(n.x, 4), name="total") if far < -1e8 else kept
    made = noise(n, n.graph(extreme(total, (1, 2), False, name="most")))
    assert made["y0"] > 30


def test_a_constant_in_a_concat_is_not_clipped() -> None:
    n = Net()
    grid = Const(np.linspace(-9, 9, 8 * 8 * 2, dtype=np.float32).reshape(1, 8, 8, 2), name="grid")
    assert noise(n, n.graph(n.conv(Concat((n.x, grid), 3, name="j"), 4)))["y0"] > 30


def test_a_concat_of_a_slice_keeps_its_scale_from_the_other_slices() -> None:
    n = Net()
    whole = Sigmoid(n.conv(n.x, 8), name="whole")
    left = Slice(whole, (0, 0, 0, 0), (1, 8, 8, 4), (1, 1, 1, 1), name="left")
    right = Slice(whole, (0, 0, 0, 4), (1, 8, 8, 8), (1, 1, 1, 1), name="right")
    large = Mul(Mul(left, left, name="square"), scalar(50.0), name="large")
    joined = Concat((large, right), 3, name="joined")
    assert noise(n, n.graph(joined, Mul(left, scalar(2.0), name="double")))["y1"] > 35


def test_a_constant_output() -> None:
    n = Net()
    k = Const(np.linspace(-2, 3, 6, dtype=np.float32), name="k")
    assert noise(n, n.graph(n.conv(n.x, 4), k))["y1"] > 35


def indexed(array: Array) -> Graph:
    i = Input(DType.I32, (1, 7), name="i")
    mean = ReduceMean(Gather(Const(array, name="table"), i, 0, name="rows"), (1,), False, name="m")
    return Graph("embedding", (i,), (mean,), ("y",))


def test_rows_of_a_constant_by_computed_indices() -> None:
    rng = np.random.default_rng(0)
    graph = indexed(rng.standard_normal((50, 16)).astype(np.float32))
    samples = [{"i": rng.integers(0, 50, (1, 7)).astype(np.int32)} for _ in range(9)]
    integer = integerize(quantize(graph, samples[:8]))
    assert integer.input_types["i"].dtype is DType.I32
    assert sqnr(evaluate(graph, samples[8])["y"], reals(integer, samples[8])["y"]) > 30


def pixels(dtype: DType, made: Value, x: Input) -> Graph:
    n = Net()
    image = Div(made, scalar(64.0), name="image")
    return Graph("pixels", (x,), (n.conv(image, 4),), ("y",))


@pytest.mark.parametrize("dtype", [DType.U8, DType.I8])
@pytest.mark.parametrize("moved", [False, True])
def test_pixels_as_numbers(dtype: DType, moved: bool) -> None:
    x = Input(dtype, (1, 3, 9, 7) if moved else (1, 9, 7, 3), name="x")
    source = Transpose(x, (0, 2, 3, 1), name="t") if moved else x
    graph = pixels(dtype, Cast(source, DType.F32, name="c"), x)
    rng = np.random.default_rng(0)
    feeds = [
        {"x": rng.integers(dtype.min, dtype.max + 1, x.shape).astype(dtype.numpy)}
        for _ in range(9)
    ]
    integer = integerize(quantize(graph, feeds[:8]))
    assert integer.input_types["x"].dtype is dtype
    assert integer.input_types["x"].quant == Quant(1.0)
    wanted, got = evaluate(graph, feeds[8])["y"], evaluate(integer, feeds[8])["y"]
    t = integer.output_types["y"]
    assert sqnr(wanted, ((got.astype(np.float64) - t.zero) * t.scale)) > 30


def test_wide_integers_as_numbers() -> None:
    """They stay what they are at the interface, and are rescaled inside."""
    x = Input(DType.I64, (1, 9, 7, 3), name="x")
    graph = pixels(DType.I64, Cast(x, DType.F32, name="c"), x)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.integers(-300, 900, x.shape)} for _ in range(9)]
    integer = integerize(quantize(graph, feeds[:8]))
    assert integer.input_types["x"] == x.type
    wanted, got = evaluate(graph, feeds[8])["y"], evaluate(integer, feeds[8])["y"]
    t = integer.output_types["y"]
    assert sqnr(wanted, ((got.astype(np.float64) - t.zero) * t.scale)) > 30


def test_a_choice_between_functions_of_one_value_is_a_table() -> None:
    n = Net()
    x = n.conv(n.x, 8)
    curve = Mul(Mul(x, x, name="square"), scalar(0.5), name="curve")
    chosen = Where(Less(x, scalar(0.2), name="below"), scalar(-0.25), curve, name="chosen")
    graph = n.graph(n.conv(Where(And(Less(x, chosen), Less(chosen, x)), x, chosen, name="z"), 4))
    assert noise(n, graph)["y0"] > 30
    integer = integerize(quantize(graph, n.samples(4)))
    assert {v.op for v in integer.order} == {"input", "const", "qconv2d", "lookup"}


def test_a_choice_by_another_value_moves_elements() -> None:
    n = Net()
    mask = Const(np.arange(8 * 8).reshape(1, 8, 8, 1) % 3 == 0, name="mask")
    chosen = Where(mask, n.conv(n.x, 8), scalar(5.0), name="chosen")
    assert noise(n, n.graph(n.conv(chosen, 4)))["y0"] > 30


def test_a_comparison_that_is_an_output_is_a_table() -> None:
    n = Net()
    x = n.conv(n.x, 8)
    graph = n.graph(Less(x, scalar(0.2), name="below"))
    integer = integerize(quantize(graph, n.samples(2)))
    assert integer.outputs[0].op == "truth"


def test_a_real_that_becomes_a_whole_number_is_a_table() -> None:
    n = Net()
    whole = Cast(n.conv(n.x, 8), DType.I64, name="whole")
    integer = integerize(quantize(n.graph(whole), n.samples(2)))
    assert integer.outputs[0].op == "truth"
    assert integer.outputs[0].type.dtype is DType.I64


def test_a_function_starts_at_one_value_though_others_read_what_is_inside() -> None:
    n = Net()
    x = n.conv(n.x, 8)
    low = Maximum(x, scalar(-0.3), name="low")
    inside = Exp(Sub(x, low, name="below"), name="inside")
    graph = n.graph(n.conv(inside, 4), Maximum(low, n.conv(n.x, 8), name="read"))
    assert min(noise(n, graph).values()) > 30
    integer = integerize(quantize(graph, n.samples(4)))
    (table,) = (v for v in integer.order if v.op == "lookup")
    assert table.operands[0].op == "qconv2d"
