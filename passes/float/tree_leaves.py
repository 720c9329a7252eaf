"""What is computed of one tree alone goes into its leaves; sums of trees are one ensemble.

A tree has as many results as leaves, so that whatever follows from one of them is known when the
graph is compiled. Isolation forests come so: of each tree the number of a leaf, which is looked up,
compared and put into a logarithm, and the sum over all trees of that:

    %a = tree_ensemble(%x, ..., %l, ...)       ->   %y = tree_ensemble(%x, ..., log(%l), ...)
    %y = add(log(%a), log(%b))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Binary
from irc.ops.logic import Relation
from irc.ops.quantization import Dequantize, Quantize, constant
from irc.ops.selection import Gather, Where
from irc.ops.shape import Reshape, with_shape
from irc.ops.trees import MOST_TREES, TreeEnsemble, stored
from irc.ops.unary import Unary
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.types import Array
from irc.value import Value

MOST_NUMBERS = 1 << 20
"""That the leaves of a graph's trees may hold more than before, all together."""
MOST_WORK = 1 << 27
"""Numbers that are computed for the leaves of all trees of a graph."""
CALL = 1 << 10
"""Numbers that take as long as a call of NumPy."""


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
    cones: dict[TreeEnsemble, Cone] = {}
    source = _sources(graph)
    for v, tree in source.items():
        cone = cones.setdefault(tree, Cone(tree))
        if v is not tree:
            cone.order.append(v)
            if v.type.dtype is tree.type.dtype and _ends(graph, v, source):
                cone.ends.append(v)
    known = _known(cones.values())
    trees: dict[Value, TreeEnsemble] = {}

    def looked_up(v: Value, made: Value) -> Value:
        if isinstance(made, TreeEnsemble):
            trees[v] = made
        return _with_leaves(trees[source[v]], known[v], v) if v in known else made

    return rebuild(graph, looked_up)


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


def _known(cones: Iterable[Cone]) -> dict[Value, Array]:
    """What ends are for each leaf, of as many trees as there is time and room for; a function
    that is no number for one of the leaves stays, rows may never come there."""
    work, numbers, known = MOST_WORK, MOST_NUMBERS, dict[Value, Array]()
    for cone in cones:
        more = max(cone.numbers - cone.tree.leaves.type.size, 0)
        if not cone.ends or cone.work > work or more > numbers:
            continue
        work, numbers = work - cone.work, numbers - more
        results = cone.results()
        if all(np.isfinite(found).all() for found in results):
            known.update(zip(cone.ends, results, strict=True))
    return known


def _with_leaves(tree: TreeEnsemble, rows: Array, v: Value) -> Value:
    """The tree with `rows` [L,K] in its leaves, in the place of v."""
    bias = Const(np.zeros(v.type.size, np.float32))
    made = tree.replace(leaves=Const(rows), bias=bias, name=v.name)
    return with_shape(made, v.shape, v.name)


