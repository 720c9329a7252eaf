"""Sixteen bits where eight are too few, masks, and even channels: transformers kept accurate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from irc import driver, edge, fixedpoint
from irc.errors import IRCError
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip, HardSwish, Sigmoid
from irc.ops.cast import Cast
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input, Kernel
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear, MatMul
from irc.ops.logic import Less
from irc.ops.normalization import LayerNorm
from irc.ops.prelu import PRelu
from irc.ops.ranking import ArgMax, ArgMin, TopK
from irc.ops.reduce import ReduceMean, ReduceSum
from irc.ops.resize import ResizeNearest
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp, Log, Reciprocal, Sqrt
from irc.passes.quantize import quantize
from irc.passes.quantize.equalize import equalized
from irc.passes.quantize.masks import BELOW_ALL, INVISIBLE, finite, near_largest
from irc.passes.quantize.ranges import probabilities
from irc.types import Array, DType
from irc.value import Value
from tests.backends.harness import agree
from tests.passes.nets import sqnr

LOWEST = float(np.finfo(np.float32).min)
STEPS, DEPTH = 12, 16


def const(array: Any, name: str) -> Const:
    return Const(np.asarray(array, np.float32), name=name)


def linear(x: Value, outputs: int, name: str, seed: int, gain: float = 1.0) -> Linear:
    rng = np.random.default_rng(seed)
    depth = x.shape[-1]
    w = rng.normal(0, gain * depth**-0.5, (outputs, depth))
    b = rng.normal(0, 0.1, outputs)
    return Linear(x, const(w, f"{name}.w"), const(b, f"{name}.b"), name=name)


def norm(x: Value, name: str, seed: int, outlier: float = 1.0) -> LayerNorm:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2, DEPTH)
    scale[3] *= outlier
    bias = rng.normal(0, 0.1, DEPTH)
    return LayerNorm(x, const(scale, f"{name}.s"), const(bias, f"{name}.o"), 2, 1e-5, name=name)


def stream(blocks: int = 6) -> Graph:
    """A residual stream of which one channel outgrows the others."""
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    big = np.ones(DEPTH)
    big[5] = 60.0
    a: Value = Mul(x, const(big, "big"), name="scaled")
    for i in range(blocks):
        a = Add(a, linear(norm(a, f"n{i}", i), DEPTH, f"l{i}", i, 0.7), name=f"a{i}")
    return Graph("stream", (x,), (linear(norm(a, "last", 99), 7, "y", 98),), ("y",))


def samples(graph: Graph, count: int, seed: int = 0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [
        {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.input_types.items()}
        for _ in range(count)
    ]


def quality(
    graph: Graph, feeds: list[dict[str, Array]], probe: Mapping[str, Array], **options: Any
) -> float:
    """SQNR of the integers, which the llvm backend must agree with."""
    integer = driver.integerize(quantize(graph, feeds, **options))
    integers, _ = edge.to_integers(integer.input_types, probe)
    found = evaluate(integer, integers)
    compiled = driver.compile(integer)(integers)
    for key, array in found.items():
        np.testing.assert_array_equal(compiled[key], array)
    (key,) = found
    real = fixedpoint.dequantize(found[key], integer.output_types[key])
    return sqnr(evaluate(graph, probe)[key], real)


def test_a_residual_stream_of_16_bits() -> None:
    graph = stream()
    feeds, (probe,) = samples(graph, 8), samples(graph, 1, 1)
    eight = quality(graph, feeds, probe, activations=8)
    auto = quality(graph, feeds, probe)
    assert auto > eight + 6
    assert auto > 30
    assert quality(graph, feeds, probe, activations=16) > auto - 2


@pytest.mark.parametrize("find", [ArgMin, ArgMax, TopK])
def test_sums_of_which_the_least_is_sought(find: Any) -> None:
    """The nearest of 64 words: distances lie close together beside what they all have in common."""
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    words = np.random.default_rng(5).normal(0, 0.1, (64, DEPTH))
    near = Linear(x, const(2 * words, "words"), const(-(words**2).sum(1), "sizes"), name="near")
    size = ReduceSum(Mul(x, x, name="square"), (2,), True, name="size")
    distances: Value = Sub(size, near) if find is ArgMin else Sub(near, size)
    found = TopK(distances, 2, 3) if find is TopK else find(distances, 2, False)
    graph = Graph("nearest", (x,), (found,), ("word",))
    feeds, probes = samples(graph, 16), samples(graph, 8, 1)

    def right(**options: Any) -> float:
        integer = driver.integerize(quantize(graph, feeds, **options))
        compiled = driver.compile(integer)
        same = []
        for probe in probes:
            integers, _ = edge.to_integers(integer.input_types, probe)
            words = evaluate(integer, integers)["word"]
            np.testing.assert_array_equal(compiled(integers)["word"], words)
            same.append(words == evaluate(graph, probe)["word"])
        return float(np.mean(same))

    missed, of_eight = 1 - right(), 1 - right(activations=8)
    assert missed < 0.06
    assert missed < of_eight / 2


@pytest.mark.parametrize("also_short", [False, True])
def test_rows_too_long_for_16_bits_are_read_in_8(also_short: bool) -> None:
    long = 2**16
    x = Input(DType.F32, (1, long // DEPTH, DEPTH), name="x")
    total = Add(x, Mul(x, x, name="square"), name="total")
    whole = const(np.ones((long // DEPTH, DEPTH)), "s")
    y: Value = LayerNorm(total, whole, const(np.zeros(whole.shape), "o"), 1, 1e-5, name="long")
    if also_short:
        y = Add(y, norm(total, "short", 0), name="y")
    graph = Graph("g", (x,), (y,), ("y",))
    assert quality(graph, samples(graph, 2), samples(graph, 1, 1)[0]) > 25


def test_what_weights_multiply_has_8_bits() -> None:
    graph = stream(2)
    integer = driver.integerize(quantize(graph, samples(graph, 4)))
    layers = [v for v in integer.order if v.op == "qlinear"]
    assert {v.operands[0].type.dtype for v in layers} == {DType.U8}
    assert {v.type.dtype for v in layers} == {DType.I16, DType.I8}
    assert {v.operands[0].type.dtype for v in integer.order if v.op == "qnorm"} == {DType.I16}


def behind_layers(kind: str) -> Graph:
    """A convolution, and what is fused into it."""
    x = Input(DType.F32, (1, 6, 6, 8), name="x")
    rng = np.random.default_rng(0)
    first, second = (const(rng.normal(0, 0.3, (8, 3, 3, 8)), w) for w in ("w0", "w1"))
    a = Conv2d(x, first, pads=(1, 1, 1, 1), name="a")
    slopes = const(rng.uniform(-0.1, 0.4, 8), "slopes")
    b = PRelu(a, slopes, name="b") if kind == "prelu" else Add(a, x, name="b")
    return Graph("g", (x,), (Conv2d(b, second, pads=(1, 1, 1, 1), name="c"),), ("c",))


@pytest.mark.parametrize("kind", ["prelu", "add"])
def test_what_is_never_stored_has_16_bits(kind: str) -> None:
    graph = behind_layers(kind)
    feeds, (probe,) = samples(graph, 4), samples(graph, 1, 1)
    assert quality(graph, feeds, probe) > quality(graph, feeds, probe, activations=8) + 0.3
    scheduled = driver.schedule(driver.integerize(quantize(graph, feeds)))
    kernels = [v for v in scheduled.order if isinstance(v, Kernel)]
    bodies = [[v.type.dtype for v in k.body.order if not isinstance(v, Input)] for k in kernels]
    assert bodies == [[DType.I16, DType.U8], [DType.I8]]


def test_two_layers_of_which_one_takes_in_the_sum() -> None:
    x = Input(DType.F32, (1, 6, 6, 8), name="x")
    rng = np.random.default_rng(0)
    first, second = (const(rng.normal(0, 0.3, (8, 1, 1, 8)), w) for w in ("w0", "w1"))
    total = Add(Conv2d(x, first, name="a"), Conv2d(x, second, name="b"), name="sum")
    graph = Graph("g", (x,), (Conv2d(total, first, name="y"),), ("y",))
    scheduled = driver.schedule(driver.integerize(quantize(graph, samples(graph, 2))))
    stored = [v.type.dtype for v in scheduled.order if isinstance(v, Kernel)]
    assert stored == [DType.U8, DType.U8, DType.I8]


def test_a_sum_with_what_was_resized_is_stored_in_8_bits() -> None:
    """A feature pyramid: the finer level comes first, and takes in the sum."""
    x = Input(DType.F32, (1, 8, 8, 8), name="x")
    rng = np.random.default_rng(0)
    first, second = (const(rng.normal(0, 0.3, (8, 1, 1, 8)), w) for w in ("w0", "w1"))
    coarse = Conv2d(x, second, strides=(2, 2), name="coarse")
    fine = Mul(x, Sigmoid(ReduceMean(x, (1, 2), keepdims=True), name="s"), name="fine")
    total = Add(fine, ResizeNearest(coarse, (8, 8)), name="sum")
    graph = Graph("g", (x,), (Conv2d(total, first, name="y"),), ("y",))
    integer = driver.integerize(quantize(graph, samples(graph, 2)))
    scheduled = driver.schedule(integer)
    kernels = [v for v in scheduled.order if isinstance(v, Kernel)]
    assert {v.type.dtype for v in kernels} == {DType.U8, DType.I8}
    ops = [[v.op for v in k.body.order if v.operands] for k in kernels]
    assert ["qmul", "resize_nearest", "qadd"] in ops
    feeds, _ = edge.to_integers(integer.input_types, samples(graph, 1, 1)[0])
    agree(integer, feeds, ("host", "x86-64-v2"), numba=True)


def test_only_known_bits() -> None:
    with pytest.raises(IRCError, match="activations=4 is none of auto, 8, 16"):
        quantize(stream(1), samples(stream(1), 1), activations=4)


def attention(mask: str) -> Graph:
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    q, k, v = (linear(x, DEPTH, n, i, 0.8) for i, n in enumerate("qkv"))
    scores = MatMul(q, _transposed(k), name="scores")
    lower = np.triu(np.full((STEPS, STEPS), LOWEST), 1)
    inputs: tuple[Input, ...] = (x,)
    hidden: Value
    match mask:
        case "constant":
            hidden = Add(scores, const(lower, "causal"), name="masked")
        case "chosen":
            hidden = Where(const_bool(lower < 0), const(LOWEST, "low"), scores, name="masked")
        case _:
            m = Input(DType.I64, (1, 1, STEPS), name="m")
            inputs = (x, m)
            off = Sub(const(1, "one"), Cast(m, DType.F32, name="keep"), name="off")
            hidden = Add(scores, Mul(off, const(LOWEST, "low"), name="mask"), name="masked")
    scaled = Softmax(hidden, 2, name="p")
    return Graph("attention", inputs, (MatMul(scaled, v, name="mixed"),), ("y",))


def _transposed(v: Value) -> Value:
    return Transpose(v, (0, 2, 1), name=f"{v.name}.t")


def const_bool(array: Array) -> Const:
    return Const(array, name="hide")


@pytest.mark.parametrize("activations", [8, "auto"])
@pytest.mark.parametrize("mask", ["constant", "chosen", "computed"])
def test_masks_take_no_range(mask: str, activations: Any) -> None:
    """The lowest float in a mask leaves the logits all their bits."""
    graph = attention(mask)
    rng = np.random.default_rng(0)
    feeds: list[dict[str, Array]] = []
    for _ in range(9):
        feed: dict[str, Array] = {"x": rng.standard_normal((1, STEPS, DEPTH)).astype("f4")}
        if mask == "computed":
            feed["m"] = (np.arange(STEPS) < rng.integers(3, STEPS)).astype(np.int64)[None, None]
        feeds.append(feed)
    assert quality(graph, feeds[:8], feeds[8], activations=activations) > 20


def test_what_a_softmax_sees() -> None:
    x = np.array([[1.0, -5.0, LOWEST], [-np.inf, 90.0, 2.0]], np.float32)
    np.testing.assert_array_equal(
        near_largest(x, 1), [[1, -5, 1 - INVISIBLE], [90 - INVISIBLE, 90, 90 - INVISIBLE]]
    )
    plain = np.array([[-3.0, 2.0]], np.float32)
    assert finite(plain) is plain
    assert np.isfinite(finite(x)).all()
    assert finite(x).min() == -5 - BELOW_ALL


def test_a_softmax_of_many_keys_has_a_fine_scale() -> None:
    assert probabilities(1.0).scale == probabilities(0.3).scale == 1 / 256
    assert probabilities(0.06).scale == 2.0**-11
    assert probabilities(0.0).scale == 2.0**-16


def test_an_output_of_many_classes_has_a_fine_scale() -> None:
    """Unless one of them was likely: other data may make it more so."""
    x = Input(DType.F32, (1, 500), name="x")
    graph = Graph("classes", (x,), (Softmax(x, 1, name="p"),), ("p",))
    flat, sure = np.zeros((1, 500), np.float32), np.zeros((1, 500), np.float32)
    sure[0, 3] = 6.0
    for feeds, scale in (([{"x": flat}], 2.0**-13), ([{"x": flat}, {"x": sure}], 1 / 256)):
        made = driver.integerize(quantize(graph, feeds))
        assert made.output_types["p"].scale == scale


def test_parts_of_an_output_that_are_unlike() -> None:
    """A detector's boxes and probabilities are one tensor: 8 bits hold the boxes alone."""
    x = Input(DType.F32, (1, 32, 6), name="x")
    boxes = Mul(Slice(x, (0, 0, 0), (1, 32, 4), (1, 1, 1)), const(np.float32(200.0), "stride"))
    classes = Sigmoid(Slice(x, (0, 0, 4), (1, 32, 6), (1, 1, 1)), name="classes")
    graph = Graph("detect", (x,), (Concat((boxes, classes), 2, name="y"),), ("y",))
    feeds, (probe,) = samples(graph, 8), samples(graph, 1, 1)
    quantized = quantize(graph, feeds)
    assert driver.integerize(quantized).output_types["y"].dtype is DType.I16
    real, found = (evaluate(g, probe)["y"] for g in (graph, quantized))
    assert np.abs(found - real)[..., 4:].max() < 0.05
    compiled = driver.compile(quantized)(probe)["y"]
    np.testing.assert_allclose(compiled, found, atol=0.02)
    narrow = driver.integerize(quantize(graph, feeds, activations=8))
    assert narrow.output_types["y"].dtype is DType.I8


