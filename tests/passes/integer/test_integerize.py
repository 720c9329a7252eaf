from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import CompileError
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip, Gelu, HardSigmoid, Relu, Sigmoid, Tanh
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear, MatMul
from irc.ops.normalization import BatchNorm
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.prelu import PRelu, QPRelu
from irc.ops.quantization import Dequantize
from irc.ops.quantization import Quantize as Q
from irc.ops.reduce import ReduceMean, ReduceSum
from irc.ops.resize import ResizeLinear
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.ops.softmax import Softmax
from irc.passes.float.batch_norm import FuseBatchNorm
from irc.passes.integer.integerize import Integerize, integerize
from irc.passes.integer.prove import prove
from irc.passes.quantize import quantize
from irc.properties import is_integer
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.passes.nets import NETS, Net, reals, sqnr

IMAGE = (1, 5, 6, 4)
RNG = np.random.default_rng(0)


def image(name: str = "x", shape: tuple[int, ...] = IMAGE, scale: float = 0.05) -> Value:
    """A float input behind a quantize/dequantize pair."""
    x = Input(DType.F32, shape, name=name)
    return dq(Q(x, DType.U8, Quant(scale, 100), name=f"{name}.q"))


def dq(v: Value) -> Value:
    return Dequantize(v, name=f"{v.name}.dq")


def weights(shape: tuple[int, ...], axis: int | None = 0, dtype: DType = DType.I8) -> Value:
    array = RNG.integers(max(dtype.min, -127), dtype.max + 1, shape).astype(dtype.numpy)
    if axis is None:
        return dq(Const(array, Quant(0.01, 0), name="w"))
    scales = tuple(float(s) for s in RNG.uniform(0.005, 0.02, shape[axis]))
    return dq(Const(array, Quant(scales, 0, axis), name="w"))


def inputs_of(*outputs: Value) -> tuple[Input, ...]:
    found: dict[Input, None] = {}
    stack = list(outputs)
    while stack:
        v = stack.pop()
        if isinstance(v, Input):
            found[v] = None
        stack.extend(v.operands)
    return tuple(found)


def graph_of(*outputs: Value) -> Graph:
    return Graph("g", inputs_of(*outputs), outputs, tuple(f"y{i}" for i in range(len(outputs))))


def quantized(v: Value, scale: float, zero: int = 128, dtype: DType = DType.U8) -> Value:
    return dq(Q(v, dtype, Quant(scale, zero + dtype.min), name="y"))


