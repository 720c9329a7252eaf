"""Why some operators have no place in a library of static shapes, integers and no state."""

from __future__ import annotations

from collections.abc import Mapping

_SIZE = "the size of its result depends on data"
_TEXT = "strings are not supported"
_SEQUENCE = "sequences are not supported, only tensors"
_OPTIONAL = "optional values are not supported, only tensors"
_RANDOM = "random numbers have no place in inference"
_TRAINING = "it is part of training; export the model for inference"
_CODEC = "files are decoded outside of a net"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("NonMaxSuppression", "Unique"), _SIZE),
    **dict.fromkeys(
        ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"),
        _TEXT,
    ),
    **dict.fromkeys(
        (
            "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
            "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
        ),
        _SEQUENCE,
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