def test_probabilities_that_are_moved_before_they_are_read() -> None:
    """The mean place by a softmax over a map: each of 400 probabilities is small."""
    x = Input(DType.F32, (1, 20, 20), name="x")
    p = Softmax(Reshape(x, (1, 400)), 1, name="p")
    grid = const(np.arange(20.0), "grid")
    rows = ReduceSum(Reshape(p, (1, 20, 20)), (2,), False, name="rows")
    mean = ReduceSum(Mul(rows, grid, name="weighted"), (1,), False, name="mean")
    graph = Graph("place", (x,), (mean,), ("mean",))
    assert quality(graph, samples(graph, 8), samples(graph, 1, 1)[0]) > 35



def test_channels_of_a_norm_are_evened_out() -> None:
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    graph = Graph("even", (x,), (linear(norm(x, "n", 0, 200.0), 9, "y", 1),), ("y",))
    feeds, (probe,) = samples(graph, 8), samples(graph, 1, 1)
    even = equalized(graph, multiply=False)
    np.testing.assert_allclose(
        evaluate(even, probe)["y"], evaluate(graph, probe)["y"], rtol=1e-4, atol=1e-5
    )
    assert len(even.order) == len(graph.order)
    better = quality(graph, feeds, probe)
    assert better > quality(graph, feeds, probe, equalize=False) + 4


