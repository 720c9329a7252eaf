"""The arithmetic contract, once: the numbered equations of docs/arithmetic.md in NumPy.

Every backend agrees with these functions bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.errors import IRCError
from irc.types import Array, DType, Quant, TensorType

MAX_SHIFT = 62
"""The largest shift of equation (6); a smaller factor is multiplied as 0."""


def quantize(real: npt.ArrayLike, type_: TensorType) -> Array:
    """Equation (2): `clamp(round_half_even(real / scale) + zp)`. True division, rounding before
    the zero point is added; NaN gives the zero point, infinities saturate."""
    quant = quant_of(type_)
    scale, zero = along_axis(quant, type_.rank)
    with np.errstate(all="ignore"):
        q = np.rint(np.asarray(real, np.float64) / scale) + zero
    q = np.where(np.isnan(q), zero, q)
    return _as(np.clip(q, type_.dtype.min, type_.dtype.max), type_.dtype)


def dequantize(q: Array, type_: TensorType, dtype: DType = DType.F32) -> Array:
    """Equation (1): `scale * (q - zero_point)`, computed in float64, in the float dtype."""
    scale, zero = along_axis(quant_of(type_), type_.rank)
    return _as((q.astype(np.float64) - zero) * scale, dtype)


def quant_of(type_: TensorType) -> Quant:
    """The quantization of a type; raises `IRCError` where there is none."""
    if type_.quant is None:
        raise IRCError(f"{type_} carries no scale")
    return type_.quant


def along_axis(quant: Quant, rank: int) -> tuple[Any, Any]:
    """Scale and zero point as float64 numbers, or arrays that broadcast along the axis."""
    if quant.axis is None:
        return quant.tensor_scale, float(quant.zero)
    shape = [1] * rank
    shape[quant.axis] = -1
    scale = np.asarray(quant.scale, np.float64).reshape(shape)
    zero = np.asarray(quant.zero_point, np.float64)
    return scale, zero.reshape(shape) if zero.ndim else float(zero)


def multiplier(factor: float) -> tuple[int, int]:
    """Equation (5): `factor ~ m * 2^-s`, m in [2^30, 2^31), round half away; (0, 1) if too small.

    Raises `IRCError` for a factor that is not finite, negative, or of 2^30 and more.
    """
    if not math.isfinite(factor) or factor < 0:
        raise IRCError(f"a rescaling factor of {factor} can't be expressed")
    if factor == 0:
        return 0, 1
    fraction, exponent = math.frexp(factor)
    m, s = math.floor(fraction * 2**31 + 0.5), 31 - exponent
    if m == 2**31:
        m, s = m // 2, s - 1
    if s > MAX_SHIFT:
        return 0, 1
    if s < 1:
        raise IRCError(f"a rescaling factor of {factor} is too large: scales differ by over 2^30")
    return m, s


def multipliers(factors: Sequence[float] | Array) -> tuple[Array, Array]:
    """Equation (5) for each factor: m as i32, s as i8."""
    pairs = [multiplier(float(f)) for f in factors]
    m = np.array([p[0] for p in pairs], np.int32)
    return m, np.array([p[1] for p in pairs], np.int8)


def mul_shift(a: npt.ArrayLike, m: npt.ArrayLike, s: npt.ArrayLike) -> Array:
    """The core of (6): `(a*m + 2^(s-1)) >> s` in 64 bits: one rounding, half up."""
    wide = np.asarray(s, np.int64)
    product = np.asarray(a, np.int64) * np.asarray(m, np.int64)
    return (product + (np.int64(1) << (wide - 1))) >> wide


def requantize(
    acc: npt.ArrayLike,
    m: npt.ArrayLike,
    s: npt.ArrayLike,
    zero: int,
    bounds: tuple[int, int],
    dtype: DType,
) -> Array:
    """Equation (6): `clamp(zp + ((acc*m + 2^(s-1)) >> s), lo, hi)`."""
    return _as(np.clip(mul_shift(acc, m, s) + zero, *bounds), dtype)


def _as(array: Array, dtype: DType) -> Array:
    return np.asarray(array, dtype.numpy)


def common_multipliers(
    factors: Sequence[float], bound: int | Sequence[int]
) -> tuple[tuple[int, ...], int]:
    """Equation (7): one shift and one m per term, as wide as an i32 sum of the terms allows.

    `bound` is the largest |x - z| of a term, one for all or one each. s is the largest with
    `sum bound_i * |m_i| + 2^(s-1) < 2^31`, so that the rounded sum stays an i32.
    Factors may be negative (subtraction). Raises `IRCError` where no shift is left.
    """
    bounds = [bound] * len(factors) if isinstance(bound, int) else bound
    total = sum(abs(f) for f in factors)
    if not math.isfinite(total):
        raise IRCError(f"rescaling factors {list(factors)} can't be expressed")
    for s in range(30, 0, -1):
        terms = tuple(_round_away(f * 2.0**s) for f in factors)
        largest = sum(b * abs(t) for b, t in zip(bounds, terms, strict=True))
        if largest + 2 ** (s - 1) < 2**31:
            return terms, s
    raise IRCError(f"rescaling factors {list(factors)} are too far apart for an i32 sum")


def _round_away(x: float) -> int:
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def table(
    f: Callable[[Array], Array], source: TensorType, result: TensorType
) -> Array:
    """Equation (8): the 256 results of any function of one 8-bit value, computed in float64 and
    rounded by (2). `table[q - dtype.min]` is the result for q; `f` maps reals to reals."""
    q = np.arange(source.dtype.min, source.dtype.max + 1)
    with np.errstate(all="ignore"):
        real = f(dequantize(q, source.with_shape(q.shape), DType.F64))
    return quantize(real, result.with_shape(q.shape))


def clamp_bounds(
    result: TensorType, lo: float = -math.inf, hi: float = math.inf
) -> tuple[int, int]:
    """A real clamp as integer bounds in the result's quantization (ReLU, ReLU6, Clip in (6))."""
    ends = quantize(np.array([lo, hi]), result.with_shape((2,)))
    return int(ends[0]), int(ends[1])


