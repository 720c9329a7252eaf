from typing import Any

import numpy as np
import pytest

from irc.errors import DataError, GraphError
from irc.graph import Graph, evaluate, same
from irc.ops.activation import Relu
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.shape import Concat, Reshape
from irc.types import Array, DType
from irc.value import Value


def x(name: str = "x") -> Input:
    return Input(DType.F32, (2,), name=name)


def test_order_has_operands_first_inputs_in_front_each_node_once() -> None:
    a, b = x("a"), x("b")
    shared = Relu(b)
    y = Add(Add(shared, a), shared)
    graph = Graph("g", (a, b), (y, shared), ("y", "z"))
    assert graph.order[:2] == (a, b)
    assert len(graph.order) == len(set(graph.order)) == 5
    place = {v: i for i, v in enumerate(graph.order)}
    assert all(place[o] < place[v] for v in graph.order for o in v.operands)


def test_an_input_nobody_reads_is_still_an_input() -> None:
    a, b = x("a"), x("b")
    graph = Graph("g", (a, b), (Relu(a),), ("y",))
    assert b in graph.order
    assert graph.uses(b) == 0
    assert list(evaluate(graph, {"a": np.array([-1, 2], np.float32), "b": np.zeros(2)})) == ["y"]


def test_what_is_shown_of_a_graph_is_short_however_deep_it_is() -> None:
    a = x("a")
    y: Value = a
    for _ in range(100):
        y = Add(y, y, name="y")
    graph = Graph("g", (a,), (y,), ("y",))
    assert repr(graph) == "<Graph g, 101 nodes: a: f32[2] -> y: f32[2]>"
    assert repr(y) == "<add %y: f32[2]>"


def test_users_count_each_use() -> None:
    a = x("a")
    y = Concat((a, a), 0)
    graph = Graph("g", (a,), (y, y, a), ("y", "z", "w"))
    assert graph.users[a] == (y, y)
    assert (graph.uses(a), graph.uses(y)) == (3, 2)


def test_a_long_chain_needs_no_recursion() -> None:
    v: Value = x()
    first = v
    for _ in range(5000):
        v = Relu(v)
    graph = Graph("long", (first,), (v,), ("y",))  # type: ignore[arg-type]
    assert len(graph.order) == 5001
    assert same(graph, graph)


@pytest.mark.parametrize(
    ("inputs", "outputs", "names", "message"),
    [
        (2, 1, ("y", "z"), "differ in number"),
        (2, 2, ("y", "y"), "two outputs share one name"),
        (1, 1, ("y",), "uses inputs it does not declare: .*b"),
    ],
)
def test_graphs_that_are_not_well_formed(
    inputs: int, outputs: int, names: tuple[str, ...], message: str
) -> None:
    a, b = x("a"), x("b")
    with pytest.raises(GraphError, match=message):
        Graph("g", (a, b)[:inputs], (Add(a, b),) * outputs, names)


def test_two_inputs_of_one_name() -> None:
    a, b = x("a"), x("a")
    with pytest.raises(GraphError, match="two inputs share one name"):
        Graph("g", (a, b), (Add(a, b),), ("y",))


def test_interface() -> None:
    a = x("a")
    c = Const(np.ones(2, np.float32))
    graph = Graph("g", (a,), (Add(a, c),), ("y",))
    assert graph.input_types == {"a": a.type}
    assert graph.output_types == {"y": a.type}
    assert graph.constants == (c,)
    assert graph.with_outputs((a,)).output_types == {"y": a.type}


def test_evaluate_shows_every_node_once_and_frees() -> None:
    a = x("a")
    shared = Relu(a)
    graph = Graph("g", (a,), (Add(Add(shared, shared), shared), a), ("y", "z"))
    seen: list[Value] = []

    def observe(v: Value, array: Array) -> None:
        assert array.shape == v.shape
        seen.append(v)

    made = evaluate(graph, {"a": [1, -1]}, observe=observe)
    assert tuple(seen) == graph.order
    assert made["y"].tolist() == [3, 0]
    assert made["z"].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "inputs \\[\\] given, g takes \\['x'\\]"),
        ({"x": [1, 2], "y": [1]}, "g takes"),
        ({"x": [1, 2, 3]}, "input x: shape \\[3\\] given"),
        ({"x": ["a", "b"]}, "input x: dtype"),
    ],
)
def test_inputs_that_do_not_fit(feeds: dict[str, Any], message: str) -> None:
    a = x()
    graph = Graph("g", (a,), (Relu(a),), ("y",))
    with pytest.raises(DataError, match=message):
        evaluate(graph, feeds)


def test_integers_must_come_in_their_own_dtype() -> None:
    a = Input(DType.I32, (2,), name="x")
    graph = Graph("g", (a,), (Reshape(a, (1, 2)),), ("y",))
    with pytest.raises(DataError, match="dtype int64 given"):
        evaluate(graph, {"x": np.array([1, 2])})
    assert evaluate(graph, {"x": np.array([1, 2], np.int32)})["y"].tolist() == [[1, 2]]


def test_an_op_that_breaks_its_type_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    a = x()
    graph = Graph("g", (a,), (Relu(a, name="bad"),), ("y",))
    monkeypatch.setattr(Relu, "evaluate", lambda self, v: v.astype(np.float64))
    with pytest.raises(GraphError, match="relu %bad: evaluates to float64"):
        evaluate(graph, {"x": [1, 2]})


def test_same_looks_at_structure_not_at_objects() -> None:
    def made(shared: bool, value: float = 1.0, name: str = "") -> Graph:
        a = x()
        first = Add(a, Const(np.full(2, value, np.float32)), name=name)
        second = first if shared else Add(a, first.b, name=name)
        return Graph("g", (a,), (Add(first, second),), ("y",))

    assert same(made(True), made(True))
    assert not same(made(True), made(False))
    assert not same(made(True), made(True, value=2.0))
    assert not same(made(True), made(True, name="n"))