def test_a_norm_that_others_read_keeps_its_scale() -> None:
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    n = norm(x, "n", 0, 200.0)
    post = Add(n, linear(n, DEPTH, "l", 1), name="sum")
    graph = Graph("post", (x,), (norm(post, "m", 2),), ("y",))
    (probe,) = samples(graph, 1, 1)
    even = equalized(graph, multiply=True)
    assert "n" in {v.name for v in even.order}
    wanted = evaluate(graph, probe)["y"]
    np.testing.assert_allclose(evaluate(even, probe)["y"], wanted, rtol=1e-3, atol=1e-4)
    assert equalized(graph, multiply=False) is graph


def test_a_range_is_what_the_function_behind_sees() -> None:
    """Hard-swish is 0 below -3: what lies there takes no steps."""
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    graph = Graph("f", (x,), (HardSwish(linear(x, DEPTH, "l", 0, 8.0), name="h"),), ("y",))
    (before,) = (
        v for v in quantize(graph, samples(graph, 8)).order
        if v.op == "quantize" and v.name == "l.q"
    )  # fmt: skip
    assert before.type.zero * before.type.scale < 6


def test_a_factor_is_a_matter_of_scales() -> None:
    graph = attention("constant")
    (x,) = graph.inputs
    scores = Mul(MatMul(x, _transposed(x), name="s"), const(0.25, "quarter"), name="scaled")
    few = Graph("few", (x,), (Softmax(scores, 2, name="p"),), ("y",))
    integer = driver.integerize(quantize(few, samples(few, 4)))
    assert [v.op for v in integer.order if v.op.startswith("q") or v.op == "lookup"] == [
        "qmatmul", "qsoftmax",
    ]  # fmt: skip


