"""Why some operators have no place in a library of static shapes, integers and no state."""

from __future__ import annotations

from collections.abc import Mapping

_SIZE = "the size of its result depends on data"
_BOXES = (
    "how many boxes it leaves depends on data; cut the model before it, as by"
    " onnx.utils.extract_model, and choose boxes outside of the network"
)
_TEXT = "strings are not supported"
_OPTIONAL = "optional values are not supported, only tensors"
_RANDOM = "random numbers have no place in inference"
_TRAINING = "it is part of training; export the model for inference"
_CODEC = "files are decoded outside of a net"
_LAYOUT = (
    "onnxruntime wrote this for one kind of CPU; optimize to its extended level at most, or give"
    " the model as it was before"
)
NO_OPERATOR = (
    "ONNX has no such operator; exporters leave others' that they can't convert, as tf2onnx does"
    " TensorFlow's, and no runtime runs them"
)
"""Of the standard domain."""

REASONS: Mapping[str, str] = {
    "NonMaxSuppression": _BOXES,
    "Unique": _SIZE,
    **dict.fromkeys(
        ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"),
        _TEXT,
    ),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _OPTIONAL),
    **dict.fromkeys(
        (
            "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
            "RandomUniformLike",
        ),
        _RANDOM,
    ),
    **dict.fromkeys(("Adagrad", "Adam", "Gradient", "Momentum"), _TRAINING),
    "ImageDecoder": _CODEC,
}  # fmt: skip
"""By the operator's name."""

DOMAIN_REASONS: Mapping[str, str] = {"com.microsoft.nchwc": _LAYOUT}
"""By the operator's domain."""
