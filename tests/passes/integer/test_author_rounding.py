"""Twins of programs that are run in single precision, against that arithmetic, sum by sum."""

from typing import Any

import numpy as np
import pytest

from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Sub
from irc.ops.linear import Linear, QLinear
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.reduce import QReduceSum, ReduceMean
from irc.parser import parse
from irc.passes.integer.integerize import integerize
from irc.types import Array, DType, Quant
from irc.value import Value

F32 = np.float32
SX, SY = (float(F32(s)) for s in (0.0231, 0.0474))


def real(name: str, dims: tuple[int, ...], quant: Quant) -> tuple[Input, Value]:
    x = Input(DType.U8, dims, quant, name=name)
    return x, Dequantize(x)


PAIRS = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2).astype(np.uint8)
"""Of bytes, [65536, 2]."""
WEIGHTS = np.array([127, 1], np.int8)
"""Each sum from -16,384 to 16,256 is one of such a pair around 128."""


def layer(seed: int = 2, channels: int = 100) -> tuple[Graph, Array]:
    """A linear layer in QDQ form, and the scales of its channels' weights, all alike."""
    scales = np.random.default_rng(seed).uniform(0.016, 0.03, channels).astype(F32)
    x, xs = real("x", PAIRS.shape, Quant(SX, 128))
    quant = Quant(tuple(map(float, scales)), 0, 0)
    w = Dequantize(Const(np.tile(WEIGHTS, (channels, 1)), quant))
    y = Quantize(Linear(xs, w), DType.U8, Quant(SY, 120), single=DType.U8, name="y")
    return Graph("layer", (x,), (Dequantize(y),), ("y",)), scales


def expected(scales: Array) -> Array:
    """As onnxruntime computes it."""
    sums = ((PAIRS.astype(np.int64) - 128) @ WEIGHTS.astype(np.int64)).astype(F32)
    results = np.rint(sums[:, None] * ((F32(SX) * scales) / F32(SY)))
    return np.asarray(np.clip(results + 120, 0, 255))


def wrong(graph: Graph, scales: Array) -> int:
    found = evaluate(integerize(graph), {"x": PAIRS})["y"]
    return int((found != expected(scales)).sum())


def test_layers_give_the_integers_of_single_precision() -> None:
    graph, scales = layer()
    (y,) = graph.outputs[0].operands
    exact = graph.with_outputs((Dequantize(y.replace(single=None)),))
    assert wrong(exact, scales) > 20  # or the test shows nothing
    assert wrong(graph, scales) <= 2


def test_misses_that_are_left_are_exceptions() -> None:
    graph = integerize(layer()[0])
    (node,) = graph.outputs
    assert isinstance(node, QLinear)
    assert isinstance(node.exception, Const)
    at, by = node.exception.array[::2], node.exception.array[1::2]
    assert by.any()
    assert np.array_equal(by == 0, at == -(2**31))
    without = graph.with_outputs((node.replace(exception=None),))
    missed = evaluate(without, {"x": PAIRS})["y"] != evaluate(graph, {"x": PAIRS})["y"]
    assert missed.any()
    assert not missed.any(0)[~by.any(0)].any()


def test_ties_at_every_few_results_are_as_many_exceptions() -> None:
    """9 results are 2930 sums: every second tie steps where no line does."""
    scale = F32(9 / 2930 * SY / SX)
    x, xs = real("x", (500, *PAIRS.shape), Quant(SX, 128))
    w = Dequantize(Const(WEIGHTS[None], Quant(float(scale))))
    y = Quantize(Linear(xs, w), DType.U8, Quant(SY, 120), single=DType.U8, name="y")
    graph = integerize(Graph("layer", (x,), (Dequantize(y),), ("y",)))
    node: Any = graph.outputs[0]
    assert len(node.exception.array) > 2
    constants = [c.array for c in (node.w, node.b, node.m, node.s, node.exception)]
    found = node.evaluate(PAIRS, *constants, None, None)
    assert np.array_equal(found, expected(np.array([scale])))


