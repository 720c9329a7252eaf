"""`round_half_even(real / scale)` of equation (2), vector by vector: two ways with the same bits.

A division of doubles is exact by definition, and slow. In single precision, with s the scale, h its
nearest float and l the rest `s - h`:

    n = round(x/s - 1/2)        the integer below x/s, or next to it where x/s is almost one
    m = n + 1/2                 the only place near x where rounding changes its mind
    x > s*m  <=>  x - h*m > l*m

A fused multiply-add gives `x - h*m` exactly where that is small. The right side is rounded, but the
left one lies on a grid that is coarse beside it, so that for most scales no decision changes.
`Decisions.of` knows: it tries both sides of every middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llvmlite import ir

from irc import fixedpoint
from irc.types import Array, TensorType

I32, I64 = ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
_DOUBLE, _SINGLE = 1.5 * 2.0**52, 1.5 * 2.0**23
"""Added to a number far below it, it leaves that, rounded half to even, in the last bits: the
rounding mode of IEEE 754 does it, without a libm."""
_NEIGHBOURS = 3
"""Floats on either side of a middle's nearest one that are tried."""


@dataclass(frozen=True)
class Decisions:
    """How floats of an 8-bit type are decided by the steps above: `inverse` is 1/s, `high` h, `low`
    l. `ties` says whether any float lies just on a middle: there the even integer is right."""

    inverse: np.float32
    high: np.float32
    low: np.float32
    ties: bool = True

    @classmethod
    def of(cls, type_: TensorType) -> Decisions | None:
        """For a type; None where a decision would go wrong, or type or scale are no ordinary ones.
        Tried are the floats on both sides of each middle."""
        if type_.dtype.bits > 8 or not 2.0**-100 < type_.scale < 2.0**100:
            return None
        high = np.float32(type_.scale)
        made = cls(np.float32(1 / type_.scale), high, np.float32(type_.scale - float(high)))
        near = _near_middles(type_)
        below, left, right = made.steps(near)
        made = replace(made, ties=bool((left == right).any()))
        found = below + ((left > right) | ((left == right) & (below % 2 == 1))) + type_.zero
        return made if np.array_equal(found, fixedpoint.quantize(near, type_)) else None

    def steps(self, real: Array) -> tuple[Array, Array, Array]:
        """n, and both sides of the comparison, f32; float64 holds every product exactly."""
        exact = real.astype(np.float64)
        below = np.rint((exact * self.inverse - 0.5).astype(np.float32))
        middle = below + np.float32(0.5)
        left = exact - middle.astype(np.float64) * self.high
        return below, left.astype(np.float32), middle * self.low

    def emit(self, builder: Any, real: Any) -> Any:
        """`round_half_even(real / scale)` of a float, as an i32 of which the last 8 bits count."""
        inverse, minus_high, low, half, minus_half, magic = (
            ir.Constant(F32, float(c))
            for c in (self.inverse, -self.high, self.low, 0.5, -0.5, _SINGLE)
        )
        shifted = builder.fadd(builder.fma(real, inverse, minus_half), magic)
        middle = builder.fadd(builder.fsub(shifted, magic), half)
        left, right = builder.fma(middle, minus_high, real), builder.fmul(middle, low)
        below = builder.bitcast(shifted, I32)
        above = builder.fcmp_ordered(">", left, right)
        if self.ties:
            odd = builder.trunc(below, ir.IntType(1))
            tie = builder.and_(builder.fcmp_ordered("==", left, right), odd)
            above = builder.or_(above, tie)
        return builder.add(below, builder.zext(above, I32))


def _near_middles(type_: TensorType) -> Array:
    """f32 [middles, neighbours] within the range of a type."""
    low, high = (bound - type_.zero for bound in (type_.dtype.min, type_.dtype.max))
    middles = ((np.arange(low - 1, high + 1) + 0.5) * type_.scale).astype(np.float32)[:, None]
    near = middles + np.arange(-_NEIGHBOURS, _NEIGHBOURS + 1) * np.spacing(middles)
    return np.asarray(np.clip(near, low * type_.scale, high * type_.scale), np.float32)


def divided(builder: Any, real: Any, scale: Any) -> Any:
    """`round_half_even(real / scale)` of a double, as an i64 of which the last 32 bits count."""
    ratio = builder.fdiv(real, scale)
    return builder.bitcast(builder.fadd(ratio, ir.Constant(F64, _DOUBLE)), I64)
