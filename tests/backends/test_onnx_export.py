"""Graphs written as ONNX: onnxruntime computes the same, and reading them back gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irc
from irc import driver
from irc.backends.onnx import export
from irc.backends.onnx.writer import EXPORTERS
from irc.graph import Graph, evaluate
from irc.ops import activation as act
from irc.ops import functions, logic, prelu, unary
from irc.ops.bits import BitAnd, BitOr, BitXor
from irc.ops.cast import Cast
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Add, Div, Maximum, Minimum, Mod, Mul, Pow, Sub
from irc.ops.grid import GridSample
from irc.ops.linear import Linear, MatMul
from irc.ops.logic import Equal, Less, LessOrEqual
from irc.ops.normalization import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.ranking import ArgMax, ArgMin, TopK
from irc.ops.recurrent import Gated, GruState, LstmCell, LstmHidden, Recurrent, TanhState
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.resample import Resample
from irc.ops.resize import ResizeLinear, ResizeNearest
from irc.ops.scatter import Scatter
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.ops.softmax import Softmax
from irc.ops.spectrum import Magnitude
from irc.ops.unary import Unary
from irc.types import Array, DType
from irc.value import Value
from tests.passes.networks import Network

RNG = np.random.default_rng(0)
X = Input(DType.F32, (2, 6, 5, 4), name="x")
"""An image, NHWC."""



def const(*shape: int) -> Const:
    return Const(RNG.standard_normal(shape).astype(np.float32))


PLANAR = Transpose(Input(DType.F32, (2, 4, 6, 5), name="x"), (0, 2, 3, 1))
"""The same image as a model in NCHW has it: planar from the start."""


def ort(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """The outputs by onnxruntime, as exactly as it can."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, feeds)), strict=True))


def check(graph: Graph, feeds: dict[str, Array], tolerance: float = 1e-4) -> onnx.ModelProto:
    """Two opinions on the exported model; the model."""
    model = export(graph)
    want = evaluate(graph, feeds)
    for got in (ort(model, feeds), evaluate(irc.load(model), feeds)):
        assert list(got) == list(graph.output_names)
        for name, array in want.items():
            assert got[name].shape == array.shape
            assert got[name].dtype == array.dtype
            np.testing.assert_allclose(
                got[name].astype(np.float64), array.astype(np.float64), tolerance, tolerance
            )
    return model


def of_one(x: Value) -> list[Value]:
    bounded = act.Tanh(x)
    positive = Add(unary.Abs(x), Const(np.array(1.5, np.float32)))
    plain: list[type[Unary]] = [
        act.Relu, act.Sigmoid, act.Tanh, act.HardSigmoid, act.HardSwish, act.Silu, act.Elu,
        act.Selu, act.Softplus, act.Softsign, act.Mish, unary.Exp, unary.Neg, unary.Abs,
        unary.Sign, unary.Erf, unary.Floor, unary.Ceil, unary.Round, unary.Sin, unary.Cos,
        functions.Atan, functions.Sinh, functions.Cosh, functions.Asinh,
        functions.ThresholdedRelu, functions.Shrink, functions.Tan,
    ]  # fmt: skip
    return [
        *(each(x) for each in plain),
        *(each(bounded) for each in (functions.Asin, functions.Acos, functions.Atanh)),
        *(each(positive) for each in (unary.Log, unary.Sqrt, unary.Reciprocal, functions.Acosh)),
        act.LeakyRelu(x, 0.1), act.Gelu(x), act.Gelu(x, "tanh"), act.Clip(x, -0.5, 0.25),
        act.Clip(x, -np.inf, 0.25), prelu.PRelu(x, const(4)), prelu.PRelu(x, const(1)),
        Cast(logic.Not(Less(x, const(4))), DType.F32), Cast(x, DType.I32),
    ]  # fmt: skip


def binary(x: Value) -> list[Value]:
    positive = unary.Exp(x)
    return [
        Add(x, const(4)), Sub(x, const(6, 5, 4)), Mul(x, const(1, 5, 1)), Div(x, positive),
        Mul(const(2, 6, 5, 4), x), Pow(positive, const(4)), Minimum(x, const(2, 1, 1, 4)),
        Maximum(x, const(1)), Where(LessOrEqual(x, const(4)), x, const(4)),
        Cast(Equal(x, x), DType.F32),
    ]  # fmt: skip


def images(x: Value) -> list[Value]:
    return [
        MaxPool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)),
        AvgPool2d(x, (2, 3), (1, 2), (1, 1, 0, 1)),
        AvgPool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), True),
        ResizeNearest(x, (12, 10)), ResizeNearest(x, (9, 5), "asymmetric", "floor"),
        ResizeLinear(x, (12, 7)), ResizeLinear(x, (3, 10), "align_corners"),
        ConvTranspose2d(x, const(3, 2, 3, 4), const(3), (2, 1), (0, 1, 1, 0)),
        ConvTranspose2d(x, const(6, 2, 2, 2), None, (2, 2), groups=2, output_padding=(1, 0)),
        InstanceNorm(x, const(4), const(4), 1e-5), GroupNorm(x, const(4), None, 2, 1e-3),
    ]  # fmt: skip


