"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from irc.frontends import normal_forms as forms
from irc.frontends.torch.ops.elementwise import common, pair_of
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.elementwise import Add, Maximum, Minimum, Mul, Sub
from irc.ops.ranking import ArgMax, ArgMin
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.unary import Abs, Exp, Log, Sqrt
from irc.types import DType, Shape
from irc.value import Value

Reduction = Callable[[Value, Shape, bool], Value]

DIRECT: dict[str, Reduction] = {
    "aten.mean": ReduceMean,
    "aten.sum": ReduceSum,
    "aten.amax": ReduceMax,
    "aten.amin": ReduceMin,
}


def reduced_axes(node: Node) -> tuple[Shape, bool]:
    """The axes, all if left out, and whether they stay with extent 1."""
    rank = node.x().type.rank
    keep = node.flag("keepdim") if "keepdim" in node.arguments else False
    found = node.axes("dim", rank) if node.has("dim") and node.any("dim") != [] else ()
    node.ignore("dim")
    return tuple(sorted(found)) if found else tuple(range(rank)), keep


def over(node: Node, op: Reduction, x: Value, axes: Shape, keep: bool) -> Value:
    """A reduction of x; refuses axes without elements."""
    if any(x.shape[a] == 0 for a in axes):
        node.fail(f"reduces {x.type} over an axis without elements")
    return node.builder.add(op(x, axes, keep)) if axes else x


@handles(*DIRECT)
def reduce(node: Node) -> Results:
    """Mean, sum, maximum, minimum."""
    node.ignore("dtype")  # the result's type says it
    axes, keep = reduced_axes(node)
    x = node.cast(node.x(), node.dtype or node.x().type.dtype)
    return over(node, DIRECT[node.op], x, axes, keep)


@handles("aten.max", "aten.min")
def extreme(node: Node) -> Results:
    """Of two tensors, of all elements, or along an axis, then with the place of the first one."""
    if "other" in node.arguments:
        op = Maximum if node.op == "aten.max" else Minimum
        return node.builder.add(op(*pair_of(node, common(node, "self", "other"))))
    axes, keep = reduced_axes(node)
    y = over(node, ReduceMax if node.op == "aten.max" else ReduceMin, node.x(), axes, keep)
    if node.count == 1:
        return y
    position = ArgMax if node.op == "aten.max" else ArgMin
    return y, node.builder.add(position(node.x(), axes[0], keep))


@handles("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def variance(node: Node) -> Results:
    """The mean of squared distances from the mean, by Bessel's correction if not told otherwise."""
    y = _variance(node)
    if "std" in node.op:
        y = node.builder.add(Sqrt(y))
    if node.count == 1:
        return y
    axes, keep = reduced_axes(node)
    return y, over(node, ReduceMean, node.operand("self", DType.F32), axes, keep)


def _variance(node: Node) -> Value:
    build, x = node.builder, node.operand("self", DType.F32)
    axes, keep = reduced_axes(node)
    distance = build.add(Sub(x, over(node, ReduceMean, x, axes, True)))
    y = over(node, ReduceMean, build.add(Mul(distance, distance)), axes, keep)
    count = x.type.size // max(1, y.type.size)
    left = count - _correction(node)
    if left <= 0:
        node.fail(f"the variance of {count} elements, corrected, does not exist")
    return forms.scaled(build, y, count / left)


def _correction(node: Node) -> float:
    if "correction" in node.arguments:
        return node.number("correction", 1.0)
    return float(node.flag("unbiased")) if "unbiased" in node.arguments else 1.0


@handles("aten.linalg_vector_norm")
def vector_norm(node: Node) -> Results:
    """Of order 1 and 2, and the infinite one."""
    axes, keep = reduced_axes(node)
    return _norm(node, node.operand("self", DType.F32), node.number("ord"), axes, keep)


def _norm(node: Node, x: Value, order: float, axes: Shape, keep: bool) -> Value:
    build = node.builder
    if order == inf:
        return over(node, ReduceMax, build.add(Abs(x)), axes, keep)
    if order == 1:
        return over(node, ReduceSum, build.add(Abs(x)), axes, keep)
    if order != 2:
        node.fail(f"a norm of order {order} is not supported, only of 1, 2 and inf")
    return build.add(Sqrt(over(node, ReduceSum, build.add(Mul(x, x)), axes, keep)))


@handles("aten._cdist_forward", "aten.cdist")
def distances(node: Node) -> Results:
    """Of each row of `[..., P, M]` from each of `[..., R, M]`: norms of their differences."""
    node.ignore("compute_mode")
    build, a, b = node.builder, node.x("x1"), node.x("x2")
    rows = build.reshape(a, (*a.shape[:-1], 1, a.shape[-1]))
    columns = build.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
    apart = build.add(Sub(rows, columns))
    return _norm(node, apart, node.number("p"), (apart.type.rank - 1,), False)


@handles("aten.logsumexp")
def log_sum_exp(node: Node) -> Results:
    """`m + log(sum(exp(x - m)))`, m the maximum, finite."""
    build, x = node.builder, node.operand("self", DType.F32)
    axes, keep = reduced_axes(node)
    largest = forms.finite(build, over(node, ReduceMax, x, axes, True))
    terms = build.add(Exp(build.add(Sub(x, largest))))
    total = build.add(Log(over(node, ReduceSum, terms, axes, keep)))
    return build.add(Add(total, build.reshape(largest, total.shape)))
