"""Ensembles of decision trees (domain ai.onnx.ml)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from irc.errors import ModelError
from irc.frontends.onnx.ops.forest import Forest, Ref, Test
from irc.frontends.onnx.ops.table import SCHEMAS, Node, Results, handles
from irc.frontends.onnx.ops.traditional import transformed
from irc.ops.cast import Cast
from irc.ops.elementwise import Sub
from irc.ops.ranking import ArgMax
from irc.ops.selection import Gather
from irc.ops.shape import Concat
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Neg
from irc.types import Array, DType
from irc.value import Value

DOMAIN = "ai.onnx.ml"
SCHEMAS.update(
    {
        f"{DOMAIN}.{op}": onnx.defs.get_schema(op, version, DOMAIN)
        for op, version in (
            ("TreeEnsembleClassifier", 3), ("TreeEnsembleRegressor", 3), ("TreeEnsemble", 5)
        )
    }
)  # fmt: skip
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ",
         "BRANCH_MEMBER")  # fmt: skip
LISTED = (*MODES[:-1], "LEAF")
"""The modes of versions before 5."""
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@handles(f"{DOMAIN}.TreeEnsembleRegressor")
def tree_ensemble_regressor(node: Node) -> Results:
    """Sums, or means, of what the leaves hold for each target."""
    targets = node.integer("n_targets")
    forest = _listed(node, "target", targets)
    bias = _numbers(node, "base_values")
    scores = _scores(node, forest, targets, bias, node.text("aggregate_function"))
    return transformed(node, scores, node.text("post_transform"))


@handles(f"{DOMAIN}.TreeEnsembleClassifier")
def tree_ensemble_classifier(node: Node) -> Results:
    """The class of the largest score, and the scores; two classes as onnxruntime has them."""
    words = node.attribute("classlabels_strings")
    if words is not None and words.strings:
        node.fail("its classes are strings; train on their numbers, or export without the label")
    labels = np.asarray(node.integers("classlabels_int64s") or (), np.int64)
    if labels.size < 2:
        node.fail(f"classlabels_int64s has {labels.size} classes, it needs two; of one class make a"
                  " TreeEnsembleRegressor")  # fmt: skip
    forest, bias = _listed(node, "class", labels.size), _numbers(node, "base_values")
    transform, build = node.text("post_transform"), node.builder
    if labels.size == 2:
        _check_two_classes(node, forest, bias)
    spoken = forest.spoken()
    if labels.size == 2 and len(spoken) == 1:
        judged, scores = _of_one_class(node, forest, bias, transform)
    else:
        if labels.size == 2 and bias.size == 1:
            bias = np.append(bias, 0.0)
        judged = _scores(node, forest, labels.size, bias, "SUM")
        scores = transformed(node, judged, transform)
    best = build.add(ArgMax(judged, 1, False, False))
    return build.add(Gather(build.const(labels), best, 0)), scores


def _check_two_classes(node: Node, forest: Forest, bias: Array) -> None:
    """Refuse what onnxruntime has a meaning of its own for, which no trainer can want."""
    spoken = forest.spoken()
    if not spoken:
        node.fail("class_ids is empty, so that no leaf speaks of a class: give leaves weights")
    if bias.size == 2 and 1 in spoken:
        node.fail(
            f"base_values = {bias.tolist()}: of two classes with a base value each onnxruntime"
            " does not read what leaves say of class 1; add the base values to the weights of all"
            " leaves of one tree, and leave base_values out"
        )
    for known in sorted(spoken):
        if (known == 1 or bias.size) and known not in forest.sure():
            node.fail(
                f"class_ids: no tree speaks of class {known} in all its leaves, so that rows may"
                " have no score of it, which onnxruntime takes for another model; give each leaf"
                f" of one tree a weight of class {known}, which may be 0"
            )


def _of_one_class(
    node: Node, forest: Forest, bias: Array, transform: str
) -> tuple[Value, Value]:
    """What decides between two classes of which leaves know one, and the scores.

    What leaves say is the second one's probability, or, if some of it is negative, its logit.
    Scores are both classes' where it is listed as the first one's with at most one base value;
    else the other class has 0. The base value of a class that no leaf knows counts for nothing.
    """
    build, (known,) = node.builder, forest.spoken()
    positive = all(w >= 0 for row in forest.leaves for w in row.values())
    forest.leaves = [{0: sum(row.values())} if row else {} for row in forest.leaves]
    score = _scores(node, forest, 1, np.zeros(0) if known else bias[:1], "SUM")
    one, none = (build.const(np.full((score.shape[0], 1), v, np.float32)) for v in (1, 0))
    logits = build.add(Concat((build.add(Neg(score)), score), 1))
    judged = build.add(Concat((build.add(Sub(one, score)), score), 1)) if positive else logits
    if known or bias.size == 2:
        apart = (none, score) if known else (score, none)
        return judged, transformed(node, build.add(Concat(apart, 1)), transform)
    if transform == "LOGISTIC":
        return judged, transformed(node, logits, transform)
    return judged, transformed(node, judged, "NONE" if transform == "SOFTMAX" else transform)


@handles(f"{DOMAIN}.TreeEnsemble")
def tree_ensemble(node: Node) -> Results:
    """As version 5 of the domain lists them: branches and leaves apart."""
    targets = node.integer("n_targets")
    node.ignore("nodes_hitrates")
    forest, leaves, weights = (
        Forest(), _whole(node, "leaf_targetids"), _tensor(node, "leaf_weights").tolist()
    )  # fmt: skip
    _check_lengths(node, {"leaf_targetids": leaves, "leaf_weights": weights})
    _check_range(node, "leaf_targetids", leaves, targets, "result")
    for target, weight in zip(leaves, weights, strict=True):
        forest.leaf({target: float(weight)})
    branches = _branches(node, len(leaves))
    roots = _whole(node, "tree_roots")
    _check_range(node, "tree_roots", roots, len(branches), "node")
    _build(node, forest, branches, [("branch", at) for at in roots])
    how = _named(node, "aggregate_function", AGGREGATES)
    scores = _scores(node, forest, targets, np.zeros(0), how)
    made = transformed(node, scores, _named(node, "post_transform", TRANSFORMS))
    dtype = node.x().type.dtype
    return made if dtype is made.type.dtype else node.builder.add(Cast(made, dtype))


@dataclass(frozen=True)
class _Branch:
    """A test as a model lists it; refs are to listed branches, and to leaves."""

    test: Test
    yes: Ref
    no: Ref


def _branches(node: Node, leaves: int) -> list[_Branch]:
    """The tests of version 5."""
    parts = ("featureids", "trueleafs", "truenodeids", "falseleafs", "falsenodeids")
    columns = {f"nodes_{part}": _whole(node, f"nodes_{part}") for part in parts}
    splits, modes = (_tensor(node, f"nodes_{part}").tolist() for part in ("splits", "modes"))
    _check_lengths(node, {"nodes_modes": modes, "nodes_splits": splits, **columns})
    _check_range(node, "nodes_modes", modes, len(MODES), "comparison")
    features, *ways = columns.values()
    _check_range(node, "nodes_featureids", features, node.x().shape[-1], "column of the input")
    refs: list[list[Ref]] = []
    for of, (is_leaf, at) in (("true", ways[:2]), ("false", ways[2:])):
        for i, (leaf, n) in enumerate(zip(is_leaf, at, strict=True)):
            end, what = (leaves, "leaf") if leaf else (len(modes), "node")
            _check_range(node, f"nodes_{of}nodeids", [n], end, what, at=i)
        refs.append([("leaf" if f else "branch", n) for f, n in zip(is_leaf, at, strict=True)])
    members = _members(node, [MODES[m] == "BRANCH_MEMBER" for m in modes])
    return [
        _Branch(Test(MODES[mode], feature, float(value), of, tracks), yes, no)
        for mode, feature, value, of, tracks, yes, no in zip(
            modes, features, splits, members, _tracks(node, len(modes)), *refs, strict=True
        )
    ]


def _tracks(node: Node, count: int) -> list[bool]:
    """Whether what is missing passes each test."""
    name = "nodes_missing_value_tracks_true"
    found = _whole(node, name)
    if found and len(found) != count:
        node.fail(f"{name} has {len(found)} values for {count} nodes; give each one, or none")
    return [bool(t) for t in found] if found else [False] * count


def _members(node: Node, asked: Sequence[bool]) -> list[list[float]]:
    """The set of each node, empty unless it asks for membership; NaN lies between them."""
    name, wanted = "membership_values", sum(asked)
    array = np.zeros(0) if node.attribute(name) is None else _tensor(node, name)
    parts = np.split(array, np.flatnonzero(np.isnan(array)) + 1)
    sets = [part[~np.isnan(part)].tolist() for part in parts if part.size]
    if len(sets) != wanted or not all(sets):
        node.fail(
            f"{name} has {len(sets)} sets of {[len(of) for of in sets]} values for {wanted} nodes"
            " of mode BRANCH_MEMBER; give each one, not empty, with NaN at its end"
        )
    found = iter(sets)
    return [next(found) if member else [] for member in asked]


def _named(node: Node, name: str, names: Sequence[str]) -> str:
    """What the number of an attribute stands for."""
    number = node.integer(name)
    _check_range(node, name, [number], len(names), "choice")
    return names[number]


def _check_lengths(node: Node, columns: Mapping[str, Sequence[object]]) -> None:
    """Refuse attributes of unequal lengths."""
    (first, column), *others = columns.items()
    for name, other in others:
        if len(other) != len(column):
            node.fail(
                f"attribute {name} has {len(other)} values, {first} has {len(column)}; they must"
                " be as many: export the model again, or mend the attribute"
            )


def _check_range(
    node: Node, name: str, numbers: Sequence[int], end: int, what: str, at: int = 0
) -> None:
    """Refuse numbers, the first of which is the attribute's element `at`, beyond 0 to end - 1."""
    for i, number in enumerate(numbers, at):
        if not 0 <= number < end:
            node.fail(
                f"attribute {name}[{i}] = {number} is no {what}, there are {end}, counted from 0:"
                " export the model again, or mend the attribute"
            )