def rows(x: Value) -> list[Value]:
    return [
        Softmax(x, 3), Softmax(x, 1), LayerNorm(x, const(4), const(4), 3, 1e-5),
        LayerNorm(x, None, None, 3, 1e-5), RMSNorm(x, const(4), 3, 1e-6),
        RMSNorm(x, None, 3, 1e-6), ReduceSum(x, (3,), False), ReduceMean(x, (1, 2), True),
        ReduceMean(x, (1, 2), False), ReduceMax(x, (1,), True), ReduceMin(x, (0, 3), False),
        ArgMax(x, 3, False), ArgMin(x, 1, True, True), MatMul(x, const(4, 7)),
        Linear(x, const(3, 4), const(3)), Linear(Reshape(x, (60, 4)), const(3, 4), const(3)),
        Linear(x, const(3, 4)),
    ]  # fmt: skip


def shapes(x: Value) -> list[Value]:
    return [
        Reshape(x, (12, 20)), Transpose(x, (3, 1, 0, 2)), Concat((x, const(2, 6, 5, 2)), 3),
        Slice(x, (0, 1, 4, 3), (2, 5, -1, 0), (1, 2, -2, -1)),
        Slice(x, (0, 0, 0, 0), x.shape, (1, 1, 1, 1)),
        Pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), 1.5),
        Pad(x, ((0, 0), (2, 1), (1, 0), (0, 0)), mode="reflect"),
        Pad(x, ((0, 1), (0, 0), (1, 0), (2, 0)), mode="edge"),
        Expand(Reshape(x, (1, 2, 6, 5, 4)), (3, 2, 6, 5, 4)),
        Gather(x, Const(np.array([[2, 0], [1, -1]], np.int64)), 3),
    ]  # fmt: skip


def places(x: Value) -> list[Value]:
    grid = act.Tanh(Reshape(x, (2, 12, 5, 2)))
    whole = Cast(Mul(x, Const(np.array(9.0, np.float32))), DType.I32)
    taps = Const(RNG.integers(0, 6, (9, 2)).astype(np.int32))
    columns = Const(RNG.integers(0, 5, (3, 4)).astype(np.int32))
    at = Cast(Slice(Reshape(whole, (240,)), (0,), (7,), (1,)), DType.I64)
    volume = Reshape(x, (2, 3, 2, 5, 4))
    corners = act.Tanh(Reshape(Slice(x, (0, 0, 0, 0), (2, 6, 5, 3), (1, 1, 1, 1)), (2, 3, 2, 5, 3)))
    return [
        GridSample(x, grid), GridSample(x, grid, "nearest", "border", True),
        GridSample(x, grid, "cubic", "reflection"), act.Relu(GridSample(x, grid, padding="border")),
        GridSample(volume, corners),
        CumSum(x, 1), CumSum(x, 3, True, True), TopK(x, 3, 2), TopK(x, 1, 6, False),
        Mod(x, const(4)), Mod(x, const(4), True), Mod(whole, Const(np.array(5, np.int32))),
        BitAnd(whole, whole), BitOr(whole, whole), BitXor(whole, whole),
        Magnitude(x, act.Tanh(x)), Scatter(Reshape(x, (12, 20)), const(7, 20), at),
        Resample(x, taps, const(9, 2), None, None, (1,)),
        Resample(x, taps, const(9, 2), columns, const(3, 4), (1, 2)),
    ]  # fmt: skip


def cells(x: Value) -> list[Value]:
    four, two = Linear(x, const(12, 4), const(12)), Linear(x, const(6, 4), const(6))
    h, n = Linear(x, const(3, 4)), Linear(x, const(3, 4))
    c = LstmCell(four, h, "figo")
    return [
        Recurrent(h, const(12, 3), const(12), four), Recurrent(h, const(5, 3), None, None), c,
        LstmHidden(four, c, "figo"), Gated(two, h, 1), GruState(two, n, h), TanhState(n),
    ]  # fmt: skip


FAMILIES = {"unary": of_one, "binary": binary, "images": images, "rows": rows, "shapes": shapes,
            "places": places, "cells": cells}  # fmt: skip


def all_of(family: str, layout: str, without: Collection[str] = ()) -> Graph:
    """A graph of one input whose outputs are the ops of a family."""
    x = X if layout == "NHWC" else PLANAR
    public = X if layout == "NHWC" else PLANAR.x
    assert isinstance(public, Input)
    outputs = tuple(y for y in FAMILIES[family](x) if y.op not in without)
    return Graph("ops", (public,), outputs, tuple(f"y{i}" for i in range(len(outputs))))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_op_means_the_same(family: str, layout: str) -> None:
    graph = all_of(family, layout)
    check(graph, {"x": RNG.standard_normal(graph.inputs[0].shape).astype(np.float32)})


