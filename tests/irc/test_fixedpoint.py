"""The numbered equations against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc import fixedpoint
from irc.errors import IRCError
from irc.types import DType, Quant, TensorType

I32 = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1])
)
M = st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from([0, 2**30, 2**31 - 1]))
SCALES = st.one_of(
    st.floats(2.0**-30, 2.0**30), st.integers(-30, 30).map(lambda e: 2.0**e)
)
REALS = st.one_of(st.floats(), st.integers(-4000, 4000).map(lambda n: n / 2))
BYTES = st.sampled_from([DType.U8, DType.I8, DType.I16])


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


# ---------------------------------------------------------------- (1), (2)


@given(REALS, SCALES, BYTES, st.data())
def test_quantize_rounds_half_to_even_before_the_zero_point(
    real: float, scale: float, dtype: DType, data: st.DataObject
) -> None:
    zero = data.draw(st.integers(dtype.min, dtype.max))
    q = fixedpoint.quantize(real, TensorType(dtype, (), Quant(scale, zero)))
    assert q.dtype == dtype.numpy
    if math.isnan(real):
        assert q == zero
    elif math.isinf(real / scale):
        assert q == (dtype.max if real > 0 else dtype.min)
    else:
        # The quotient is float64's, as "true division" says; its rounding is exact.
        assert q == clamp(round(Fraction(real / scale)) + zero, dtype.min, dtype.max)


@pytest.mark.parametrize(
    ("real", "expected"),
    [(0.25, 10), (0.75, 12), (1.25, 12), (-0.25, 10), (-0.75, 8), (math.nan, 10),
     (math.inf, 255), (-math.inf, 0), (1e300, 255), (-0.0, 10)],
)  # fmt: skip
def test_quantize_ties_and_what_is_no_number(real: float, expected: int) -> None:
    assert fixedpoint.quantize(real, TensorType(DType.U8, (), Quant(0.5, 10))) == expected


@given(st.integers(-128, 127), SCALES, st.integers(-128, 127))
def test_dequantize_is_one_product(q: int, scale: float, zero: int) -> None:
    t = TensorType(DType.I8, (), Quant(scale, zero))
    real = fixedpoint.dequantize(np.asarray(q, np.int8), t, DType.F64)
    assert real == scale * (q - zero)
    assert fixedpoint.quantize(real, t) == q


def test_scales_along_an_axis() -> None:
    t = TensorType(DType.I8, (2, 3), Quant((0.5, 2.0), (0, 1), axis=0))
    q = fixedpoint.quantize(np.array([[1.0, 2.0, 3.0], [4.0, -4.0, 1e9]]), t)
    assert q.tolist() == [[2, 4, 6], [3, -1, 127]]
    assert fixedpoint.dequantize(q, t).tolist() == [[1.0, 2.0, 3.0], [4.0, -4.0, 252.0]]


# ---------------------------------------------------------------- (5)


@given(st.one_of(st.floats(2.0**-31, 2.0**29), st.integers(-31, 29).map(lambda e: 2.0**e)))
def test_multiplier_is_the_nearest_of_31_bits(factor: float) -> None:
    m, s = fixedpoint.multiplier(factor)
    assert 2**30 <= m < 2**31
    assert 1 <= s <= fixedpoint.MAX_SHIFT
    exact = Fraction(factor) * 2**s
    assert m == half_away(exact) or 2 * m == half_away(2 * exact)  # the second where m was 2^31
    assert abs(Fraction(m, 2**s) / Fraction(factor) - 1) <= Fraction(1, 2**31)


def test_multiplier_at_its_ends() -> None:
    assert fixedpoint.multiplier(1.0) == (2**30, 30)
    assert fixedpoint.multiplier(math.nextafter(1.0, 0.0)) == (2**30, 30)
    assert fixedpoint.multiplier(2.0**-32) == (2**30, 62)
    assert fixedpoint.multiplier(2.0**-33) == (0, 1)
    assert fixedpoint.multiplier(0.0) == (0, 1)
    assert fixedpoint.multiplier(5e-324) == (0, 1)
    assert fixedpoint.multiplier(2.0**29) == (2**30, 1)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf, -1.0, 2.0**30, 1e300])
def test_multiplier_refuses(factor: float) -> None:
    with pytest.raises(IRCError):
        fixedpoint.multiplier(factor)


def test_multipliers_are_i32_and_i8() -> None:
    m, s = fixedpoint.multipliers([1.0, 0.0, 2.0**-32])
    assert (str(m.dtype), str(s.dtype)) == ("int32", "int8")
    assert m.tolist() == [2**30, 0, 2**30]
    assert s.tolist() == [30, 1, 62]


# ---------------------------------------------------------------- (6)


@given(I32, M, st.integers(1, 62))
def test_mul_shift_rounds_once_half_up(acc: int, m: int, s: int) -> None:
    if abs(acc * m) + 2 ** (s - 1) < 2**63:
        assert fixedpoint.mul_shift(acc, m, s) == half_up(Fraction(acc * m, 2**s))


@given(I32, st.integers(1, 30))
def test_a_half_of_a_power_of_two_goes_to_the_even_integer(acc: int, power: int) -> None:
    assert fixedpoint.halved(acc, power) == round(Fraction(acc, 2**power))
    assert fixedpoint.power_of(*fixedpoint.multiplier(2.0**-power)) == power
    assert fixedpoint.power_of(*fixedpoint.multiplier(2.0 ** (power - 1))) == 0
    assert fixedpoint.power_of(*fixedpoint.multiplier(1.5 * 2.0**-power)) == 0


@given(I32, M, st.integers(31, 61), BYTES, st.data())
def test_requantize(acc: int, m: int, s: int, dtype: DType, data: st.DataObject) -> None:
    byte = st.integers(dtype.min, dtype.max)
    zero, (low, high) = data.draw(byte), sorted((data.draw(byte), data.draw(byte)))
    y = fixedpoint.requantize(acc, m, s, zero, (low, high), dtype)
    assert y.dtype == dtype.numpy
    assert y == clamp(zero + half_up(Fraction(acc * m, 2**s)), low, high)


@given(I32, M, st.integers(33, 62))
def test_the_high_half_may_be_shifted_by_itself(acc: int, m: int, s: int) -> None:
    """Why (6) is cheap: the low 32 bits of the rounded product don't matter."""
    product = acc * m + 2 ** (s - 1)
    assert (product >> 32) >> (s - 32) == fixedpoint.mul_shift(acc, m, s)


