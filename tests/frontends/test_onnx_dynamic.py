"""Models as onnxruntime's quantize_dynamic writes them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import quantization

import irc
from irc.errors import ModelError
from irc.graph import evaluate
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