def fed(graph: Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {k: (rng.uniform(-5, 7, t.shape)).astype(np.float32)
            for k, t in graph.input_types.items()}  # fmt: skip


def steps_apart(graph: Graph, seed: int = 0) -> float:
    """The largest difference of QDQ and integers, in units of the result."""
    integer = integerize(graph)
    assert is_integer(integer)
    feed = fed(graph, seed)
    wanted, got = evaluate(graph, feed), reals(integer, feed)
    scales = {n: t.scale for n, t in integer.output_types.items()}
    return max(float(np.abs(wanted[n] - got[n]).max(initial=0)) / scales[n] for n in wanted)


OPS: dict[str, Callable[[Value, Value], tuple[Value, float]]] = {
    "conv": lambda a, b: (Conv2d(a, weights((6, 3, 3, 4)), None, pads=(1, 1, 1, 1)), 0.4),
    "conv per tensor": lambda a, b: (Conv2d(a, weights((6, 3, 3, 4), None)), 0.4),
    "depthwise": lambda a, b: (Conv2d(a, weights((4, 3, 3, 1)), None, groups=4), 0.2),
    "clamped conv": lambda a, b: (Clip(Conv2d(a, weights((6, 3, 3, 4))), -3, 6), 0.05),
    "twice clamped": lambda a, b: (Relu(Clip(Conv2d(a, weights((6, 1, 1, 4))), -3, 6)), 0.05),
    "linear": lambda a, b: (Linear(a, weights((7, 4)), Const(np.ones(7, np.float32))), 0.1),
    "relu": lambda a, b: (Relu(a), 0.04),
    "clip": lambda a, b: (Clip(a, -1.0, 2.0), 0.03),
    "add": lambda a, b: (Add(a, b), 0.09),
    "add relu": lambda a, b: (Relu(Add(a, b)), 0.09),
    "add constant": lambda a, b: (Add(a, Const(RNG.random((4,)).astype(np.float32))), 0.06),
    "sub": lambda a, b: (Sub(a, b), 0.09),
    "mul": lambda a, b: (Mul(a, b), 0.3),
    "mul scalar": lambda a, b: (Mul(a, Const(np.array(0.3, np.float32))), 0.02),
    "matmul": lambda a, b: (MatMul(a, Transpose(b, (0, 1, 3, 2))), 0.8),
    "mean": lambda a, b: (ReduceMean(a, (1, 2), True), 0.03),
    "sum": lambda a, b: (ReduceSum(a, (1, 2), False), 1.0),
    "average pool": lambda a, b: (AvgPool2d(a, (3, 3), (2, 2), (1, 1, 1, 1)), 0.04),
    "sigmoid": lambda a, b: (Sigmoid(a), 1 / 256),
    "gelu": lambda a, b: (Gelu(a), 0.04),
    "tanh clip": lambda a, b: (Clip(Tanh(a), -0.5, 0.5), 1 / 128),
    "chain": lambda a, b: (Mul(a, HardSigmoid(Add(a, Const(np.array(0.5, np.float32))))), 0.04),
    "softmax": lambda a, b: (Softmax(a, 3), 1 / 256),
    "resize": lambda a, b: (ResizeLinear(a, (7, 9)), 0.05),
    "max pool": lambda a, b: (MaxPool2d(a, (2, 2), (2, 2)), 0.05),
    "concat": lambda a, b: (Concat((a, b), 3), 0.06),
    "moves": lambda a, b: (Reshape(Transpose(Slice(a, (0, 1, 0, 0), (1, 4, 6, 4), (1, 1, 2, 1)),
                                             (0, 3, 1, 2)), (12, 3)), 0.05),
    "moves after conv": lambda a, b: (Transpose(Conv2d(a, weights((6, 1, 1, 4))), (0, 3, 1, 2)),
                                      0.2),
    "add to a conv": lambda a, b: (
        Add(Conv2d(a, weights((4, 3, 3, 4)), None, pads=(1, 1, 1, 1)), b), 0.3),
    "sub of a conv": lambda a, b: (Sub(b, Conv2d(a, weights((4, 1, 1, 4)))), 0.05),
    "conv less": lambda a, b: (Relu(Sub(Conv2d(a, weights((4, 1, 1, 4))), b)), 0.01),
    "sum of convs": lambda a, b: (Add(Conv2d(a, weights((4, 1, 1, 4))),
                                      Conv2d(b, weights((4, 1, 1, 4)))), 0.3),
    "mean of a conv": lambda a, b: (ReduceMean(Relu(Conv2d(a, weights((4, 1, 1, 4)))), (1, 2),
                                               True), 0.1),
    "pool of a table": lambda a, b: (AvgPool2d(HardSigmoid(a), (3, 3)), 1 / 256),
    "concat of convs": lambda a, b: (Concat((Conv2d(a, weights((3, 1, 1, 4))), b), 3), 0.2),
}  # fmt: skip


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([DType.U8, DType.I8]),
    zero=st.integers(60, 200),
)
@pytest.mark.parametrize("name", OPS)
def test_each_op_agrees_within_a_step(name: str, seed: int, dtype: DType, zero: int) -> None:
    y, scale = OPS[name](image("a"), image("b", scale=0.07))
    assert steps_apart(graph_of(quantized(y, scale, zero, dtype)), seed) <= 1.001


@pytest.mark.parametrize("name", NETS)
def test_nets_agree(name: str) -> None:
    net = Net(2)
    q = quantize(NETS[name](net), net.samples(16))
    integer = Integerize()(q)
    prove(integer)
    feed = {"x": net.samples(1)[0]}
    for key, wanted in evaluate(q, feed).items():
        assert sqnr(wanted, reals(integer, feed)[key]) > 30


@pytest.mark.parametrize("name", NETS)
def test_integer_text(name: str, golden: Callable[[str], None]) -> None:
    net = Net()
    integer = integerize(quantize(NETS[name](net), net.samples()))
    lines = [f"{v.name}: {v.op}({', '.join(o.op for o in v.operands)}) {v.type.dtype.value}"
             for v in integer.order if not isinstance(v, Const)]  # fmt: skip
    golden("\n".join(lines))


def test_clamps_live_in_their_kernel() -> None:
    y = Clip(Conv2d(image(), weights((6, 1, 1, 4))), 0.0, 6.0, name="r")
    integer = integerize(graph_of(quantized(y, 0.05, 10)))
    assert [v.op for v in integer.order if not isinstance(v, Const)] == ["input", "qconv2d"]
    conv: Any = integer.outputs[0]
    assert (conv.clamp, conv.name) == ((10, 130), "r")


