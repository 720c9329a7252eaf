"""Where along an axis the largest or smallest elements are: a matter of order, not of scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, Nest, Reduce, ReduceKind, Select, Temp, Var, axes, load
from irc.ops.moving import need_axis
from irc.ops.quantization import need_quantized
from irc.ops.reduce import reduced_element, reduced_shape
from irc.types import Array, DType, TensorType
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class Ranking(Value):
    """Base of what is known of elements by their order alone, i64.

    Integers that stand for reals are in their order, so the op is its own integer twin.
    """

    x: Value

    def ordered(self) -> TensorType:
        """The type of x; raises `TypeCheckError` unless it is numbers, quantized per tensor at
        most."""
        t = self.x.type
        if t.quant is not None:
            need_quantized("x", t)
        if t.dtype is DType.BOOL:
            raise TypeCheckError(f"x must be numbers, it is {t}")
        return t


@dataclass(frozen=True, eq=False)
class Position(Ranking):
    """Base of the positions of extremes: of several equal ones the first, or the last."""

    axis: int
    keepdims: bool
    select_last: bool = False
    kind: ClassVar[ReduceKind]

    def infer(self) -> TensorType:
        """Numbers; an axis that is not empty."""
        t = self.ordered()
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


@op("topk")
class TopK(Ranking):
    """The positions of the k largest elements along `axis`, the largest first; of the smallest,
    the smallest first, unless `largest`. Of equal ones the first comes first."""

    axis: int
    k: int
    largest: bool = True

    def infer(self) -> TensorType:
        """Numbers; an axis with at least k of them."""
        t = self.ordered()
        need_axis(self.axis, t.rank)
        if not 0 <= self.k <= t.shape[self.axis]:
            raise TypeCheckError(f"{self.k} of {t.shape[self.axis]} elements can't be chosen")
        return TensorType(
            DType.I64, (*t.shape[: self.axis], self.k, *t.shape[self.axis + 1 :])
        )

    def evaluate(self, x: Array) -> Array:
        """NumPy's stable sort, from the other end for the largest."""
        if self.largest:
            turned = np.argsort(np.flip(x, self.axis), self.axis, kind="stable")
            order = x.shape[self.axis] - 1 - np.flip(turned, self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        return np.asarray(np.take(order, np.arange(self.k), self.axis), np.int64)

    def loops(self) -> Loops:
        """How many elements go before each one, then the element before which go so many."""
        if self.x.type.dtype.is_float:
            return super().loops()
        axis, extent = self.axis, self.x.shape[self.axis]
        rank = Temp("rank", DType.I32, self.x.shape)
        outer = axes(self.x.shape)
        j = Var("j", extent)
        here, other = load(self.x, *outer), load(self.x, *_with(outer, axis, j))
        before = other > here if self.largest else other < here
        tie = other.equals(here) & (j < outer[axis])
        counted = Reduce("add", (j,), (before | tie).cast(DType.I32))
        chosen = axes(self.shape)
        hit = load(rank, *_with(chosen, axis, j)).equals(chosen[axis].cast(DType.I32))
        found = Reduce("max", (j,), Select(hit, j, Int(0, DType.I64)))
        return Loops((Nest(outer, counted, rank), Nest(chosen, found)))


def _with(index: tuple[Var, ...], axis: int, i: Var) -> tuple[Var, ...]:
    return (*index[:axis], i, *index[axis + 1 :])
