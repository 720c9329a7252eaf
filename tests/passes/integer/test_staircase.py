import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.passes.integer.staircase import Line, Staircase, through_halves, through_sums
from irc.types import Array, DType, Quant, TensorType

CHANNELS = 6


def result(dtype: DType, zero: int) -> TensorType:
    return TensorType(dtype, (CHANNELS,), Quant(0.1, zero))


def single(factors: Array, t: TensorType, bound: int = 2**20) -> Staircase:
    """Of `rint(float32(sum) * float32(factor))`."""
    made = factors.astype(np.float32)

    def rounded(sums: Array) -> Array:
        return np.asarray(np.rint(sums.astype(np.float32) * made[:, None]))

    units = 1 / made.astype(np.float64)
    return Staircase.of(rounded, units, np.zeros(len(units)), np.full(len(units), bound), t)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(DType.U8, 0), (DType.U8, 130), (DType.I8, 3)]))
def test_steps_are_where_the_result_changes(seed: int, kind: tuple[DType, int]) -> None:
    rng = np.random.default_rng(seed)
    factors = 2.0 ** rng.uniform(-10, -1, CHANNELS)
    t = result(*kind)
    stairs = single(factors, t, bound=3000)
    sums = np.arange(-3000, 3000)
    found = np.rint(sums.astype(np.float32) * factors.astype(np.float32)[:, None])
    for c, i in zip(*np.nonzero(stairs.reached), strict=True):
        assert stairs.least[c, i] == sums[found[c] >= stairs.results[i]][0]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_factors_that_take_all_steps_stay(seed: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    factors = (2.0 ** rng.uniform(-12, -7, 40)).astype(np.float32)
    stairs = single(factors, result(DType.U8, 120 if signed else 0))
    units = 1 / factors.astype(np.float64)
    before, after = Line.of_factors(units), through_halves(stairs, units)
    same = before.misses(stairs) == 0
    assert same.any()
    assert np.array_equal(after.m[same], before.m[same])


def test_most_channels_miss_one_step_at_most() -> None:
    """Factors that a layer has: the factors themselves miss steps of half of them."""
    rng = np.random.default_rng(0)
    factors = (2.0 ** rng.uniform(-10, -8, 64)).astype(np.float32)
    stairs, units = single(factors, result(DType.U8, 0)), 1 / factors.astype(np.float64)
    before, after = Line.of_factors(units), through_halves(stairs, units)
    assert (before.misses(stairs) > 0).sum() > 30
    assert (after.misses(stairs) > 0).sum() < 25
    assert (after.misses(stairs) > 1).sum() <= 2


def test_real_biases_are_met() -> None:
    """A bias of the nearest 256th of a sum turns some steps; there is a line that turns none."""
    rng = np.random.default_rng(1)
    units, offset, fraction = 2.0 ** rng.uniform(5, 14, 64), rng.normal(0, 1000, 64), 8

    def rounded(sums: Array) -> Array:
        return np.asarray(np.rint((sums + offset[:, None]) / units[:, None]))

    stairs = Staircase.of(rounded, units, offset, np.full(64, 2**20), result(DType.I8, -5))
    line = through_sums(stairs, units, fraction)
    h = np.rint(np.ldexp(offset + units / 2, fraction)).astype(np.int64)
    m, s = fixedpoint.multipliers(np.ldexp(1 / units, -fraction))
    assert Line(m, s, h, fraction).misses(stairs).sum() > 5
    assert line.misses(stairs).sum() <= 1


def test_late_and_early_steps_tell_by_what_sum_they_miss() -> None:
    units = np.array([16.0])
    stairs = Staircase.of(lambda s: np.rint(s / 16.0 - 0.01), units, np.zeros(1),
                          np.array([2**12]), result(DType.U8, 0))  # fmt: skip
    ahead, behind = (Line.of_factors(units * by) for by in (0.98, 1.02))
    assert ahead.early(stairs).any()
    assert not ahead.late(stairs).any()
    assert behind.late(stairs).any()
    assert not behind.early(stairs).any()


def test_steps_out_of_reach_bind_nothing() -> None:
    stairs = single(np.full(3, 0.01), result(DType.U8, 0), bound=1000)
    assert stairs.reached.sum(1).tolist() == [10, 10, 10]
    nothing = single(np.full(3, 0.01), result(DType.U8, 0), bound=1)
    units = np.full(3, 100.0)
    assert not nothing.reached.any()
    assert np.array_equal(through_halves(nothing, units).m, Line.of_factors(units).m)
