"""Integer functions of two tensors, each quantized per tensor: equation (7)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, Select, clamp, elementwise, load_broadcast
from irc.ops.quantization import (
    Bounds,
    check_bounds,
    check_product,
    difference,
    full_range,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class _QBinary(Value):
    """Base of the integer functions of two tensors, each quantized per tensor."""

    a: Value
    b: Value

    def differences(self, i: tuple[Expr, ...], dtype: DType = DType.I32) -> tuple[Expr, Expr]:
        """`a - z_a` and `b - z_b` at an index of the result."""
        a = difference(load_broadcast(self.a, i), self.a.type, dtype)
        return a, difference(load_broadcast(self.b, i), self.b.type, dtype)

    def wide(self, a: Array, b: Array) -> tuple[Array, Array]:
        """`a - z_a` and `b - z_b`, i64."""
        return a.astype(np.int64) - self.a.type.zero, b.astype(np.int64) - self.b.type.zero

    def result(self, dtype: DType, quant: Quant, bounds: Bounds) -> TensorType:
        """The type rule that they share."""
        need_quantized("a", self.a.type)
        need_quantized("b", self.b.type)
        check_bounds(bounds, dtype)
        return TensorType(dtype, broadcast_shapes(self.a.shape, self.b.shape), quant)


WIDEST = 2**29
"""An operand of 32 bits counts in a sum as at most so much, of either sign."""


def reach(t: TensorType) -> int:
    """The largest `|x - zp|` that a sum sees of an operand."""
    return magnitude(t) if t.dtype.bits <= 16 else WIDEST


@op("qadd")
class QAdd(_QBinary):
    """Equation (7): `clamp(zp + (((a-z_a)*ma + (b-z_b)*mb + half) >> shift))`, in i32, where half
    is `2^(shift-1) + nudge`. Where it is `even`, ties go to the even result, without nudge.

    A negative multiplier subtracts. An operand of 32 bits has zero point 0 and is clamped to
    `WIDEST` first.
    """

    ma: int
    mb: int
    shift: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    nudge: int = 0
    even: bool = False
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")
    flags: ClassVar[tuple[str, ...]] = ("nudge", "even")

    @property
    def half(self) -> int:
        """What rounds the sum."""
        return (1 << (self.shift - 1)) + self.nudge

    @classmethod
    def of(cls, a: Value, b: Value, result: TensorType, *, sign: int = 1) -> QAdd:
        """`a + sign * b` in the type `result`."""
        factors = (a.type.scale / result.scale, sign * b.type.scale / result.scale)
        bounds = (reach(a.type), reach(b.type))
        (ma, mb), shift = fixedpoint.common_multipliers(factors, bounds)
        quant = fixedpoint.quant_of(result)
        return cls(a, b, ma, mb, shift, full_range(result), result.dtype, quant)

    def infer(self) -> TensorType:
        """Shapes that broadcast, and a sum that is proved to fit an i32."""
        result = self.result(self.dtype, self.quant, self.clamp)
        if not 1 <= self.shift <= 30:
            raise TypeCheckError(f"shift {self.shift} is not in 1 to 30")
        if any(t.dtype.bits > 16 and t.zero for t in (self.a.type, self.b.type)):
            raise TypeCheckError("operands of 32 bits must have zero point 0")
        largest = reach(self.a.type) * abs(self.ma) + reach(self.b.type) * abs(self.mb)
        if self.even:
            largest += abs(self.quant.zero) << self.shift
        if largest + max(self.half, -self.half) >= 2**31:
            raise TypeCheckError(f"sums with multipliers {self.ma}, {self.mb} may leave 32 bits")
        return result

    def evaluate(self, a: Array, b: Array) -> Array:
        """Equation (7)."""
        wide = zip(self.wide(a, b), (self.a, self.b), strict=True)
        da, db = (np.clip(d, -reach(v.type), reach(v.type)) for d, v in wide)
        total = da * self.ma + db * self.mb
        if self.even:
            moved = total + (self.type.zero << self.shift)
            y = np.clip(fixedpoint.halved(moved, self.shift), *self.clamp)
        else:
            y = np.clip(((total + self.half) >> self.shift) + self.type.zero, *self.clamp)
        return np.asarray(y, self.dtype.numpy)

    def loops(self) -> Loops:
        """Two multiplications and a shift per element."""

        def value(*i: Expr) -> Expr:
            found = zip(self.differences(i), (self.a, self.b), strict=True)
            da, db = (_reached(d, v.type) for d, v in found)
            total = da * self.ma + db * self.mb
            if self.even:
                total += self.type.zero << self.shift
                odd = (total >> self.shift) & 1
                total = (total + ((1 << (self.shift - 1)) - 1) + odd) >> self.shift
                return clamp(total, *self.clamp).cast(self.dtype)
            total = (total + self.half) >> self.shift
            # The sum is below 2^30 by now, so that the zero point can't overflow it.
            return clamp(total + self.type.zero, *self.clamp).cast(self.dtype)

        return elementwise(self.shape, value)


def _reached(d: Expr, t: TensorType) -> Expr:
    """A difference as a sum sees it."""
    return d if t.dtype.bits <= 16 else clamp(d, -WIDEST, WIDEST)


@op("qmul")
class QMul(_QBinary):
    """Equation (7): `(a - z_a) * (b - z_b)`, then (6)."""

    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def bound(self) -> int:
        """The largest magnitude of a product."""
        return magnitude(self.a.type) * magnitude(self.b.type)

    def infer(self) -> TensorType:
        """Shapes that broadcast, products that fit an i32."""
        result = self.result(self.dtype, self.quant, self.clamp)
        check_product(self.bound, self.m, self.s)
        stored = prod(max(-v.type.dtype.min, v.type.dtype.max) for v in (self.a, self.b))
        if max(self.bound, stored) >= 2**31:
            raise TypeCheckError(f"products of {self.a.type} and {self.b.type} may leave 32 bits")
        return result

    def evaluate(self, a: Array, b: Array) -> Array:
        """The product, then (6)."""
        da, db = self.wide(a, b)
        zero = self.type.zero
        return fixedpoint.requantize(da * db, self.m, self.s, zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """Two multiplications and a shift per element."""

        def value(*i: Expr) -> Expr:
            da, db = self.differences(i)
            return rescaled(da * db, self.bound, (self.m, self.s), self.clamp, self.type)

        return elementwise(self.shape, value)


@op("qdiv")
class QDiv(_QBinary):
    """`clamp(zp + round_half_up((a - z_a) * m / ((b - z_b) * 2^s)))`: one exact division.

    A divisor that stands for 0 gives what the reals give: the bound of the dividend's sign (as if
    infinite), or the zero point for 0 / 0.
    """

    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """Shapes that broadcast, a division that is proved to fit 64 bits."""
        result = self.result(self.dtype, self.quant, self.clamp)
        if not 1 <= self.s <= fixedpoint.QUOTIENT_SHIFT or not 0 <= self.m < 2**31:
            raise TypeCheckError(f"m = {self.m}, s = {self.s} is no multiplier of a quotient")
        twice = 2 * magnitude(self.a.type) * self.m + magnitude(self.b.type) * 2**self.s
        if max(twice, magnitude(self.b.type) * 2 ** (self.s + 1)) >= 2**63:
            raise TypeCheckError(f"quotients of {self.a.type} by {self.b.type} may leave 64 bits")
        return result

    def evaluate(self, a: Array, b: Array) -> Array:
        """The formula, over a divisor made positive."""
        da, db = self.wide(a, b)
        return fixedpoint.quotient(da, db, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """One 64-bit division per element."""
        lo, hi = self.clamp
        zero = self.type.zero

        def value(*i: Expr) -> Expr:
            da, db = self.differences(i, DType.I64)
            negative = db < 0
            dividend, size = Select(negative, 0 - da, da), Select(negative, 0 - db, db)
            divisor = Select(db.equals(0), Int(1, DType.I64), size)
            half = divisor << self.s
            quotient = clamp((dividend * (2 * self.m) + half) // (half << 1) + zero, lo, hi)
            ends = Select(da < 0, Int(lo, DType.I64), Int(hi, DType.I64))
            nothing = Int(min(max(zero, lo), hi), DType.I64)
            at_zero = Select(da.equals(0), nothing, ends)
            return Select(db.equals(0), at_zero, quotient).cast(self.dtype)

        return elementwise(self.shape, value)
