"""Trees and columns as ONNX: trees as scikit-learn's converter lists them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from irc.backends.onnx.writer import Writer, exports
from irc.errors import GraphError
from irc.ops.columns import Columns
from irc.ops.core import Const
from irc.ops.trees import TreeEnsemble
from irc.types import Array
from irc.value import Value

MOST_NODES = 1 << 22
"""ONNX's trees share no nodes, so that listing them may take more than the IR's."""


@exports(Columns)
def _columns(w: Writer, v: Columns) -> str:
    centred = w.emit("Sub", [w.read(v.x), w.read(v.offset)])
    return w.emit("Div", [centred, w.read(v.scale)], name=v.name)


@exports(TreeEnsemble)
def _trees(w: Writer, v: TreeEnsemble) -> str:
    return w.emit(
        "TreeEnsembleRegressor", [w.read(v.x)], name=v.name, domain="ai.onnx.ml",
        n_targets=v.shape[1], base_values=_constant(v, v.bias).tolist(), **_listed(v),
    )  # fmt: skip


def _listed(v: TreeEnsemble) -> dict[str, list[Any]]:
    """The attributes that list all nodes of all trees, and what leaves add to which target."""
    feature, threshold, inclusive, missing, children, roots, leaves = (
        _constant(v, o).tolist()
        for o in (v.feature, v.threshold, v.inclusive, v.missing, v.children, v.roots, v.leaves)
    )
    found: dict[str, list[Any]] = defaultdict(list)

    def add(kind: str, **columns: Any) -> None:
        for name, entry in columns.items():
            found[f"{kind}_{name}"].append(entry)

    each = v.leaves.shape[1]
    for tree, root in enumerate(root for group in roots for root in group):
        first = tree // len(roots[0]) * each
        order = [root]
        for at, node in enumerate(order):
            if len(found["nodes_nodeids"]) >= MOST_NODES:
                raise GraphError(f"tree_ensemble %{v.name}: as trees that share nothing, as ONNX"
                                 f" has them, it has more than {MOST_NODES:,} nodes")  # fmt: skip
            leaf = node >= len(feature)
            low = 0 if leaf else len(order)
            mode = "LEAF" if leaf else "BRANCH_LT" if inclusive[node] else "BRANCH_LEQ"
            add("nodes", treeids=tree, nodeids=at, modes=mode,
                featureids=0 if leaf else feature[node], values=0.0 if leaf else threshold[node],
                truenodeids=low, falsenodeids=low + 1 if low else 0,
                missing_value_tracks_true=0 if leaf else int(not missing[node]))  # fmt: skip
            if not leaf:
                order += children[node]
                continue
            for column, weight in enumerate(leaves[node - len(feature)]):
                add("target", treeids=tree, nodeids=at, ids=first + column, weights=weight)
    return found


def _constant(v: TreeEnsemble, o: Value) -> Array:
    if not isinstance(o, Const):
        raise GraphError(f"tree_ensemble %{v.name}: trees that are computed (%{o.name}) have no"
                         " ONNX form")  # fmt: skip
    return o.array
