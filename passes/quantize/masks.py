"""What a softmax can see of its operand.

Attention masks add -inf, or the lowest float, to the logits of keys that do not count. As a range
that would take every bit from the others. A softmax sees no more of an element than that it lies
far below its row's largest, so that much of the range is enough.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from irc.graph import Graph
from irc.passes.calibration.calibrate import Visible
from irc.passes.float.pointwise import scaling
from irc.types import Array
from irc.value import Value

INVISIBLE = 16.0
"""What lies this far below the row's largest has a ten-millionth of its weight."""
BELOW_ALL = 128.0
"""What is added to logits and lies this far below all else hides any of them."""
STANDS_FOR_INFINITY = 1e4
"""Numbers as large as this only say "less (or more) than any": they saturate."""
ENDLESS = 1e38
"""Whatever is measured, numbers as large as this do."""
RANKS = frozenset({"reduce_max", "reduce_min", "argmax", "argmin", "topk"})
"""Ops that read the order of elements."""
LARGEST, LEAST = frozenset({"reduce_max", "argmax"}), frozenset({"reduce_min", "argmin"})
"""Those that see no element at the other end."""
FAR = 1e3
"""So many times as large as all else is what only stands for an infinity."""


def masked(graph: Graph) -> dict[Value, Visible]:
    """The values that nothing but softmaxes read, directly or as sums, with what these see."""
    found: dict[Value, Visible] = {}
    outputs = set(graph.outputs)
    for v in reversed(graph.order):
        users = graph.users[v]
        if not v.type.dtype.is_float or not users or v in outputs:
            continue
        if all(u.op == "softmax" for u in users):
            axes = {int(u.attributes["axis"]) for u in users}
            found[v] = partial(near_largest, axis=axes.pop()) if len(axes) == 1 else finite
        elif all(u.op == "softmax" or (u in found and _passes_on(u)) for u in users):
            found[v] = finite
    return found


def ranked(graph: Graph) -> dict[Value, Visible]:
    """The values of which nothing but extremes and places of elements are read, with what can be
    told of these: what stands for infinity lies at the end of all others, where it saturates."""
    readers: dict[Value, frozenset[str]] = {}
    outputs = set(graph.outputs)
    for v in reversed(graph.order):
        users = graph.users[v]
        if not v.type.dtype.is_float or not users or v in outputs:
            continue
        if all(u.op in RANKS or (u in readers and u.moves) for u in users):
            each = (readers.get(u, frozenset({u.op})) for u in users)
            readers[v] = frozenset[str]().union(*each)
    return {
        v: partial(at_the_ends, low=ops <= LARGEST, high=ops <= LEAST) for v, ops in readers.items()
    }


def _passes_on(v: Value) -> bool:
    """Whether what is low in an operand stays low."""
    return v.op == "add" or v.moves or scaling(v) is not None


def near_largest(x: Array, axis: int) -> Array:
    """Elements no further than INVISIBLE below the largest along an axis."""
    x = finite(x)
    if not x.size:
        return x
    return np.asarray(np.maximum(x, x.max(axis, keepdims=True) - x.dtype.type(INVISIBLE)))


def finite(x: Array) -> Array:
    """What stands for -inf lies BELOW_ALL under the lowest of the others."""
    infinite = x <= -STANDS_FOR_INFINITY
    if not infinite.any():
        return x
    lowest = float(x[~infinite].min(initial=0.0))
    return np.where(infinite, x.dtype.type(lowest - BELOW_ALL), x)


def at_the_ends(x: Array, *, low: bool = False, high: bool = False) -> Array:
    """What stands for an infinity lies at the end of the others: the largest numbers there are, or,
    at an end that nobody sees, those that are far beyond all others."""
    usual = np.abs(x[np.abs(x) < STANDS_FOR_INFINITY])
    beyond = max(STANDS_FOR_INFINITY, FAR * float(usual.max(initial=0.0)))
    unseen = (x <= -beyond) & low | (x >= beyond) & high
    endless = (np.abs(x) >= ENDLESS) | unseen
    if not endless.any():
        return x
    others = x[~endless]
    return np.clip(x, others.min(initial=0.0), others.max(initial=0.0))