def _build(
    node: Node, forest: Forest, branches: Sequence[_Branch], roots: Sequence[Ref]
) -> None:
    """The branches in a forest that has its leaves, those that others lead to first."""
    made: dict[int, Ref] = {}
    for root in roots:
        stack = [root[1]] if root[0] == "branch" else []
        open_: set[int] = set()
        while stack:
            at = stack[-1]
            if at in made:
                stack.pop()
                continue
            b = branches[at]
            more = [i for kind, i in (b.yes, b.no) if kind == "branch" and i not in made]
            if open_.intersection(more) or at in more:
                node.fail("its nodes lead in a circle")
            if more:
                open_.add(at)
                stack += more
                continue
            open_.discard(at)
            yes, no = (made[r[1]] if r[0] == "branch" else r for r in (b.yes, b.no))
            made[at] = forest.compared(b.test, yes, no)
        forest.roots.append(made[root[1]] if root[0] == "branch" else root)


def _listed(node: Node, of: str, targets: int) -> Forest:
    """Trees as versions before 5 list them: nodes of all kinds, and weights of leaves by name."""
    node.ignore("nodes_hitrates", "nodes_hitrates_as_tensor")
    found = node.attribute("nodes_modes")
    modes = [] if found is None else [m.decode("utf-8", "replace") for m in found.strings]
    parts = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    columns = {f"nodes_{part}": _whole(node, f"nodes_{part}") for part in parts}
    values = _numbers(node, "nodes_values").tolist()
    _check_lengths(node, {**columns, "nodes_values": values, "nodes_modes": modes})
    trees, ids, features, truth, falsity = columns.values()
    names = list(zip(trees, ids, strict=True))
    for i, mode in enumerate(modes):
        if mode not in LISTED:
            node.fail(f"nodes_modes[{i}] = {mode!r} is none of {', '.join(LISTED)}")
    rows = _rows(node, of, targets, names)
    forest = Forest()
    refs: dict[tuple[int, int], Ref] = {}
    listed = [i for i, mode in enumerate(modes) if mode != "LEAF"]
    number = {i: at for at, i in enumerate(listed)}
    for i, name in enumerate(names):
        if name in refs:
            node.fail(
                f"nodes_nodeids[{i}] = {name[1]}: tree {name[0]} has that node already; number"
                " the nodes of a tree differently"
            )
        refs[name] = ("branch", number[i]) if i in number else forest.leaf(rows.get(name, {}))
    chosen = [features[i] if i in number else 0 for i in range(len(names))]
    _check_range(node, "nodes_featureids", chosen, node.x().shape[-1], "column of the input")
    for part, following in (("true", truth), ("false", falsity)):
        for i in listed:
            if (trees[i], following[i]) not in refs:
                node.fail(
                    f"nodes_{part}nodeids[{i}] = {following[i]}: tree {trees[i]} has no node"
                    f" {following[i]}; export the model again, or mend the attribute"
                )
    tracks = _tracks(node, len(names))
    branches = [
        _Branch(
            Test(modes[i], features[i], values[i], (), tracks[i]),
            refs[trees[i], truth[i]], refs[trees[i], falsity[i]],
        ) for i in listed
    ]  # fmt: skip
    first = {tree: name for name in reversed(names) for tree in name[:1]}
    _build(node, forest, branches, [refs[first[tree]] for tree in dict.fromkeys(trees)])
    return forest


