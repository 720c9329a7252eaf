"""What depends on the order of elements, and what runs along an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.indexing import taken_along
from irc.frontends.torch.ops.reduce import over, reduced_axes
from irc.frontends.torch.ops.shape import part
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.cast import Cast
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Add, Maximum, Minimum, Mul, Sub
from irc.ops.logic import Less, LessOrEqual
from irc.ops.ranking import ArgMax, ArgMin, TopK
from irc.ops.reduce import ReduceMax, ReduceMin, ReduceSum
from irc.ops.unary import Exp, Log
from irc.types import DType
from irc.value import Value

MOST_FACTORS = 256
"""No product over an axis has more."""


@handles("aten.argmax", "aten.argmin")
def arg_extreme(node: Node) -> Results:
    """The first of several; of all elements where no axis is given."""
    x, position = node.x(), ArgMax if node.op == "aten.argmax" else ArgMin
    keep = node.flag("keepdim")
    if node.has("dim"):
        return node.builder.add(position(x, node.axis("dim", x.type.rank), keep))
    node.ignore("dim")
    y = node.builder.add(position(node.builder.reshape(x, (x.type.size,)), 0, False))
    return node.builder.reshape(y, (1,) * x.type.rank) if keep else y


def ranked(node: Node, x: Value, axis: int, k: int, *, largest: bool) -> tuple[Value, Value]:
    """The first k elements by size along an axis, and their positions."""
    build = node.builder
    if x.type.rank == 0:
        return x, build.const(np.zeros((), np.int64))
    at = build.add(TopK(x, axis, k, largest))
    return taken_along(build, x, at, axis), at


@handles("aten.topk")
def top_k(node: Node) -> Results:
    """The largest or smallest elements, and their positions."""
    node.ignore("sorted")  # any order will do then, this one too
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    return ranked(node, x, axis, node.integer("k"), largest=node.flag("largest"))


@handles("aten.sort")
def sort(node: Node) -> Results:
    """All elements of an axis in order; equal ones stay as they were."""
    node.ignore("stable")
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    count = x.shape[axis] if x.type.rank else 1
    return ranked(node, x, axis, count, largest=node.flag("descending"))


@handles("aten.kthvalue", "aten.median")
def kth(node: Node) -> Results:
    """The kth smallest element; the lower one of two in the middle."""
    x, build = node.x(), node.builder
    if "dim" not in node.arguments:
        x, axis, keep = build.reshape(x, (x.type.size,)), 0, False
    else:
        axis, keep = node.axis("dim", x.type.rank), node.flag("keepdim")
    k = node.integer("k") if node.op == "aten.kthvalue" else (x.shape[axis] + 1) // 2
    found = ranked(node, x, axis, k, largest=False)
    last = [part(node, v, axis, k - 1, k) for v in found]
    shape = x.shape[:axis] + (1,) * keep + x.shape[axis + 1 :]
    made = tuple(build.reshape(v, shape) for v in last)
    return made if node.count > 1 else made[0]


@handles("aten.any", "aten.all")
def decide(node: Node) -> Results:
    """Whether any, or each, of the elements is not 0."""
    axes, keep = reduced_axes(node)
    numbers = node.cast(node.operand("self", DType.BOOL), DType.I32)
    op = ReduceMax if node.op == "aten.any" else ReduceMin
    return node.builder.add(Cast(over(node, op, numbers, axes, keep), DType.BOOL))


@handles("aten.cumsum")
def running_sum(node: Node) -> Results:
    """Along an axis."""
    node.ignore("dtype")  # the result's type says it
    x = node.operand("self", node.dtype or node.x().type.dtype)
    if x.type.rank == 0:
        return x
    return node.builder.add(CumSum(x, node.axis("dim", x.type.rank), False, False))


RUNNING: dict[str, Callable[[Value, Value], Value]] = {
    "aten.cumprod": Mul,
    "aten.cummax": Maximum,
    "aten.cummin": Minimum,
}


@handles(*RUNNING)
def running(node: Node) -> Results:
    """Products, maxima or minima of all elements up to each: those of 2, 4, 8 elements from two of
    half as many. Without the places of extremes."""
    node.ignore("dtype")
    build, y = node.builder, node.operand("self", node.dtype or node.x().type.dtype)
    axis = node.axis("dim", y.type.rank)
    count, reach = y.shape[axis] if y.type.rank else 1, 1
    while reach < count:
        begin = part(node, y, axis, 0, reach)
        pair = part(node, y, axis, reach, count), part(node, y, axis, 0, count - reach)
        y = forms.concat(build, (begin, build.add(RUNNING[node.op](*pair))), axis)
        reach *= 2
    return (y, None) if node.count > 1 else y


@handles("aten.logcumsumexp")
def running_log_sum(node: Node) -> Results:
    """`m + log(cumsum(exp(x - m)))`, m the largest of the axis."""
    build, x = node.builder, node.operand("self", DType.F32)
    axis = node.axis("dim", x.type.rank)
    if x.type.rank == 0:
        return x
    largest = over(node, ReduceMax, x, (axis,), True)
    terms = build.add(Exp(build.add(Sub(x, largest))))
    return build.add(Add(build.add(Log(build.add(CumSum(terms, axis, False, False)))), largest))


@handles("aten.prod")
def product(node: Node) -> Results:
    """Halves of the axis multiplied with each other until one element is left."""
    node.ignore("dtype")
    build, y = node.builder, node.operand("self", node.dtype or node.x().type.dtype)
    axes, keep = reduced_axes(node)
    shape = y.shape
    for axis in axes:
        if not 1 <= y.shape[axis] <= MOST_FACTORS:
            node.fail(f"a product of {y.shape[axis]} elements is not supported")
        while (count := y.shape[axis]) > 1:
            half = count // 2
            pair = (part(node, y, axis, i * half, (i + 1) * half) for i in (0, 1))
            joined = build.add(Mul(*pair))
            y = joined if count == 2 * half else _with_last(node, joined, y, axis)
    kept = (1 if a in axes else d for a, d in enumerate(shape) if keep or a not in axes)
    return build.reshape(y, tuple(kept))


def _with_last(node: Node, joined: Value, y: Value, axis: int) -> Value:
    """The element that has no partner, as a factor of the first."""
    count = y.shape[axis]
    first = part(node, joined, axis, 0, 1)
    both = node.builder.add(Mul(first, part(node, y, axis, count - 1, count)))
    return forms.concat(node.builder, (both, part(node, joined, axis, 1, count // 2)), axis)


@handles("aten.bucketize", "aten.searchsorted")
def buckets(node: Node) -> Results:
    """How many of the sorted boundaries, of one row or of a row for each of x's, lie below each
    element, or not above it."""
    node.ignore("out_int32", "sorter")
    bounds = "boundaries" if node.op == "aten.bucketize" else "sorted_sequence"
    edges = node.x(bounds)
    right = node.flag("right") or (node.has("side") and node.any("side") == "right")
    node.ignore("side")
    x = node.operand("self", edges.type.dtype)
    build = node.builder
    if edges.type.rank > 1:
        edges = build.reshape(edges, (*edges.shape[:-1], 1, edges.shape[-1]))
    wide = build.reshape(x, (*x.shape, 1))
    below = build.add((LessOrEqual if right else Less)(edges, wide))
    counted = build.add(ReduceSum(node.cast(below, DType.I64), (x.type.rank,), False))
    return node.cast(counted, node.dtype or DType.I64)
