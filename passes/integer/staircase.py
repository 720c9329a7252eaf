"""Requantization that is to give the integers of another arithmetic, sum by sum.

What a channel makes of its sum a is a staircase: k or more from some least a_k on. Equation (6)
takes the steps of a line. It takes the same ones if the line passes between the last sum below each
step and the first on it, through windows that are one sum wide:

    a_k - 1 < (k - 1/2)*u <= a_k          u = 2^s / m
    a_k - 1 < k*u - h/2^F <= a_k          u = 2^(s-F) / m, sums with F more bits and h added to them

The first leaves u an interval for each k. In the second the room between the windows' ends is
concave in u, so that Kelley's cutting planes find the widest in a few steps (J. E. Kelley, The
cutting-plane method for solving convex programs, 1960).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from irc import fixedpoint
from irc.types import Array, TensorType

_FAR = 2**62
_AROUND = 2
"""Sums to either side of where the real factor would step that are tried."""
_DEVIATION = 32
"""Where not all steps can be taken, those near zero count more, as results of this standard
deviation make them: an eighth of the range."""
_ANYWHERE = 1 / 5
"""The share of results that may lie anywhere, where it matters how many those far from zero are."""
_RARE = 1e-3
"""What a step far from zero counts at least."""
_FREE = 1 - 1e-6
"""Of the weightiest miss of a channel that can be made good so much counts nothing."""
_TRIED = 16
"""Places between the ends of intervals that are tried."""
_SPREAD = 2.0**-7
"""How far u may lie from the real factor's inverse, relatively."""
_CUTS = 12
"""Steps of the cutting planes at most."""


@dataclass(frozen=True)
class Staircase:
    """`least[c, i]`, i64: the least sum of channel c whose result is `results[i]`, i64, above the
    zero point, or more; `reached`, b1: whether its sums come there at all; `units`, f64: sums for
    each result of a channel."""

    results: Array
    least: Array
    reached: Array
    units: Array

    @classmethod
    def of(
        cls, rounded: Callable[[Array], Array], units: Array, offset: Array, bound: Array,
        result: TensorType,
    ) -> Staircase:  # fmt: skip
        """Of `rounded`, which makes results of sums [channels, n] and is near
        `(sum + offset) / units`, for sums of at most `bound` in magnitude; all [channels]."""
        results = np.arange(result.dtype.min + 1, result.dtype.max + 1, dtype=np.int64)
        results -= result.zero
        near = np.ceil((results - 0.5) * units[:, None] - offset[:, None])
        reached = np.abs(near) + _AROUND < bound[:, None]
        start = np.where(reached, near, 0).astype(np.int64) - _AROUND
        below = np.zeros_like(start)
        for i in range(2 * _AROUND):
            below += rounded(start + i) < results
        return cls(results, start + below, reached, units)

    @property
    def likelihood(self) -> Array:
        """How likely a sum is the one at a step, of the channels' sums [channels, n]: some results
        lie anywhere, most are normally distributed."""
        normal = np.exp(-((self.results / _DEVIATION) ** 2) / 2) / (_DEVIATION * np.sqrt(2 * np.pi))
        density = (1 - _ANYWHERE) * normal + _ANYWHERE / len(self.results)
        return np.asarray(density / self.units[:, None])

    def within(self, results: Array) -> Staircase:
        """Its steps up to `results`, [channels], away from zero."""
        near = np.abs(self.results) <= results[:, None]
        return replace(self, reached=self.reached & near)

    def of_channels(self, chosen: Array) -> Staircase:
        """The staircase of some channels."""
        return replace(
            self, least=self.least[chosen], reached=self.reached[chosen], units=self.units[chosen]
        )


@dataclass(frozen=True)
class Line:
    """Equation (6) of each channel: m i32, s i8; of sums that have `fraction` more bits and to
    which h, i64, is added, or else with its half."""

    m: Array
    s: Array
    h: Array
    fraction: int = 0

    @classmethod
    def of_factors(cls, units: Array) -> Line:
        """Equation (5) for each of the factors `1 / units`."""
        m, s = fixedpoint.multipliers(1 / units)
        return cls(m, s, np.zeros(len(m), np.int64))

    def where(self, chosen: Array, other: Line) -> Line:
        """`other`, of as many bits, for the channels that are chosen."""
        m, s = np.where(chosen, other.m, self.m), np.where(chosen, other.s, self.s)
        return Line(m, s, np.where(chosen, other.h, self.h), self.fraction)

    def late(self, stairs: Staircase) -> Array:
        """Which steps it takes at a later sum, b1[channels, n]."""
        return np.asarray(stairs.reached & (self.results(stairs, 0) < stairs.results))

    def early(self, stairs: Staircase) -> Array:
        """Which steps it takes at an earlier sum, b1[channels, n]."""
        return np.asarray(stairs.reached & (self.results(stairs, -1) >= stairs.results))

    def misses(self, stairs: Staircase) -> Array:
        """How many steps of each channel it takes elsewhere: i64[channels]."""
        return np.asarray((self.late(stairs) | self.early(stairs)).sum(1), np.int64)

    def results(self, stairs: Staircase, by: int) -> Array:
        """What it makes of the sums where the steps are, or of others by so much more."""
        sums = (np.where(stairs.reached, stairs.least, 0) + by) << self.fraction
        m, s = self.m.astype(np.int64)[:, None], self.s.astype(np.int64)[:, None]
        added = self.h[:, None] * m if self.fraction else np.int64(1) << (s - 1)
        return np.asarray((sums * m + added) >> s)


