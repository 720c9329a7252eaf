"""Trained models as onnxruntime's static quantizer writes them: imported, compiled, and of the same
opinion as onnxruntime on real images."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxruntime import quantization

import irc
from irc.types import Array

EXAMPLES = Path(__file__).parents[2] / "examples"
MEAN, STD = np.float32(0.2860), np.float32(0.3530)
IMAGES = 500
TYPES = {"u8": quantization.QuantType.QUInt8, "s8": quantization.QuantType.QInt8}
MODELS = ("fashion_resnet8", "fashion_dscnn")
FORMATS = ("QDQ", "QOperator")
COMBINATIONS = ("u8s8", "s8s8", "u8u8")
QUICK = {
    ("fashion_dscnn", "QDQ", "u8s8", True),
    ("fashion_resnet8", "QOperator", "u8u8", False),
}


def images(file: str, count: int) -> Array:
    """f32[count, 1, 28, 28] as the models were trained on."""
    with np.load(EXAMPLES / "data" / file) as data:
        pixels = data["x"][:count].transpose(0, 3, 1, 2).astype(np.float32)
    return np.asarray((pixels / np.float32(255) - MEAN) / STD)


class Reader(quantization.CalibrationDataReader):
    """Feeds onnxruntime's calibration."""

    def __init__(self) -> None:
        self.feeds: Iterator[dict[str, Array]] = iter(
            [{"x": x[np.newaxis]} for x in images("fashion_calibration.npz", 64)]
        )

    def get_next(self) -> dict[str, Array]:
        return next(self.feeds, {})  # an empty one is the end


def quantized(folder: Path, name: str, form: str, kinds: str, per_channel: bool) -> Path:
    """The model that onnxruntime's quantizer makes."""
    path = folder / "quantized.onnx"
    logging.disable(logging.WARNING)  # it asks to be told of optional steps
    try:
        quantization.quantize_static(
            EXAMPLES / "models" / f"{name}.onnx", path, Reader(),
            quant_format=quantization.QuantFormat[form], per_channel=per_channel,
            activation_type=TYPES[kinds[:2]], weight_type=TYPES[kinds[2:]],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return path


def scores(path: Path, xs: Array) -> Array:
    """By onnxruntime's exact kernels, f32[n, 10]."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(None, {"x": x[np.newaxis]})[0]) for x in xs])


CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in itertools.product(MODELS, FORMATS, COMBINATIONS, (False, True))
    # onnxruntime has no kernel for the QGemm of i8 activations that its quantizer writes
    if case[1:3] != ("QOperator", "s8s8")
]


@pytest.mark.parametrize(("name", "form", "kinds", "per_channel"), CASES)
def test_same_classes(
    tmp_path: Path, name: str, form: str, kinds: str, per_channel: bool
) -> None:
    path = quantized(tmp_path, name, form, kinds, per_channel)
    xs = images("fashion_test.npz", IMAGES)
    expected = scores(path, xs)
    model = irc.compile(irc.load(path), backend="llvm")
    found = np.concatenate([model({"x": x[np.newaxis]})["logits"] for x in xs])
    step = model.graph.output_types["logits"].scale
    assert np.abs(found - expected).max() < 2.01 * step
    chosen = expected[np.arange(IMAGES), found.argmax(1)]
    assert np.array_equal(chosen, expected.max(1))  # ties aside, the same class
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.99
    # The very numbers; but onnxruntime computes some layers over i8 in reals.
    assert (found == expected).all(1).mean() >= (0.95 if kinds == "s8s8" else 0.99)
    with np.load(EXAMPLES / "data" / "fashion_test.npz") as data:
        assert (found.argmax(1) == data["labels"][:IMAGES]).mean() > 0.8