def test_powers_of_two_round_to_even() -> None:
    x, xs = real("x", (256, 1), Quant(0.5, 0))
    w = Dequantize(Const(np.array([[1], [-3]], np.int8), Quant(0.25)))
    y = Quantize(Linear(xs, w), DType.I8, Quant(0.5, -3), single=DType.I8, name="y")
    node = integerize(Graph("g", (x,), (Dequantize(y),), ("y",)))
    assert isinstance(node.outputs[0], QLinear)
    assert node.outputs[0].power == 2
    q = np.arange(256, dtype=np.uint8)[:, None]
    wanted = np.clip(np.rint(q * np.array([1, -3]) * 0.25) - 3, -128, 127)
    assert np.array_equal(evaluate(node, {"x": q})["y"], wanted)


def sum_of(a: Array, b: Array, scales: Array, zeros: Array) -> Array:
    """onnxruntime's order of operations, for the third scale and zero point: `fma` is one step."""

    def fma(x: Any, y: np.float32, z: Any) -> Array:
        return np.asarray(x * np.float64(y) + np.float64(z)).astype(F32)

    ra, rb = scales[:2] / scales[2]
    fixed = F32(F32(zeros[2]) - fma(zeros[0], ra, rb * F32(zeros[1])))
    return np.rint(fma(a, ra, fma(b, rb, fixed)))


@pytest.mark.parametrize("single", [DType.U8, DType.I8])
def test_all_sums_of_two_bytes(single: DType) -> None:
    shift, changed = DType.U8.min - single.min, 0
    a, b = PAIRS.T
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scales, zeros = rng.uniform(0.02, 0.06, 3).astype(F32), rng.integers(90, 160, 3)
        quants = [Quant(float(s), int(z)) for s, z in zip(scales, zeros, strict=True)]
        (x, xs), (y, ys) = (real(n, a.shape, q) for n, q in zip("ab", quants, strict=False))
        q = Quantize(Add(xs, ys), DType.U8, quants[2], single=single, name="y")
        graph = integerize(Graph("sum", (x, y), (Dequantize(q),), ("y",)))
        (made,) = graph.outputs
        assert isinstance(made, QAdd)
        wanted = sum_of(a.astype(float) - shift, b.astype(float) - shift, scales, zeros - shift)
        found = evaluate(graph, {"a": a, "b": b})["y"]
        assert np.array_equal(found, np.clip(wanted + shift, 0, 255))
        changed += (made.ma, made.nudge) != (QAdd.of(made.a, made.b, made.type).ma, 0)
    assert changed


@pytest.mark.parametrize("zero", [128, 3])
@pytest.mark.parametrize("scales", [(0.5, 0.25, 0.5), (1.0, 0.125, 0.5), (0.125, 0.25, 0.5)])
def test_sums_between_powers_of_two_take_ties_to_even(
    scales: tuple[float, ...], zero: int
) -> None:
    """As AMD Quark's XINT8 has all of its scales."""
    a, b = PAIRS.T
    quants = [Quant(s, z) for s, z in zip(scales, (128, 127, zero), strict=True)]
    (x, xs), (y, ys) = (real(n, a.shape, q) for n, q in zip("ab", quants, strict=False))
    q = Quantize(Add(xs, ys), DType.U8, quants[2], single=DType.U8, name="y")
    graph = integerize(Graph("sum", (x, y), (Dequantize(q),), ("y",)))
    zeros = np.array([128, 127, zero])
    wanted = sum_of(a.astype(float), b.astype(float), np.array(scales, F32), zeros)
    found = evaluate(graph, {"a": a, "b": b})["y"]
    assert np.array_equal(found, np.clip(wanted, 0, 255))


@pytest.mark.parametrize("scales", [(0.5, 0.25, 0.5), (1.0, 0.125, 0.5), (0.125, 0.25, 0.5)])
def test_differences_between_powers_of_two_take_ties_to_even(scales: tuple[float, ...]) -> None:
    a, b = PAIRS.T
    quants = [Quant(s, z) for s, z in zip(scales, (128, 127, 2), strict=True)]
    (x, xs), (y, ys) = (real(n, a.shape, q) for n, q in zip("ab", quants, strict=False))
    q = Quantize(Sub(xs, ys), DType.U8, quants[2], single=DType.U8, name="y")
    graph = integerize(Graph("difference", (x, y), (Dequantize(q),), ("y",)))
    exact = (a.astype(float) - 128) * scales[0] - (b.astype(float) - 127) * scales[1]
    wanted = np.clip(np.rint(exact / scales[2]) + 2, 0, 255)
    assert np.array_equal(evaluate(graph, {"a": a, "b": b})["y"], wanted)


