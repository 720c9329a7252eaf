"""Where along an axis the largest or smallest element is: a matter of order, not of scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, Nest, Reduce, ReduceKind, Select, Temp, axes, load
from irc.ops.quantization import need_quantized
from irc.ops.reduce import reduced_element, reduced_shape
from irc.types import Array, DType, TensorType
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class Position(Value):
    """Base of the positions of extremes: i64, of several equal ones the first, or the last.

    Integers that stand for reals are in their order, so the op is its own integer twin.
    """

    x: Value
    axis: int
    keepdims: bool
    select_last: bool = False
    kind: ClassVar[ReduceKind]

    def infer(self) -> TensorType:
        """Numbers, quantized per tensor at most; an axis that is not empty."""
        t = self.x.type
        if t.quant is not None:
            need_quantized("x", t)
        if t.dtype is DType.BOOL:
            raise TypeCheckError(f"x must be numbers, it is {t}")
        shape = reduced_shape(t.shape, (self.axis,), self.keepdims)
        if t.shape[self.axis] == 0:
            raise TypeCheckError(f"axis {self.axis} of {t} is empty")
        return TensorType(DType.I64, shape)

    def evaluate(self, x: Array) -> Array:
        """NumPy's, from the other end if the last is wanted."""
        find = np.argmax if self.kind == "max" else np.argmin
        if not self.select_last:
            return np.asarray(find(x, self.axis, keepdims=self.keepdims), np.int64)
        turned = find(np.flip(x, self.axis), self.axis, keepdims=self.keepdims)
        return np.asarray(x.shape[self.axis] - 1 - turned, np.int64)

    def loops(self) -> Loops:
        """The extreme of each row, then the first or last index that has it."""
        if self.x.type.dtype.is_float:
            return super().loops()
        extreme = Temp("extreme", self.x.type.dtype, self.shape)
        outer = axes(self.shape)
        element, inner = reduced_element(self.x, (self.axis,), outer)
        first = Nest(outer, Reduce(self.kind, inner, element), extreme)
        outer = axes(self.shape)
        element, (j,) = reduced_element(self.x, (self.axis,), outer)
        none = Int(-1 if self.select_last else j.extent, DType.I64)
        found: Expr = Select(element.equals(load(extreme, *outer)), j, none)
        kind: ReduceKind = "max" if self.select_last else "min"
        return Loops((first, Nest(outer, Reduce(kind, (j,), found))))


@op("argmax")
class ArgMax(Position):
    """The position of the largest element along `axis`."""

    kind: ClassVar[ReduceKind] = "max"


@op("argmin")
class ArgMin(Position):
    """The position of the smallest element along `axis`."""

    kind: ClassVar[ReduceKind] = "min"
