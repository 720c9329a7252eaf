"""What scikit-learn's converter puts around perceptrons (domain ai.onnx.ml)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import irc
from irc.edge import to_reals
from irc.errors import DataError, ModelError
from irc.frontends.onnx import load
from irc.types import Array
from tests.frontends.single_op import agree, check, model, reals, reference

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


def test_a_map_of_scores_is_the_scores() -> None:
    """As scikit-learn's converter makes them unless it is told zipmap=False."""
    proto = traditional("ZipMap", X, classlabels_int64s=[4, 2, 9, 5])
    (rows,) = reference(proto, X).values()
    found = irc.evaluate(load(proto), X)["y"]
    np.testing.assert_allclose(found, [[row[n] for n in (4, 2, 9, 5)] for row in rows])


def test_linear_regressor() -> None:
    coefficients = np.linspace(-1, 1, 8).tolist()
    agree(traditional("LinearRegressor", X, targets=2, coefficients=coefficients), X)


@pytest.mark.parametrize("missing", [float("nan"), -1.0])
def test_imputer(missing: float) -> None:
    """What is missing gets its column's number; of what is never missing nothing is left to do."""
    x = X["x"].copy()
    x[1, 2] = x[2, 0] = missing
    values = [0.5, -1.0, 0.25, 2.0]
    proto = traditional(
        "Imputer", {"x": x}, imputed_value_floats=values, replaced_value_float=missing
    )
    graph = agree(proto, {"x": x})
    if np.isnan(missing):
        library = irc.compile(irc.quantize(graph, calibration=[X]))
        found = library(X)["y"]
        np.testing.assert_allclose(found, X["x"], atol=0.02)
        with pytest.raises(DataError, match="fill in what is missing"):
            irc.quantize(graph, calibration=[{"x": x}])


def test_imputer_of_integers() -> None:
    x = {"x": COLUMNS}
    agree(traditional("Imputer", x, imputed_value_int64s=[4, 6], replaced_value_int64=9), x)


@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vectors(kernel: str, one_class: int) -> None:
    rng = np.random.default_rng(2)
    proto = traditional(
        "SVMRegressor", X, kernel_type=kernel, kernel_params=[0.3, 0.5, 3.0], n_supports=5,
        support_vectors=rng.normal(size=20).tolist(), coefficients=rng.normal(size=5).tolist(),
        rho=[0.2], one_class=one_class,
    )  # fmt: skip
    graph = agree(proto, X)
    seen = [{"x": reals(n, 3, 4)} for n in range(9)]
    library = irc.compile(irc.quantize(graph, calibration=seen))
    found = library(X)["y"]
    np.testing.assert_allclose(found, irc.evaluate(graph, X)["y"], atol=0.01 if one_class else 0.2)


def test_support_vectors_of_one_layer() -> None:
    attrs: dict[str, Any] = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0]}
    agree(traditional("SVMRegressor", X, coefficients=[1, 2, -1, 0.5], rho=[0.2], **attrs), X)


def voters(counts: tuple[int, ...], kernel: str, **more: Any) -> dict[str, Any]:
    """A classifier of random vectors, so many for each class."""
    rng, total, classes = np.random.default_rng(len(counts)), sum(counts), len(counts)
    return {
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0], "vectors_per_class": list(counts),
        "support_vectors": rng.normal(size=total * 4).tolist(),
        "coefficients": rng.normal(size=total * (classes - 1)).tolist(),
        "rho": rng.normal(0, 0.3, size=classes * (classes - 1) // 2).tolist(),
        "classlabels_ints": [7, 3, 5, 4][:classes], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "kernel"),
    [((3, 2), "LINEAR"), ((2, 3, 1), "POLY"), ((1, 2, 2, 3), "RBF"), ((3, 2), "SIGMOID")],
)
def test_votes_of_support_vectors(counts: tuple[int, ...], kernel: str) -> None:
    rows = {"x": reals(3, 24, 4)}
    attrs = voters(counts, kernel)
    graph = agree(traditional("SVMClassifier", rows, outputs=("label", "scores"), **attrs), rows)
    seen = [{"x": reals(n, 24, 4)} for n in range(4, 12)]
    library = irc.compile(irc.quantize(graph, calibration=seen), backend="reference")
    found, wanted = library(rows), irc.evaluate(graph, rows)
    assert np.mean(to_reals(library.graph.output_types, found)["label"] == wanted["label"]) > 0.9