# ---------------------------------------------------------------- (7)

FACTORS = st.lists(
    st.one_of(st.floats(-(2.0**12), 2.0**12), st.sampled_from([1.0, -1.0, 0.0])),
    min_size=1, max_size=5,
)  # fmt: skip


@given(FACTORS, st.integers(1, 65535))
def test_common_multipliers_are_as_wide_as_an_i32_allows(factors: list[float], bound: int) -> None:
    try:
        terms, s = fixedpoint.common_multipliers(factors, bound)
    except IRCError:
        # Then not even a shift of 1 fits.
        assert bound * sum(abs(half_away(2 * Fraction(f))) for f in factors) + 1 >= 2**31
        return
    assert terms == tuple(half_away(Fraction(f) * 2**s) for f in factors)
    assert bound * sum(map(abs, terms)) + 2 ** (s - 1) < 2**31
    wider = sum(abs(half_away(Fraction(f) * 2 ** (s + 1))) for f in factors)
    assert s == 30 or bound * wider + 2**s >= 2**31


def test_common_multipliers_refuse_what_is_no_number() -> None:
    with pytest.raises(IRCError):
        fixedpoint.common_multipliers([1.0, math.inf], 255)
    with pytest.raises(IRCError):
        fixedpoint.common_multipliers([1.0, math.nan], 255)


# ---------------------------------------------------------------- (8), clamps


@given(SCALES, SCALES, st.integers(0, 255), st.integers(-128, 127))
def test_table_of_the_identity_is_a_change_of_scale(
    source: float, result: float, zx: int, zy: int
) -> None:
    x = TensorType(DType.U8, (), Quant(source, zx))
    y = TensorType(DType.I8, (), Quant(result, zy))
    made = fixedpoint.table(lambda r: r, x, y)
    for q in (0, 1, zx, 255):
        real = Fraction(source * (q - zx) / result)
        assert made[q] == clamp(round(real) + zy, -128, 127)


def test_table_of_a_function_with_poles_stays_finite() -> None:
    x = TensorType(DType.I8, (), Quant(1.0, 0))
    y = TensorType(DType.U8, (), Quant(0.01, 5))
    with np.errstate(all="ignore"):
        made = fixedpoint.table(np.log, x, y)
    assert made[0] == 5, "log of a negative is no number: the zero point"
    assert made[128] == 0, "log of 0 saturates"
    assert made[129] == 5


def test_clamp_bounds() -> None:
    t = TensorType(DType.U8, (3,), Quant(0.1, 10))
    assert fixedpoint.clamp_bounds(t) == (0, 255)
    assert fixedpoint.clamp_bounds(t, 0.0) == (10, 255)
    assert fixedpoint.clamp_bounds(t, 0.0, 6.0) == (10, 70)
    assert fixedpoint.clamp_bounds(t, -100.0, 100.0) == (0, 255)


# ---------------------------------------------------------------- (9), quotients


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), SCALES)
def test_softmax_is_near_the_real_one(row: list[int], scale: float) -> None:
    q = np.array(row, np.uint8)
    p = fixedpoint.softmax(q, fixedpoint.softmax_table(scale), 0) / 2.0**fixedpoint.EXP_BITS
    e = np.exp(scale * (q.astype(np.float64) - q.max()))
    assert np.abs(p - e / e.sum()).max() < 2.0**-28
    assert p.sum() <= 1.0 + 2.0**-28
    assert p.min() >= 0


@given(
    st.integers(-255, 255), st.integers(-255, 255), st.floats(2.0**-40, 2.0**20),
    st.integers(-128, 127),
)  # fmt: skip
def test_quotient_rounds_once(a: int, b: int, factor: float, zero: int) -> None:
    m, s = fixedpoint.quotient_multiplier(factor)
    y = fixedpoint.quotient(np.int64(a), np.int64(b), m, s, zero, (-128, 127), DType.I8)  # type: ignore[arg-type]
    if b == 0:
        assert y == {-1: -128, 0: zero, 1: 127}[(a > 0) - (a < 0)]
    else:
        assert y == clamp(zero + half_up(Fraction(a * m, b * 2**s)), -128, 127)