LENGTH = 24


def sequence() -> Input:
    return Input(DType.F32, (1, LENGTH, DEPTH), name="x")


def running(x: Value) -> Value:
    """What the logarithm sees most of is small beside the sum of all."""
    return Log(CumSum(Exp(linear(x, DEPTH, "k", 0, 1.0)), 1))


def averages(x: Value) -> Value:
    """Weighted means of all that went before: attention without queries."""
    weights = Exp(linear(x, DEPTH, "k", 0, 1.0))
    total = CumSum(Mul(weights, linear(x, DEPTH, "v", 1)), 1)
    return Div(total, CumSum(weights, 1))


def by_function(x: Value) -> Value:
    """A divisor that comes near zero, of a range that no integers hold."""
    divisor = Add(Exp(linear(x, DEPTH, "k", 0, 2.0)), const(0.05, "least"))
    return Div(linear(x, DEPTH, "v", 1), divisor)


def decayed(x: Value) -> Value:
    """The divisor is a factor of what is summed as well."""
    grown = Exp(CumSum(Mul(Sigmoid(linear(x, DEPTH, "k", 0)), const(0.2, "slow")), 1))
    return Div(CumSum(Mul(linear(x, DEPTH, "v", 1), grown), 1), grown)


@pytest.mark.parametrize(
    ("network", "least"), [(running, 24), (averages, 16), (by_function, 22), (decayed, 28)]
)
def test_running_sums_and_quotients(network: Any, least: float) -> None:
    x = sequence()
    graph = Graph("g", (x,), (network(x).replace(name="y"),), ("y",))
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=x.shape).astype(np.float32)} for _ in range(16)]
    made = driver.integerize(quantize(graph, feeds[:12]))
    integers = [edge.to_integers(made.input_types, feed)[0] for feed in feeds[12:]]
    real = [evaluate(graph, feed)["y"] for feed in feeds[12:]]
    ys = (evaluate(made, feed)["y"] for feed in integers)
    found = [fixedpoint.dequantize(y, made.outputs[0].type) for y in ys]
    assert sqnr(np.stack(real), np.stack(found)) > least
    agree(made, integers[-1], ["host"])


