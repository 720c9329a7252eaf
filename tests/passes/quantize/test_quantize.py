from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import CompileError, DataError, IRCError
from irc.graph import Graph, evaluate
from irc.ops.activation import HardSwish, Relu, Sigmoid
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.normalization import BatchNorm
from irc.ops.pool import MaxPool2d
from irc.ops.quantization import Dequantize
from irc.ops.quantization import Quantize as QuantizeOp
from irc.ops.shape import Concat, Reshape, Transpose
from irc.passes.quantize import Options, Quantize, quantize
from irc.passes.quantize.quantize import profile
from irc.passes.quantize.weights import quantize_weights
from irc.pipeline import parse_passes
from irc.proofs import broken_pairs, kernel_rows
from irc.types import Array, DType
from irc.value import Value
from tests.passes.nets import NETS, Net, reals, residual, sqnr

SHAPES = st.sampled_from(
    [(4, 3, 3, 5), (3, 1, 1, 8), (2, 3, 2, 2), (5, 7), (4, 32), (1, 1), (6, 3, 3, 1)]
)
DISTRIBUTIONS = st.sampled_from(["normal", "uniform", "spiky", "zero"])


def weights(seed: int, shape: tuple[int, ...], kind: str) -> Array:
    rng = np.random.default_rng(seed)
    match kind:
        case "normal":
            return np.asarray(rng.standard_normal(shape))
        case "uniform":  # all large: nearly every like-signed pair wants to break
            return np.asarray(rng.uniform(0.9, 1, shape) * rng.choice([-1, 1], shape))
        case "spiky":
            return np.asarray(rng.standard_normal(shape) ** 5)
    return np.zeros(shape)


def rounded(w: Array, **options: Any) -> Any:
    return quantize_weights(w, np.ones_like(w), np.zeros(len(w)), Options(**options))


@given(st.integers(0, 2**32), SHAPES, DISTRIBUTIONS, st.booleans())
def test_no_pair_breaks(seed: int, shape: tuple[int, ...], kind: str, per_channel: bool) -> None:
    q = rounded(weights(seed, shape, kind), per_channel=per_channel)
    assert q.array.dtype == np.int8
    assert q.array.min(initial=0) >= -127
    assert broken_pairs(q.array).sum() == 0


def test_without_pair_safety_pairs_do_break() -> None:
    # What the test above guards against does happen.
    q = rounded(weights(0, (4, 32), "uniform"), pair_safe=False)
    assert broken_pairs(q.array).sum() > 0


@given(st.integers(0, 2**32), SHAPES, DISTRIBUTIONS)
def test_errors_are_within_half_a_safe_step(
    seed: int, shape: tuple[int, ...], kind: str
) -> None:
    """No channel does worse than plain rounding in the smallest scale that needs no saturation."""
    w = weights(seed, shape, kind)
    q = rounded(w)
    rows = kernel_rows(w).reshape(len(w), -1)
    pairs = np.abs(rows[:, 0::2] + rows[:, 1::2]).max(1)
    largest = np.abs(rows).max(1)
    depthwise = len(shape) == 4 and shape[3] == 1
    step = (largest if depthwise else np.maximum(largest, pairs)) / 127
    error = ((q.real - w) ** 2).reshape(len(w), -1).sum(1)
    assert np.all(error <= rows.shape[1] * (step / 2) ** 2 * 1.001 + 1e-12)


def test_channels_that_training_decayed_to_nothing_stay_nothing() -> None:
    """Weights of 1e-42 are no reason for a scale that 32 bits can't hold."""
    w = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 8)).astype(np.float32)
    w[1], w[2] = 1e-42, 0
    made = quantize_weights(w, np.ones_like(w), np.zeros(4), Options())
    assert (made.scales.astype(np.float32) > 1e-30).all()
    assert not made.array[1:3].any()


