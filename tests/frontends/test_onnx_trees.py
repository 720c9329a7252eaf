"""Ensembles of decision trees (domain ai.onnx.ml), held to onnxruntime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import irc
from irc.driver.forms import simplify
from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.ops.trees import TreeEnsemble
from irc.types import Array
from tests.frontends.single_op import agree, model, reference

COLUMNS = 3
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def rows(count: int = 40) -> dict[str, Array]:
    """Whole numbers from 0 to 4, so that thresholds are met."""
    x = np.random.default_rng(3).integers(0, 5, (count, COLUMNS)).astype(np.float32)
    return {"x": x}


def grown(
    rng: np.random.Generator, tree: int, modes: tuple[str, ...], depth: int
) -> list[dict[str, Any]]:
    """The nodes of a random tree."""
    nodes: list[dict[str, Any]] = []

    def grow(left: int) -> int:
        at = len(nodes)
        node = {"treeids": tree, "nodeids": at, "featureids": 0, "values": 0.0, "modes": "LEAF",
                "truenodeids": 0, "falsenodeids": 0}  # fmt: skip
        nodes.append(node)
        if left and (left == depth or rng.random() < 0.8):
            node |= {"featureids": int(rng.integers(COLUMNS)), "modes": str(rng.choice(modes)),
                     "values": float(rng.integers(0, 9) / 2)}  # fmt: skip
            node["truenodeids"], node["falsenodeids"] = grow(left - 1), grow(left - 1)
        return at

    grow(depth)
    return nodes


def forest(
    kind: str, targets: int, *, trees: int = 4, modes: tuple[str, ...] = MODES[:1],
    lone: bool = True, positive: bool = False, depth: int = 3, used: int | None = None,
    tracks: int = 0, **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of random trees; `lone`: the leaves of a tree speak of one target alone."""
    rng = np.random.default_rng(7)
    listed = [node for t in range(trees) for node in grown(rng, t, modes, depth)]
    of, count = ("target" if kind == "Regressor" else "class"), used or targets
    weights = [
        (node["treeids"], node["nodeids"], target, float(rng.normal()))
        for node in listed if node["modes"] == "LEAF"
        for target in ([node["treeids"] % count] if lone else range(count))
    ]  # fmt: skip
    columns = list(zip(*weights, strict=True))
    given: dict[str, Any] = {f"nodes_{key}": [node[key] for node in listed] for key in listed[0]}
    given["nodes_missing_value_tracks_true"] = [tracks] * len(listed)
    keys = ("treeids", "nodeids", "ids")
    given |= {f"{of}_{key}": list(c) for key, c in zip(keys, columns[:3], strict=True)}
    given[f"{of}_weights"] = [abs(w) / trees if positive else w for w in columns[3]]
    if kind == "Regressor":
        given["n_targets"] = targets
    else:
        given["classlabels_int64s"] = [10 * n + 3 for n in range(targets)]
    outputs = ("y",) if kind == "Regressor" else ("label", "scores")
    made = helper.make_node(
        f"TreeEnsemble{kind}", ["x"], outputs, domain="ai.onnx.ml", **given, **attributes
    )
    proto = model([made], rows(), outputs=outputs)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return proto


@pytest.mark.parametrize("mode", MODES)
def test_what_is_compared(mode: str) -> None:
    agree(forest("Regressor", 1, modes=(mode,)), rows())


