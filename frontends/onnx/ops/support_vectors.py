"""Support vectors as scikit-learn's converter writes them (domain ai.onnx.ml): kernels of the
input and each vector, and a layer over these."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.table import SCHEMAS, Node, Results, handles
from irc.ops.activation import Clip, Sigmoid, Tanh
from irc.ops.cast import Cast
from irc.ops.elementwise import Add, Mul, Pow, Sub
from irc.ops.linear import Linear
from irc.ops.logic import Less, Not
from irc.ops.ranking import ArgMax
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat
from irc.ops.unary import Exp, Neg
from irc.types import Array, DType
from irc.value import Value

DOMAIN = "ai.onnx.ml"
SCHEMAS.update(
    {
        f"{DOMAIN}.{op}": onnx.defs.get_schema(op, DOMAIN)
        for op in ("SVMClassifier", "SVMRegressor")
    }
)
LEAST = 1e-7
"""Probabilities are at least this much, and at most 1 less it."""


@handles(f"{DOMAIN}.SVMRegressor")
def regressor(node: Node) -> Results:
    """`kernels @ coefficients + rho`, f32[N,1]; of one class 1 where that is positive, else -1."""
    node.need("post_transform", "NONE", "scores are given as they are")
    x, build = _table(node), node.builder
    coefficients, rho = (_listed(node, name) for name in ("coefficients", "rho"))
    count = node.integer("n_supports")
    if rho.size != 1 or coefficients.size != (count or x.shape[1]):
        node.fail(f"{coefficients.size} coefficients and {rho.size} constants (rho) do not make one"
                  f" score of {count} support vectors of {x.type}")  # fmt: skip
    read = _kernels(node, x, count)
    score = build.add(Linear(read, build.const(coefficients.reshape(1, -1)), build.const(rho)))
    if not node.integer("one_class"):
        return score
    zero, inside, outside = (build.const(np.asarray(n, np.float32)) for n in (0.0, 1.0, -1.0))
    return build.add(Where(build.add(Less(zero, score)), inside, outside))


@handles(f"{DOMAIN}.SVMClassifier")
def classifier(node: Node) -> Results:
    """The class that wins most of the comparisons of two classes, the first of several; and the
    scores of these comparisons, or, of two classes, probabilities where there are coefficients for
    them."""
    node.need("post_transform", "NONE", "scores are given as they are")
    labels, counts = _classes(node)
    x, build = _table(node), node.builder
    w, rho = _coefficients(node, counts), _listed(node, "rho")
    if rho.size != len(w):
        node.fail(f"rho has {rho.size} constants for {len(w)} pairs of classes")
    a, b = (_listed(node, name) for name in ("prob_a", "prob_b"))
    if a.size != b.size or a.size not in (0, len(w)):
        node.fail(f"prob_a and prob_b have {a.size} and {b.size} numbers, not {len(w)} or none")
    if a.size and len(counts) > 2:
        node.fail(
            f"probabilities of {len(counts)} classes are found by iterations (prob_a, prob_b);"
            " train without them (probability=False): scores tell the same classes"
        )
    read = _kernels(node, x, sum(counts))
    scores = build.add(Linear(read, build.const(w), build.const(rho)))
    label = build.add(Gather(build.const(labels), _elected(node, scores, len(counts)), 0))
    if len(counts) > 2:
        return label, scores
    if not a.size:
        return label, build.add(Concat((build.add(Neg(scores)), scores), 1))
    inner = build.add(Add(forms.scaled(build, scores, -float(a[0])), build.const(-b)))
    first = build.add(Clip(build.add(Sigmoid(inner)), LEAST, 1 - LEAST))
    one = build.const(np.ones(1, np.float32))
    return label, build.add(Concat((first, build.add(Sub(one, first))), 1))


def _classes(node: Node) -> tuple[Array, tuple[int, ...]]:
    """The labels, and how many vectors each class has."""
    words = node.attribute("classlabels_strings")
    if words is not None and words.strings:
        node.fail("its classes are strings; train on their numbers, or export without the label")
    labels = np.asarray(node.integers("classlabels_ints") or (), np.int64)
    counts = node.integers("vectors_per_class") or ()
    if labels.size < 2 or len(counts) != labels.size or min(counts) < 0 or not sum(counts):
        node.fail(
            f"classlabels_ints has {labels.size} classes, vectors_per_class = {list(counts)}: it"
            " needs two classes or more, and vectors; without vectors it is a LinearClassifier"
        )
    return labels, counts


def _coefficients(node: Node, counts: tuple[int, ...]) -> Array:
    """f32[pairs, vectors], the pairs (0, 1), (0, 2), … (1, 2), …: the model lists for each vector
    its part in the comparisons with all other classes, in their order."""
    listed, total = _listed(node, "coefficients"), sum(counts)
    if listed.size != (len(counts) - 1) * total:
        node.fail(f"{listed.size} coefficients for {total} vectors of {len(counts)} classes, not"
                  f" {(len(counts) - 1) * total}")  # fmt: skip
    each = listed.reshape(len(counts) - 1, total)
    of = np.repeat(np.arange(len(counts)), counts)
    rows = [
        np.where(of == i, each[j - 1], np.where(of == j, each[i], 0))
        for i, j in _pairs(len(counts))
    ]
    return np.stack(rows).astype(np.float32)


def _pairs(classes: int) -> list[tuple[int, int]]:
    return list(combinations(range(classes), 2))


def _elected(node: Node, scores: Value, classes: int) -> Value:
    """The number of the class with most votes: a positive score is one for the first of both."""
    build, pairs = node.builder, _pairs(classes)
    zero = build.const(np.zeros((), np.float32))
    won = build.add(Less(zero, scores))
    both = build.add(Concat((won, build.add(Not(won))), 1))
    places = [
        [at + (c == second) * len(pairs) for at, (first, second) in enumerate(pairs) if c in
         (first, second)]
        for c in range(classes)
    ]  # fmt: skip
    own = build.add(Gather(build.add(Cast(both, DType.I32)), build.const(np.asarray(places)), 1))
    return build.add(ArgMax(build.add(ReduceSum(own, (2,), False)), 1, False, False))


def _table(node: Node) -> Value:
    """The input, rows of numbers, as reals."""
    x = node.x()
    if x.type.rank != 2:
        node.fail(f"{x.type} is no table: rows of numbers are needed")
    return x if x.type.dtype.is_float else node.builder.add(Cast(x, DType.F32))


def _kernels(node: Node, x: Value, count: int) -> Value:
    """The kernel of each row and each vector, f32[N,count]; the rows where there are no vectors."""
    kind, params = node.text("kernel_type"), _listed(node, "kernel_params")
    vectors = _listed(node, "support_vectors")
    if not count:
        return x
    if vectors.size != count * x.shape[1] or params.size not in (0, 3):
        node.fail(f"{vectors.size} numbers in support_vectors are not {count} vectors for {x.type},"
                  f" or kernel_params has {params.size} entries, not 3")  # fmt: skip
    gamma, offset, degree = (float(p) for p in params) if params.size else (0.0, 0.0, 0.0)
    matrix, build = vectors.reshape(count, -1), node.builder
    if kind == "RBF":
        return _bells(node, x, matrix, gamma)
    dots = build.add(Linear(x, build.const(matrix), None))
    if kind == "LINEAR":
        return dots
    bias = build.const(np.asarray(offset, np.float32))
    inner = build.add(Add(forms.scaled(build, dots, gamma), bias))
    if kind == "POLY":
        return build.add(Pow(inner, build.const(np.asarray(degree, np.float32))))
    if kind != "SIGMOID":
        node.fail(f"kernel_type = {kind!r} is none of LINEAR, POLY, RBF, SIGMOID")
    return build.add(Tanh(inner))


def _bells(node: Node, x: Value, vectors: Array, gamma: float) -> Value:
    """`exp(-gamma |x - s|²)` of each row and each vector."""
    build = node.builder
    rows = build.reshape(x, (x.shape[0], 1, x.shape[1]))
    apart = build.add(Sub(rows, build.const(vectors[None])))
    distances = build.add(ReduceSum(build.add(Mul(apart, apart)), (2,), False))
    return build.add(Exp(forms.scaled(build, distances, -gamma)))


def _listed(node: Node, name: str) -> Array:
    return np.asarray(node.reals(name) or (), np.float32)