def test_interface_is_kept() -> None:
    a = image("a")
    integer = integerize(graph_of(quantized(Relu(a), 0.1), quantized(a, 0.2)))
    assert integer.output_names == ("y0", "y1")
    (x, *_) = integer.inputs
    assert (x.name, x.dtype, x.quant) == ("a", DType.U8, Quant(0.05, 100))


def test_storage_changes_are_exact() -> None:
    x = image()
    graph = graph_of(dq(Q(x, DType.I8, Quant(0.05, -28), name="y")))
    integer = integerize(graph)
    q = np.arange(256, dtype=np.uint8).repeat(4)[: 5 * 6 * 4].reshape(IMAGE)
    (y,) = evaluate(integer, {"x": q}).values()
    np.testing.assert_array_equal(y.astype(int), q.astype(int) - 128)


def test_a_value_quantized_twice_keeps_both_exact() -> None:
    conv = Conv2d(image(), weights((6, 1, 1, 4)), name="c")
    coarse, fine = quantized(conv, 1.0), quantized(conv, 0.05)
    assert steps_apart(graph_of(coarse, fine)) <= 1.001


def test_an_input_quantized_twice_is_requantized() -> None:
    x = Input(DType.F32, (1, 4), name="x")
    first = dq(Q(x, DType.U8, Quant(0.01, 0)))
    second = dq(Q(x, DType.I8, Quant(0.04, 0)))
    integer = integerize(graph_of(first, second))
    assert [v.op for v in integer.order] == ["input", "requantize"]


def test_an_input_may_be_moved_before_it_is_quantized() -> None:
    x = Input(DType.F32, (1, 4, 5, 6), name="x")
    y = Conv2d(dq(Q(Transpose(x, (0, 2, 3, 1)), DType.U8, Quant(0.05, 100))), weights((3, 1, 1, 4)))
    assert steps_apart(graph_of(quantized(y, 0.3))) <= 1.001