def through_halves(stairs: Staircase, units: Array) -> Line:
    """The line with the half of equation (6) that takes most steps, those near zero first, one miss
    being free; the factors `1 / units` themselves for channels whose steps these all take."""
    line = Line.of_factors(units)
    missing = np.flatnonzero(line.misses(stairs))
    if not missing.size:
        return line
    better = units.copy()
    better[missing] = _best(stairs.of_channels(missing), units[missing])
    return Line.of_factors(better)


def _best(stairs: Staircase, units: Array) -> Array:
    """The u of each channel whose misses, all but the weightiest, weigh least: of those that lie in
    the most intervals."""
    middles = stairs.results - 0.5
    ends = (stairs.least - 1) / middles, stairs.least / middles
    low = np.where(stairs.reached, np.minimum(*ends), 0)
    high = np.where(stairs.reached, np.maximum(*ends), np.inf)
    weight = np.exp(-((stairs.results / _DEVIATION) ** 2) / 2) + _RARE
    at, change = np.concatenate([low, high], 1), np.concatenate([weight, -weight])
    order = at.argsort(1, kind="stable")
    at, depth = np.take_along_axis(at, order, 1), change[order].cumsum(1)
    deepest = np.argpartition(-depth[:, :-1], _TRIED, axis=1)[:, :_TRIED]
    between = [np.take_along_axis(at, deepest + i, 1) for i in (0, 1)]
    sound = (between[0] > 0) & np.isfinite(between[1])
    tried = np.where(sound, (between[0] + between[1]) / 2, units[:, None])
    tried = np.concatenate([units[:, None], tried], 1)
    missed = (tried[..., None] <= low[:, None]) | (tried[..., None] >= high[:, None])
    weights = missed * weight
    left = weights.sum(2) - weights.max(2) * _FREE
    return np.asarray(np.take_along_axis(tried, left.argmin(1)[:, None], 1)[:, 0])


def through_sums(stairs: Staircase, units: Array, fraction: int) -> Line:
    """A line through all windows over sums with more bits; where there is none, through those of
    the results up to as far from zero as can be."""
    line, room = _widest(stairs, units, fraction)
    lacking = np.flatnonzero(room <= 0)
    if not lacking.size:
        return line
    part, near = stairs.of_channels(lacking), units[lacking]
    low, high = np.zeros(len(near), np.int64), np.full(len(near), np.abs(stairs.results).max())
    while np.any(high - low > 1):
        middle = (low + high) // 2
        some = _widest(part.within(middle), near, fraction)[1] > 0
        low, high = np.where(some, middle, low), np.where(some, high, middle)
    again = _widest(part.within(low), near, fraction)[0]
    m, s, h = line.m.copy(), line.s.copy(), line.h.copy()
    m[lacking], s[lacking], h[lacking] = again.m, again.s, again.h
    return Line(m, s, h, fraction)


@dataclass(frozen=True)
class _Room:
    """What the windows leave a line with u, f64[channels]: h at least and at most, in sums."""

    u: Array
    least: Array
    most: Array
    slope: Array
    """By how much the room grows with u."""

    @classmethod
    def at(cls, stairs: Staircase, u: Array) -> _Room:
        each, line = np.arange(len(u)), stairs.results * u[:, None]
        above = line - np.where(stairs.reached, stairs.least, _FAR)
        below = line - np.where(stairs.reached, stairs.least, -_FAR)
        first, last = above.argmax(1), below.argmin(1)
        slope = stairs.results[last] - stairs.results[first]
        return cls(u, above[each, first], below[each, last] + 1, slope)

    @property
    def size(self) -> Array:
        return self.most - self.least

    def where(self, chosen: Array, other: _Room) -> _Room:
        """`other` for the channels that are chosen."""
        return _Room(*(np.where(chosen, b, a) for a, b in zip(
            vars(self).values(), vars(other).values(), strict=True)))  # fmt: skip


def _widest(stairs: Staircase, units: Array, fraction: int) -> tuple[Line, Array]:
    """The line in the middle of what the windows leave, and the room there: none below 0."""
    best = _Room.at(stairs, units)
    low, high = (_Room.at(stairs, units * (1 + by)) for by in (-_SPREAD, _SPREAD))
    for _ in range(_CUTS):
        if np.all(np.ldexp(best.size, fraction) > 4):
            break
        bend = low.slope - high.slope
        meet = high.size - low.size + low.slope * low.u - high.slope * high.u
        meet = meet / np.where(bend, bend, 1)
        inside = (bend > 0) & (low.u < meet) & (meet < high.u)
        found = _Room.at(stairs, np.where(inside, meet, (low.u + high.u) / 2))
        best = best.where(found.size > best.size, found)
        low, high = low.where(found.slope > 0, found), high.where(found.slope < 0, found)
    m, s = fixedpoint.multipliers(np.ldexp(1 / best.u, -fraction))
    middle = (np.maximum(best.least, -(2.0**40)) + np.minimum(best.most, 2.0**40)) / 2
    h = np.rint(np.ldexp(middle, fraction)).astype(np.int64)
    return Line(m, s, h, fraction), best.size
