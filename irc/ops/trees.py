"""Ensembles of decision trees: walks from roots to leaves, and sums of what these hold.

A number below the count of nodes is a node, any other one, less that count, a leaf. A node sends an
element on by one comparison, so that integers which keep the order of reals and thresholds walk the
same ways. All walks take the same number of steps, those that have come to a leaf stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import (
    Expr,
    Loops,
    Nest,
    Reduce,
    Select,
    Temp,
    Var,
    axes,
    lift,
    load,
    maximum,
    minimum,
)
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    check_bounds,
    check_product,
    constant,
    full_range,
    rescaled,
)
from irc.ops.tree_integers import (
    clamped_leaves,
    column_scales,
    integer_thresholds,
    of_few_digits,
)
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

MOST_TREES = 1 << 15
"""So many leaves of 16 bits, and a bias of 30, have a sum of 32."""
MOST_STEPS = 1 << 10
"""Of the deepest tree: code grows by each."""
STEPS = 64
"""So many are one expression; what a longer walk has come to is stored in between."""
LARGEST_LEAF = (1 << 15) - 1
LARGEST_BIAS = 1 << 29
ZERO = 1e-30
"""A threshold of no more than such a size tells 0 from others: LightGBM's are 1e-35, on either side
of it."""
STORED = (DType.U8, DType.U16, DType.I32)
"""What numbers of columns, nodes and leaves are stored in."""


def stored(whole: Array) -> Array:
    """Numbers of columns, nodes and leaves in as few bytes as hold them."""
    dtype = next(d.numpy for d in STORED if whole.max() <= d.max)
    return whole.astype(dtype)


@op("tree_ensemble")
class TreeEnsemble(Value):
    """`y[n, g*K + k] = bias[g*K + k] + sum over t of leaves[leaf of x[n] in tree t of group g, k]`.

    x f32 [N,F]; feature [nodes], whole, threshold f32 [nodes], inclusive and missing b1
    [nodes]: from a node a row goes to children[node, 1] where x[n, feature] exceeds the threshold,
    or equals one that is inclusive, or is no number, and these are missing there; else to
    children[node, 0]. roots [G,T], whole; leaves f32 [L,K]; bias f32 [G*K]. depth: of the deepest
    tree, in steps. filled: what is missing was filled in before x, in ways that are not known here.
    """

    x: Value
    feature: Value
    threshold: Value
    inclusive: Value
    missing: Value
    children: Value
    roots: Value
    leaves: Value
    bias: Value
    depth: int
    filled: bool = False
    flags: ClassVar[tuple[str, ...]] = ("filled",)

    def infer(self) -> TensorType:
        """f32 [N, G*K]."""
        for what, v in (("inclusive", self.inclusive), ("missing", self.missing)):
            if v.type != TensorType(DType.BOOL, self.threshold.shape):
                raise TypeCheckError(f"{what} must be b1 like {self.threshold.type}: {v.type}")
        if self.x.type.dtype is not DType.F32:
            raise TypeCheckError(f"x must be f32, it is {self.x.type}")
        return TensorType(DType.F32, _shape(self))

    def evaluate(
        self, x: Array, feature: Array, threshold: Array, inclusive: Array, missing: Array,
        children: Array, roots: Array, leaves: Array, bias: Array,
    ) -> Array:  # fmt: skip
        """The walks of all trees at once; sums in float64."""

        def beyond(found: Array, node: Array) -> Array:
            bound = threshold[node]
            met = (inclusive[node] & (found == bound)) | (missing[node] & np.isnan(found))
            return np.asarray((found > bound) | met)

        at = _walked(x, feature, beyond, children, roots, self.depth)
        total = leaves.astype(np.float64)[at].sum(2).reshape(self.shape) + bias
        return np.asarray(total, np.float32)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """Thresholds in the integers of x, exactly; leaves in 16 bits."""
        x, *trees = operands
        feature, threshold, inclusive, missing, children, roots, leaves, bias = (
            constant(v, "trees") for v in trees
        )
        at = integer_thresholds(threshold.array, inclusive.array, feature.array, x.type)
        feature, again = _with_missing(feature, missing.array, x.type)
        told = clamped_leaves(
            children.array, roots.array, leaves.array, bias.array, self.depth, result
        )
        largest, offset = (float(np.abs(a).max(initial=0)) for a in (told, bias.array))
        unit = max(largest / LARGEST_LEAF, offset / LARGEST_BIAS, float(np.finfo(np.float32).tiny))
        stored = np.rint(told / unit).astype(np.int16)
        added = np.rint(bias.array.astype(np.float64) / unit).astype(np.int32)
        m, s = fixedpoint.multiplier(unit / result.scale)
        return QTreeEnsemble(
            x, feature, Const(at, name=threshold.name), children, roots,
            Const(stored, name=leaves.name), Const(added, name=bias.name), self.depth, m, s,
            full_range(result), result.dtype, fixedpoint.quant_of(result), again, name=self.name,
        )  # fmt: skip

    def on_grid(self, x: TensorType) -> TreeEnsemble:
        """The trees with thresholds among the reals that a quantized x can be: what equals one, or
        is nearer to it than to the next of these, is treated as the threshold itself is; or, where
        0 or a number of few digits lies beside that, as this number is."""
        feature, threshold, inclusive = (
            constant(v, "trees").array for v in (self.feature, self.threshold, self.inclusive)
        )
        scale, _ = column_scales(x, feature)
        with np.errstate(over="ignore"):
            near = (np.rint(threshold / scale) * scale).astype(np.float32)
        zero = (near == 0) & (np.abs(threshold) <= ZERO)
        likely = np.where(zero, np.float32(0), of_few_digits(threshold, feature))
        beyond = (likely > threshold) | (inclusive & (likely == threshold))
        return self.replace(
            threshold=Const(near, name=self.threshold.name),
            inclusive=Const(beyond, name=self.inclusive.name),
        )


@op("qtree_ensemble")
class QTreeEnsemble(Value):
    """`TreeEnsemble` over integers: leaves i16, bias i32 in their unit; the sum by equation (6).

    x of 8 or 16 bits, quantized per tensor or by columns; thresholds in its integers, of its dtype
    or i32. Behind the columns of x come those that `again` [H], whole, names, in which the least
    integer, what is missing, is the largest.
    """

    x: Value
    feature: Value
    threshold: Value
    children: Value
    roots: Value
    leaves: Value
    bias: Value
    depth: int
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    again: Value | None = None
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """Integers [N, G*K]."""
        x, threshold = self.x.type, self.threshold.type
        if x.quant is None or x.dtype.bits > 16:
            raise TypeCheckError(f"x must be quantized to 8 or 16 bits, it is {x}")
        if threshold.dtype not in (x.dtype, DType.I32):
            raise TypeCheckError(f"thresholds of {x} can't be {threshold}")
        if self.leaves.type.dtype is not DType.I16 or self.bias.type.dtype is not DType.I32:
            raise TypeCheckError(
                f"leaves must be i16 and the bias i32, they are {self.leaves.type} and"
                f" {self.bias.type}"
            )
        if self.again is not None:
            _check_whole("again", self.again)
            if self.again.type.rank != 1 or not self.again.shape[0]:
                raise TypeCheckError(f"again must list columns, it is {self.again.type}")
        check_product(self.bound, self.m, self.s)
        check_bounds(self.clamp, self.dtype)
        return TensorType(self.dtype, _shape(self), self.quant)

    @property
    def bound(self) -> int:
        """The largest magnitude of a sum."""
        return self.roots.shape[1] * LARGEST_LEAF + LARGEST_BIAS

    def evaluate(
        self, x: Array, feature: Array, threshold: Array, children: Array, roots: Array,
        leaves: Array, bias: Array, again: Array | None = None,
    ) -> Array:  # fmt: skip
        """The walks of all trees at once, and equation (6)."""
        if again is not None:
            dtype, chosen = self.x.type.dtype, x[:, again]
            turned = np.where(chosen == dtype.min, dtype.numpy.type(dtype.max), chosen)
            x = np.concatenate([x, turned], 1)

        def beyond(found: Array, node: Array) -> Array:
            return np.asarray(found.astype(np.int64) > threshold[node])

        at = _walked(x, feature, beyond, children, roots, self.depth)
        total = leaves.astype(np.int64)[at].sum(2).reshape(self.shape) + bias
        return fixedpoint.requantize(total, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """What each row comes to in each tree, in temporaries, then the sums of leaves."""
        (rows, _), (groups, trees) = self.x.shape, self.roots.shape
        columns = self.leaves.shape[1]
        temps = [
            Temp(f"reached{first}" if first else "reached", DType.I32, (rows, groups, trees))
            for first in range(0, max(self.depth, 1), STEPS)
        ]
        table, walks = self._table()
        for i, to in enumerate(temps):
            n, g, t = axes(to.shape, "n g t")
            at = load(temps[i - 1], n, g, t) if i else load(self.roots, g, t).cast(DType.I32)
            steps = min(STEPS, self.depth - i * STEPS)
            walks.append(Nest((n, g, t), self._walk(table, n, at, steps), to))
        n, o = axes(self.shape, "n o")
        t = Var("t", trees)
        leaf = load(temps[-1], n, o // columns, t).cast(DType.I64) - self.feature.shape[0]
        found = load(self.leaves, leaf, o % columns).cast(DType.I32)
        total = Reduce("add", (t,), found) + load(self.bias, o)
        multiplier = (self.m, self.s)
        y = rescaled(total, self.bound, multiplier, self.clamp, self.type)
        return Loops((*walks, Nest((n, o), y)))

    def _table(self) -> tuple[Value | Temp, list[Nest]]:
        """The columns that nodes ask for, and how these are made where they are more than x's."""
        again, dtype = self.again, self.x.type.dtype
        if again is None:
            return self.x, []
        rows, columns = self.x.shape
        made = Temp("columns", dtype, (rows, columns + again.shape[0]))
        n, c = axes(made.shape, "n c")
        own = load(self.x, n, minimum(c, columns - 1))
        found = load(self.x, n, load(again, maximum(c - columns, 0)).cast(DType.I64))
        turned = Select(found.equals(dtype.min), lift(dtype.max, dtype), found)
        return made, [Nest((n, c), Select(c < columns, own, turned), made)]

    def _walk(self, table: Value | Temp, n: Expr, at: Expr, steps: int) -> Expr:
        """What a row comes to from a node or leaf in so many steps."""
        count = self.feature.shape[0]
        for _ in range(steps):
            node = minimum(at, count - 1).cast(DType.I64)
            column = load(self.feature, node).cast(DType.I64)
            x = load(table, n, column).cast(DType.I32)
            exceeds = load(self.threshold, node).cast(DType.I32) < x
            following = load(self.children, node, exceeds.cast(DType.I64)).cast(DType.I32)
            at = Select(at < count, following, at)
        return at


