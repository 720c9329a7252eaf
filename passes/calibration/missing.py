"""Tables that decision trees alone read. Their elements may be missing, NaN: trees know where to
send these."""

from __future__ import annotations

import numpy as np

from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.quantization import Quantize
from irc.ops.shape import Concat
from irc.ops.trees import TreeEnsemble
from irc.types import Array
from irc.value import Value


def trees_of(graph: Graph, v: Value) -> tuple[TreeEnsemble, ...]:
    """The trees that read an input, or inputs put together column by column, if nothing else does;
    else none."""
    users = graph.users[v]
    if v in graph.outputs or not users:
        return ()
    trees = tuple(u for u in users if isinstance(u, TreeEnsemble))
    if len(trees) == len(users):
        return trees
    (table, *more), inputs = users, isinstance(v, Input)
    return trees_of(graph, table) if inputs and not more and _of_inputs(graph, table) else ()


def _of_inputs(graph: Graph, v: Value) -> bool:
    """Whether a value is reals of several inputs, column by column, each there once."""
    if not isinstance(v, Concat) or v.axis != 1 or v.type.rank != 2:
        return False
    return all(
        isinstance(x, Input) and x.type.dtype.is_float and graph.uses(x) == 1 for x in v.xs
    )


def may_lack(graph: Graph, v: Input) -> bool:
    """Whether elements of an input may be missing: trees know what to do, or nothing reads them."""
    users = graph.users[v]
    if not users:
        return v not in graph.outputs
    if all(isinstance(u, Quantize) for u in users):
        return any(isinstance(u, Quantize) and u.quant.missing is not None for u in users)
    trees = trees_of(graph, v)
    return bool(trees) and not any(t.filled for t in trees)


def known(x: Array) -> Array:
    """The elements that are not missing, 0 in the place of the others."""
    return np.nan_to_num(x, nan=0.0, posinf=None, neginf=None)