@given(st.integers(0, 255), st.integers(0, 100), st.sampled_from([1, 2, 4]))
@settings(max_examples=20)
def test_weights_with_a_zero_point_are_exact(zero: int, seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (4, 3, 3, 4 // groups)).astype(np.uint8)
    w = dq(Const(array, Quant(0.01, zero), name="w"))
    y = Conv2d(image(), w, None, pads=(1, 1, 1, 1), groups=groups)
    assert steps_apart(graph_of(quantized(y, 0.5)), seed) <= 1.001


def test_linear_weights_with_a_zero_point_are_exact() -> None:
    array = RNG.integers(0, 256, (3, 4)).astype(np.uint8)
    y = Linear(image(), dq(Const(array, Quant(0.01, 7), name="w")))
    assert steps_apart(graph_of(quantized(y, 0.2))) <= 1.001


def test_scales_move_with_transposed_weights() -> None:
    w = weights((4, 7), axis=1)  # [K, O] with a scale per column, as Gemm has it
    y = Linear(image(), Transpose(w, (1, 0)))
    assert steps_apart(graph_of(quantized(y, 0.1))) <= 1.001
    conv = Transpose(weights((6, 4, 3, 3)), (0, 2, 3, 1))  # OIHW
    assert steps_apart(graph_of(quantized(Conv2d(image(), conv), 0.4))) <= 1.001


def test_scales_of_reshaped_weights_stay_with_their_rows() -> None:
    y = Conv2d(image(), Reshape(weights((6, 4)), (6, 1, 1, 4)))
    assert steps_apart(graph_of(quantized(y, 0.2))) <= 1.001


def test_a_pair_per_use_is_one() -> None:
    # Exporters write one dequantize for each reader: x * sigmoid(x) is a function all the same.
    q = Q(Input(DType.F32, (1, 8), name="x"), DType.U8, Quant(0.05, 100))
    y = Mul(dq(q), Sigmoid(dq(q)), name="swish")
    integer = integerize(graph_of(quantized(y, 0.04)))
    assert [v.op for v in integer.order if not isinstance(v, Const)] == ["input", "lookup"]


@pytest.mark.parametrize(
    ("make", "dtype", "steps"),
    [
        (lambda a: Linear(a, weights((5, 4))), DType.I32, 1.0),
        (lambda a: Linear(a, weights((5, 4), None)), DType.I32, 0.01),
        (lambda a: Reshape(Relu(Linear(a, weights((5, 4)))), (150,)), DType.I32, 1.0),
        (lambda a: Softmax(a, 3), DType.I8, 1.0),
        (lambda a: Sigmoid(a), DType.I8, 1.0),
        (lambda a: Tanh(a), DType.I16, 1.0),
        (lambda a: Add(a, image("b", scale=0.07)), DType.I16, 4.0),
        (lambda a: Mul(a, image("b", scale=0.07)), DType.I16, 1.0),
        (lambda a: ReduceMean(a, (1, 2), False), DType.I16, 1.0),
    ],
)
def test_outputs_that_were_left_float(
    make: Callable[[Value], Value], dtype: DType, steps: float
) -> None:
    graph = graph_of(make(image()))
    assert next(iter(integerize(graph).output_types.values())).dtype is dtype
    assert steps_apart(graph) <= steps + 0.01


def test_a_constant_float_in_a_moving_op_is_quantized() -> None:
    c = Const(RNG.random((1, 5, 6, 2)).astype(np.float32), name="c")
    y = Concat((Conv2d(image(), weights((3, 1, 1, 4))), c), 3)
    assert steps_apart(graph_of(quantized(y, 0.1))) <= 1.001


def test_weights_quantized_at_run_time_are_constants() -> None:
    w = Const(RNG.standard_normal((3, 1, 1, 4)).astype(np.float32), name="w")
    y = Conv2d(image(), dq(Q(w, DType.I8, Quant(0.02, 0))))
    assert steps_apart(graph_of(quantized(y, 0.2))) <= 1.001


def test_an_average_that_a_layer_reads_keeps_its_scale() -> None:
    y = quantized(Conv2d(AvgPool2d(image(), (2, 2)), weights((7, 1, 1, 4)), name="fc"), 0.1)
    integer = integerize(graph_of(y))
    (read,) = (v.operands[0] for v in integer.order if v.op == "qconv2d")
    assert read.type.quant == integer.inputs[0].type.quant
    assert steps_apart(graph_of(y)) < 3


HEADS: dict[str, Callable[[Value], Value]] = {
    "linear": lambda x: Linear(Reshape(ReduceMean(x, (1, 2), False), (4,)), weights((7, 4))),
    "convolution": lambda x: Conv2d(ReduceMean(x, (1, 2), True), weights((7, 1, 1, 4))),
    "pool": lambda x: Conv2d(AvgPool2d(x, (5, 6)), weights((7, 1, 1, 4))),
}


@pytest.mark.parametrize("case", HEADS)
def test_the_average_of_an_image_that_a_layer_reads_has_16_bits(case: str) -> None:
    assert steps_apart(graph_of(quantized(HEADS[case](image()), 0.01))) <= 1.001


SCALED: dict[str, Callable[[Value, Const, Const], Value]] = {
    "scale": lambda x, s, t: Mul(x, s),
    "offset": lambda x, s, t: Add(x, t),
    "both": lambda x, s, t: Add(Mul(x, s), t),
    "norm": lambda x, s, t: BatchNorm(x, s, t, t, Const(np.square(s.array)), 1e-3, 3),
    "rows": lambda x, s, t: Add(Mul(Reshape(x, (30, 4)), s), t),
    "after a relu": lambda x, s, t: Add(Mul(Relu(x), s), t),
    "clamped": lambda x, s, t: Clip(Add(Mul(x, s), t), -1, 2),
}


@pytest.mark.parametrize("case", SCALED)
@pytest.mark.parametrize("scales", [(0.71, -1.3, 0.01, 2.03), (1e-9, 1.0, 0.0, -3.0)])
def test_scales_and_offsets_of_channels_round_once(
    case: str, scales: tuple[float, ...]
) -> None:
    """A batch norm that no layer took, between what its author quantized."""
    s = Const(np.array(scales, np.float32), name="s")
    t = Const(RNG.uniform(-2, 2, 4).astype(np.float32), name="t")
    before = graph_of(quantized(SCALED[case](image(), s, t), 0.03))
    after = FuseBatchNorm()(before)
    assert any(v.op == "conv2d" for v in after.order)
    feed = fed(before)
    wanted, got = evaluate(before, feed), reals(integerize(after), feed)
    np.testing.assert_allclose(got["y0"], wanted["y0"], rtol=1e-6)


@pytest.mark.parametrize("case", ["norm", "rows", "clamped"])
def test_scales_of_channels_before_an_output_have_16_bits_of_its_range(case: str) -> None:
    """The coarsest channel's steps, 0.1 here, would leave the others none."""
    s = Const(np.array((0.01, -2, 0.3, 0.02), np.float32), name="s")
    t = Const(np.array((0.02, 1, -0.3, 0.01), np.float32), name="t")
    before = graph_of(SCALED[case](image(), s, t))
    feed = fed(before)
    wanted, got = evaluate(before, feed)["y0"], reals(integerize(FuseBatchNorm()(before)), feed)
    assert np.abs(got["y0"] - wanted).max() < 5e-4


def powers(shape: tuple[int, ...]) -> Value:
    """Weights whose scales are powers of two, so that f32 sums of products are exact."""
    scales = tuple(2.0 ** -(6 + i % 3) for i in range(shape[0]))
    return dq(Const(RNG.integers(-127, 128, shape).astype(np.int8), Quant(scales, 0, 0), name="w"))


def biases(count: int) -> Const:
    return Const(RNG.uniform(-3, 3, count).astype(np.float32), name="b")


def halves(name: str = "x", shape: tuple[int, ...] = IMAGE) -> Value:
    return image(name, shape, 2.0**-5)


EXACT: dict[str, Callable[[], Value]] = {
    "conv": lambda: Conv2d(halves(), powers((6, 3, 3, 4)), biases(6)),
    "depthwise": lambda: Conv2d(halves(), powers((4, 3, 3, 1)), biases(4), groups=4),
    "transposed": lambda: ConvTranspose2d(halves(), powers((6, 3, 3, 4)), biases(6), (2, 2)),
    "linear": lambda: Linear(halves(), powers((6, 4)), biases(6)),
    "sum": lambda: Add(Conv2d(halves(), powers((4, 1, 1, 4)), biases(4)), image("b")),
    "difference": lambda: Sub(image("b"), Relu(Linear(halves(), powers((4, 4)), biases(4)))),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_real_bias_and_an_inner_sum_are_not_rounded_on_the_way(name: str) -> None:
    graph = graph_of(quantized(EXACT[name](), 0.25))
    assert [seed for seed in range(40) if steps_apart(graph, seed) > 0.01] == []


@pytest.mark.parametrize("taps", [2, 4, 8])
@pytest.mark.parametrize("name", ["whole", "window"])
def test_ties_of_a_mean_go_to_the_even_integer(name: str, taps: int) -> None:
    x = halves(shape=(1, 2, taps // 2, 64))
    y = ReduceMean(x, (1, 2), True) if name == "whole" else AvgPool2d(x, (2, taps // 2))
    graph = graph_of(quantized(y, 2.0**-5))
    assert [seed for seed in range(8) if steps_apart(graph, seed) > 0.01] == []


def made_by(graph: Graph) -> Any:
    """The layer of a graph, in integers."""
    (layer,) = (v for v in integerize(graph).order if v.op in ("qconv2d", "qlinear"))
    return layer


def test_a_bias_has_as_many_bits_as_there_is_room_for() -> None:
    few = made_by(graph_of(quantized(Linear(halves(), powers((6, 4)), biases(6)), 0.25)))
    many = Linear(halves(shape=(1, 9000)), powers((3, 9000)), biases(3))
    most = made_by(graph_of(quantized(many, 8.0)))
    assert (few.fraction, most.fraction) == (8, 3)
    assert prove(integerize(graph_of(quantized(many, 8.0))))
    whole = Const(np.array([2.0, -1.0, 0.5], np.float32), name="b")
    y = Linear(halves(), powers((3, 4)), whole)
    assert made_by(graph_of(quantized(y, 0.25))).fraction == 0


def test_a_bias_of_integers_stays_what_it_is() -> None:
    # Its scale is the product of two f32, not of two f64: that makes no fraction of it.
    scales = tuple(float(np.float32(2.0**-5) * np.float32(s) * np.float32(1 + 1e-6))
                   for s in (2.0**-6, 2.0**-7, 2.0**-8))  # fmt: skip
    bias = dq(Const(np.array([7, 100_001, -9], np.int32), Quant(scales, 0, 0), name="b"))
    layer = made_by(graph_of(quantized(Linear(halves(), powers((3, 4)), bias), 0.25)))
    assert layer.fraction == 0


def test_slopes_below_zero_are_exact() -> None:
    """Reals of their own per channel, as multipliers: not rounded to bytes on the way."""
    slopes = Const(np.array([0.25, -0.003, 1.7, 0.0107], np.float32))
    made = Q(PRelu(image(), slopes), DType.I16, Quant(1e-4, 0), name="y")
    (y,) = integerize(Graph("g", inputs_of(made), (dq(made),), ("y",))).outputs
    assert isinstance(y, QPRelu)
    m, s = (np.asarray(v.array, np.float64) for v in (y.m_neg, y.s_neg) if isinstance(v, Const))
    np.testing.assert_allclose(m / 2**s * 1e-4 / 0.05, slopes.array, rtol=1e-8)


def test_sums_that_a_byte_is_too_coarse_for_are_refused() -> None:
    far = Conv2d(image(scale=50.0), weights((4, 1, 1, 4)), name="far")
    y = quantized(Add(far, Conv2d(image("b"), weights((4, 1, 1, 4)), name="near")), 1e-4)
    with pytest.raises(CompileError, match="reads it unquantized"):
        integerize(graph_of(y))


def test_islands_are_listed_at_once() -> None:
    ones = Const(np.ones(4, np.float32))
    inner = Conv2d(image(), weights((4, 1, 1, 4)), name="bare")
    first = quantized(Mul(inner, image("b"), name="product"), 0.1)
    second = quantized(BatchNorm(image("c"), ones, ones, ones, ones, 1e-5, 3, name="bn"), 0.1)
    with pytest.raises(CompileError, match="2 nodes") as caught:
        integerize(graph_of(first, second))
    assert "conv2d %bare: mul %product reads it unquantized" in str(caught.value)
    assert "batch_norm %bn" in str(caught.value)


def test_layers_whose_weights_are_reals_are_listed() -> None:
    plain = Const(np.ones((4, 1, 1, 4), np.float32), name="w")
    first = Conv2d(image(), plain, name="first")
    y = quantized(Conv2d(Clip(first, 0.0, 6.0, name="r"), plain, name="second"), 0.1)
    with pytest.raises(CompileError, match="3 nodes stay float") as caught:
        integerize(graph_of(y))
    for line in ("clip %r: conv2d %second reads it unquantized",
                 "conv2d %first: its weights are not quantized",
                 "conv2d %second: its weights are not quantized"):  # fmt: skip
        assert line in str(caught.value)


def test_one_layer_whose_weights_are_reals_is_named() -> None:
    plain = Const(np.ones((4, 1, 1, 4), np.float32), name="w")
    y = quantized(Conv2d(image(), plain, name="only"), 0.1)
    with pytest.raises(CompileError, match=r"conv2d %only: .* not quantized\ncalibration"):
        integerize(graph_of(y))


def test_an_unquantized_input_is_named() -> None:
    x = Input(DType.F32, (1, 4), name="x")
    y = quantized(Add(image("a", (1, 4)), Relu(x, name="r")), 0.1)
    with pytest.raises(CompileError, match="input %x: is not quantized"):
        integerize(graph_of(y))


def test_an_output_of_unknown_range_is_named() -> None:
    with pytest.raises(CompileError, match="div %d: the output is not quantized"):
        integerize(graph_of(Div(image("a"), image("b"), name="d")))


def test_index_arithmetic_is_left_alone() -> None:
    i = Input(DType.I64, (3,), name="i")
    integer = integerize(graph_of(quantized(image(), 0.1), Add(i, i, name="twice")))
    assert integer.outputs[1].type == TensorType(DType.I64, (3,))


def test_what_is_left_of_clamps_without_a_kernel_of_their_own() -> None:
    y = Clip(Softmax(image(), 3), 0.1, 0.5)
    integer = integerize(graph_of(quantized(y, 1 / 256, 0)))
    assert integer.outputs[0].op == "requantize"
    assert steps_apart(graph_of(quantized(y, 1 / 256, 0))) <= 1.001


def test_fixed_point_of_a_residual_block_is_the_contract() -> None:
    """One number by hand: acc, equation (6), clamp."""
    x = Input(DType.F32, (1, 2), name="x")
    w = dq(Const(np.array([[3, -2]], np.int8), Quant((0.5,), 0, 0)))
    b = dq(Const(np.array([10], np.int32), Quant((0.05,), 0, 0)))
    graph = graph_of(quantized(Linear(dq(Q(x, DType.U8, Quant(0.1, 5))), w, b), 0.4, 0))
    (y,) = evaluate(integerize(graph), {"x": np.array([[25, 6]], np.uint8)}).values()
    acc = 3 * (25 - 5) - 2 * (6 - 5) + 10
    m, s = fixedpoint.multiplier(0.1 * 0.5 / 0.4)
    assert y.item() == (acc * m + (1 << (s - 1))) >> s
