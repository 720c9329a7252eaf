"""Softmax, float and integer (equation (9))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_axes
from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, MulShift, Nest, Reduce, Temp, Var, axes, load
from irc.ops.core import Const
from irc.ops.quantization import check_product, full_range, need_quantized, requantized, scalars
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

ENTRIES = {DType.U8: 256, DType.I8: 256, DType.U16: 512, DType.I16: 512}
"""The size of the table of exp for each operand type."""


@op("softmax")
class Softmax(Value):
    """`exp(x) / sum(exp(x))` along one axis."""

    x: Value
    axis: int

    def infer(self) -> TensorType:
        """The operand's own type."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        check_axis(self.axis, self.x.type)
        return self.x.type

    def evaluate(self, x: Array) -> Array:
        """Over differences to the maximum, so that exp can't overflow."""
        with np.errstate(all="ignore"):
            e = np.exp(x - x.max(self.axis, keepdims=True))
            return np.asarray(e / e.sum(self.axis, keepdims=True))

    def ties(self) -> Iterable[Tie]:
        """All axes but the one that is summed over."""
        return tie_axes(self.x, self, (a for a in range(len(self.shape)) if a != self.axis))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qsoftmax`, with the table of exp for the operand's scale."""
        x = operands[0]
        need_quantized("x", x.type)
        exp = fixedpoint.softmax_table(x.type.scale, x.type.dtype.bits)
        table = Const(exp, name=f"{self.name}.exp")
        m, s = fixedpoint.softmax_multiplier(result.scale)
        quant = fixedpoint.quant_of(result)
        return QSoftmax(x, table, self.axis, m, s, result.dtype, quant, name=self.name)


@op("qsoftmax")
class QSoftmax(Value):
    """Equation (9): one division per row.

    With `e = table[max - x]` of 30 fractional bits and `r = 2^61 // sum(e)`, the probability is
    `p = (e * r) >> 31`, again of 30 fractional bits, which (6) takes to the result's scale. For x
    of 16 bits, e is the product of two entries, for the low and the high byte of `max - x`.
    """

    x: Value
    table: Value
    axis: int
    m: int
    s: int
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The operand's shape; 8 bits and a table of 256 entries, or 16 bits and two of these."""
        need_quantized("x", self.x.type)
        check_axis(self.axis, self.x.type)
        if (size := ENTRIES.get(self.x.type.dtype)) is None:
            raise TypeCheckError(f"x must be of 8 or 16 bits, it is {self.x.type}")
        if self.table.shape != (size,) or self.table.type.dtype is not DType.I32:
            raise TypeCheckError(f"the table must be i32[{size}], it is {self.table.type}")
        check_product(2**fixedpoint.EXP_BITS, self.m, self.s)
        return TensorType(self.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array, table: Array) -> Array:
        """Equation (9)."""
        p = fixedpoint.softmax(x, table, self.axis)
        bounds = full_range(self.type)
        return fixedpoint.requantize(p, self.m, self.s, self.type.zero, bounds, self.dtype)

    def loops(self) -> Loops:
        """The maximum of each row, the reciprocal of its sum, then the probabilities."""
        outer_shape = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        largest = Temp("max", self.x.type.dtype, outer_shape)
        reciprocal = Temp("reciprocal", DType.I64, outer_shape)

        def row(variables: tuple[Expr, ...], j: Expr) -> Expr:
            return load(self.x, *variables[: self.axis], j, *variables[self.axis :])

        def exponential(variables: tuple[Expr, ...], j: Expr) -> Expr:
            top = load(largest, *variables).cast(DType.I64)
            return self._exponential(top - row(variables, j).cast(DType.I64))

        i = axes(outer_shape)
        j = Var("j", self.shape[self.axis])
        first = Nest(i, Reduce("max", (j,), row(i, j)), largest)

        i = axes(outer_shape)
        j = Var("j", self.shape[self.axis])
        one = Int(1 << fixedpoint.RECIPROCAL_BITS, DType.I64)
        second = Nest(i, one // Reduce("add", (j,), exponential(i, j)), reciprocal)

        every = axes(self.shape)
        i, j = every[: self.axis] + every[self.axis + 1 :], every[self.axis]
        p = (exponential(i, j) * load(reciprocal, *i)) >> fixedpoint.PROBABILITY_SHIFT
        value = requantized(p, *scalars(self.m, self.s), full_range(self.type), self.type)
        return Loops((first, second, Nest(every, value)))

    def _exponential(self, d: Expr) -> Expr:
        """exp of -d steps of x, of 30 fractional bits."""
        if self.x.type.dtype.bits == 8:
            return load(self.table, d).cast(DType.I64)
        high = d >> 8
        low = load(self.table, d - (high << 8)).cast(DType.I64)
        return MulShift(low, load(self.table, high + 256), Int(fixedpoint.EXP_BITS, DType.I8))


def check_axis(axis: int, t: TensorType) -> None:
    """Raise `TypeCheckError` unless `axis` is an axis of `t` that is not empty."""
    if not 0 <= axis < t.rank:
        raise TypeCheckError(f"axis {axis} is not an axis of {t}")
    if t.shape[axis] == 0:
        raise TypeCheckError(f"axis {axis} of {t} is empty")
