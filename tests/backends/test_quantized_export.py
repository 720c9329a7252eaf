"""Quantized graphs written as ONNX come back as the same integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest

import irc
from irc import driver
from irc.backends.onnx import export
from irc.edge import to_integers
from irc.errors import GraphError
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.shape import Concat
from irc.ops.trees import TreeEnsemble
from irc.types import Array, DType
from irc.value import Value
from tests.backends.test_onnx_export import FAMILIES, RNG, all_of
from tests.frontends.test_onnx_recurrent import layer
from tests.passes.nets import NETS, Net
from tests.passes.quantize.test_column_units import NETWORKS, rows, table, tree

Feeds = Sequence[dict[str, Array]]


def comes_back(graph: Graph, samples: Feeds, seen: Feeds = ()) -> None:
    """The graph, quantized, written and read, computes the same from the same integers, of samples
    and of what else may be `seen`."""
    quantized = irc.quantize(graph, calibration=samples)
    made, again = (driver.integerize(g) for g in (quantized, irc.load(export(quantized))))
    assert again.input_types == made.input_types
    assert again.output_types == made.output_types
    for feed in (*samples[:3], *seen):
        integers = to_integers(made.input_types, feed)[0]
        for name, wanted in evaluate(made, integers).items():
            np.testing.assert_array_equal(evaluate(again, integers)[name], wanted)


def noise(graph: Graph, count: int = 4) -> Feeds:
    return [
        {v.name: RNG.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
        for _ in range(count)
    ]


ALONE = {"pow", "mod", "resample"}
"""Without an integer form, or one that these operands fit."""


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_op(family: str, layout: str) -> None:
    graph = all_of(family, layout, without=ALONE)
    comes_back(graph, noise(graph))


@pytest.mark.parametrize("name", NETS)
def test_networks(name: str) -> None:
    graph = NETS[name](Net())
    comes_back(graph, noise(graph, 8))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(op: str) -> None:
    """In both directions, states of which the first are inputs among the outputs."""
    model, inputs = layer(op, "bidirectional", outputs=("y", "yh", "yc"))
    graph = irc.load(model)
    comes_back(graph, [inputs, *noise(graph)])


@pytest.mark.parametrize("network", [*NETWORKS, tree])
def test_tables(network: Callable[[Value], Value]) -> None:
    x = table()
    comes_back(Graph("g", (x,), (network(x),), ("y",)), rows(60))


def forest(x: Value, *, missing: bool) -> TreeEnsemble:
    """Two groups of two trees, of which one is a leaf and one shares a node."""
    return TreeEnsemble(
        x, Const(np.asarray([1, 3, 4, 0], np.uint8)),
        Const(np.asarray([40_000, 2015, 0, 45], np.float32)),
        Const(np.asarray([False, True, False, True])),
        Const(np.asarray([True, missing, True, True])),
        Const(np.asarray([[1, 2], [3, 3], [5, 6], [7, 4]], np.uint8)),
        Const(np.asarray([[0, 3], [4, 2]], np.uint8)),
        Const(np.asarray([[1.0], [2.5], [-3.0], [0.25]], np.float32)),
        Const(np.asarray([10, -1], np.float32)), 3,
    )  # fmt: skip


@pytest.mark.parametrize("missing", [True, False])
def test_trees_with_gaps(missing: bool) -> None:
    """Of one table and of two put together."""
    x, left, right = table(), Input(DType.F32, (1, 2), name="l"), Input(DType.F32, (1, 3), name="r")
    lacking: list[dict[str, Array]] = []
    for n, feed in enumerate(rows(10)):
        a = feed["x"].copy()
        a[0, n % 5] = np.nan
        lacking.append({"x": a})
    comes_back(Graph("g", (x,), (forest(x, missing=missing),), ("y",)), rows(20), lacking)
    apart = [{"l": f["x"][:, :2], "r": f["x"][:, 2:]} for f in [*rows(20), *lacking]]
    y = forest(Concat((left, right), 1), missing=missing)
    comes_back(Graph("g", (left, right), (y,), ("y",)), apart[:20], apart[20:])


def test_onnxruntime_walks_the_same_trees() -> None:
    x = table()
    graph = Graph("g", (x,), (forest(x, missing=False),), ("y",))
    session = onnxruntime.InferenceSession(export(graph).SerializeToString())
    for feed in rows(30):
        feed["x"][0, 3] = np.nan if feed["x"][0, 0] > 60 else 2015
        found = np.asarray(session.run(None, feed)[0])
        np.testing.assert_allclose(found, evaluate(graph, feed)["y"])


def test_trees_that_share_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irc.backends.onnx.trees.MOST_NODES", 4)
    x = table()
    with pytest.raises(GraphError, match=r"tree_ensemble %t: .* more than 4 nodes"):
        export(Graph("g", (x,), (Add(tree(x).replace(name="t"), tree(x)),), ("y",)))
