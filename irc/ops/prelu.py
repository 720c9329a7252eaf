"""A slope of its own per channel below zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_axes, tie_broadcast
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, MulShift, Select, clamp, elementwise, load, load_broadcast
from irc.ops.activation import LeakyRelu
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    check_bounds,
    check_product,
    difference,
    full_range,
    magnitude,
    need_quantized,
    real_constant,
    scalars,
)
from irc.proofs import rescaled_bound
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
from irc.value import Value, op


@op("prelu")
class PRelu(Value):
    """`x` where not negative, else `slope * x`; slope broadcasts to x."""

    x: Value
    slope: Value

    def infer(self) -> TensorType:
        """The type of x, which the slope must not widen."""
        t = self.x.type
        if not t.dtype.is_float or self.slope.type.dtype is not t.dtype:
            raise TypeCheckError(f"x {t} and slope {self.slope.type} must be one float type")
        need_broadcast("slope", self.slope.type, t)
        return t

    def evaluate(self, x: Array, slope: Array) -> Array:
        """The formula in the operands' dtype."""
        with np.errstate(all="ignore"):
            return np.where(x < 0, slope * x, x)

    def ties(self) -> Iterable[Tie]:
        """Every axis that broadcasting does not widen."""
        return (*tie_axes(self.x, self, range(len(self.shape))), *tie_broadcast(self.slope, self))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qprelu`; a single slope is a table."""
        x, slope = operands[0], real_constant(operands[1], "the slope of prelu")
        if slope.size == 1 and x.type.dtype.bits == 8:
            return LeakyRelu(self.x, float(slope.reshape(-1)[0]), name=self.name).quantized(
                (x,), result
            )
        factor = x.type.scale / result.scale
        m, s = fixedpoint.multiplier(factor)
        m_neg, s_neg = fixedpoint.multipliers(np.abs(slope.reshape(-1)) * factor)
        m_neg = np.asarray(np.where(slope.reshape(-1) < 0, -m_neg, m_neg), np.int32)
        return QPRelu(
            x, m, s,
            Const(m_neg.reshape(slope.shape), name=f"{self.name}.m"),
            Const(s_neg.reshape(slope.shape), name=f"{self.name}.s"),
            full_range(result), result.dtype, fixedpoint.quant_of(result),
            wide=_reach(x.type, [m, *m_neg], [s, *s_neg], result.zero) >= 2**31, name=self.name,
        )  # fmt: skip


@op("qprelu")
class QPRelu(Value):
    """Equation (6) with one multiplier for `x >= zp`, and others below.

    m, s for the upper branch; m_neg i32, s_neg i8 broadcast to x (per channel, usually), with
    m_neg negative where the slope is. `wide`: in 64 bits, because a steep slope could leave 32
    before the clamp.
    """

    x: Value
    m: int
    s: int
    m_neg: Value
    s_neg: Value
    clamp: Bounds
    dtype: DType
    quant: Quant
    wide: bool = True
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of x; multipliers that broadcast to it, and fit 32 bits unless `wide`."""
        need_quantized("x", self.x.type)
        for what, v, dtype in (("m_neg", self.m_neg, DType.I32), ("s_neg", self.s_neg, DType.I8)):
            need_broadcast(what, v.type, self.x.type)
            if v.type.dtype is not dtype:
                raise TypeCheckError(f"{what} must be {dtype.value}, it is {v.type}")
        check_bounds(self.clamp, self.dtype)
        check_product(magnitude(self.x.type), self.m, self.s)
        result = TensorType(self.dtype, self.x.shape, self.quant)
        if not self.wide and self._known_reach(result) >= 2**31:
            raise TypeCheckError("products may leave 32 bits before the clamp: set wide")
        return result

    def _known_reach(self, result: TensorType) -> int:
        """How far a product reaches by the multipliers that are constants."""
        m, s = [self.m], [self.s]
        if isinstance(self.m_neg, Const) and isinstance(self.s_neg, Const):
            m_neg, s_neg = np.broadcast_arrays(self.m_neg.array, self.s_neg.array)
            m, s = [*m, *m_neg.reshape(-1)], [*s, *s_neg.reshape(-1)]
        return _reach(self.x.type, m, s, result.zero)

    def evaluate(self, x: Array, m_neg: Array, s_neg: Array) -> Array:
        """Equation (6) by branch."""
        d = x.astype(np.int64) - self.x.type.zero
        m: Any = np.where(d < 0, m_neg, self.m)
        s: Any = np.where(d < 0, s_neg, self.s)
        return fixedpoint.requantize(d, m, s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """Both products, and a choice."""

        def value(*i: Expr) -> Expr:
            d = difference(load(self.x, *i), self.x.type, DType.I64 if self.wide else DType.I32)
            lower = MulShift(d, load_broadcast(self.m_neg, i), load_broadcast(self.s_neg, i))
            upper = MulShift(d, *scalars(self.m, self.s))
            chosen = Select(d < 0, lower, upper)
            return clamp(chosen + self.type.zero, *self.clamp).cast(self.dtype)

        return elementwise(self.shape, value)


def _reach(x: TensorType, m: Sequence[int], s: Sequence[int], zero: int) -> int:
    """How far `zp + (6)` of an x reaches, over all multipliers."""
    bound = np.full(len(m), magnitude(x))
    return rescaled_bound(bound, np.asarray(m), np.asarray(s), zero)


def need_broadcast(what: str, t: TensorType, to: TensorType) -> None:
    """Raise `TypeCheckError` unless `t` broadcasts to the shape of `to` without widening it."""
    if broadcast_shapes(t.shape, to.shape) != to.shape:
        raise TypeCheckError(f"{what} {t} does not broadcast to {to}")
