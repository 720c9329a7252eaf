"""From reals to booleans or whole numbers and from whole numbers to reals, in integers.

A function of one 8-bit value that gives these is a table; two values are compared in a common
scale; whole numbers (masks, counts) that a net reads as reals are rescaled.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.loops import CompareKind, Expr, Loops, clamp, compare, elementwise, load, load_broadcast
from irc.ops.core import Const
from irc.ops.plain_integers import need_whole
from irc.ops.quantization import (
    Bounds,
    check_bounds,
    check_product,
    difference,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
from irc.value import Value, op

FARTHEST = 2.0**30
"""Steps from zero, beyond all that integers of 16 bits stand for."""


@op("truth")
class Truth(Value):
    """`table[x - dtype.min]`, booleans or whole numbers: any predicate of one value of 8 or 16
    bits, or what it is as a number without a scale (a pixel)."""

    x: Value
    table: Value

    def infer(self) -> TensorType:
        """An operand of 8 or 16 bits, a boolean or a plain integer for each of its values."""
        if self.x.type.dtype not in (DType.U8, DType.I8, DType.I16):
            raise TypeCheckError(f"x must be u8, i8 or i16, it is {self.x.type}")
        t, count = self.table.type, 1 << self.x.type.dtype.bits
        if t.dtype.is_float or t != TensorType(t.dtype, (count,)):
            raise TypeCheckError(f"the table must be {count} booleans or whole numbers, it is {t}")
        return TensorType(t.dtype, self.x.shape)

    def evaluate(self, x: Array, table: Array) -> Array:
        """Indexing."""
        return table[x.astype(np.int64) - self.x.type.dtype.min]

    def loops(self) -> Loops:
        """One load per element."""
        low = self.x.type.dtype.min
        return elementwise(
            self.shape, lambda *i: load(self.table, load(self.x, *i).cast(DType.I64) - low)
        )


@op("qcompare")
class QCompare(Value):
    """`(a - z_a) * ma  relation  (b - z_b) * mb`, broadcast: reals of unlike scales, compared as
    exactly as an i32 holds their products; a constant in the other's scale exactly."""

    a: Value
    b: Value
    relation: CompareKind
    ma: int
    mb: int

    @classmethod
    def of(cls, relation: CompareKind, a: Value, b: Value, *, name: str = "") -> QCompare:
        """The comparison of two quantized values."""
        scale = max(a.type.scale, b.type.scale)
        factors = (a.type.scale / scale, b.type.scale / scale)
        bounds = (magnitude(a.type), magnitude(b.type))
        (ma, mb), _ = fixedpoint.common_multipliers(factors, bounds)
        return cls(a, b, relation, ma, mb, name=name)

    @classmethod
    def with_constant(
        cls, relation: CompareKind, x: Value, c: Const, *, first: bool, name: str = ""
    ) -> QCompare:
        """A quantized value and real constants (the `first` operand, or the second): the integers
        on the same side of each as the reals of single precision that they stand for. A constant
        that no integer stands for equals none."""
        scale, real = x.type.scale, c.array.astype(np.float32)
        steps = np.clip(real.astype(np.float64) / scale, -FARTHEST, FARTHEST)
        nearest, up = np.rint(steps), (relation == "le") == first
        on_grid = (nearest * scale).astype(np.float32) == real
        beside = np.ceil(steps) if up else np.floor(steps)
        never = FARTHEST * (1 if first else -1)
        other = np.where(np.isnan(real) | (relation == "eq"), never, beside)
        whole = np.where(on_grid, nearest, other).astype(np.int32)
        bound = Const(whole, Quant(x.type.scale), name=c.name)
        a, b = (bound, x) if first else (x, bound)
        return cls(a, b, relation, 1, 1, name=name)

    @property
    def wide(self) -> DType:
        """The dtype of products: i64 where an operand has more than 16 bits."""
        return DType.I32 if max(v.type.dtype.bits for v in (self.a, self.b)) <= 16 else DType.I64

    def infer(self) -> TensorType:
        """Operands quantized per tensor, products that fit an i32, or an i64 where one has more
        than 16 bits."""
        need_quantized("a", self.a.type)
        need_quantized("b", self.b.type)
        if self.relation not in ("lt", "le", "eq"):
            raise TypeCheckError(f"relation {self.relation!r} is none of lt, le, eq")
        for v, m in ((self.a, self.ma), (self.b, self.mb)):
            if magnitude(v.type) * abs(m) >= 2 ** (self.wide.bits - 1):
                bits = self.wide.bits
                raise TypeCheckError(f"products of {v.type} with {m} may leave {bits} bits")
        return TensorType(DType.BOOL, broadcast_shapes(self.a.shape, self.b.shape))

    def evaluate(self, a: Array, b: Array) -> Array:
        """The products in i64."""
        left = (a.astype(np.int64) - self.a.type.zero) * self.ma
        right = (b.astype(np.int64) - self.b.type.zero) * self.mb
        if self.relation == "eq":
            return np.asarray(left == right)
        return np.asarray(left < right if self.relation == "lt" else left <= right)

    def loops(self) -> Loops:
        """Two multiplications per element."""

        def value(*i: Expr) -> Expr:
            left = difference(load_broadcast(self.a, i), self.a.type, self.wide) * self.ma
            right = difference(load_broadcast(self.b, i), self.b.type, self.wide) * self.mb
            return compare(self.relation, left, right)

        return elementwise(self.shape, value)


@op("qcast")
class QCast(Value):
    """Whole numbers, or booleans as 0 and 1, as reals: x limited to [low, high], beyond which the
    result saturates anyway, then equation (6)."""

    x: Value
    low: int
    high: int
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @classmethod
    def of(cls, x: Value, result: TensorType, *, name: str = "") -> QCast:
        """x in the quantization of `result`."""
        dtype, zero, scale = x.type.dtype, result.zero, result.scale
        ends = ((end - zero) * scale for end in (result.dtype.min - 1, result.dtype.max + 1))
        low, high = (min(max(int(end), dtype.min), dtype.max) for end in ends)
        low, high = max(low - 1, dtype.min), min(high + 1, dtype.max)
        m, s = fixedpoint.multiplier(1 / scale)
        while max(abs(low), abs(high)) * m + 2 ** (s - 1) >= 2**63 and s > 1:
            m, s = m // 2, s - 1
        bounds = (result.dtype.min, result.dtype.max)
        quant = fixedpoint.quant_of(result)
        return cls(x, low, high, m, s, bounds, result.dtype, quant, name=name)

    @property
    def bound(self) -> int:
        """The largest magnitude of what is multiplied."""
        return max(1, abs(self.low), abs(self.high))

    def infer(self) -> TensorType:
        """Plain integers or booleans, limits that the multiplier can take."""
        t = self.x.type
        if t.dtype.is_float or t.quant is not None:
            raise TypeCheckError(f"x must be plain integers or booleans, it is {t}")
        if not t.dtype.min <= self.low <= self.high <= t.dtype.max:
            raise TypeCheckError(f"[{self.low}, {self.high}] is no range of {t.dtype.value}")
        check_bounds(self.clamp, self.dtype)
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, t.shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """The limits, then (6)."""
        wide = x if x.dtype == np.uint64 else x.astype(np.int64)
        d = np.clip(wide, self.low, self.high).astype(np.int64)
        return fixedpoint.requantize(d, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """One multiplication per element."""
        need_whole(self)

        def value(*i: Expr) -> Expr:
            d = clamp(load(self.x, *i).cast(DType.I64), self.low, self.high)
            return rescaled(d, self.bound, (self.m, self.s), self.clamp, self.type)

        return elementwise(self.shape, value)
