"""Ensembles of decision trees (domain ai.onnx.ml), held to onnxruntime's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import irc
from irc import driver
from irc.driver.forms import simplify
from irc.edge import to_integers
from irc.errors import DataError, ModelError, TypeCheckError
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.ops.core import Const
from irc.ops.trees import QTreeEnsemble, TreeEnsemble
from irc.types import Array
from tests.backends.harness import agree as backends_agree
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
    tracks: Sequence[int] = (0,), **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of random trees; `lone`: the leaves of a tree speak of one target alone. Nodes send
    what is missing where `tracks` says, in turns."""
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
    given["nodes_missing_value_tracks_true"] = (list(tracks) * len(listed))[: len(listed)]
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


def lacking(share: float = 0.3) -> dict[str, Array]:
    """The same rows, some of whose elements are missing."""
    x = rows()["x"]
    x[np.random.default_rng(4).random(x.shape) < share] = np.nan
    return {"x": x}


def compiled_as(proto: onnx.ModelProto, feed: dict[str, Array], **options: Any) -> irc.Graph:
    """Quantize on a feed, compile, and hold the library to onnxruntime's results on it, and all
    backends to each other; gives the integer graph."""
    graph = load(proto)
    quantized = irc.quantize(graph, calibration=[feed], **options)
    made = driver.integerize(quantized)
    backends_agree(made, to_integers(made.input_types, feed)[0], ["host"])
    found, wanted = irc.compile(quantized)(feed), reference(proto, feed)
    steps = 2**6 if options else 2**13
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=np.ptp(array) / steps)
    return made