@pytest.mark.parametrize("tracks", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_missing(mode: str, tracks: int) -> None:
    """No integers stand for it; the float graph sends it where the model does."""
    proto = forest("Regressor", 1, modes=(mode,), tracks=tracks)
    x = rows()["x"]
    x[::2, 1] = np.nan
    agree(proto, {"x": x})


@pytest.mark.parametrize("lone", [True, False])
@pytest.mark.parametrize("how", ["SUM", "AVERAGE"])
def test_regressor(how: str, lone: bool) -> None:
    proto = forest("Regressor", 3, trees=7, lone=lone, modes=MODES, aggregate_function=how,
                   base_values=[0.5, -1.0, 2.0])  # fmt: skip
    agree(proto, rows())


@pytest.mark.parametrize("after", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("lone", [True, False])
def test_classes(lone: bool, after: str) -> None:
    agree(forest("Classifier", 3, trees=6, lone=lone, post_transform=after), rows())


@pytest.mark.parametrize("after", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("base", [None, [0.25]])
@pytest.mark.parametrize("positive", [True, False])
def test_two_classes_of_which_leaves_know_one(
    positive: bool, base: list[float] | None, after: str
) -> None:
    more: dict[str, Any] = {} if base is None else {"base_values": base}
    if positive and after == "LOGISTIC":
        return
    proto = forest("Classifier", 2, used=1, positive=positive, post_transform=after, **more)
    agree(proto, rows())


def test_two_classes_with_a_score_each() -> None:
    """The class is the one of the larger score; onnxruntime gives 0 or 1, by the second alone."""
    proto = forest("Classifier", 2, lone=False)
    found, wanted = evaluate(load(proto), rows()), reference(proto, rows())
    np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-6)
    np.testing.assert_array_equal(found["label"], np.array([3, 13])[wanted["scores"].argmax(1)])


def test_trees_that_are_leaves() -> None:
    agree(forest("Regressor", 1, depth=0), rows())


def test_groups_of_trees_share_nothing() -> None:
    graph = load(forest("Regressor", 3, trees=6))
    (node,) = [v for v in graph.order if isinstance(v, TreeEnsemble)]
    assert (node.roots.shape, node.leaves.shape[1]) == ((3, 2), 1)


def version_5(**changes: Any) -> onnx.ModelProto:
    """x0 <= 1.5, then x1 among 0 and 3; a leaf each."""
    given: dict[str, Any] = {
        "n_targets": 2, "aggregate_function": 1, "post_transform": 0,
        "tree_roots": [0],
        "nodes_splits": np.asarray([1.5, 0.0], np.float32),
        "nodes_modes": np.asarray([0, 6], np.uint8),
        "nodes_featureids": [0, 1],
        "nodes_truenodeids": [0, 1], "nodes_trueleafs": [1, 1],
        "nodes_falsenodeids": [1, 2], "nodes_falseleafs": [0, 1],
        "leaf_targetids": [0, 1, 0],
        "leaf_weights": np.asarray([1.0, 2.5, -3.0], np.float32),
        "membership_values": np.asarray([0.0, 3.0, np.nan], np.float32),
    }  # fmt: skip
    given |= changes
    given = {k: numpy_helper.from_array(a) if isinstance(a, np.ndarray) else a
             for k, a in given.items()}  # fmt: skip
    made = helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", **given)
    proto = model([made], rows())
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5))
    return proto


def test_trees_of_version_5() -> None:
    agree(version_5(), rows())


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (version_5(nodes_falsenodeids=[0, 2]), "lead in a circle"),
        (forest("Regressor", 1, aggregate_function="MAX"), "only 'SUM' and 'AVERAGE'"),
        (forest("Regressor", 1, post_transform="PROBIT"), "is none of NONE"),
        (forest("Classifier", 2, base_values=[0.5, 0.5, 0.5]), "3 base values"),
    ],
    ids=["circle", "aggregate", "transform", "base"],
)  # fmt: skip
def test_what_is_refused(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(proto)


def test_a_scaler_moves_the_thresholds() -> None:
    """Each row goes its way: x * s + o that equals a threshold does so in singles."""
    proto = forest("Regressor", 1, modes=MODES, trees=9)
    scaler = helper.make_node("Scaler", ["x"], ["z"], domain="ai.onnx.ml", offset=[0.3, 1.0, 7.0],
                              scale=[0.1, 3.7, 0.9])  # fmt: skip
    proto.graph.node[0].input[0] = "z"
    values = next(a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    feature = next(a for a in proto.graph.node[0].attribute if a.name == "nodes_featureids")
    x, offset, scale = (np.asarray(a, np.float32) for a in (
        values.floats, [0.3, 1.0, 7.0], [0.1, 3.7, 0.9]))  # fmt: skip
    at = np.asarray(feature.ints)
    values.floats[:] = ((x - offset[at]) * scale[at]).tolist()
    proto.graph.node.insert(0, scaler)
    graph = agree(proto, rows())
    simple = simplify(graph)
    assert [v.op for v in simple.order if v.operands] == ["tree_ensemble"]
    np.testing.assert_allclose(
        irc.evaluate(simple, rows())["y"], irc.evaluate(graph, rows())["y"], rtol=1e-6
    )
