"""The arithmetic contract, once: the numbered equations of docs/arithmetic.md in NumPy.

Every backend agrees with these functions bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.blocks import along_first, by_blocks
from irc.errors import IRCError
from irc.types import Array, DType, Quant, TensorType

MAX_SHIFT = 62
"""The largest shift of equation (6); a smaller factor is multiplied as 0."""


def quantize(real: npt.ArrayLike, type_: TensorType) -> Array:
    """Equation (2): `clamp(round_half_even(real / scale) + zp)`. True division, rounding before
    the zero point is added; NaN gives the integer for what is missing, where there is none the
    zero point; infinities saturate."""
    quant, array = quant_of(type_), np.asarray(real)
    if quant.axis is not None:
        return _quantized(array, *along_axis(quant, type_.rank), type_)
    rounded = partial(_quantized, scale=quant.tensor_scale, zero=float(quant.zero), type_=type_)
    return by_blocks(rounded, array, type_.dtype.numpy)


def _quantized(real: Array, scale: Any, zero: Any, type_: TensorType) -> Array:
    with np.errstate(all="ignore"):
        q = np.asarray(np.divide(real, scale, dtype=np.float64))
        q = np.add(np.rint(q, out=q), zero, out=q)
    unknown, missing = np.isnan(q), quant_of(type_).missing
    some = bool(unknown.any())
    q = np.where(unknown, zero, q) if some else q
    q = np.clip(q, *type_.ends, out=q)
    return _as(np.where(unknown, missing, q) if some and missing is not None else q, type_.dtype)


def dequantize(q: Array, type_: TensorType, dtype: DType = DType.F32) -> Array:
    """Equation (1): `scale * (q - zero_point)`, computed in float64, in the float dtype; NaN for
    the integer that stands for what is missing."""
    quant = quant_of(type_)
    if quant.missing is not None:
        known = TensorType(type_.dtype, type_.shape, replace(quant, missing=None))
        return np.where(q == quant.missing, dtype.numpy.type(np.nan), dequantize(q, known, dtype))
    if quant.axis is None:
        scale, zero = quant.tensor_scale, float(quant.zero)
        return by_blocks(partial(_real, scale=scale, zero=zero), q, dtype.numpy)
    made = np.empty(q.shape, dtype.numpy)
    scales, zeros = (np.broadcast_to(a, q.shape) for a in along_axis(quant, type_.rank))
    for part in along_first(q.shape):
        made[part] = _real(q[part], scales[part], zeros[part])
    return made


def _real(q: Array, scale: Any, zero: Any) -> Array:
    real = np.asarray(np.subtract(q, zero, dtype=np.float64))
    return np.asarray(np.multiply(real, scale, out=real))


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


def power_of(m: int, s: int) -> int:
    """k >= 1 where `m * 2^-s` is 2^-k, else 0."""
    return s - 30 if m == 2**30 and s > 30 else 0


def halved(acc: npt.ArrayLike, power: int) -> Array:
    """Equation (10) where the factor is 2^-power: `acc / 2^power`, half to even."""
    wide = np.asarray(acc, np.int64)
    odd = (wide >> power) & 1
    return (wide + ((1 << (power - 1)) - 1) + odd) >> power


def averaged(acc: npt.ArrayLike, power: int, type_: TensorType, bounds: tuple[int, int]) -> Array:
    """Equation (10) where the factor is 2^-power, in a type: `clamp(zp + halved(acc), lo, hi)`."""
    return _as(np.clip(halved(acc, power) + type_.zero, *bounds), type_.dtype)


def mul_shift(
    a: npt.ArrayLike, m: npt.ArrayLike, s: npt.ArrayLike, *, half: bool = True
) -> Array:
    """The core of (6): `(a*m + 2^(s-1)) >> s` in 64 bits: one rounding, half up, or down without
    `half`."""
    wide = np.asarray(s, np.int64)
    product = np.asarray(a, np.int64) * np.asarray(m, np.int64)
    return np.asarray((product + (np.int64(half) << (wide - 1))) >> wide)


def requantize(
    acc: npt.ArrayLike,
    m: npt.ArrayLike,
    s: npt.ArrayLike,
    zero: int,
    bounds: tuple[int, int],
    dtype: DType,
    *,
    half: bool = True,
) -> Array:
    """Equation (6): `clamp(zp + ((acc*m + 2^(s-1)) >> s), lo, hi)`; without `half`, of an `acc`
    that holds it already, `clamp(zp + ((acc*m) >> s), lo, hi)`."""
    return _as(np.clip(mul_shift(acc, m, s, half=half) + zero, *bounds), dtype)


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


def softmax_table(scale: float, bits: int = 8) -> Array:
    """T of equation (9), i32[256]: `T[i] = round(exp(-scale * i) * 2^30)`, i = max - q.

    The sum of n entries is kept in 64 bits, exact for every n below 2^31; that its terms are
    rounded moves it by less than n * 2^-31 of itself. For q of 16 bits there are two tables, one
    after the other, i32[512]: of the low byte of i, and of the high one, `T[256 + i] = T(256 i)`.
    """
    low = np.arange(256)
    steps = low if bits == 8 else np.concatenate([low, low * 256])
    return _as(np.rint(np.exp(-scale * steps) * 2.0**EXP_BITS), DType.I32)


def softmax_multiplier(scale: float) -> tuple[int, int]:
    """(m, s) that take a probability of 30 fractional bits to a result of `scale`."""
    return multiplier(2.0**-EXP_BITS / scale)


def softmax(q: Array, exp: Array, axis: int) -> Array:
    """Equation (9): the probabilities, i64 of 30 fractional bits, of 8-bit `q` along `axis`, or of
    16-bit ones: the product of two exponentials is rounded to 30 bits, half up."""
    d = q.max(axis, keepdims=True).astype(np.int64) - q
    e = exp[d & 255].astype(np.int64)
    if len(exp) > 256:
        e = mul_shift(e, exp[256 + (d >> 8)], EXP_BITS)
    r = np.int64(1 << RECIPROCAL_BITS) // e.sum(axis, keepdims=True)
    return np.asarray((e * r) >> PROBABILITY_SHIFT)


ROOT_BITS = 61
"""Equation (11): `r = (2^61 - 1) // root`, a reciprocal of 31 bits of a root of 31 bits."""
NORM_FRACTION = 16
"""Fractional bits that a sum of squares gets at most, so that epsilon keeps its digits."""


def half_shift(d: Array) -> Array:
    """n of equation (11): the i64 `d` in [1, 2^62) times `4^n` lies in [2^60, 2^62)."""
    n = np.zeros_like(d)
    for step in (16, 8, 4, 2, 1):
        n += np.where(d << (2 * n) < np.int64(1) << (62 - 2 * step), step, 0)
    return n


def square_root(d: Array) -> Array:
    """`floor(sqrt(d))` of i64 `d` in [2^60, 2^62), bit by bit: a number of 31 bits."""
    root = np.full_like(d, 1 << 30)
    for bit in range(29, -1, -1):
        more = root + (1 << bit)
        root = np.where(more * more <= d, more, root)
    return root


@dataclass(frozen=True)
class Norm:
    """Equation (11): how rows of `count` elements are divided by their deviation, or their RMS.

    With `d = q - z`, S = sum d and Q = sum d^2 of a row: `u = count*d - S` and
    `V = count*Q - S^2` if `centred`, else `u = d` and `V = Q`. Then `D = V*2^lift + epsilon`,
    D * 4^n in [2^60, 2^62), `r = (2^61 - 1) // floor(sqrt(D * 4^n))`, and the result is
    `p = (u*r + half) >> (shift - n)`, in units of `unit`.
    """

    count: int
    centred: bool
    lift: int
    epsilon: int
    shift: int

    @staticmethod
    def takes_wide(count: int, centred: bool) -> bool:
        """Whether rows of so many elements of 16 bits, however they lie, leave room in 64."""
        return not centred or count < 2**16

    @classmethod
    def of(cls, count: int, centred: bool, epsilon: float, source: TensorType) -> Norm:
        """For rows of `source`, `epsilon` being added to the real mean of squares. Raises
        `IRCError` where that is too large for the scale, or a row too long."""
        squared = count * count if centred else count
        real = epsilon * squared / source.scale**2
        largest = squared * _largest(source) ** 2 + real
        lift = min(NORM_FRACTION, 61 - math.ceil(math.log2(largest)))
        if lift < -32:
            raise IRCError(f"a norm over {count} elements of scale {source.scale:g} with epsilon"
                           f" {epsilon:g} does not fit 64 bits")  # fmt: skip
        rows = math.sqrt(count) if centred else 1.0
        shift = max(31, math.ceil(math.log2(rows) + 30.01 - lift / 2))
        return cls(count, centred, lift, math.floor(math.ldexp(real, lift) + 0.5), shift)

    @property
    def unit(self) -> float:
        """What p = 1 means in deviations, or in RMS."""
        power = math.pow(2.0, self.shift + self.lift / 2 - ROOT_BITS)
        return power if self.centred else power * math.sqrt(self.count)

    @property
    def largest(self) -> float:
        """A bound of |p|: no element lies further than `sqrt(count)` deviations from the mean."""
        rows = math.sqrt(self.count) if self.centred else 1.0
        return rows * math.pow(2.0, ROOT_BITS - self.shift - self.lift / 2) * (1 + 2.0**-20) + 2

    def check(self, source: TensorType) -> None:
        """Raise `IRCError` unless all of it is proved to fit 64 bits, and p 32."""
        squared = self.count**2 if self.centred else self.count
        squares = math.ldexp(squared * _largest(source) ** 2, self.lift) + self.epsilon
        fits = squares < 2**62 and self.spread(source) < 2**32 and self.largest < 2**31
        sound = self.epsilon >= (0 if self.lift >= 0 else 2**32)
        if not (fits and sound and self.count >= 1 and 31 <= self.shift <= MAX_SHIFT):
            raise IRCError(f"rows of {self.count} elements of {source} can't be normalized by"
                           f" {self}")  # fmt: skip

    def spread(self, source: TensorType) -> int:
        """The bound of |u|: elements differ by the range of their dtype at most."""
        if not self.centred:
            return _largest(source)
        # count * d itself must fit too, and d may be as large as an unlucky zero point makes it.
        return self.count * max(source.dtype.max - source.dtype.min, _largest(source))

    def divisors(self, d: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """S, n and r of each row of the i64 differences `d`, reduced axes kept."""
        total = d.sum(axes, keepdims=True) if self.centred else np.zeros((), np.int64)
        squares = (d * d).sum(axes, keepdims=True)
        v = squares * self.count - total * total if self.centred else squares
        v = v << self.lift if self.lift >= 0 else v >> -self.lift
        size = np.maximum(v + self.epsilon, 1)
        n = half_shift(size)
        return total, n, ((1 << ROOT_BITS) - 1) // square_root(size << (2 * n))

    def apply(self, d: Array, axes: tuple[int, ...]) -> Array:
        """p of the i64 differences `d` to the zero point, rows along `axes`."""
        total, n, r = self.divisors(d, axes)
        u = d * self.count - total if self.centred else d
        return mul_shift(u, r, self.shift - n)


def _largest(t: TensorType) -> int:
    return max(t.dtype.max - t.zero, t.zero - t.dtype.min)


def affine_multipliers(factors: Array, offsets: Array) -> tuple[Array, Array, int]:
    """m i32, b i64 and s with `factors * p + offsets ~ (p*m + b) >> s`, rounded once, half up, for
    every |p| below 2^31; one shift for all. Raises `IRCError` where none fits."""
    most, base = float(np.abs(factors).max(initial=0)), float(np.abs(offsets).max(initial=0))
    for s in range(MAX_SHIFT, 0, -1):
        if most * 2.0**s < 2**31 - 1 and (base + 1) * 2.0**s < 2**62:
            m = np.rint(factors * 2.0**s).astype(np.int32)
            b = np.rint(offsets * 2.0**s).astype(np.int64) + (1 << (s - 1))
            return m, b, s
    raise IRCError(f"a factor of {most:g} with an offset of {base:g} steps can't be expressed")
