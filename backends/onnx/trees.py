"""Trees and columns as ONNX: walks of so many steps, each a few lookups."""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.writer import Writer, element_type, exports
from irc.errors import GraphError
from irc.ops.columns import Columns
from irc.ops.core import Const
from irc.ops.trees import TreeEnsemble
from irc.types import Array, DType
from irc.value import Value


@exports(Columns)
def _columns(w: Writer, v: Columns) -> str:
    centred = w.emit("Sub", [w.read(v.x), w.read(v.offset)])
    return w.emit("Div", [centred, w.read(v.scale)], name=v.name)


@exports(TreeEnsemble)
def _trees(w: Writer, v: TreeEnsemble) -> str:
    (rows, _), (groups, trees) = v.x.shape, v.roots.shape
    count = v.feature.shape[0]
    feature, children = (w.constant(_whole(c)) for c in (v.feature, v.children))
    last, nodes, two = (w.constant(np.array(n, np.int64)) for n in (count - 1, count, 2))
    at = w.constant(np.tile(_whole(v.roots), (rows, 1)))
    x, threshold, inclusive, missing = (
        w.read(o) for o in (v.x, v.threshold, v.inclusive, v.missing)
    )
    for _ in range(v.depth):
        node = w.emit("Min", [at, last])
        column = w.emit("GatherElements", [x, w.emit("Gather", [feature, node])], axis=1)
        bound = w.emit("Gather", [threshold, node])
        met = w.emit("And", [w.emit("Equal", [column, bound]), w.emit("Gather", [inclusive, node])])
        none = w.emit("And", [w.emit("IsNaN", [column]), w.emit("Gather", [missing, node])])
        beyond = w.emit("Or", [w.emit("Or", [w.emit("Greater", [column, bound]), met]), none])
        high = w.emit("Cast", [beyond], to=element_type(DType.I64))
        way = w.emit("Add", [w.emit("Mul", [node, two]), high])
        following = w.emit("Gather", [children, way])
        at = w.emit("Where", [w.emit("Less", [at, nodes]), following, at])
    leaf = w.emit("Gather", [w.read(v.leaves), w.emit("Sub", [at, nodes])])
    apart = w.emit("Reshape", [leaf, w.integers([rows, groups, trees, v.leaves.shape[1]])])
    total = w.emit("ReduceSum", [apart, w.integers([2])], keepdims=0)
    flat = w.emit("Reshape", [total, w.integers(list(v.shape))])
    return w.emit("Add", [flat, w.read(v.bias)], name=v.name)


def _whole(v: Value) -> Array:
    """Whole numbers as ONNX gathers by them, in one row."""
    if not isinstance(v, Const):
        raise GraphError(f"trees that are computed (%{v.name}) have no ONNX form")
    return np.asarray(v.array.reshape(-1), DType.I64.numpy)
