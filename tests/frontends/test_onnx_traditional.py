"""What scikit-learn's converter puts around perceptrons (domain ai.onnx.ml)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.types import Array
from tests.frontends.single_op import agree, model, reals

X = {"x": reals(0, 3, 4)}


def traditional(
    op: str, inputs: dict[str, Array], *more: str, outputs: tuple[str, ...] = ("y",), **attrs: Any
) -> onnx.ModelProto:
    made = helper.make_node(op, [*inputs, *more], outputs, domain="ai.onnx.ml", **attrs)
    proto = model([made], inputs, outputs=outputs)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return proto


@pytest.mark.parametrize("offset", [[0.5], [0.5, -1.0, 0.0, 2.0]])
def test_scaler(offset: list[float]) -> None:
    agree(traditional("Scaler", X, offset=offset, scale=[2.0, 0.1, 1.0, -3.0][: len(offset)]), X)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_normalizer(norm: str) -> None:
    agree(traditional("Normalizer", X, norm=norm), X)


def test_array_feature_extractor() -> None:
    inputs = {**X, "at": np.asarray([2, 0], np.int64)}
    agree(traditional("ArrayFeatureExtractor", inputs), inputs)


@pytest.mark.parametrize("after", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_linear_classifier(after: str) -> None:
    rng = np.random.default_rng(1)
    proto = traditional(
        "LinearClassifier", X, outputs=("label", "scores"), post_transform=after,
        coefficients=rng.normal(size=12).tolist(), intercepts=[0.1, -0.2, 0.3],
        classlabels_ints=[7, 2, 5],
    )  # fmt: skip
    agree(proto, X)


def test_linear_regressor() -> None:
    coefficients = np.linspace(-1, 1, 8).tolist()
    agree(traditional("LinearRegressor", X, targets=2, coefficients=coefficients), X)


@pytest.mark.parametrize(
    ("op", "attrs", "words"),
    [
        ("Scaler", {"offset": [1.0, 2.0], "scale": [1.0]}, "offset has 2 entries"),
        ("LinearRegressor", {"targets": 1, "coefficients": [1.0]}, "1 coefficients and 0"),
        ("LinearClassifier", {"classlabels_strings": ["a", "b"]}, "classes are strings; train on"),
        ("ZipMap", {}, "zipmap=False"),
        ("TreeEnsembleClassifier", {}, "trees and support vectors are no networks"),
    ],
)
def test_what_is_refused(op: str, attrs: dict[str, Any], words: str) -> None:
    outputs = ("label", "scores") if op == "LinearClassifier" else ("y",)
    with pytest.raises(ModelError, match=words):
        load(traditional(op, X, outputs=outputs, **attrs))
