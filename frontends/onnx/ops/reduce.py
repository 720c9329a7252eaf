"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.selection import Gather
from irc.ops.unary import Abs, Exp, Log, Sqrt
from irc.types import Shape
from irc.value import Value

Reduction = Callable[[Value, Shape, bool], Value]

FACTORS = 16
"""Of a product at run time."""

DIRECT: dict[str, Reduction] = {
    "ReduceMean": ReduceMean,
    "ReduceSum": ReduceSum,
    "ReduceMax": ReduceMax,
    "ReduceMin": ReduceMin,
}


def _axes(node: Node) -> tuple[Shape, bool]:
    """The axes, by input or attribute, all if left out; and whether they stay with extent 1."""
    keep = bool(node.integer("keepdims"))
    rank = node.x().type.rank
    empty_is_none = node.attribute("noop_with_empty_axes")
    axes: Shape | None = None
    if node.has(1):
        axes = node.whole(1, "axes")
    elif "axes" in node.schema.attributes:
        axes = node.integers("axes")
    if axes:
        return tuple(sorted(node.axes(axes, rank))), keep
    if empty_is_none is not None and empty_is_none.i:
        return (), keep
    return tuple(range(rank)), keep


def _applied(node: Node, op: Reduction, x: Value) -> Value:
    """The reduction, or x where there are no axes; an empty axis is refused."""
    axes, keep = _axes(node)
    if not axes:
        return x
    if prod(x.shape[a] for a in axes) == 0:
        node.fail(f"reduces {x.type} over an axis without elements")
    return node.builder.add(op(x, axes, keep))


@handles(*DIRECT)
def reduce(node: Node) -> Results:
    """Mean, sum, maximum, minimum."""
    return _applied(node, DIRECT[node.op], node.x())


@handles("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def reduce_norm(node: Node) -> Results:
    """Sums of a function of the elements, or a function of the sum."""
    build, x = node.builder, node.x()
    if node.op == "ReduceL1":
        return _applied(node, ReduceSum, build.add(Abs(x)))
    squares = x if node.op == "ReduceLogSum" else build.add(Mul(x, x))
    total = _applied(node, ReduceSum, squares)
    if node.op == "ReduceSumSquare":
        return total
    return build.add(Sqrt(total) if node.op == "ReduceL2" else Log(total))


@handles("ReduceProd")
def reduce_product(node: Node) -> Results:
    """Of constants, as shape arithmetic has them, or of a few factors."""
    x, (axes, keep) = node.x(), _axes(node)
    if isinstance(x, Const):
        product = np.prod(x.array, axis=axes, keepdims=keep, dtype=x.array.dtype)
        return node.builder.const(product)
    return _product(node, x, axes, keep)


def _product(node: Node, x: Value, axes: Shape, keep: bool) -> Value:
    """The products along axes, factor after factor."""
    build, rest = node.builder, tuple(a for a in range(x.type.rank) if a not in axes)
    count = prod(x.shape[a] for a in axes)
    if not 1 <= count <= FACTORS:
        node.fail(f"a product of {count} factors at run time is not supported, up to {FACTORS} are")
    outer = tuple(x.shape[a] for a in rest)
    flat = build.reshape(build.transpose(x, (*rest, *axes)), (*outer, count))
    parts = [build.add(Gather(flat, build.const(np.asarray(i)), len(outer))) for i in range(count)]
    y = parts[0]
    for part in parts[1:]:
        y = build.add(Mul(y, part))
    kept = tuple(1 if a in axes else d for a, d in enumerate(x.shape))
    return build.reshape(y, kept if keep else outer)


@handles("ReduceLogSumExp")
def reduce_log_sum_exp(node: Node) -> Results:
    """`m + log(sum(exp(x - m)))`, m the maximum, finite: no exponential of a real is above 1."""
    build, x = node.builder, node.x()
    axes, _ = _axes(node)
    largest = forms.finite(build, build.add(ReduceMax(x, axes, True)) if axes else x)
    total = build.add(Log(_applied(node, ReduceSum, build.add(Exp(build.add(Sub(x, largest)))))))
    return build.add(Add(total, build.reshape(largest, total.shape)))