def test_pair_safety_costs_less_than_a_bit() -> None:
    w = weights(0, (16, 3, 3, 32), "normal")
    safe, free = (np.abs(rounded(w, pair_safe=p).real - w).mean() for p in (True, False))
    assert free < safe < 1.6 * free


def test_depthwise_weights_use_all_bits() -> None:
    w = weights(0, (6, 3, 3, 1), "uniform")
    assert np.abs(rounded(w).array).max() == 127


def test_per_tensor_has_one_scale() -> None:
    w = weights(0, (4, 32), "normal") * np.array([[1], [2], [3], [10]])
    assert len(set(rounded(w, per_channel=False).scales)) == 1
    assert len(set(rounded(w).scales)) == 4


def test_importance_moves_the_scale() -> None:
    w = np.full((1, 8), 0.1)
    w[0, 0] = 1.0
    heavy = np.ones_like(w)
    heavy[0, 0] = 1e-6
    q = quantize_weights(w, heavy, np.zeros(1), Options())
    assert q.scales[0] < rounded(w).scales[0] or np.allclose(q.real[0, 1:], 0.1, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_qdq_follows_float(name: str, method: str) -> None:
    net = Net(3)
    graph = NETS[name](net)
    q = quantize(graph, net.samples(16), method=method)
    assert q.input_types == graph.input_types
    feed = {"x": net.samples(1)[0]}
    for key, wanted in evaluate(graph, feed).items():
        assert sqnr(wanted, evaluate(q, feed)[key]) > 17


@pytest.mark.parametrize("name", NETS)
def test_qdq_text(name: str, golden: Callable[[str], None]) -> None:
    net = Net()
    golden(str(_without_numbers(quantize(NETS[name](net), net.samples()))))


def _without_numbers(graph: Graph) -> str:
    """Ops, operands and dtypes: what is quantized, not with which scales."""
    lines = [f"{v.name}: {v.op}({', '.join(o.name for o in v.operands)}) {v.type.dtype.value}"
             for v in graph.order]  # fmt: skip
    return "\n".join([*lines, f"return {', '.join(v.name for v in graph.outputs)}"])


def quantizes(graph: Graph) -> list[Value]:
    return [v for v in graph.order if isinstance(v, QuantizeOp)]


def made(net: Net, *outputs: Value, **options: Any) -> Graph:
    return quantize(net.graph(*outputs), net.samples(), **options)


def test_inputs_are_u8_and_outputs_i8() -> None:
    net = Net()
    q = made(net, net.conv(net.x, 4))
    assert [v.dtype for v in quantizes(q)] == [DType.U8, DType.I8]  # type: ignore[attr-defined]


def test_clamps_fuse() -> None:
    net = Net()
    q = made(net, Relu(net.conv(net.x, 4), name="r"))
    last = quantizes(q)[-1]
    assert last.name == "r.q"
    assert last.operands[0].operands[0].op == "conv2d"
    assert last.type.zero == -128  # zero is the least value of a ReLU


def test_a_clamp_beside_another_user_does_not_fuse() -> None:
    net = Net()
    c = net.conv(net.x, 4)
    q = made(net, Add(Relu(c, name="r"), net.conv(c, 4), name="sum"))
    assert {v.name for v in quantizes(q)} >= {"x.q", f"{c.name}.q", "r.q", "sum.q"}


def test_moves_are_not_quantized_again() -> None:
    net = Net()
    pooled = MaxPool2d(net.conv(net.x, 4), (2, 2), (2, 2), name="p")
    flat = Reshape(Transpose(pooled, (0, 3, 1, 2), name="t"), (1, 64), name="f")
    q = made(net, net.linear(flat, 3))
    assert len(quantizes(q)) == 3


def test_an_output_behind_moves_is_i8_from_its_kernel_on() -> None:
    net = Net()
    q = made(net, Reshape(net.conv(net.x, 4), (1, 256), name="f"))
    assert q.outputs[0].op == "reshape"
    assert [v.type.dtype for v in quantizes(q)] == [DType.U8, DType.I8]


def test_an_output_that_is_read_too_is_stored_twice() -> None:
    net = Net()
    first = net.conv(net.x, 4)
    q = made(net, first, net.conv(first, 4))
    inner, outer = (v.type for v in quantizes(q) if v.name == f"{first.name}.q")
    assert {inner.dtype, outer.dtype} == {DType.U8, DType.I8}
    assert inner.scale == outer.scale
    assert abs(inner.zero - outer.zero) == 128


def test_concat_shares_one_scale() -> None:
    net = Net()
    joined = Concat((net.conv(net.x, 4), net.conv(net.x, 4)), 3, name="j")
    q = made(net, net.conv(joined, 4))
    (concat,) = (v for v in q.order if v.op == "concat")
    first, second = (o.operands[0].type for o in concat.operands)
    assert first.quant == second.quant


def test_a_small_part_of_a_concat_keeps_its_scale() -> None:
    net = Net()
    small, large = net.conv(net.x, 4), Mul(net.conv(net.x, 4), net.const(scale=100.0), name="l")
    joined = net.conv(Concat((small, large), 3, name="j"), 4, 1)
    q = made(net, joined, net.conv(small, 4))
    scales = {v.type.scale for v in quantizes(q) if v.name == f"{small.name}.q"}
    assert len(scales) == 2
    assert max(scales) > 4 * min(scales)


def test_natural_scales() -> None:
    net = Net()
    q = made(net, net.conv(Sigmoid(net.conv(net.x, 4), name="s"), 4))
    (quant,) = (v.type.quant for v in quantizes(q) if v.name == "s.q")
    assert quant is not None
    assert (quant.scale, quant.zero_point) == (1 / 256, 0)


def test_functions_of_one_value_become_one() -> None:
    net = Net()
    c = net.conv(net.x, 4)
    gate = Sigmoid(Mul(c, net.const(1, scale=1.0), name="m"), name="s")
    q = made(net, net.conv(Mul(c, gate, name="swish"), 4, 1))
    assert {v.name for v in quantizes(q)} >= {"swish.q", f"{c.name}.q"}
    assert not {v.name for v in quantizes(q)} & {"m.q", "s.q"}


def dequantized(v: Value | None) -> Const:
    assert isinstance(v, Dequantize)
    assert isinstance(v.x, Const)
    return v.x


def test_weights_and_biases_are_constants_behind_dequantize() -> None:
    net = Net()
    q = made(net, net.conv(net.x, 4))
    (conv,) = (v for v in q.order if isinstance(v, Conv2d))
    w, b = dequantized(conv.w), dequantized(conv.b)
    assert w.type.dtype is DType.I8
    assert b.type.dtype is DType.I32
    assert w.quant is not None
    assert b.quant is not None
    assert (w.quant.axis, b.quant.axis) == (0, 0)
    assert isinstance(conv.x, Dequantize)
    expected = conv.x.x.type.scale * np.array(w.quant.scales)
    np.testing.assert_allclose(b.quant.scales, expected, rtol=1e-12)


def test_bias_correction_centres_the_error() -> None:
    net = Net(5, (1, 16, 16, 8))
    graph = net.graph(net.conv(net.x, 16, 1))
    data = net.samples(16) + 3.0  # a mean far from zero: rounding errors of weights add up
    feeds = [{"x": a} for a in data]
    wanted = np.concatenate([evaluate(graph, f)["y0"] for f in feeds])
    bias = {}
    for on in (True, False):
        q = quantize(graph, data, bias_correction=on)
        error = np.concatenate([evaluate(q, f)["y0"] for f in feeds]) - wanted
        bias[on] = np.abs(error.mean((0, 1, 2))).mean()
    assert bias[True] < 0.5 * bias[False]


def test_dead_channels_keep_their_bias() -> None:
    net = Net()
    conv = net.conv(net.x, 3)
    assert isinstance(conv.w, Const)
    w = conv.w.array.copy()
    w[0] = 0
    w[1] = 1e-12
    b = Const(np.array([2.5, -1.5, 0.5], np.float32), name="b")
    graph = net.graph(conv.replace(w=Const(w, name="w"), b=b))
    got = reals(quantize(graph, net.samples()), {"x": net.samples(1)[0]})["y0"]
    np.testing.assert_allclose(got[..., 0], 2.5, atol=0.05)
    np.testing.assert_allclose(got[..., 1], -1.5, atol=0.05)


def test_everything_without_an_integer_form_is_named_at_once() -> None:
    net = Net()
    ones = Const(np.ones(3, np.float32))
    first = BatchNorm(net.x, ones, ones, ones, ones, 1e-5, 3, name="bn")
    flat = Reshape(first, (1, 192), name="flat")
    dynamic = Linear(flat, Reshape(first, (1, 192), name="w"), None, name="dynamic")
    with pytest.raises(CompileError, match=r"2 nodes(.|\n)*batch_norm %bn(.|\n)*linear %dynamic"):
        made(net, dynamic)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": 4}, "weights=4"),
        ({"activations": 12}, "activations=12"),
        ({"method": "entropy"}, "'entropy' is none of minmax"),
        ({"percentile": 101.0}, "percentile=101"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IRCError, match=message):
        quantize(residual(Net()), "random:1", **options)


def test_a_quantized_graph_is_refused() -> None:
    q = quantize(residual(Net()), "random:1")
    with pytest.raises(CompileError, match="quantized already"):
        quantize(q, "random:1")


def test_profile_gives_the_same_graph() -> None:
    net = Net()
    graph, data = residual(net), net.samples()
    direct, replayed = quantize(graph, data), quantize(graph, profile(graph, data))
    assert str(direct) == str(replayed)
    with pytest.raises(DataError, match="another graph"):
        quantize(residual(Net(1)), profile(graph, data))


def test_the_pass_takes_its_options_as_text() -> None:
    (made_pass,) = parse_passes("quantize{method=minmax,pair_safe=false,calibration=random:2}")
    assert made_pass == Quantize(method="minmax", pair_safe=False, calibration="random:2")
    assert len(quantizes(made_pass(residual(Net())))) > 3


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_random_nets_keep_their_signal(seed: int, depth: int) -> None:
    net = Net(seed)
    v: Value = net.x
    for _ in range(depth):
        kind = net.rng.integers(4)
        wide = net.conv(v, 8, groups=1)
        if kind == 0:
            v = HardSwish(wide, name=net.name("h"))
        elif kind == 1:
            v = Add(Relu(wide, name=net.name("r")), net.conv(v, 8, 1), name=net.name("a"))
        else:
            v = Relu(wide, name=net.name("r"))
    graph = net.graph(v)
    q = quantize(graph, net.samples(16))
    for conv in (c for c in q.order if isinstance(c, Conv2d)):
        assert broken_pairs(dequantized(conv.w).array).sum() == 0
    feed = {"x": net.samples(1)[0]}
    assert sqnr(evaluate(graph, feed)["y0"], evaluate(q, feed)["y0"]) > 14


def test_scales_are_single_precision_numbers() -> None:
    for v in quantizes(quantize(residual(Net()), "random:2")):
        scale = fixedpoint.quant_of(v.type).tensor_scale
        assert scale == float(np.float32(scale))


def test_inputs_that_are_integers_stay() -> None:
    x, i = Input(DType.F32, (1, 4), name="x"), Input(DType.I64, (2,), name="i")
    graph = Graph("g", (x, i), (Relu(x, name="r"), Add(i, i, name="a")), ("r", "a"))
    q = quantize(graph, [{"x": np.ones(4, np.float32), "i": np.zeros(2, np.int64)}])
    assert q.outputs[1].op == "add"
    assert q.outputs[1].type.dtype is DType.I64
