"""What scikit-learn's converter puts around perceptrons and linear models (domain ai.onnx.ml)."""

from __future__ import annotations

import numpy as np
import onnx

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.norms import normalized
from irc.frontends.onnx.ops.table import SCHEMAS, Node, Results, handles
from irc.ops.activation import Sigmoid
from irc.ops.cast import Cast
from irc.ops.elementwise import Div, Maximum, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.logic import Equal
from irc.ops.ranking import ArgMax
from irc.ops.reduce import ReduceMax
from irc.ops.selection import Gather, Where
from irc.types import Array, DType
from irc.value import Value

DOMAIN = "ai.onnx.ml"
SCHEMAS.update(
    {
        f"{DOMAIN}.{op}": onnx.defs.get_schema(op, DOMAIN)
        for op in ("ArrayFeatureExtractor", "Imputer", "LinearClassifier", "LinearRegressor",
                   "Normalizer", "Scaler", "ZipMap")
    }
)  # fmt: skip


def _name(op: str) -> str:
    return f"{DOMAIN}.{op}"


@handles(_name("ArrayFeatureExtractor"))
def array_feature_extractor(node: Node) -> Results:
    """Entries of the last axis, by number."""
    x, at = node.x(0), node.x(1)
    if not x.type.rank:
        node.fail(f"{x.type} has no axis to pick from")
    matrix = x if x.type.rank > 1 else node.builder.reshape(x, (1, x.type.size))
    flat = node.builder.reshape(at, (at.type.size,))
    return node.builder.add(Gather(matrix, flat, matrix.type.rank - 1))


@handles(_name("Scaler"))
def scaler(node: Node) -> Results:
    """`(x - offset) * scale`, column by column."""
    x = _reals(node)
    offset, scale = (_columns(node, name, _listed(node, name), x) for name in ("offset", "scale"))
    return node.builder.add(Mul(node.builder.add(Sub(x, offset)), scale))


def _columns(node: Node, name: str, array: Array, x: Value) -> Value:
    """An attribute as a number, or one for each column."""
    if array.size not in (1, x.shape[-1] if x.shape else 1):
        node.fail(f"{name} has {array.size} entries for {x.type}")
    return node.builder.const(array if array.size > 1 else array.reshape(()))


@handles(_name("Imputer"))
def imputer(node: Node) -> Results:
    """What is not missing, else its column's number. Missing is what equals one number, or NaN:
    what does not equal itself. Integers never are NaN."""
    x, build = node.x(), node.builder
    if x.type.dtype.is_float:
        node.ignore("imputed_value_int64s", "replaced_value_int64")
        replaced = node.real("replaced_value_float")
        name = "imputed_value_floats"
        values = _columns(node, name, _listed(node, name), x)
        if np.isinf(replaced):
            node.fail(
                f"replaced_value_float = {replaced}: what is computed before it becomes infinite on"
                " purpose, as in scikit-learn's PowerTransformer, and no integer is; transform the"
                " columns before they go into the network"
            )
        if not np.isnan(replaced):
            marker = build.const(np.asarray(replaced, np.float32))
            return build.add(Where(build.add(Equal(x, marker)), values, x))
        return build.add(Where(build.add(Equal(x, x)), x, values))
    node.ignore("imputed_value_floats", "replaced_value_float")
    name, dtype = "imputed_value_int64s", x.type.dtype.numpy
    values = _columns(node, name, np.asarray(node.integers(name) or (), dtype), x)
    marker = build.const(np.asarray(node.integer("replaced_value_int64"), dtype))
    return build.add(Where(build.add(Equal(x, marker)), values, x))


@handles(_name("Normalizer"))
def normalizer(node: Node) -> Results:
    """Rows divided by their largest element, sum of magnitudes, or length."""
    x, norm = _reals(node), node.text("norm")
    axis = node.axis(-1, x.type.rank)
    if norm == "MAX":
        build = node.builder
        largest = build.add(ReduceMax(x, (axis,), True))
        least = build.const(np.asarray(np.finfo(np.float32).tiny, np.float32))
        return build.add(Div(x, build.add(Maximum(largest, least))))
    if norm not in ("L1", "L2"):
        node.fail(f"norm = {norm!r} is none of MAX, L1, L2")
    return normalized(node, x, axis, int(norm[1]))


@handles(_name("ZipMap"))
def zip_map(node: Node) -> Results:
    """A map from classes to scores for each row: the scores, in the order of the classes."""
    node.ignore("classlabels_int64s", "classlabels_strings")
    return node.x()


@handles(_name("LinearRegressor"))
def linear_regressor(node: Node) -> Results:
    """A layer of so many targets."""
    return transformed(node, _scores(node, node.integer("targets")), node.text("post_transform"))


@handles(_name("LinearClassifier"))
def linear_classifier(node: Node) -> Results:
    """The class of the largest score, and the scores."""
    node.ignore("multi_class")
    if (words := node.attribute("classlabels_strings")) is not None and words.strings:
        node.fail("its classes are strings; train on their numbers, or export without the label")
    labels = np.asarray(node.integers("classlabels_ints") or (), np.int64)
    scores = _scores(node, labels.size)
    best = node.builder.add(ArgMax(scores, 1, False, False))
    label = node.builder.add(Gather(node.builder.const(labels), best, 0))
    return label, transformed(node, scores, node.text("post_transform"))


def _scores(node: Node, count: int) -> Value:
    """`X @ coefficients.T + intercepts`, f32[N,count]."""
    x = _reals(node)
    if x.type.rank != 2:
        node.fail(f"{x.type} is no table: rows of numbers are needed")
    w, b = _listed(node, "coefficients"), _listed(node, "intercepts")
    if not count or w.size != count * x.shape[1] or b.size not in (0, count):
        node.fail(f"{w.size} coefficients and {b.size} intercepts do not make {count} scores of"
                  f" {x.type}")  # fmt: skip
    build = node.builder
    bias = build.const(b) if b.size else None
    return build.add(Linear(x, build.const(w.reshape(count, -1)), bias))


def _listed(node: Node, name: str) -> Array:
    return np.asarray(node.reals(name) or (), np.float32)


def transformed(node: Node, scores: Value, kind: str) -> Value:
    """What is done to scores: nothing, softmax, the logistic function."""
    if kind == "SOFTMAX":
        return forms.softmax(node.builder, scores, 1, flatten=False)
    if kind == "LOGISTIC":
        return node.builder.add(Sigmoid(scores))
    if kind != "NONE":
        node.fail(f"post_transform = {kind!r} is none of NONE, SOFTMAX, LOGISTIC")
    return scores


def _reals(node: Node) -> Value:
    """The first input, which may be integers, as reals."""
    x = node.x()
    return x if x.type.dtype.is_float else node.builder.add(Cast(x, DType.F32))
