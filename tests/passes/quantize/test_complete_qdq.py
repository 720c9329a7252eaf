"""Graphs of which their author quantized only a part."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import quantization

import irc
from irc.driver import as_float, unquantized
from irc.errors import CompileError, GraphError
from irc.graph import Graph, evaluate
from irc.ops.activation import HardSwish, Relu
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.normalization import LayerNorm
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.reduce import ReduceMean
from irc.ops.selection import Gather
from irc.ops.softmax import Softmax
from irc.properties import is_float, is_qdq
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.frontends.test_onnx_quantized_models import EXAMPLES, Reader, images, scores

SAMPLES = list(np.random.default_rng(0).normal(size=(32, 1, 4, 4, 8)).astype(np.float32))


def pair(v: Value, quant: Quant, name: str) -> Value:
    return Dequantize(Quantize(v, DType.U8, quant, name=f"{name}.q"), name=name)


def image() -> Input:
    return Input.of(TensorType(DType.F32, (1, 4, 4, 8)), "x")


def weights(outputs: int, inputs: int) -> Const:
    array = np.random.default_rng(1).normal(size=(outputs, inputs)).astype(np.float32)
    return Const(array, name="w")


def quants(graph: Graph) -> set[Quant | None]:
    return {v.type.quant for v in graph.order if isinstance(v, Quantize)}


def snr(graph: Graph, done: Graph) -> float:
    """Of the compiled graph against what it was completed from, in dB."""
    model = irc.compile(done, backend="reference")
    pairs = [(evaluate(graph, {"x": x})["y"], model({"x": x})["y"]) for x in SAMPLES]
    signal = sum(float(np.sum(a.astype(np.float64) ** 2)) for a, _ in pairs)
    noise = sum(float(np.sum((a.astype(np.float64) - b) ** 2)) for a, b in pairs)
    return 10 * float(np.log10(signal / noise))


def island() -> Graph:
    """A hard-swish and a product between two quantized layers, as exporters leave them."""
    x = image()
    first = pair(x, Quant(0.03, 128), "first")
    mean = ReduceMean(first, (1, 2), True, name="mean")
    gate = pair(mean, Quant(0.01, 128), "gate")
    y = pair(Mul(HardSwish(first, name="swish"), gate, name="product"), Quant(0.01, 100), "y")
    return Graph("island", (x,), (y,), ("y",))


def test_a_product_with_an_unquantized_value() -> None:
    graph = island()
    with pytest.raises(CompileError, match=r"1 node stays float:\n  hard_swish %swish(.|\n)*--cal"):
        irc.compile(graph)
    assert unquantized(graph) == ("swish",)
    done = irc.quantize(graph, calibration=SAMPLES)
    assert {Quant(0.03, 128), Quant(0.01, 128), Quant(0.01, 100)} < quants(done)
    assert len(quants(done)) == 4
    assert snr(graph, done) > 35


def test_layers_with_real_weights() -> None:
    x = image()
    first = pair(x, Quant(0.03, 128), "first")
    y = Linear(Relu(Linear(first, weights(6, 8), None, name="a"), name="r"), weights(5, 6), None)
    graph = Graph("real", (x,), (y.replace(name="y"),), ("y",))
    assert unquantized(graph) == ("r", "a", "y")
    done = irc.quantize(graph, calibration=SAMPLES)
    assert Quant(0.03, 128) in quants(done)
    assert snr(graph, done) > 30


def test_a_scale_that_the_author_states_serves_all_readers() -> None:
    x = image()
    total = Add(pair(x, Quant(0.03, 128), "x.dq"), x, name="y")
    graph = Graph("shared", (x,), (total,), ("y",))
    assert unquantized(graph) == ("x",)
    assert quants(irc.quantize(graph, calibration=SAMPLES)) == {Quant(0.03, 128)}


def test_nothing_to_complete() -> None:
    x = image()
    graph = Graph("done", (x,), (pair(Relu(pair(x, Quant(0.03, 128), "a")), Quant(0.02), "y"),),
                  ("y",))  # fmt: skip
    assert unquantized(graph) == ()
    with pytest.raises(GraphError, match="quantized already"):
        irc.quantize(graph, calibration=SAMPLES)


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which onnxruntime quantized all but additions and the last layers."""
    path = tmp_path_factory.mktemp("partly") / "partly.onnx"
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            EXAMPLES / "models" / "fashion_resnet8.onnx", path, Reader(), per_channel=True,
            op_types_to_quantize=["Conv"],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return path


def test_a_model_that_is_quantized_in_part(partly: Path) -> None:
    graph = irc.load(partly)
    with pytest.raises(CompileError, match="nodes stay float"):
        irc.compile(graph)
    xs = images("fashion_test.npz", 100)
    calibration: list[dict[str, Array]] = [
        {"x": x[np.newaxis]} for x in images("fashion_calibration.npz", 32)
    ]
    done = irc.quantize(graph, calibration=calibration)
    assert quants(graph) <= quants(done)
    model = irc.compile(done)
    found = np.concatenate([model({"x": x[np.newaxis]})["logits"] for x in xs])
    assert (found.argmax(1) == scores(partly, xs).argmax(1)).mean() >= 0.97


def test_an_output_of_unknown_range_is_calibrated() -> None:
    x = image()
    first = pair(x, Quant(0.03, 128), "first")
    scale = Const(np.ones(8, np.float32))
    y = LayerNorm(first, scale, None, 3, 1e-5, name="y")
    graph = Graph("open", (x,), (y,), ("y",))
    with pytest.raises(CompileError, match="range is not known"):
        irc.compile(graph)
    assert unquantized(graph) == ("y",)
    done = irc.quantize(graph, calibration=SAMPLES)
    assert done.outputs[0].op == "dequantize"
    assert snr(graph, done) > 35


def test_what_masks_a_softmax_does_not_widen_its_range() -> None:
    x = image()
    hidden = Const(np.where(np.arange(8) > 5, -3e38, 0).astype(np.float32), name="mask")
    y = Softmax(Add(pair(x, Quant(0.03, 128), "x.dq"), hidden, name="masked"), 3, name="y")
    graph = Graph("masked", (x,), (y,), ("y",))
    assert unquantized(graph) == ("masked",)
    assert snr(graph, irc.quantize(graph, calibration=SAMPLES)) > 25


def test_where_only_weights_are_quantized_the_rest_is_as_of_a_float_model() -> None:
    ids = Input(DType.I64, (1, 4), name="x")
    table = Const(np.arange(80, dtype=np.int8).reshape(10, 8) - 40, Quant(0.05), name="table")
    rows = Dequantize(Gather(table, ids, 0, name="rows"), name="rows.dq")
    stored = Const(np.arange(48, dtype=np.int8).reshape(6, 8) - 20, Quant(0.01), name="w")
    y = Linear(rows, Dequantize(stored, name="w.dq"), None, name="y")
    graph = Graph("stored", (ids,), (y,), ("y",))
    real = as_float(graph)
    assert is_float(real)
    feed = {"x": np.array([[1, 3, 9, 0]])}
    np.testing.assert_array_equal(evaluate(real, feed)["y"], evaluate(graph, feed)["y"])
    done = irc.quantize(graph, calibration=[feed])
    assert is_qdq(done)
    assert as_float(done) is done
