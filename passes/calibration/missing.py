"""Inputs that may hold what is missing, NaN: those that decision trees alone read, which know where
to send it."""

from __future__ import annotations

import numpy as np

from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.quantization import Quantize
from irc.ops.trees import TreeEnsemble
from irc.types import Array
from irc.value import Value


def may_lack(graph: Graph, v: Input) -> bool:
    """Whether elements of an input may be missing."""
    users = graph.users[v]
    if v in graph.outputs or not users:
        return False
    return all(map(_knows_missing, users))


def _knows_missing(u: Value) -> bool:
    if isinstance(u, Quantize):
        return u.quant.missing is not None
    return isinstance(u, TreeEnsemble) and not u.filled


def known(x: Array) -> Array:
    """The elements that are not missing, 0 in the place of the others."""
    return np.nan_to_num(x, nan=0.0, posinf=None, neginf=None)
