"""Running sums along an axis; the integer twin sums in whole numbers and rounds once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Int, Loops, Nest, Reduce, Select, Var, axes, load
from irc.ops.moving import need_axis
from irc.ops.plain_integers import need_whole, sum_over, wrapped
from irc.ops.quantization import (
    Bounds,
    accumulator,
    check_bounds,
    check_product,
    difference,
    full_range,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class _Running(Value):
    """Base of the running sums: element i is the sum up to i, itself left out if `exclusive`; from
    i to the end if `reverse`."""

    x: Value
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def running(self, x: Array) -> Array:
        """The sums, in x's dtype."""
        y = np.flip(x, self.axis) if self.reverse else x
        total = np.cumsum(y, self.axis, dtype=x.dtype)
        if self.exclusive:  # not by subtraction, which rounds
            first = np.zeros_like(total.take([0][: x.shape[self.axis]], self.axis))
            rest = total.take(range(x.shape[self.axis] - 1), self.axis)
            total = np.concatenate([first, rest], self.axis)
        return np.asarray(np.flip(total, self.axis) if self.reverse else total)

    def summed(self, index: tuple[Var, ...], element: Expr, j: Var) -> Expr:
        """`element`, whose place on the axis is j, if the sum at `index` holds it, else 0."""
        i = index[self.axis]
        low, high = (i, j) if self.reverse else (j, i)
        inside = low < high if self.exclusive else low <= high
        return Select(inside, element, Int(0, element.dtype))

    def placed(self, index: tuple[Var, ...], j: Var) -> Expr:
        """The element of x at `index`, but at j along the axis."""
        return load(self.x, *index[: self.axis], j, *index[self.axis + 1 :])


@op("cumsum")
class CumSum(_Running):
    """Running sums of floats, or of plain integers."""

    def infer(self) -> TensorType:
        """Floats, or plain integers."""
        t = self.x.type
        if t.quant is not None or t.dtype is DType.BOOL:
            raise TypeCheckError(f"x must be float or plain integers, it is {t}")
        need_axis(self.axis, t.rank)
        return t

    def evaluate(self, x: Array) -> Array:
        """NumPy's, in the operand's dtype."""
        return self.running(x)

    def loops(self) -> Loops:
        """A sum over what lies before, of plain integers."""
        if self.type.dtype.is_float:
            return super().loops()
        need_whole(self)
        index, j = axes(self.shape), Var("j", self.shape[self.axis])
        term = self.summed(index, self.placed(index, j).cast(DType.I64), j)
        return Loops((Nest(index, wrapped(sum_over(term, (j,)), self.type.dtype)),))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qcumsum`."""
        (x,) = operands
        if x.type.quant is None:
            raise IRCError(f"cumsum %{self.name}: its operand carries no scale")
        m, s = fixedpoint.multiplier(x.type.scale / result.scale)
        return QCumSum(
            x, self.axis, self.exclusive, self.reverse, m, s, full_range(result),
            result.dtype, fixedpoint.quant_of(result), name=self.name,
        )  # fmt: skip


@op("qcumsum")
class QCumSum(_Running):
    """Running sums of `x - zp_x`, then equation (6)."""

    m: int = 0
    s: int = 1
    clamp: Bounds = (0, 0)
    dtype: DType = DType.U8
    quant: Quant = Quant(1.0)
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def bound(self) -> int:
        """The largest magnitude of a sum."""
        return max(1, self.x.shape[self.axis]) * magnitude(self.x.type)

    def infer(self) -> TensorType:
        """x quantized per tensor, and sums that the multiplier can take."""
        need_quantized("x", self.x.type)
        need_axis(self.axis, self.x.type.rank)
        check_bounds(self.clamp, self.dtype)
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """The sums in i64, then (6)."""
        acc = self.running(x.astype(np.int64) - self.x.type.zero)
        return fixedpoint.requantize(acc, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A sum over what lies before, then (6)."""
        index, j = axes(self.shape), Var("j", self.shape[self.axis])
        wide = accumulator(self.bound)
        d = difference(self.placed(index, j), self.x.type, wide)
        acc = Reduce("add", (j,), self.summed(index, d, j))
        return Loops(
            (Nest(index, rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)),)
        )