@pytest.mark.parametrize("tracks", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_missing(mode: str, tracks: int) -> None:
    """Goes where the model sends it, as reals and as integers."""
    proto = forest("Regressor", 1, modes=(mode,), tracks=(tracks,))
    agree(proto, lacking())
    compiled_as(proto, lacking())


@pytest.mark.parametrize("options", [{}, {"activations": 8}])
@pytest.mark.parametrize(
    ("tracks", "code", "again"), [((0,), 1, 0), ((1,), 0, 0), ((0, 1, 1), 0, COLUMNS)]
)
def test_integers_for_what_is_missing(
    tracks: tuple[int, ...], code: int, again: int, options: dict[str, Any]
) -> None:
    """The largest where it always goes the way of large numbers, else the least; columns come twice
    only where it goes both ways."""
    made = compiled_as(
        forest("Regressor", 2, trees=9, modes=MODES[:2], tracks=tracks), lacking(), **options
    )
    (x,), (trees,) = made.inputs, [v for v in made.order if isinstance(v, QTreeEnsemble)]
    assert x.type.quant is not None
    assert x.type.quant.missing == (x.type.dtype.min, x.type.dtype.max)[code]
    assert (0 if trees.again is None else trees.again.shape[0]) == again


def test_infinities_are_not_missing() -> None:
    """Numbers far beyond all thresholds, and thresholds that only what is missing is beyond."""
    proto = forest("Regressor", 1, modes=MODES[:2], tracks=(0, 1))
    (values,) = (a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    branches = [i for i, f in enumerate(values.floats) if f]
    values.floats[branches[0]], values.floats[branches[1]] = np.inf, -np.inf
    feed = lacking()
    feed["x"][::3] = [[1e30, -1e30, 1e30]]
    made = compiled_as(proto, feed)
    with pytest.raises(DataError, match=r"sample 0 holds infinity, which no integer stands for$"):
        irc.quantize(load(proto), calibration=[{"x": np.full_like(feed["x"], np.inf)}])
    assert made.inputs[0].type.quant is not None


def with_before(proto: onnx.ModelProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A model with nodes from x to z before its trees."""
    proto.graph.node[0].input[0] = "z"
    for i, node in enumerate(nodes):
        proto.graph.node.insert(i, node)
    return proto


def ml(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node of the traditional models' domain."""
    return helper.make_node(op, inputs, [output], domain="ai.onnx.ml", **attributes)


def imputer(x: str, output: str, values: list[float]) -> onnx.NodeProto:
    return ml("Imputer", [x], output, imputed_value_floats=values, replaced_value_float=np.nan)


def scaler(x: str, output: str, offset: list[float], scale: list[float]) -> onnx.NodeProto:
    return ml("Scaler", [x], output, offset=offset, scale=scale)


BEFORE = {
    "filled": [imputer("x", "z", [1.0, 2.5, 9.0])],
    "filled, scaled": [
        imputer("x", "a", [1.0, 2.5, 9.0]), scaler("a", "z", [0.5] * 3, [1.5, 0.5, 1.0])
    ],
    "scaled, filled twice": [
        scaler("x", "a", [0.5] * 3, [1.5, 0.5, 1.0]), imputer("a", "b", [0.0, 9.0, 0.0]),
        imputer("b", "z", [3.0]),
    ],
    "some columns filled": [
        helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1),
        imputer("b", "d", [1.0]), helper.make_node("Concat", ["c", "d", "a"], ["z"], axis=1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_what_is_filled_in_before_trees(before: list[onnx.NodeProto]) -> None:
    """Trees take it in, whatever is done before and after, and know what is missing."""
    proto = with_before(forest("Regressor", 1, modes=MODES, trees=9, tracks=(0, 1)), *before)
    agree(proto, lacking())
    made = compiled_as(proto, lacking())
    assert [v.op for v in made.order if v.operands] == ["qtree_ensemble"]


def apart(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose columns are inputs of their own, as of a data frame."""
    names, table = [f"x{i}" for i in range(COLUMNS)], proto.graph.input.pop()
    shape = (table.type.tensor_type.shape.dim[0].dim_value, 1)
    proto.graph.input.extend(
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in names
    )
    proto.graph.node.insert(0, helper.make_node("Concat", names, ["x"], axis=1))
    return proto


def test_columns_that_are_inputs() -> None:
    """Each has a scale of its own, and an integer for what is missing; scalers go into trees."""
    proto = forest("Regressor", 1, modes=MODES, trees=9, tracks=(0, 1))
    units = [1e-3, 1.0, 1e3]
    proto = apart(with_before(proto, scaler("x", "z", [0.0] * 3, [1 / u for u in units])))
    feed = {f"x{i}": lacking()["x"][:, i : i + 1] * np.float32(u) for i, u in enumerate(units)}
    made = compiled_as(proto, feed)
    assert [v.op for v in made.order if v.operands] == ["concat", "qtree_ensemble"]
    assert all(v.type.quant is not None and v.type.quant.missing for v in made.inputs)


def test_columns_that_trees_do_not_read() -> None:
    """Their gaps are nobody's."""
    proto = apart(forest("Regressor", 1, modes=MODES, trees=9, tracks=(0, 1)))
    (features,) = (a for a in proto.graph.node[1].attribute if a.name == "nodes_featureids")
    features.ints[:] = [f if f != 1 else 0 for f in features.ints]
    feed = {f"x{i}": lacking()["x"][:, i : i + 1] for i in range(COLUMNS)}
    agree(proto, feed)
    compiled_as(proto, feed)


@pytest.mark.parametrize("digits", [True, False])
def test_numbers_of_few_digits_beside_thresholds(digits: bool) -> None:
    """A table of tenths, whose thresholds are the singles before or after some of these; what is
    the threshold's integer goes where the tenth goes. Others go where the threshold does."""
    tenths = (np.arange(40).reshape(40, 1) * (0.1 if digits else 0.10371234)).astype(np.float32)
    x = np.repeat(tenths, COLUMNS, 1)
    proto = forest("Regressor", 1, trees=9, modes=MODES[:2])
    (values,) = (a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    thresholds = np.asarray(values.floats, np.float32)
    at = np.random.default_rng(5).integers(1, 39, thresholds.size)
    ways = np.where(at % 2, np.inf, -np.inf) if digits else tenths[at, 0]
    values.floats[:] = np.nextafter(tenths[at, 0], ways.astype(np.float32)).tolist()
    compiled_as(proto, {"x": x})


@pytest.mark.parametrize("beside", [1e-35, -1e-35])
def test_thresholds_that_tell_zero_from_others(beside: float) -> None:
    """LightGBM's, on either side of it, among such as make the steps of integers coarse."""
    proto = forest("Regressor", 1, trees=9)
    (values,) = (a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    for i in [i for i, f in enumerate(values.floats) if f][::2]:
        values.floats[i] = beside
    compiled_as(proto, {"x": rows()["x"] - 2})


def test_thresholds_as_large_as_reals_are() -> None:
    proto = forest("Regressor", 1, trees=9)
    (values,) = (a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    largest = float(np.finfo(np.float32).max)
    for i, end in zip([i for i, f in enumerate(values.floats) if f], (1, -1, 1, -1), strict=False):
        values.floats[i] = end * largest
    with np.errstate(over="ignore"):
        compiled_as(proto, {"x": (rows()["x"] - 2) * np.float32(largest / 2)})


def test_what_is_filled_in_otherwise() -> None:
    """By what is computed: nothing may be missing, and the library has no integer for it."""
    proto = with_before(
        forest("Regressor", 1), helper.make_node("IsNaN", ["x"], ["lacks"]),
        helper.make_node("ReduceMax", ["y"], ["top"], axes=[1]),
        helper.make_node("Where", ["lacks", "top", "x"], ["z"]),
    )  # fmt: skip
    proto.graph.node[1].input[0] = "x"
    graph = load(proto)
    (x,) = driver.integerize(irc.quantize(graph, calibration=[rows()])).inputs
    assert x.type.quant is not None
    assert x.type.quant.missing is None
    with pytest.raises(DataError, match=r"sample 0 holds NaN or infinity, .*; fill in what is"):
        irc.quantize(graph, calibration=[lacking()])


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


AFTER = ("NONE", "SOFTMAX", "LOGISTIC")
BASES = (None, [0.25], [0.25, -0.375])


def changed(proto: onnx.ModelProto, **changes: Any) -> onnx.ModelProto:
    """A model with other attributes of its node; None takes one away."""
    node = proto.graph.node[0]
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute} | changes
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(k, v) for k, v in given.items() if v is not None)
    return proto


def of_class(known: int, **attributes: Any) -> onnx.ModelProto:
    """Two classes of which leaves know one."""
    proto = forest("Classifier", 2, used=1, **attributes)
    ids = next(a for a in proto.graph.node[0].attribute if a.name == "class_ids")
    return changed(proto, class_ids=[known] * len(ids.ints))


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("known", [0, 1])
def test_two_classes_of_which_leaves_know_one(
    known: int, positive: bool, base: list[float] | None, after: str
) -> None:
    """What onnxruntime makes of each case, or, where it reads no leaves, a refusal."""
    proto = of_class(known, positive=positive, post_transform=after, base_values=base)
    if known and base is not None and len(base) == 2:
        with pytest.raises(ModelError, match="does not read what leaves say of class 1; add"):
            load(proto)
    else:
        agree(proto, rows())


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("base", BASES[:2])
@pytest.mark.parametrize("positive", [True, False])
def test_two_classes_with_a_score_each(
    positive: bool, base: list[float] | None, after: str
) -> None:
    """The class is the one of the larger score; onnxruntime gives 0 or 1, by the second alone."""
    proto = forest("Classifier", 2, lone=False, positive=positive, post_transform=after,
                   base_values=base)  # fmt: skip
    found, wanted = evaluate(load(proto), rows()), reference(proto, rows())
    np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-6)
    np.testing.assert_array_equal(found["label"], np.array([3, 13])[wanted["scores"].argmax(1)])


def test_trees_that_are_leaves() -> None:
    agree(forest("Regressor", 1, depth=0), rows())


def test_groups_of_trees_share_nothing() -> None:
    graph = load(forest("Regressor", 3, trees=6))
    (node,) = [v for v in graph.order if isinstance(v, TreeEnsemble)]
    assert (node.roots.shape, node.leaves.shape[1]) == ((3, 2), 1)


def test_trees_name_what_is_there() -> None:
    """Columns that trees of one's own making don't find."""
    graph = load(forest("Regressor", 1))
    (node,) = [v for v in graph.order if isinstance(v, TreeEnsemble)]
    feature = Const(np.full(node.feature.shape, 7, np.uint8))
    with pytest.raises(TypeCheckError, match="feature names column 7, x has columns 0 to 2"):
        node.replace(feature=feature)


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


@pytest.mark.parametrize("end", [[], [np.nan]])
def test_trees_of_version_5(end: list[float]) -> None:
    agree(version_5(membership_values=np.asarray([0.0, 3.0, *end], np.float32)), rows())


def test_members_are_searched() -> None:
    """Of 200 members, and what is missing, which is one of them where the node says so."""
    x = np.random.default_rng(5).integers(0, 450, (40, COLUMNS)).astype(np.float32)
    x[::7] = np.nan
    members = np.asarray([*range(0, 400, 2), np.nan], np.float32)
    for tracks in (0, 1):
        proto = version_5(membership_values=members, nodes_missing_value_tracks_true=[0, tracks])
        graph = load(proto)
        (node,) = [v for v in graph.order if isinstance(v, TreeEnsemble)]
        assert node.depth <= 1 + 9
        np.testing.assert_array_equal(
            evaluate(graph, {"x": x})["y"], reference(proto, {"x": x})["y"]
        )


def chain(depth: int) -> onnx.ModelProto:
    """A tree as deep as it has branches: x0 <= 0, else x0 <= 1, and so on."""
    ways = {"nodes_truenodeids": list(range(depth)), "nodes_trueleafs": [1] * depth}
    following = {"nodes_falsenodeids": [*range(1, depth), depth],
                 "nodes_falseleafs": [0] * (depth - 1) + [1]}  # fmt: skip
    return version_5(
        **ways, **following, n_targets=1, nodes_splits=np.arange(depth, dtype=np.float32),
        nodes_modes=np.zeros(depth, np.uint8), nodes_featureids=[0] * depth,
        leaf_targetids=[0] * (depth + 1), leaf_weights=np.arange(depth + 1, dtype=np.float32),
        membership_values=np.zeros(0, np.float32),
    )  # fmt: skip


def test_deep_trees_are_walked_in_parts() -> None:
    """In several loops, one after the other; an expression of all steps could not be built."""
    feeds = [{"x": np.full((40, COLUMNS), n, np.float32) + rows()["x"]} for n in (0, 105, 209)]
    graph = load(chain(210))
    quantized = irc.quantize(graph, calibration=feeds)
    library = irc.compile(quantized)
    for feed in feeds:
        np.testing.assert_allclose(
            library(feed)["y"], evaluate(graph, feed)["y"], atol=210 / 2**14
        )


def test_trees_of_8_bits() -> None:
    """Thresholds keep their own scales; the result has 8 bits."""
    graph = load(forest("Regressor", 2, trees=5, lone=False, modes=MODES))
    quantized = irc.quantize(graph, calibration=[rows()], activations=8)
    made = driver.integerize(quantized)
    integers = to_integers(made.input_types, rows())[0]
    backends_agree(made, integers, ["host"])
    found, wanted = evaluate(quantized, rows())["y"], evaluate(graph, rows())["y"]
    np.testing.assert_allclose(found, wanted, atol=np.ptp(wanted) / 2**6)


@pytest.mark.parametrize("how", ["MIN", "MAX"])
def test_the_least_and_the_most_of_one_tree(how: str) -> None:
    agree(forest("Regressor", 2, trees=1, lone=False, aggregate_function=how), rows())


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (version_5(nodes_falsenodeids=[0, 2]), "lead in a circle"),
        (chain(1025), "has 1025 steps, up to 1024 are supported; train with a smaller max_depth"),
        (forest("Regressor", 1, aggregate_function="MAX"), "'MAX' of 4 trees .*only 'SUM' and 'AV"),
        (forest("Regressor", 1, aggregate_function="MODE"), "'MODE' is none of AVERAGE"),
        (forest("Regressor", 1, post_transform="PROBIT"), "is none of NONE"),
        (of_class(0, post_transform="SOFTMAX_ZERO"), "is none of NONE"),
        (forest("Classifier", 2, base_values=[0.5, 0.5, 0.5]), "3 base values"),
        (forest("Classifier", 2, lone=False, base_values=[0.5, 0.5]), "leave base_values out"),
        (changed(forest("Classifier", 2, trees=1, depth=1), class_ids=[0, 1]),
         "no tree speaks of class 1 in all its leaves"),
        (forest("Classifier", 1), "has 1 classes, it needs two"),
    ],
    ids=["circle", "deep", "aggregate", "unknown", "transform", "zero", "base", "bases", "some",
         "one"],
)  # fmt: skip
def test_what_is_refused(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(proto)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes_falsenodeids": [-1, 2]}, r"nodes_falsenodeids\[0\] = -1 is no node"),
        ({"nodes_truenodeids": [0, 3]}, r"nodes_truenodeids\[1\] = 3 is no leaf, there are 3"),
        ({"tree_roots": [-1]}, r"tree_roots\[0\] = -1 is no node"),
        ({"leaf_targetids": [0, 1, 2]}, r"leaf_targetids\[2\] = 2 is no result, there are 2"),
        ({"leaf_targetids": [0, 1]}, "leaf_weights has 3 values, leaf_targetids has 2"),
        ({"nodes_featureids": [0]}, "nodes_featureids has 1 values, nodes_modes has 2"),
        ({"nodes_featureids": [0, 7]}, r"nodes_featureids\[1\] = 7 is no column of the input"),
        ({"nodes_modes": np.asarray([0, 9], np.uint8)}, r"nodes_modes\[1\] = 9 is no comparison"),
        ({"nodes_modes": np.asarray([6, 6], np.uint8)}, "has 1 sets .* for 2 nodes of mode"),
        ({"membership_values": None}, "has 0 sets .* for 1 nodes of mode"),
        ({"membership_values": np.asarray([np.nan], np.float32)}, r"has 1 sets of \[0\] values"),
        ({"aggregate_function": 4}, r"aggregate_function\[0\] = 4 is no choice, there are 4"),
        ({"post_transform": -1}, r"post_transform\[0\] = -1 is no choice"),
        ({"nodes_missing_value_tracks_true": [1]}, "has 1 values for 2 nodes"),
    ],
)  # fmt: skip
def test_malformed_trees_of_version_5(changes: dict[str, Any], message: str) -> None:
    """Some of them Python's lists would read from the end."""
    proto = version_5(**{k: v for k, v in changes.items() if v is not None})
    changed(proto, **{k: None for k, v in changes.items() if v is None})
    with pytest.raises(ModelError, match=message):
        load(proto)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes_nodeids": [0, 1, 1], "target_nodeids": [1, 1]},
         r"nodes_nodeids\[2\] = 1: tree 0 has that node already"),
        ({"nodes_falsenodeids": [-1, 0, 0]}, r"nodes_falsenodeids\[0\] = -1: tree 0 has no node"),
        ({"nodes_modes": ["BRANCH_MEMBER", "LEAF", "LEAF"]}, "'BRANCH_MEMBER' is none of"),
        ({"nodes_featureids": [-1, 0, 0]}, r"nodes_featureids\[0\] = -1 is no column"),
        ({"nodes_values": [0.5]}, "nodes_values has 1 values, nodes_treeids has 3"),
        ({"nodes_nodeids": [0, 1]}, "nodes_nodeids has 2 values, nodes_treeids has 3"),
        ({"target_weights": [0.5]}, "target_weights has 1 values, target_treeids has 2"),
        ({"target_ids": [0, -1]}, r"target_ids\[1\] = -1 is no result"),
        ({"target_nodeids": [1, 5]}, r"target_nodeids\[1\] = 5: tree 0 has no node 5"),
    ],
)  # fmt: skip
def test_malformed_trees_before_version_5(changes: dict[str, Any], message: str) -> None:
    proto = forest("Regressor", 1, trees=1, depth=1)
    with pytest.raises(ModelError, match=message):
        load(changed(proto, **changes))


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


def test_thresholds_beyond_all_numbers() -> None:
    """LightGBM asks so for what is missing; all numbers go left."""
    proto = forest("Regressor", 1, tracks=(0,))
    (values,) = (a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    listed = list(values.floats)
    branches = [i for i, f in enumerate(listed) if f]
    listed[branches[0]] = np.inf
    del values.floats[:]
    values.floats.extend(listed)
    graph = agree(proto, rows())
    library = irc.compile(irc.quantize(graph, calibration=[rows()]), backend="reference")
    (found,), (wanted,) = (r.values() for r in (library(rows()), evaluate(graph, rows())))
    np.testing.assert_allclose(found, wanted, atol=0.01)
