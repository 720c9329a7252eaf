"""Columns of categories as scikit-learn's converter prepares them (domain ai.onnx.ml)."""

from __future__ import annotations

import numpy as np
import onnx

from irc.frontends.onnx.ops.table import SCHEMAS, Node, Results, handles
from irc.ops.cast import Cast
from irc.ops.logic import Equal, Less
from irc.ops.reduce import ReduceMax
from irc.ops.selection import Gather, Where
from irc.types import Array, DType
from irc.value import Value

DOMAIN = "ai.onnx.ml"
SCHEMAS.update(
    {
        f"{DOMAIN}.{op}": onnx.defs.get_schema(op, DOMAIN)
        for op in ("Binarizer", "LabelEncoder", "OneHotEncoder")
    }
)
WORDS = "its categories are strings; encode them as numbers outside of the network"


@handles(f"{DOMAIN}.Binarizer")
def binarizer(node: Node) -> Results:
    """1 above a threshold, else 0."""
    x, build = node.x(), node.builder
    threshold = build.const(np.asarray(node.real("threshold"), x.type.dtype.numpy))
    return build.add(Cast(build.add(Less(threshold, x)), x.type.dtype))


@handles(f"{DOMAIN}.OneHotEncoder")
def one_hot_encoder(node: Node) -> Results:
    """A 1 in the place of each number's category along a new last axis; none for others."""
    node.ignore("zeros")
    categories = np.asarray(node.integers("cats_int64s") or (), np.int64)
    if not categories.size:
        node.fail(WORDS)
    return node.builder.add(Cast(_is(node, categories), DType.F32))


@handles(f"{DOMAIN}.LabelEncoder")
def label_encoder(node: Node) -> Results:
    """The value of each key, or a default."""
    build, (keys, values, default) = node.builder, _dictionary(node)
    if keys.dtype.kind != "i":
        node.fail("its keys are reals, which integers can't equal: give that column as int64")
    if len(keys) != len(values) or not len(keys):
        node.fail(f"{len(keys)} keys and {len(values)} values do not fit")
    places = build.const(np.arange(1, len(keys) + 1))
    zero = build.const(np.zeros((), np.int64))
    found = build.add(Where(_is(node, keys), places, zero))
    at = build.add(ReduceMax(found, (found.type.rank - 1,), False))
    table = np.concatenate([np.asarray(default, values.dtype).reshape(1), values])
    return build.add(Gather(build.const(table), at, 0))


def _is(node: Node, numbers: Array) -> Value:
    """Whether each element is each of so many numbers, along a new last axis."""
    x, build = node.x(), node.builder
    if x.type.dtype is not DType.I64:
        x = build.add(Cast(x, DType.I64))
    column = build.reshape(x, (*x.shape, 1))
    return build.add(Equal(column, build.const(numbers)))


def _dictionary(node: Node) -> tuple[Array, Array, Array]:
    """Keys, values, and what stands for a key that is not among them."""
    keys, values = (_numbers(node, part) for part in ("keys", "values"))
    node.ignore("keys_strings", "values_strings", "default_string")
    if keys is None or values is None:
        node.fail(WORDS)
    real = values.dtype.kind == "f"
    node.ignore("default_int64" if real else "default_float")
    given = node.attribute("default_tensor")
    if given is not None and given.t.dims:
        return keys, values, node.tensor(given.t)
    return keys, values, np.asarray(
        node.real("default_float") if real else node.integer("default_int64"), values.dtype
    )


def _numbers(node: Node, part: str) -> Array | None:
    """A list of numbers, None where there are strings."""
    if (tensor := node.attribute(f"{part}_tensor")) is not None:
        return node.tensor(tensor.t)
    if (whole := node.attribute(f"{part}_int64s")) is not None:
        return np.asarray(whole.ints, np.int64)
    reals = node.reals(f"{part}_floats")
    return None if reals is None else np.asarray(reals, np.float32)
