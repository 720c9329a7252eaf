"""Ensembles of decision trees (domain ai.onnx.ml)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from irc.errors import ModelError
from irc.ops.cast import Cast
from irc.ops.elementwise import Sub
from irc.ops.ranking import ArgMax
from irc.ops.selection import Gather
from irc.ops.shape import Concat
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Neg
from irc.types import Array, DType
from irc.value import Value

from .forest import Forest, Ref, Test
from .table import SCHEMAS, Node, Results, handles
from .traditional import transformed

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
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@handles(f"{DOMAIN}.TreeEnsembleRegressor")
def tree_ensemble_regressor(node: Node) -> Results:
    """Sums, or means, of what the leaves hold for each target."""
    forest = _listed(node, "target")
    targets = node.integer("n_targets")
    bias = _numbers(node, "base_values")
    scores = _scores(node, forest, targets, bias, node.text("aggregate_function"))
    return transformed(node, scores, node.text("post_transform"))


@handles(f"{DOMAIN}.TreeEnsembleClassifier")
def tree_ensemble_classifier(node: Node) -> Results:
    """The class of the largest score, and the scores. Where the leaves of two classes speak of one
    alone, what they say is its probability, or, if some of it is negative, its logit."""
    words = node.attribute("classlabels_strings")
    if words is not None and words.strings:
        node.fail("its classes are strings; train on their numbers, or export without the label")
    labels = np.asarray(node.integers("classlabels_int64s") or (), np.int64)
    forest, bias = _listed(node, "class"), _numbers(node, "base_values")
    transform, build = node.text("post_transform"), node.builder
    spoken = {t for row in forest.leaves for t in row}
    if labels.size == 2 and len(spoken) < 2 and bias.size < 2:
        positive = all(w >= 0 for row in forest.leaves for w in row.values())
        forest.leaves = [{0: sum(row.values())} if row else {} for row in forest.leaves]
        score = _scores(node, forest, 1, bias, "SUM")
        other = build.add(
            Sub(build.const(np.ones((), np.float32)), score) if positive else Neg(score)
        )
        scores = build.add(Concat((other, score), 1))
        transform = "NONE" if positive else transform
    else:
        scores = _scores(node, forest, labels.size, bias, "SUM")
    best = build.add(ArgMax(scores, 1, False, False))
    label = build.add(Gather(build.const(labels), best, 0))
    return label, transformed(node, scores, transform)


@handles(f"{DOMAIN}.TreeEnsemble")
def tree_ensemble(node: Node) -> Results:
    """As version 5 of the domain lists them: branches and leaves apart."""
    forest, splits = Forest(), _tensor(node, "nodes_splits")
    node.ignore("nodes_hitrates")
    weights = _tensor(node, "leaf_weights")
    for target, weight in zip(_whole(node, "leaf_targetids"), weights, strict=True):
        forest.leaf({target: float(weight)})
    columns = [
        _whole(node, f"nodes_{part}")
        for part in ("featureids", "trueleafs", "truenodeids", "falseleafs", "falsenodeids")
    ]
    members, tracks = _members(node), _tracks(node, len(splits))
    modes = [MODES[m] for m in _tensor(node, "nodes_modes").tolist()]
    branches = []
    for mode, value, tracked, *rest in zip(modes, splits, tracks, *columns, strict=True):
        feature, *ways = rest
        yes, no = (_leaf_or_branch(*ways[i : i + 2]) for i in (0, 2))
        of = members.pop(0) if mode == "BRANCH_MEMBER" else []
        branches.append(_Branch(Test(mode, feature, float(value), of, tracked), yes, no))
    _build(node, forest, branches, [("branch", at) for at in _whole(node, "tree_roots")])
    targets = node.integer("n_targets")
    how = AGGREGATES[node.integer("aggregate_function")]
    scores = _scores(node, forest, targets, np.zeros(0), how)
    made = transformed(node, scores, TRANSFORMS[node.integer("post_transform")])
    dtype = node.x().type.dtype
    return made if dtype is made.type.dtype else node.builder.add(Cast(made, dtype))


@dataclass(frozen=True)
class _Branch:
    """A test as a model lists it; refs are to listed branches, and to leaves."""

    test: Test
    yes: Ref
    no: Ref


def _leaf_or_branch(leaf: int, at: int) -> Ref:
    return ("leaf" if leaf else "branch"), at


def _tracks(node: Node, count: int) -> list[bool]:
    """Whether what is missing passes each test."""
    found = _whole(node, "nodes_missing_value_tracks_true")
    return [bool(t) for t in found] if found else [False] * count


def _members(node: Node) -> list[list[float]]:
    """The sets of the nodes that ask for membership, in their order; NaN ends each."""
    if node.attribute("membership_values") is None:
        return []
    array = _tensor(node, "membership_values")
    parts = np.split(array, np.flatnonzero(np.isnan(array)) + 1)
    return [part[~np.isnan(part)].tolist() for part in parts]


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


def _listed(node: Node, of: str) -> Forest:
    """Trees as versions before 5 list them: nodes of all kinds, and weights of leaves by name."""
    trees, ids = _whole(node, "nodes_treeids"), _whole(node, "nodes_nodeids")
    node.ignore("nodes_hitrates", "nodes_hitrates_as_tensor")
    found = node.attribute("nodes_modes")
    modes = [] if found is None else [m.decode("utf-8", "replace") for m in found.strings]
    names = list(zip(trees, ids, strict=True))
    if len(modes) != len(names):
        node.fail(f"{len(modes)} modes for {len(names)} nodes")
    rows = _rows(node, of)
    forest = Forest()
    refs: dict[tuple[int, int], Ref] = {}
    branches = 0
    for name, mode in zip(names, modes, strict=True):
        if mode == "LEAF":
            refs[name] = forest.leaf(rows.get(name, {}))
        else:
            refs[name] = ("branch", branches)
            branches += 1
    columns = zip(
        names, modes, _whole(node, "nodes_featureids"), _numbers(node, "nodes_values").tolist(),
        _tracks(node, len(names)), _whole(node, "nodes_truenodeids"),
        _whole(node, "nodes_falsenodeids"), strict=True,
    )  # fmt: skip
    try:
        listed = [
            _Branch(Test(mode, feature, value, (), tracks), refs[tree, yes], refs[tree, no])
            for (tree, _), mode, feature, value, tracks, yes, no in columns
            if mode != "LEAF"
        ]
    except KeyError as missing:
        node.fail(f"tree {missing.args[0][0]} has no node {missing.args[0][1]}")
    first = {tree: name for name in reversed(names) for tree in name[:1]}
    _build(node, forest, listed, [refs[first[tree]] for tree in dict.fromkeys(trees)])
    return forest


def _rows(node: Node, of: str) -> dict[tuple[int, int], dict[int, float]]:
    """What leaves add to targets, by tree and node."""
    trees, ids = _whole(node, f"{of}_treeids"), _whole(node, f"{of}_nodeids")
    targets, weights = _whole(node, f"{of}_ids"), _numbers(node, f"{of}_weights")
    rows: dict[tuple[int, int], dict[int, float]] = {}
    for tree, at, target, weight in zip(trees, ids, targets, weights.tolist(), strict=True):
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
    if how not in ("SUM", "AVERAGE"):
        node.fail(f"aggregate_function = {how!r} is not supported, only 'SUM' and 'AVERAGE'")
    if bias.size not in (0, targets):
        node.fail(f"{bias.size} base values for {targets} results")
    if how == "AVERAGE":
        count = len(forest.roots)
        forest.leaves = [{t: w / count for t, w in row.items()} for row in forest.leaves]
    if any(not 0 <= t < targets for row in forest.leaves for t in row):
        node.fail(f"a leaf adds to a result that is not among the {targets}")
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
    tensor, listed = node.attribute(f"{name}_as_tensor"), node.attribute(name)
    if tensor is not None and tensor.HasField("t") and tensor.t.dims:
        return node.tensor(tensor.t).astype(np.float64)
    return np.asarray([] if listed is None else listed.floats, np.float64)


def _tensor(node: Node, name: str) -> Array:
    """A tensor that must be there; NaN stands for what is not used."""
    found = node.attribute(name)
    if found is None:
        node.fail(f"attribute {name!r} is missing")
    return onnx.numpy_helper.to_array(found.t)


def _whole(node: Node, name: str) -> tuple[int, ...]:
    return node.integers(name) or ()
