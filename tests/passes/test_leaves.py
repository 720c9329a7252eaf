"""What is computed of one tree goes into its leaves, sums of trees are one ensemble."""

from __future__ import annotations

import numpy as np
import pytest

import irc
from irc.driver.forms import simplify
from irc.graph import Graph, evaluate
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.logic import Less
from irc.ops.selection import Gather, Where
from irc.ops.shape import Reshape
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Log
from irc.types import Array, DType
from irc.value import Value

X = np.random.default_rng(0).uniform(-1, 1, (60, 1, 3)).astype(np.float32)


def const(array: object, dtype: type = np.float32) -> Const:
    return Const(np.asarray(array, dtype))


def tree(x: Value, seed: int, leaves: Array | None = None) -> TreeEnsemble:
    """Depth 2, four leaves that hold their numbers."""
    rng, held = np.random.default_rng(seed), const(np.arange(4).reshape(4, 1))
    held = held if leaves is None else const(leaves)
    return TreeEnsemble(
        x, Const(rng.integers(0, 3, 3).astype(np.uint8)), const(rng.uniform(-0.5, 0.5, 3)),
        const([False] * 3, np.bool_), const([False] * 3, np.bool_),
        const([[1, 2], [3, 4], [5, 6]], np.uint8), const([[0]], np.uint8),
        held, const(seed * np.ones(held.shape[1]) if leaves is not None else [0.0]), 2,
    )  # fmt: skip


def depth(x: Value, seed: int) -> Value:
    """As an isolation forest has it: of a leaf the number of samples, and a logarithm of this."""
    leaf = Cast(tree(x, seed), DType.I64)
    count = Gather(const([1.0, 7.0, 31.0, 2.0]), leaf, 0)
    many = Cast(Less(const([2.0]), count), DType.F32)
    return Add(Mul(many, Log(count)), Gather(const([1.0, 2.0, 3.0, 4.0]), leaf, 0))


def graph_of(result: Value, x: Input) -> Graph:
    return Graph("forest", (x,), (result.replace(name="y"),), ("y",))


def same(graph: Graph, made: Graph, atol: float = 1e-5) -> None:
    for row in X:
        wanted, found = (evaluate(g, {"x": row})["y"] for g in (graph, made))
        np.testing.assert_allclose(found, wanted, atol=atol)


def table() -> Input:
    return Input(DType.F32, (1, 3), name="x")


def test_an_isolation_forest_is_one_ensemble() -> None:
    x = table()
    total = depth(x, 0)
    for seed in range(1, 5):
        total = Add(total, depth(x, seed))
    graph = graph_of(total, x)
    made = simplify(graph)
    assert [v.op for v in made.order if not isinstance(v, Const | Input)] == ["tree_ensemble"]
    same(graph, made)
    library = irc.compile(irc.quantize(graph, [{"x": row} for row in X]))
    for row in X:
        wanted = evaluate(graph, {"x": row})["y"]
        np.testing.assert_allclose(library({"x": row})["y"], wanted, atol=0.02)


def test_an_axis_more_does_not_hide_sums() -> None:
    x = table()
    parts = [Reshape(Log(Add(tree(x, seed), const([1.0]))), (1, 1, 1)) for seed in range(3)]
    graph = graph_of(Add(Add(parts[0], parts[1]), parts[2]), x)
    made = simplify(graph)
    assert sum(isinstance(v, TreeEnsemble) for v in made.order) == 1
    same(graph, made)


def test_what_others_see_stays() -> None:
    """A function of tree and row, and one of two trees."""
    x = table()
    leaf = tree(x, 0)
    chosen = Where(Less(leaf, const([1.5])), x, Mul(x, tree(x, 1)))
    graph = graph_of(Add(chosen, leaf), x)
    same(graph, simplify(graph))


@pytest.mark.parametrize("rows", [1, 5])
def test_several_rows_at_once_keep_their_places(rows: int) -> None:
    """A maximum over rows is no function of a leaf."""
    x = Input(DType.F32, (rows, 3), name="x")
    graph = graph_of(Mul(Log(Add(tree(x, 0), const([1.0]))), const([2.0])), x)
    made = simplify(graph)
    assert sum(v.op == "log" for v in made.order) == (rows > 1)
    array = X[:rows, 0]
    wanted, found = (evaluate(g, {"x": array})["y"] for g in (graph, made))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_trees_of_several_numbers() -> None:
    x = table()
    leaves = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    two = [tree(x, seed, leaves * seed) for seed in (1, 2)]
    graph = graph_of(Add(Mul(two[0], two[0]), two[1]), x)
    made = simplify(graph)
    assert sum(isinstance(v, TreeEnsemble) for v in made.order) == 1
    same(graph, made)


def test_a_quantized_tree_stays() -> None:
    x = table()
    quantized = irc.quantize(graph_of(tree(x, 0), x), [{"x": row} for row in X])
    ops = [[v.op for v in g.order] for g in (quantized, simplify(quantized))]
    assert ops[0].count("quantize") == ops[1].count("quantize") == 2
