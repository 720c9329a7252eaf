"""Rows put into places that are computed at run time. Constant places need no op of their own: they
are a gather."""

from __future__ import annotations

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, Nest, Reduce, Select, Temp, Var, axes, load, maximum
from irc.ops.moving import Joining, joined
from irc.types import Array, DType, TensorType
from irc.value import Value, op


@op("scatter")
class Scatter(Joining):
    """x [R, ...], in which row `at[u]` is replaced by row u of updates [U, ...]. Of several updates
    of one row the last one stays; places that do not exist are left out."""

    x: Value
    updates: Value
    at: Value

    def infer(self) -> TensorType:
        """Rows of one shape, dtype and scale; i64 places."""
        x, updates, at = self.x.type, self.updates.type, self.at.type
        if x.rank < 1 or updates.rank != x.rank or updates.shape[1:] != x.shape[1:]:
            raise TypeCheckError(f"rows of {updates} do not fit {x}")
        if at != TensorType(DType.I64, updates.shape[:1]):
            raise TypeCheckError(f"the places must be i64[{updates.shape[0]}], they are {at}")
        return joined((self.x, self.updates)).with_shape(x.shape)

    def evaluate(self, x: Array, updates: Array, at: Array) -> Array:
        """NumPy's assignment, update after update."""
        y = x.copy()
        source = np.full(len(x), -1, np.int64)
        inside = (at >= 0) & (at < len(x))
        np.maximum.at(source, at[inside], np.flatnonzero(inside))
        y[source >= 0] = updates[source[source >= 0]]
        return y

    def loops(self) -> Loops:
        """For each row the last update that names it (a `Numbering`), then one load."""
        rows, count = self.x.shape[0], self.updates.shape[0]
        if count == 0:
            index = axes(self.shape)
            return Loops((Nest(index, load(self.x, *index)),))
        source = Temp("source", DType.I64, (rows,))
        (r,), u = axes((rows,)), Var("u", count)
        found = Select(load(self.at, u).equals(r), u, Int(-1, DType.I64))
        first = Nest((r,), Reduce("max", (u,), found), source)
        r, *rest = axes(self.shape)
        chosen: Expr = load(source, r)
        new = load(self.updates, maximum(chosen, 0), *rest)
        value = Select(chosen < 0, load(self.x, r, *rest), new)
        return Loops((first, Nest((r, *rest), value)))