def _rows(
    node: Node, of: str, end: int, names: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[int, float]]:
    """What leaves add to targets, by tree and node."""
    whole = {f"{of}_{part}": _whole(node, f"{of}_{part}") for part in ("treeids", "nodeids", "ids")}
    weights = _numbers(node, f"{of}_weights").tolist()
    _check_lengths(node, {**whole, f"{of}_weights": weights})
    trees, ids, targets = whole.values()
    _check_range(node, f"{of}_ids", targets, end, "result")
    known, rows = set(names), dict[tuple[int, int], dict[int, float]]()
    for i, (tree, at, target, weight) in enumerate(zip(trees, ids, targets, weights, strict=True)):
        if (tree, at) not in known:
            node.fail(
                f"{of}_nodeids[{i}] = {at}: tree {tree} has no node {at}; export the model again,"
                " or mend the attribute"
            )
        row = rows.setdefault((tree, at), {})
        row[target] = row.get(target, 0.0) + weight
    return rows


def _scores(node: Node, forest: Forest, targets: int, bias: Array, how: str) -> Value:
    """A row of sums, or means, for each row of x."""
    x = node.x()
    if x.type.rank == 1:
        x = node.builder.reshape(x, (1, *x.shape))
    if x.type.dtype is not DType.F32:
        x = node.builder.add(Cast(x, DType.F32))
    if how not in AGGREGATES:
        node.fail(f"aggregate_function = {how!r} is none of {', '.join(AGGREGATES)}")
    if how in ("MIN", "MAX") and len(forest.roots) > 1:
        node.fail(
            f"aggregate_function = {how!r} of {len(forest.roots)} trees is not supported, only"
            f" 'SUM' and 'AVERAGE'; make a model of each tree, and join these by {how.title()}"
        )
    if bias.size not in (0, targets):
        node.fail(f"{bias.size} base values for {targets} results")
    if how == "AVERAGE":
        count = len(forest.roots)
        forest.leaves = [{t: w / count for t, w in row.items()} for row in forest.leaves]
    try:
        made = forest.arrays(targets)
    except ModelError as error:
        node.fail(str(error))
    build = node.builder
    base = bias if bias.size else np.zeros(targets)
    return build.add(
        TreeEnsemble(
            x, build.const(made.feature), build.const(made.threshold),
            build.const(made.inclusive), build.const(made.missing), build.const(made.children),
            build.const(made.roots), build.const(made.leaves),
            build.const(base.astype(np.float32)), made.depth,
        )
    )  # fmt: skip


def _numbers(node: Node, name: str) -> Array:
    """A list of reals, or the tensor that stands in its place."""
    tensor, listed = node.attribute(f"{name}_as_tensor"), node.reals(name)
    if tensor is not None and tensor.HasField("t") and tensor.t.dims:
        return node.tensor(tensor.t).astype(np.float64)
    return np.asarray(listed or (), np.float64)


def _tensor(node: Node, name: str) -> Array:
    """A tensor that must be there; NaN stands for what is not used."""
    found = node.attribute(name)
    if found is None:
        node.fail(f"attribute {name!r} is missing")
    return onnx.numpy_helper.to_array(found.t)


def _whole(node: Node, name: str) -> tuple[int, ...]:
    return node.integers(name) or ()
