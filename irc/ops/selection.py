"""Selecting elements, by index and by condition."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from irc.channels import Tie, tie, tie_broadcast
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Select, clamp, elementwise, load, load_broadcast
from irc.ops.core import Const
from irc.ops.moving import Joining, Moving, in_type, joined, moved, need_axis
from irc.types import Array, DType, TensorType, broadcast_shapes
from irc.value import Value, op


@op("gather")
class Gather(Moving):
    """Slices of x along `axis`, by index: the indices' axes replace the axis. Negative indices
    count from the end; constants must exist, indices computed at run time are clamped."""

    x: Value
    indices: Value
    axis: int

    def infer(self) -> TensorType:
        """Integer indices without a scale; constant ones must exist."""
        x, indices = self.x.type, self.indices.type
        need_axis(self.axis, x.rank)
        if indices.dtype not in (DType.I32, DType.I64) or indices.quant is not None:
            raise TypeCheckError(f"indices must be i32 or i64, they are {indices}")
        extent = x.shape[self.axis]
        if not extent and indices.size:
            raise TypeCheckError(f"axis {self.axis} of {x} is empty, there is nothing to select")
        if isinstance(self.indices, Const):
            a = self.indices.array
            if a.size and not (-extent <= a.min() and a.max() < extent):
                raise TypeCheckError(f"index {a.max()} or {a.min()} of {extent} elements")
        return moved(x, (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def evaluate(self, x: Array, indices: Array) -> Array:
        """NumPy's take."""
        extent = x.shape[self.axis]
        at = np.clip(np.where(indices < 0, indices + extent, indices), 0, extent - 1)
        return np.take(x, at, self.axis)

    def ties(self) -> Iterable[Tie]:
        """The axes that no index selects from."""
        after = self.indices.type.rank - 1
        for axis in range(len(self.x.shape)):
            if axis != self.axis:
                yield tie(self.x, axis, self, axis if axis < self.axis else axis + after)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """The same choice over the integers."""
        return in_type(self.replace(x=operands[0], indices=operands[1]), result)

    def loops(self) -> Loops:
        """Two loads."""
        extent, rank = self.x.shape[self.axis], self.indices.type.rank

        def value(*i: Expr) -> Expr:
            after = self.axis + rank
            at = load(self.indices, *i[self.axis : after]).cast(DType.I64)
            at = clamp(Select(at < 0, at + extent, at), 0, extent - 1)
            return load(self.x, *i[: self.axis], at, *i[after:])

        return elementwise(self.shape, value)


@op("where")
class Where(Joining):
    """`condition ? a : b`, element by element, broadcast; a and b must share their scale."""

    condition: Value
    a: Value
    b: Value

    def infer(self) -> TensorType:
        """A boolean condition; a and b of one dtype and one scale."""
        if self.condition.type.dtype is not DType.BOOL:
            raise TypeCheckError(f"the condition must be b1, it is {self.condition.type}")
        shape = broadcast_shapes(self.condition.shape, self.a.shape, self.b.shape)
        return joined((self.a, self.b)).with_shape(shape)

    def evaluate(self, condition: Array, a: Array, b: Array) -> Array:
        """NumPy's where."""
        return np.where(condition, a, b)

    def ties(self) -> Iterable[Tie]:
        """Every axis that broadcasting does not widen."""
        return (t for v in self.operands for t in tie_broadcast(v, self))

    def loops(self) -> Loops:
        """Three loads."""

        def value(*i: Expr) -> Expr:
            a, b = load_broadcast(self.a, i), load_broadcast(self.b, i)
            return Select(load_broadcast(self.condition, i), a, b)

        return elementwise(self.shape, value)