def test_means_divide_in_single_precision() -> None:
    x, xs = real("x", (2000, 7, 7, 2), Quant(SX, 3))
    mean = ReduceMean(xs, (1, 2), keepdims=False)
    y = Quantize(mean, DType.U8, Quant(SY / 3, 9), single=DType.U8, name="y")
    node = integerize(Graph("g", (x,), (Dequantize(y),), ("y",)))
    assert isinstance(node.outputs[0], QReduceSum)
    q = np.random.default_rng(0).integers(0, 256, (2000, 7, 7, 2)).astype(np.uint8)
    sums = (q.astype(np.int64) - 3).sum((1, 2)).astype(F32)
    factor = F32(SX) / (F32(SY / 3) * F32(49))
    wanted = np.clip(np.rint(np.clip(sums * factor, -9, 246)) + 9, 0, 255)
    assert np.array_equal(evaluate(node, {"x": q})["y"], wanted)


def test_the_attribute_survives_as_text() -> None:
    graph, _ = layer(channels=4)
    text = str(graph)
    assert "{single = u8}" in text
    again = parse(text)
    assert str(again) == text
    assert isinstance(integerize(again).outputs[0], QLinear)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.37, 3.1])
def test_changes_of_scale_go_through_reals(ratio: float) -> None:
    x, xs = real("x", (256,), Quant(SX, 100))
    sy = float(F32(SX * ratio))
    y = Quantize(xs, DType.U8, Quant(sy, 20), single=DType.U8, name="y")
    q = np.arange(256, dtype=np.uint8)
    found = evaluate(integerize(Graph("g", (x,), (Dequantize(y),), ("y",))), {"x": q})["y"]
    reals = (q.astype(F32) - F32(100)) * F32(SX)
    assert np.array_equal(found, np.clip(np.rint(reals / F32(sy)) + 20, 0, 255))


@pytest.mark.parametrize("single", [DType.U8, None])
def test_integers_that_are_read_and_written_again_stay(single: DType | None) -> None:
    """What is quantized twice alike is computed once, and steps once."""
    graph, _ = layer(channels=4)
    (y,) = graph.outputs[0].operands
    again = Quantize(Dequantize(y), DType.U8, y.type.quant or Quant(1.0), single=single, name="z")
    twice = graph.with_outputs((Dequantize(again),))
    found, once = (evaluate(integerize(g), {"x": PAIRS})["y"] for g in (twice, graph))
    assert np.array_equal(found, once)


def test_channels_that_come_to_no_step_keep_their_bias() -> None:
    """Real biases, as PyTorch's programs have them: of no weights, and far beyond the range."""
    rng = np.random.default_rng(0)
    w, scales = rng.integers(-127, 128, (40, 64)).astype(np.int8), rng.uniform(0.001, 0.01, 40)
    b = rng.normal(0, 0.5, 40).astype(np.float32)
    w[3], b[3], w[7], b[7] = 0, 1.3, 1, -50
    x, xs = real("x", (500, 64), Quant(0.03, 120))
    weights = Dequantize(Const(w, Quant(tuple(map(float, scales)), 0, 0)))
    y = Quantize(Linear(xs, weights, Const(b)), DType.U8, Quant(0.08, 100), name="y")
    graph = integerize(Graph("g", (x,), (Dequantize(y),), ("y",)))
    assert isinstance(graph.outputs[0], QLinear)
    assert graph.outputs[0].fraction
    q = rng.integers(0, 256, (500, 64)).astype(np.uint8)
    reals = ((q.astype(np.float64) - 120) * 0.03) @ (w * scales[:, None]).T + b
    wanted = np.clip(np.rint(reals / 0.08) + 100, 0, 255)
    assert np.array_equal(evaluate(graph, {"x": q})["y"], wanted)