@pytest.mark.parametrize("weighted_first", [False, True])
def test_places_by_softmax_over_many_are_kept(weighted_first: bool) -> None:
    """Where a heatmap is, by its mean: most probabilities are below half a step of 8 bits."""
    x = Input(DType.F32, (1, 4, 20, 20), name="x")
    flat = Softmax(Reshape(x, (1, 4, 400), name="flat"), 2, name="p")
    p, at = Reshape(flat, (1, 4, 20, 20), name="map"), const(np.linspace(0, 1, 20), "at")
    if weighted_first:
        y = ReduceSum(Mul(p, at, name="weighted"), (2, 3), False, name="y")
    else:
        columns = ReduceSum(p, (2,), False, name="columns")
        y = ReduceSum(Mul(columns, at, name="weighted"), (2,), False, name="y")
    graph = Graph("place", (x,), (y,), ("y",))
    data = samples(graph, 6)
    for sample, column in zip(data, (0, 19, 5, 11, 8, 14), strict=True):
        sample["x"] *= 2
        sample["x"][0, :, :, column] += 3
    quantized = quantize(graph, data[:4])
    wanted, found = (
        np.concatenate([evaluate(g, sample)["y"] for sample in data[4:]])
        for g in (graph, quantized)
    )
    assert sqnr(wanted, found) > 30


def test_rows_chosen_by_a_function_of_an_input_are_those_of_reals() -> None:
    """What is scaled, clamped and truncated to a place in a table has as many places as it has."""
    x = Input(DType.F32, (4, 16), name="x")
    rows = Const(np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32))
    at = Cast(Clip(Mul(x, Const(np.asarray(10, np.float32))), 0.0, 99.0), DType.I64)
    graph = Graph("g", (x,), (Gather(rows, at, 0).replace(name="y"),), ("y",))
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.uniform(0, 10, x.shape).astype(np.float32)} for _ in range(12)]
    made = quantize(graph, feeds[:8])
    off = [np.abs(evaluate(made, f)["y"] - evaluate(graph, f)["y"]).max(2) for f in feeds[8:]]
    assert np.mean(np.stack(off) > 0.1) < 0.01