def test_every_exported_op_is_tried() -> None:
    made = {type(v) for f in FAMILIES.values() for x in (X,) for v in Graph(
        "all", (X,), tuple(f(x)), tuple(map(str, range(len(f(x)))))).order}  # fmt: skip
    elsewhere = {"Quantize", "Dequantize", "Conv2d", "BatchNorm", "And", "Or"}
    elsewhere |= {"Columns", "TreeEnsemble"}  # tests/passes/quantize/test_units.py
    assert {each.__name__ for each in set(EXPORTERS) - made} <= elsewhere


@settings(max_examples=25)
@given(st.integers(0, 500))
def test_random_networks(seed: int) -> None:
    graph = Network(seed).graph(3)
    x = np.random.default_rng(seed).standard_normal(graph.inputs[0].shape).astype(np.float32)
    check(graph, {"x": x}, 1e-3)
    check(driver.simplify(graph), {"x": x}, 1e-3)


@settings(max_examples=15)
@given(st.integers(0, 200))
def test_quantized_networks_become_the_same_integers(seed: int) -> None:
    graph = Network(seed).graph(3)
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((4, *graph.inputs[0].shape)).astype(np.float32)
    quantized = irc.quantize(graph, samples)
    a, b = (driver.integerize(g) for g in (quantized, irc.load(export(quantized))))
    feeds = {v.name: rng.integers(0, 256, v.shape).astype(np.uint8) for v in a.inputs}
    assert a.input_types == b.input_types
    got, want = evaluate(b, feeds), evaluate(a, feeds)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


def test_onnxruntime_loads_what_is_moved_behind_the_last_layer() -> None:
    """As its users load it, with its optimizations."""
    x = Input(DType.F32, (1, 6, 4), name="x")
    y: Value = Reshape(MatMul(x, Transpose(x, (0, 2, 1))), (2, 18))
    y = Concat((y, Slice(y, (0, 0), (2, 4), (1, 1))), 1)
    graph = Graph("moved", (x,), (y, Linear(x, const(3, 4))), ("y", "z"))
    samples = RNG.standard_normal((4, *x.shape)).astype(np.float32)
    quantized = irc.quantize(graph, samples)
    model = check(quantized, {"x": samples[0]})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found, want = session.run(None, {"x": samples[0]}), evaluate(quantized, {"x": samples[0]})
    np.testing.assert_allclose(np.asarray(found[0]), want["y"], atol=0.1)
    again = driver.integerize(irc.load(model))
    assert again.output_types == driver.integerize(quantized).output_types


def test_transposes_are_left_out_where_operators_agree() -> None:
    """An NCHW model comes back as one: no transposes but those it had."""
    rng = np.random.default_rng(0)
    x = Input(DType.F32, (1, 3, 8, 8), name="x")
    y: Value = Transpose(x, (0, 2, 3, 1))
    for out in (8, 8, 4):
        w = rng.standard_normal((out, 3, 3, y.shape[3])).astype(np.float32)
        y = act.HardSwish(conv(y, w))
    z = Transpose(Mul(y, act.Sigmoid(ReduceMean(y, (1, 2), True))), (0, 3, 1, 2))
    graph = Graph("net", (x,), (z,), ("z",))
    model = check(graph, {"x": rng.standard_normal(x.shape).astype(np.float32)})
    assert "Transpose" not in Counter(node.op_type for node in model.graph.node)


def conv(x: Value, w: Array) -> Value:
    return Conv2d(x, Const(w), Const(np.zeros(len(w), np.float32)), pads=(1, 1, 1, 1))


def test_names_of_the_interface_are_kept() -> None:
    """An input that is an output, one value under two names, inner names like public ones."""
    y = act.Relu(X, name="z")
    graph = Graph("names", (X,), (X, y, y, unary.Neg(y, name="x")), ("a", "b", "c", "z"))
    model = check(graph, {"x": RNG.standard_normal(X.shape).astype(np.float32)})
    assert [o.name for o in model.graph.output] == ["a", "b", "c", "z"]


def test_integer_graphs_are_refused(tmp_path: Path) -> None:
    graph = Network(0).graph(2)
    samples = RNG.standard_normal((2, *graph.inputs[0].shape)).astype(np.float32)
    integer = driver.integerize(irc.quantize(graph, samples))
    with pytest.raises(irc.IRCError, match="is integer"):
        irc.to_onnx(integer, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(irc.IRCError, match="can't write"):
        irc.to_onnx(Network(0).graph(1), tmp_path / "file" / "net.onnx")