def test_probabilities_of_two_classes() -> None:
    """onnxruntime stops its iterations early."""
    attrs = voters((3, 2), "RBF", prob_a=[-2.0], prob_b=[0.3])
    agree(traditional("SVMClassifier", X, outputs=("label", "scores"), **attrs), X, relative=3e-3)


COLUMNS = np.asarray([[3, 1], [7, 2], [5, 9]], np.int64)


def test_binarizer() -> None:
    agree(traditional("Binarizer", X, threshold=0.3), X)


def test_one_hot_encoder() -> None:
    x = {"x": COLUMNS}
    agree(traditional("OneHotEncoder", x, cats_int64s=[1, 3, 5, 7], zeros=1), x)


@pytest.mark.parametrize(
    "values", [{"values_int64s": [10, 20, 30]}, {"values_floats": [0.5, 2.0, -1.0]}], ids=str
)
def test_label_encoder(values: dict[str, Any]) -> None:
    whole = "values_int64s" in values
    default: dict[str, Any] = {"default_int64": -4} if whole else {"default_float": -0.5}
    x = {"x": COLUMNS}
    proto = traditional("LabelEncoder", x, keys_int64s=[3, 1, 7], **values, **default)
    proto.opset_import[-1].version = 2
    graph = agree(proto, x)
    if not whole:
        library = irc.compile(irc.quantize(graph, calibration=[x]))
        found = to_reals(library.graph.output_types, library(x))["y"]
        np.testing.assert_allclose(found, irc.evaluate(graph, x)["y"], atol=0.02)


def test_categories_that_come_as_reals() -> None:
    """Categories stay whole when their column is quantized, and thresholds between them."""
    x = {"x": np.asarray([[0.0, 3.0, 16.0, 11.0]], np.float32)}
    cast = helper.make_node("Cast", ["x"], ["whole"], to=onnx.TensorProto.INT64)
    names: dict[str, Any] = {"cats_int64s": list(range(17))}
    one_hot = helper.make_node("OneHotEncoder", ["whole"], ["y"], domain="ai.onnx.ml", **names)
    above = helper.make_node("Binarizer", ["x"], ["b"], domain="ai.onnx.ml", threshold=3.0)
    proto = model([cast, one_hot, above], x, outputs=("y", "b"))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    graph = agree(proto, x)
    seen = [{"x": np.asarray([row], np.float32)} for row in ([0, 2, 13, 7], [16, 1, 5, 9])]
    library = irc.compile(irc.quantize(graph, calibration=seen))
    for name, real in irc.evaluate(graph, x).items():
        np.testing.assert_allclose(library(x)[name], real, atol=0.01)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_products_of_a_few_factors(keepdims: int) -> None:
    check("ReduceProd", {"x": reals(1, 3, 4, 2)}, opset=13, axes=[0, 2], keepdims=keepdims)


@pytest.mark.parametrize(
    ("op", "attrs", "words"),
    [
        ("Scaler", {"offset": [1.0, 2.0], "scale": [1.0]}, "offset has 2 entries"),
        ("LinearRegressor", {"targets": 1, "coefficients": [1.0]}, "1 coefficients and 0"),
        ("LinearClassifier", {"classlabels_strings": ["a", "b"]}, "classes are strings; train on"),
        ("Imputer", {"imputed_value_floats": [1.0, 2.0]}, "imputed_value_floats has 2 entries"),
        (
            "Imputer",
            {"imputed_value_floats": [1.0], "replaced_value_float": float("inf")},
            "PowerTransformer",
        ),
        ("OneHotEncoder", {"cats_strings": ["a"]}, "categories are strings; encode them"),
        ("SVMRegressor", {"rho": [1.0]}, "0 coefficients and 1 constants"),
        ("SVMClassifier", {"rho": [1.0], "classlabels_ints": [0, 1]}, "it is a LinearClassifier"),
        ("SVMClassifier", {"classlabels_strings": ["a", "b"]}, "its classes are strings"),
        (
            "SVMClassifier",
            voters((1, 1, 1), "RBF", prob_a=[1.0] * 3, prob_b=[1.0] * 3),
            "probability=False",
        ),
        ("SVMClassifier", voters((1, 1), "RBF", rho=[1.0] * 3), "3 constants for 1 pairs"),
    ],
)
def test_what_is_refused(op: str, attrs: dict[str, Any], words: str) -> None:
    outputs = ("label", "scores") if op.endswith("Classifier") else ("y",)
    with pytest.raises(ModelError, match=words):
        load(traditional(op, X, outputs=outputs, **attrs))