QUOTIENT_SHIFT = 40
"""The largest shift of a quotient's multiplier, so that divisor << shift stays within 64 bits."""


def quotient_multiplier(factor: float) -> tuple[int, int]:
    """Equation (5) for a division of two tensors, `factor = s_a / (s_b * s_y)`, but with
    `s <= QUOTIENT_SHIFT`: a factor below 2^-10 keeps fewer bits of m, down to none."""
    m, s = multiplier(factor)
    if s > QUOTIENT_SHIFT:
        m, s = int(mul_shift(m, 1, s - QUOTIENT_SHIFT)), QUOTIENT_SHIFT
    return m, s


def quotient(
    a: Array, b: Array, m: int, s: int, zero: int, bounds: tuple[int, int], dtype: DType
) -> Array:
    """`clamp(zp + round_half_up(a*m / (b * 2^s)))` of i64 differences to their zero points.

    Where b is 0: the upper bound for a > 0, the lower for a < 0, the zero point for a = 0.
    """
    sign = np.where(b < 0, -1, 1)
    half = np.where(b == 0, 1, np.abs(b)) << s
    y = (sign * a * (2 * m) + half) // (2 * half)
    y = np.where(b == 0, np.sign(a) * np.int64(2**32), y)
    return _as(np.clip(y + zero, *bounds), dtype)


EXP_BITS = 30
"""Fractional bits of the exponentials and of the probabilities of equation (9)."""
RECIPROCAL_BITS = 61
"""k of equation (9): `r = 2^61 // sum <= 2^31`, since a row's sum is at least `2^30`."""
PROBABILITY_SHIFT = RECIPROCAL_BITS - EXP_BITS


def softmax_table(scale: float) -> Array:
    """T of equation (9), i32[256]: `T[i] = round(exp(-scale * i) * 2^30)`, i = max - q.

    The sum of n entries is kept in 64 bits, exact for every n below 2^31; that its terms are
    rounded moves it by less than n * 2^-31 of itself.
    """
    return _as(np.rint(np.exp(-scale * np.arange(256)) * 2.0**EXP_BITS), DType.I32)


def softmax_multiplier(scale: float) -> tuple[int, int]:
    """(m, s) that take a probability of 30 fractional bits to a result of `scale`."""
    return multiplier(2.0**-EXP_BITS / scale)


def softmax(q: Array, exp: Array, axis: int) -> Array:
    """Equation (9): the probabilities, i64 of 30 fractional bits, of 8-bit `q` along `axis`."""
    e = exp[q.max(axis, keepdims=True).astype(np.int64) - q].astype(np.int64)
    r = np.int64(1 << RECIPROCAL_BITS) // e.sum(axis, keepdims=True)
    return np.asarray((e * r) >> PROBABILITY_SHIFT)
