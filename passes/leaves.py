"""What is computed of one tree alone goes into its leaves; sums of trees are one ensemble.

A tree has as many results as leaves, so that whatever follows from one of them is known when the
graph is compiled. Isolation forests come so: of each tree the number of a leaf, which is looked up,
compared and put into a logarithm, and the sum over all trees of that:

    %a = tree_ensemble(%x, ..., %l, ...)       ->   %y = tree_ensemble(%x, ..., log(%l), ...)
    %y = add(log(%a), log(%b))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.quantization import Dequantize, Quantize, constant
from irc.ops.shape import Reshape
from irc.ops.trees import MOST_TREES, TreeEnsemble, stored
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.types import Array
from irc.value import Value

MOST_NUMBERS = 1 << 20
"""In the leaves of a tree, all together."""
MOST_STEPS = 1 << 17
"""Nodes that are computed for one tree, for each of its leaves."""


@dataclass(frozen=True)
class Leaves(Pass):
    """See the module; of graphs that take one row at a time."""

    name: ClassVar[str] = "leaves"

    def run(self, graph: Graph) -> Graph:
        """First the functions of single trees, then sums of trees."""
        if not any(isinstance(v, TreeEnsemble) for v in graph.order):
            return graph
        return _summed(_into_leaves(graph))


def _into_leaves(graph: Graph) -> Graph:
    """The graph with functions of single trees in their leaves."""
    source = _sources(graph)
    known: dict[Value, Value] = {}
    for tree in dict.fromkeys(source.values()):
        cone = [v for v in graph.order if source.get(v) is tree and v is not tree]
        ends = [v for v in cone if v.type.dtype is tree.type.dtype and _ends(graph, v, source)]
        numbers = sum(v.type.size for v in ends) * tree.leaves.shape[0]
        if numbers <= MOST_NUMBERS and len(cone) * tree.leaves.shape[0] <= MOST_STEPS:
            known.update(zip(ends, _results(tree, cone, ends), strict=True))
    return rebuild(graph, lambda v, made: known.get(v, made))


def _sources(graph: Graph) -> Mapping[Value, TreeEnsemble]:
    """The one tree that a value depends on, of those that depend on nothing else; where values
    are quantized stays."""
    source: dict[Value, TreeEnsemble] = {}
    for v in graph.order:
        if isinstance(v, TreeEnsemble) and v.x.shape[0] == 1 and v.roots.type.size == 1:
            source[v] = v
            continue
        if isinstance(v, Quantize | Dequantize):
            continue
        computed = [o for o in v.operands if not isinstance(o, Const)]
        trees = {source.get(o) for o in computed}
        if len(trees) == 1 and (tree := trees.pop()) is not None:
            source[v] = tree
    return source


def _ends(graph: Graph, v: Value, source: Mapping[Value, TreeEnsemble]) -> bool:
    """Whether something reads a value that depends on more than its tree, or the caller does."""
    return v in graph.outputs or any(u not in source for u in graph.users[v])


def _results(tree: TreeEnsemble, cone: list[Value], ends: list[Value]) -> Iterator[Value]:
    """The ends of what is computed of a tree, as the tree with other leaves."""
    leaves = constant(tree.leaves, "leaves").array + constant(tree.bias, "bias").array
    rows: list[list[Array]] = [[] for _ in ends]
    for leaf in leaves:
        arrays: dict[Value, Array] = {tree: leaf.reshape(tree.shape).astype(np.float32)}
        for v in cone:
            arrays[v] = _computed(v, arrays)
        for row, v in zip(rows, ends, strict=True):
            row.append(arrays[v].reshape(-1))
    for row, v in zip(rows, ends, strict=True):
        bias = Const(np.zeros(v.type.size, np.float32))
        made = tree.replace(leaves=Const(np.stack(row)), bias=bias, name=v.name)
        yield made if made.shape == v.shape else Reshape(made, v.shape, name=v.name)


def _computed(v: Value, arrays: Mapping[Value, Array]) -> Array:
    """A value of a cone."""
    return np.asarray(v.call(lambda o: o.array if isinstance(o, Const) else arrays[o]))


def _summed(graph: Graph) -> Graph:
    """The graph with sums of trees over the same rows, that nothing else reads, as ensembles."""

    def together(v: Value, made: Value) -> Value:
        if not isinstance(made, Add) or any(graph.uses(o) != 1 for o in v.operands):
            return made
        return _together(made.a, made.b, made) or made

    return rebuild(graph, together)


def _together(a: Value, b: Value, total: Value) -> Value | None:
    """The sum of two ensembles as one; None of anything else."""
    first, second = (v.x if isinstance(v, Reshape) else v for v in (a, b))
    if not (isinstance(first, TreeEnsemble) and isinstance(second, TreeEnsemble)):
        return None
    alike = first.x is second.x and first.shape == second.shape and a.shape == b.shape
    trees = first.roots.shape[1] + second.roots.shape[1]
    if not alike or first.roots.shape[0] != second.roots.shape[0] or trees > MOST_TREES:
        return None
    made = _joined(first, second).replace(name=total.name)
    return made if made.shape == total.shape else Reshape(made, total.shape, name=total.name)


def _joined(a: TreeEnsemble, b: TreeEnsemble) -> TreeEnsemble:
    """The trees of both: nodes are numbered on, and leaves behind them."""

    def both(field: str, axis: int = 0) -> Array:
        parts = (constant(getattr(t, field), "trees").array for t in (a, b))
        return np.concatenate(list(parts), axis)

    def numbered(field: str, axis: int) -> Array:
        (n, m), leaves = (t.feature.shape[0] for t in (a, b)), a.leaves.shape[0]
        of_a, of_b = (
            constant(getattr(t, field), "trees").array.astype(np.int64) for t in (a, b)
        )
        of_a = np.where(of_a < n, of_a, of_a + m)
        of_b = np.where(of_b < m, of_b + n, of_b + n + leaves)
        return stored(np.concatenate([of_a, of_b], axis))

    bias = constant(a.bias, "bias").array + constant(b.bias, "bias").array
    return TreeEnsemble(
        a.x, Const(stored(both("feature").astype(np.int64))), Const(both("threshold")),
        Const(both("inclusive")), Const(both("missing")), Const(numbered("children", 0)),
        Const(numbered("roots", 1)), Const(both("leaves")), Const(bias), max(a.depth, b.depth),
    )  # fmt: skip
