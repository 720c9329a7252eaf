"""What is computed of one tree goes into its leaves, sums of trees are one ensemble."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

import irc
from irc.driver.forms import simplify
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.logic import Less
from irc.ops.selection import Gather, Where
from irc.ops.shape import Reshape
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Log, Reciprocal
from irc.passes.float import tree_leaves
from irc.passes.float.tree_leaves import Leaves
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


def rare(x: Value) -> TreeEnsemble:
    """0 where the first column exceeds 50, else 0.5 or 2 by the second."""
    return TreeEnsemble(
        x, const([0, 1], np.uint8), const([50, 0]), const([False] * 2, np.bool_),
        const([False] * 2, np.bool_), const([[1, 2], [3, 4]], np.uint8), const([[0]], np.uint8),
        const([[0], [0.5], [2]]), const([0]), 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("function", "folded"),
    [
        (Log, False),
        (Reciprocal, False),
        (lambda v: Clip(Reciprocal(v), -np.inf, 1e9), True),
        (lambda v: Where(Less(v, const([0.1])), const([3.0]), Log(v)), True),
    ],
)
def test_a_leaf_that_no_sample_comes_to(function: Callable[[Value], Value], folded: bool) -> None:
    """What is no number there stays a function of the tree; what is large there is no matter."""
    x = table()
    graph = graph_of(Mul(function(rare(x)), x), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = simplify(graph)
        same(graph, made)
        quantized = irc.quantize(graph, [{"x": row} for row in X])
        library = irc.compile(quantized, backend="reference")
    ops = [v.op for v in made.order if not isinstance(v, Const | Input)]
    assert (ops == ["tree_ensemble", "mul"]) == folded
    wanted = np.stack([evaluate(graph, {"x": row})["y"] for row in X])
    found = np.stack([library({"x": row})["y"] for row in X])
    assert np.square(found - wanted).mean() < 0.03 * np.square(wanted).mean()


def test_what_is_wrong_with_a_leaf_names_its_function() -> None:
    x = table()
    tree_of = rare(x)
    never = tree_of.replace(threshold=const([-50, 0]))
    with pytest.raises(irc.IRCError, match="log %l2"):
        irc.quantize(graph_of(Mul(Log(never, name="l2"), x), x), [{"x": row} for row in X])


def test_many_trees_are_joined_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, count = table(), 40
    total: Value = Log(Add(tree(x, 0), const([1.0])))
    for seed in range(1, count):
        total = Add(total, Log(Add(tree(x, seed), const([1.0]))))
    graph, made, infer = graph_of(total, x), [0], TreeEnsemble.infer

    def counted(self: TreeEnsemble) -> object:
        made[0] += 1
        return infer(self)

    monkeypatch.setattr(TreeEnsemble, "infer", counted)
    result = Leaves().run(graph)
    assert sum(isinstance(v, TreeEnsemble) for v in result.order) == 1
    assert made[0] == count + 1
    same(graph, result, 1e-4)


def test_trees_over_sums_of_trees() -> None:
    x = table()
    first = Add(Log(Add(tree(x, 0), const([1.0]))), Log(Add(tree(x, 1), const([1.0]))))
    over = Mul(x, first)
    total = Add(Log(Add(tree(over, 2), const([1.0]))), Mul(tree(over, 3), const([2.0])))
    graph = graph_of(total, x)
    made = Leaves().run(graph)
    assert sum(isinstance(v, TreeEnsemble) for v in made.order) == 2
    same(graph, made)


@pytest.mark.parametrize(("budget", "folded"), [("MOST_WORK", 5), ("MOST_NUMBERS", 2)])
def test_trees_stay_where_others_took_the_room(
    budget: str, folded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes five calls for 11 numbers of 4 leaves, and 8 numbers more than it had."""
    work = 5 * tree_leaves.CALL + 4 * 11
    monkeypatch.setattr(tree_leaves, budget, {"MOST_WORK": 5 * work, "MOST_NUMBERS": 20}[budget])
    x = table()
    rows = const(np.random.default_rng(0).normal(size=(4, 3)))
    total: Value = x
    for seed in range(8):
        number = Reshape(Cast(tree(x, seed), DType.I64), (1,))
        total = Mul(total, Log(Add(Gather(rows, number, 0), const([4.0]))))
    graph = graph_of(total, x)
    made = Leaves().run(graph)
    assert sum(v.op == "log" for v in made.order) == 8 - folded
    same(graph, made)