def _shape(v: TreeEnsemble | QTreeEnsemble) -> tuple[int, int]:
    """The result's shape; raises `TypeCheckError` where the operands make no trees."""
    for what, whole in (("feature", v.feature), ("children", v.children), ("roots", v.roots)):
        _check_whole(what, whole)
    nodes = v.feature.shape
    if len(nodes) != 1 or not nodes[0] or v.threshold.shape != nodes:
        raise TypeCheckError(f"feature {v.feature.type} does not go with {v.threshold.type}")
    if v.children.shape != (*nodes, 2):
        raise TypeCheckError(f"children must be [{nodes[0]},2], they are {v.children.type}")
    if v.x.type.rank != 2 or v.roots.type.rank != 2 or v.leaves.type.rank != 2:
        raise TypeCheckError("x, roots and leaves must have two axes")
    if v.depth > MOST_STEPS:
        raise TypeCheckError(
            f"the deepest tree has {v.depth} steps, up to {MOST_STEPS} are supported; train with"
            " a smaller max_depth"
        )
    (groups, trees), columns = v.roots.shape, v.leaves.shape[1]
    if not 0 < trees <= MOST_TREES:
        raise TypeCheckError(f"{trees} trees are not within 1 to {MOST_TREES}")
    if v.bias.shape != (groups * columns,):
        raise TypeCheckError(f"bias must be [{groups * columns}], it is {v.bias.type}")
    _check_numbers(v)
    return v.x.shape[0], groups * columns


