"""Support vectors as scikit-learn's converter writes them (domain ai.onnx.ml): kernels of the
input and each vector, and a layer over these."""

from __future__ import annotations

import numpy as np
import onnx

from irc.ops.activation import Tanh
from irc.ops.cast import Cast
from irc.ops.elementwise import Add, Mul, Pow, Sub
from irc.ops.linear import Linear
from irc.ops.logic import Less
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Where
from irc.ops.unary import Exp
from irc.types import Array, DType
from irc.value import Value

from .. import normal_forms as forms
from .table import SCHEMAS, Node, Results, handles

NAME = "ai.onnx.ml.SVMRegressor"
SCHEMAS[NAME] = onnx.defs.get_schema("SVMRegressor", "ai.onnx.ml")


@handles(NAME)
def regressor(node: Node) -> Results:
    """`kernels @ coefficients + rho`, f32[N,1]; of one class 1 where that is positive, else -1."""
    node.need("post_transform", "NONE", "scores are given as they are")
    x, build = node.x(), node.builder
    x = x if x.type.dtype.is_float else build.add(Cast(x, DType.F32))
    if x.type.rank != 2:
        node.fail(f"{x.type} is no table: rows of numbers are needed")
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
    found = node.attribute(name)
    return np.asarray([] if found is None else found.floats, np.float32)