@dataclass(frozen=True)
class Cone:
    """What depends on one tree alone, operands first, and those of it that others read."""

    tree: TreeEnsemble
    order: list[Value] = field(default_factory=list)
    ends: list[Value] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Of leaves."""
        return self.tree.leaves.shape[0]

    @property
    def numbers(self) -> int:
        """How many are in the new leaves."""
        return sum(v.type.size for v in self.ends) * self.count

    @property
    def together(self) -> bool:
        """Whether all leaves can be rows of one array."""
        return all(map(_by_rows, self.order))

    @property
    def work(self) -> int:
        """What it takes to compute them, in numbers."""
        calls = 1 if self.together else self.count
        return sum(v.type.size * self.count + CALL * calls for v in self.order)

    def results(self) -> list[Array]:
        """The ends for each leaf, [leaves, elements]."""
        t = self.tree
        leaves = constant(t.leaves, "leaves").array + constant(t.bias, "bias").array
        parts = [leaves] if self.together else np.split(leaves, self.count)
        found = [self.computed(part.astype(np.float32)) for part in parts]
        return [np.concatenate(rows) for rows in zip(*found, strict=True)]

    def computed(self, leaves: Array) -> list[Array]:
        """The ends for some leaves [n,K]: each [n, elements]."""
        arrays: dict[Value, Array] = {self.tree: leaves}

        def known(o: Value) -> Array:
            return o.array if isinstance(o, Const) else arrays[o]

        with np.errstate(all="ignore"):
            for v in self.order:
                if isinstance(v, Reshape) and len(leaves) > 1:
                    arrays[v] = known(v.x).reshape(-1, *v.shape[1:])
                else:
                    arrays[v] = np.asarray(v.call(known))
        return [arrays[v].reshape(len(leaves), -1) for v in self.ends]


def _by_rows(v: Value) -> bool:
    """Whether a node does to each of several rows, along its first axis, what it does to one."""
    if isinstance(v, Gather):
        return isinstance(v.x, Const) and v.axis == 0 and v.indices.shape[:1] == (1,)
    if isinstance(v, Reshape):
        return v.x.shape[:1] == v.shape[:1] == (1,)
    if not isinstance(v, Unary | Binary | Relation | Where | Cast) or v.shape[:1] != (1,):
        return False
    return all(o.type.rank == v.type.rank or isinstance(o, Const) for o in v.operands)


def _summed(graph: Graph) -> Graph:
    """The graph with sums of trees over the same rows, that nothing else reads, as ensembles."""
    sums, trees = _sums(graph), dict[Value, TreeEnsemble]()

    def together(v: Value, made: Value) -> Value:
        if isinstance(made, TreeEnsemble):
            trees[v] = made
        terms = sums.get(v, [])
        if len(terms) < 2 or sum(t.roots.shape[1] for t in terms) > MOST_TREES:
            return made
        total = _joined([trees[t] for t in terms], v.name)
        return with_shape(total, v.shape, v.name)

    return rebuild(graph, together)


def _sums(graph: Graph) -> Mapping[Value, list[TreeEnsemble]]:
    """The ensembles that values are sums of, of values that are no part of a larger sum."""
    found: dict[Value, list[TreeEnsemble]] = {}
    for v in graph.order:
        if isinstance(v, TreeEnsemble):
            found[v] = [v]
        if not isinstance(v, Add | Reshape):
            continue
        if any(o not in found or graph.uses(o) != 1 for o in v.operands):
            continue
        if isinstance(v, Reshape):
            found[v] = found.pop(v.x)
        elif v.a.shape == v.b.shape and _alike(found[v.a][0], found[v.b][0]):
            found[v] = [*found.pop(v.a), *found.pop(v.b)]
    return found


def _alike(a: TreeEnsemble, b: TreeEnsemble) -> bool:
    """Whether two ensembles can be one."""
    return a.x is b.x and a.shape == b.shape and a.roots.shape[0] == b.roots.shape[0]


def _joined(trees: Sequence[TreeEnsemble], name: str) -> TreeEnsemble:
    """All trees in one ensemble: nodes are numbered on, and leaves behind them."""
    counts = np.asarray([(t.feature.shape[0], t.leaves.shape[0]) for t in trees])
    first = np.cumsum(counts, 0) - counts

    def arrays(name: str) -> list[Array]:
        return [constant(getattr(t, name), "trees").array for t in trees]

    def numbered(name: str, axis: int) -> Const:
        nodes = counts[:, 0]
        to_leaf = first[:, 1] + nodes.sum() - nodes
        parts = (
            whole.astype(np.int64) + np.where(whole < n, node, leaf)
            for whole, n, node, leaf in zip(arrays(name), nodes, first[:, 0], to_leaf, strict=True)
        )
        return Const(stored(np.concatenate(list(parts), axis)))

    def all_of(name: str) -> Const:
        return Const(np.concatenate(arrays(name)))

    bias = np.asarray(np.sum(arrays("bias"), 0, np.float64), np.float32)
    return TreeEnsemble(
        trees[0].x, Const(stored(np.concatenate(arrays("feature")).astype(np.int64))),
        all_of("threshold"), all_of("inclusive"), all_of("missing"), numbered("children", 0),
        numbered("roots", 1), all_of("leaves"), Const(bias), max(t.depth for t in trees),
        any(t.filled for t in trees), name=name,
    )  # fmt: skip
