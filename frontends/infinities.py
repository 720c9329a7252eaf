"""What is not finite among a model's constants: masks of attention, or broken weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irc.errors import ModelError
from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.selection import Where
from irc.ops.trees import TreeEnsemble
from irc.rewrite import rebuild
from irc.value import Value


def without_infinities(graph: Graph) -> Graph:
    """Masks hold the lowest number there is in the place of -inf, and choices the largest in that
    of inf, which no scale could stand for.

    Raises `ModelError` for other constants that are not finite after folding.
    """

    def finite(v: Value, made: Value) -> Value:
        if isinstance(v, Const) and v.array.dtype.kind == "f" and not np.isfinite(v.array).all():
            return _mask(v, graph)
        return made

    return rebuild(graph, finite)


def _advice(c: Const, users: Sequence[Value]) -> str:
    """What to do about a constant: one number was written into the model, weights were computed."""
    if c.array.size > 1 and not np.all(c.array == -np.inf):
        return "if these are trained weights, the training diverged"
    user = f", read by {users[0].op} %{users[0].name}," if users else ""
    return f"it is one number{user} written into the model: write a finite one"


def _threshold(c: Const, reader: Value) -> bool:
    """Whether a constant is what trees compare with: beyond infinity there is nothing but what is
    missing, as LightGBM asks for."""
    return isinstance(reader, TreeEnsemble) and c is reader.threshold


def _mask(c: Const, graph: Graph) -> Const:
    """A constant of which some elements, or which for some elements, is infinite."""
    users = graph.users[c]
    if users and not np.isnan(c.array).any() and all(_threshold(c, u) for u in users):
        return c
    chosen = all(isinstance(u, Where) for u in users)
    plain = all(isinstance(u, Where | Add) or u.moves for u in users)
    partly = bool(np.isfinite(c.array).any()) and plain
    lost = np.isnan(c.array) | ((c.array == np.inf) & np.bool_(not chosen))
    if np.any(lost) or not (chosen or partly):
        bad = int(np.sum(~np.isfinite(c.array)))
        raise ModelError(
            f"constant {c.name!r}: NaN or infinite values, {bad} of {c.array.size}, for which no"
            f" integer stands; {_advice(c, users)}"
        )
    known = np.finfo(c.array.dtype)
    return Const(np.clip(c.array, known.min, known.max), c.quant, name=c.name)