def _check_whole(what: str, whole: Value) -> None:
    """Raise `TypeCheckError` unless numbers of columns, nodes or leaves are stored as such."""
    if whole.type.dtype not in STORED or whole.type.quant is not None:
        raise TypeCheckError(f"{what} must be whole numbers, it is {whole.type}")


def _check_numbers(v: TreeEnsemble | QTreeEnsemble) -> None:
    """Raise `TypeCheckError` unless constant trees lead from nodes to nodes and leaves only."""
    nodes, leaves = v.feature.shape[0], v.leaves.shape[0]
    within = "node or leaf", "these are"
    again = v.again if isinstance(v, QTreeEnsemble) else None
    columns = v.x.shape[1] + (again.shape[0] if again is not None else 0)
    for what, whole, end, of, there in (
        ("feature", v.feature, columns, "column", "x has columns"),
        ("again", again, v.x.shape[1], "column", "x has columns"),
        ("children", v.children, nodes + leaves, *within),
        ("roots", v.roots, nodes + leaves, *within),
    ):
        if isinstance(whole, Const) and not 0 <= whole.array.min() <= whole.array.max() < end:
            wrong = next(n for n in whole.array.reshape(-1).tolist() if not 0 <= n < end)
            raise TypeCheckError(f"{what} names {of} {wrong}, {there} 0 to {end - 1}")


def _walked(
    x: Array, feature: Array, beyond: Callable[[Array, Array], Array], children: Array,
    roots: Array, depth: int,
) -> Array:  # fmt: skip
    """The leaves of each row, i64 [N,G,T]; `beyond` tells by an element and a node which way."""
    count = len(feature)
    at = np.broadcast_to(roots.astype(np.int64), (len(x), *roots.shape))
    rows = np.arange(len(x)).reshape(-1, 1, 1)
    for _ in range(depth):
        node = np.minimum(at, count - 1)
        way = beyond(x[rows, feature[node]], node).astype(np.int64)
        at = np.where(at < count, children[node, way], at)
    return np.asarray(at - count)


def _with_missing(feature: Const, missing: Array, x: TensorType) -> tuple[Const, Const | None]:
    """The column of each node, and those that come once more: what is missing goes beyond the
    thresholds of some nodes only, where all others would have it below."""
    quant = fixedpoint.quant_of(x)
    if quant.missing is None or (quant.missing == x.dtype.max and missing.all()):
        return feature, None
    if quant.missing == x.dtype.max:
        raise IRCError(f"{x}: what is missing is the largest integer, and goes either way")
    if not missing.any():
        return feature, None
    again, place = np.unique(feature.array[missing], return_inverse=True)
    columns = feature.array.astype(np.int64)
    columns[missing] = x.shape[1] + place
    return Const(stored(columns), name=feature.name), Const(stored(again))
