"""Models as onnxruntime's quantize_dynamic writes them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization

import irc
from irc.errors import ModelError
from irc.graph import evaluate
from irc.types import Array
from tests.frontends.single_op import f32, model, node, reals
from tests.frontends.test_onnx_quantized_models import EXAMPLES, MODELS, images, scores


def dynamic(folder: Path, name: str, kind: quantization.QuantType) -> Path:
    path = folder / "dynamic.onnx"
    logging.disable(logging.WARNING)  # it asks to be told of optional steps
    try:
        quantization.quantize_dynamic(EXAMPLES / "models" / f"{name}.onnx", path, weight_type=kind)
    finally:
        logging.disable(logging.NOTSET)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_its_layers_become_float_layers_over_quantized_weights(tmp_path: Path, name: str) -> None:
    path = dynamic(tmp_path, name, quantization.QuantType.QUInt8)
    graph = irc.load(path)
    layers = [v for v in graph.order if v.op in ("conv2d", "linear")]
    assert layers
    assert all(v.w.op == "dequantize" for v in layers)  # type: ignore[attr-defined]
    xs = images("fashion_test.npz", 40)
    expected = scores(path, xs)
    found = np.concatenate([evaluate(graph, {"x": x[np.newaxis]})["logits"] for x in xs])
    noise = np.sum((found - expected) ** 2) / np.sum(expected**2)
    assert -10 * np.log10(noise) > 30  # their activations have 8 bits, ours have none lost yet
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


def _looped() -> onnx.ModelProto:
    """Three rounds of a layer, in an If whose condition is known."""
    value, nodes = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    real, whole, truth = (getattr(onnx.TensorProto, n) for n in ("FLOAT", "INT64", "BOOL"))
    loop = onnx.helper.make_graph(
        [
            nodes("MatMul", ["h", "w"], ["product"]), nodes("Add", ["product", "b"], ["sum"]),
            nodes("Tanh", ["sum"], ["next"]), nodes("Identity", ["go"], ["goes"]),
        ],
        "loop", [value("i", whole, []), value("go", truth, []), value("h", real, [4, 8])],
        [value("goes", truth, []), value("next", real, [4, 8])],
        [onnx.numpy_helper.from_array(reals(1, 8, 8), "w"),
         onnx.numpy_helper.from_array(reals(2, 8), "b")],
    )  # fmt: skip
    branch = onnx.helper.make_graph(
        [nodes("Loop", ["rounds", "", "x"], ["last"], body=loop)], "then", [],
        [value("last", real, [4, 8])],
    )  # fmt: skip
    other = onnx.helper.make_graph(
        [nodes("Neg", ["x"], ["turned"])], "else", [], [value("turned", real, [4, 8])]
    )
    choice = nodes("If", ["yes"], ["y"], then_branch=branch, else_branch=other)
    graph = onnx.helper.make_graph(
        [choice], "looped", [value("x", real, [4, 8])], [value("y", real, [4, 8])],
        [onnx.numpy_helper.from_array(np.array(3), "rounds"),
         onnx.numpy_helper.from_array(np.array(True), "yes")],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_layers_in_bodies(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.onnx", tmp_path / "dynamic.onnx"
    onnx.save(_looped(), plain)
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_dynamic(
            plain, path, reduce_range=True, extra_options={"EnableSubgraph": True}
        )  # fewer bits of weights: onnxruntime's pairs saturate on CPUs without VNNI
    finally:
        logging.disable(logging.NOTSET)
    graph, x = irc.load(path), reals(3, 4, 8)
    assert [v.op for v in graph.order].count("dequantize") == 3
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = map(np.asarray, session.run(None, {"x": x}))
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], found, atol=0.1)


def test_what_follows_must_be_the_whole_pattern() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["i"]),
        node("Cast", ["i"], ["c"], to=1),
        node("Mul", ["c", "ws"]),
    ]
    constants = {"w": np.ones((3, 2), np.int8), "ws": f32(0.5)}
    with pytest.raises(ModelError, match=r"DynamicQuantizeLinear.*computed from each input"):
        irc.load(model(nodes, {"x": reals(0, 4, 3)}, constants, 17).SerializeToString())


def whole_units(w: str, bias: str, unit: tuple[str, str]) -> list[onnx.NodeProto]:
    """A layer with a bias as early versions wrote it."""
    conv = w == "kernel"
    return [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("Mul", list(unit), ["unit"]),
        node("Div", [bias, "unit"], ["divided"]),
        node("Floor", ["divided"], ["floor"]),
        node("Cast", ["floor"], ["units"], to=6),
        *([node("Reshape", ["units", "shape"], ["shaped"])] if conv else []),
        node("ConvInteger" if conv else "MatMulInteger", ["q", w, "z", "wz"], ["i"]),
        node("Add", ["i", "shaped" if conv else "units"], ["sum"]),
        node("Cast", ["sum"], ["c"], to=1),
        node("Mul", ["s", "ws"], ["scales"]),
        node("Mul", ["c", "scales"]),
    ]


WITH_BIAS: dict[str, Array] = {
    "kernel": np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2),
    "matrix": np.arange(12, dtype=np.uint8).reshape(4, 3),
    "wz": np.array(9, np.uint8),
    "ws": f32(0.05),
    "other": f32(0.07),
    "shape": np.array([1, -1, 1, 1]),
    "two": np.array([0.4, -0.8], np.float32),
    "three": np.array([0.4, -0.8, 3], np.float32),
}


@pytest.mark.parametrize(("w", "bias"), [("kernel", "two"), ("matrix", "three")])
def test_a_bias_in_whole_units(w: str, bias: str) -> None:
    proto = model(whole_units(w, bias, ("s", "ws")), {"x": reals(0, 1, 3, 4, 4)}, WITH_BIAS, 13)
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (wanted,) = session.run(None, {"x": x})
    graph = irc.load(proto.SerializeToString())
    (found,) = evaluate(graph, {"x": x}).values()
    step = float(np.ptp(x)) / 255
    weights = np.abs(WITH_BIAS[w].astype(float) - 9) * 0.05
    largest = weights.sum((1, 2, 3) if w == "kernel" else 0).max()
    # Half a step of each input, and less than one unit of the sums: a step of x by one of w.
    assert np.abs(found - np.asarray(wanted)).max() <= step * (0.5 * largest + 0.05) * 1.001


def test_a_bias_in_other_units_is_none() -> None:
    nodes = whole_units("kernel", "two", ("s", "other"))
    with pytest.raises(ModelError, match="computed from each input"):
        irc.load(model(nodes, {"x": reals(0, 1, 3, 4, 4)}, WITH_BIAS, 13).SerializeToString())