def rows(count: int, empty: float, seed: int = 0) -> list[dict[str, Array]]:
    """Rows of which some are padding."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(count, 8, DEPTH)).astype(np.float32)
    made[rng.random(made.shape[:2]) < empty] = 0
    return [{"x": x} for x in made]


def by_norm(x: Value) -> Value:
    squares = ReduceSum(Mul(x, x), (1,), True)
    return Div(x, Add(Sqrt(squares), const(1e-8, "eps")))


def by_root(x: Value) -> Value:
    return Div(x, Sqrt(Add(ReduceSum(Mul(x, x), (1,), True), const(1e-12, "eps"))))


def by_deviation(x: Value) -> Value:
    off = Sub(x, ReduceMean(x, (1,), True))
    return Div(off, Add(Sqrt(ReduceMean(Mul(off, off), (1,), True)), const(1e-6, "eps")))


def times_reciprocal(x: Value) -> Value:
    squares = ReduceSum(Mul(x, x), (1,), True)
    return Mul(x, Reciprocal(Add(Sqrt(squares), const(1e-8, "eps"))))


@pytest.mark.parametrize("network", [by_norm, by_root, by_deviation, times_reciprocal])
@pytest.mark.parametrize("seen", [0.3, 0.02])
def test_rows_of_zeros_over_their_norms(network: Any, seen: float) -> None:
    """Of a row of zeros the reciprocal is a hundred million, and no one needs it."""
    x = Input(DType.F32, (8, DEPTH), name="x")
    graph = Graph("g", (x,), (network(x).replace(name="y"),), ("y",))
    data = rows(24, seen) + rows(6, 0.3, 1)
    made = quantize(graph, data[:24])
    wanted, found = (
        np.stack([evaluate(g, feed)["y"] for feed in data[24:]]) for g in (graph, made)
    )
    assert sqnr(wanted, found) > 32


def test_a_divisor_of_many_paths_is_computed_once() -> None:
    """A function of one value in which each step reads the one before twice."""
    x = Input(DType.F32, (4, DEPTH), name="x")
    y = Input(DType.F32, (4, DEPTH), name="y")
    divisor: Value = Exp(Mul(Mul(y, y), const(-0.1, "slow")))
    for i in range(40):
        divisor = Add(Mul(const(0.5, f"h{i}"), Mul(divisor, divisor)), const(0.1, f"c{i}"))
    graph = Graph("g", (x, y), (Div(x, divisor, name="q"),), ("q",))
    made = quantize(graph, samples(graph, 4))
    assert len(made.order) < 250
    branches = Where(Less(y, const(0.0, "zero")), Exp(y), Add(Exp(y), const(0.5, "half")))
    graph = Graph("g", (x, y), (Div(x, branches, name="q"),), ("q",))
    quantize(graph, samples(graph, 4))


def test_what_is_divided_keeps_8_bits_where_these_are_enough() -> None:
    """A layer's result that is divided, and read by another layer too."""
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    h = linear(x, DEPTH, "h", 0)
    divided = Div(h, Add(Sigmoid(linear(x, DEPTH, "g", 1)), const(0.5, "half")), name="divided")
    y = Add(linear(divided, DEPTH, "a", 2), linear(h, DEPTH, "b", 3), name="y")
    graph = Graph("g", (x,), (y,), ("y",))
    data = samples(graph, 12)
    made = quantize(graph, data[:8])
    types = {v.name: v.type.dtype for v in made.order if v.op == "quantize"}
    assert types["h.q"] is DType.U8
    wanted, found = (
        np.stack([evaluate(g, feed)["y"] for feed in data[8:]]) for g in (graph, made)
    )
    assert sqnr(wanted, found) > 30


@pytest.mark.parametrize("written", [Div, lambda a, d: Mul(a, Reciprocal(d))])
def test_divisors_may_overflow(written: Any) -> None:
    """The reciprocal of an exponential that leaves single precision is zero."""
    x = Input(DType.F32, (1, LENGTH, DEPTH), name="x")
    divisor = Add(Exp(Mul(linear(x, DEPTH, "k", 1), const(-60.0, "much"))), const(1.0, "one"))
    y = linear(written(x, divisor), DEPTH, "y", 0)
    graph = Graph("g", (x,), (y,), ("y",))
    data = samples(graph, 6)
    made = quantize(graph, data[:4])
    wanted, found = (
        np.stack([evaluate(g, feed)["y"] for feed in data[4:]]) for g in (graph, made)
    )
    assert sqnr(wanted, found) > 20
