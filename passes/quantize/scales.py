"""From measured ranges to scales and zero points of activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irc.passes.calibration.calibrate import BINS, Statistics
from irc.passes.quantize.options import Options
from irc.types import Array, DType, Quant

MINIMAL_RANGE = 1e-6
ZERO_RANGE = 1.0
"""The end of the range of what was never but 0: scales of a sum's terms must not lie far apart."""
LEVELS = 255
AT_ONCE = 8192
"""How many errors are computed in one array: 64 KiB, so that a cache holds a few."""
SHRINK = np.concatenate([np.linspace(1.0, 0.2, 41), np.linspace(0.18, 0.0, 10)])
"""The candidates of the MSE search: shares of the measured range that are kept. Few values lose
most of it: those of which a function sees one end only."""
ROOM = 1 / 16
"""What an input's range is widened by on either side, of itself."""
DEVIATIONS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
NORMAL = np.exp(-(DEVIATIONS**2) / 2)
"""Weights of samples that are larger and smaller by so many standard deviations."""
NARROWING = -1 / 3
"""The exponent by which what each of N samples stands for becomes narrower."""
FEW = 48
"""As many samples more than one speak for themselves."""
FEW_ELEMENTS = 1000.0
"""So many elements do, however few samples they are of."""
HEADROOM, MOST_HEADROOM = 2.0, 4.0
"""Ranges of 16 bits reach this much further than what was measured, a bit for data unlike it; where
samples differ much in size, as quotients do, up to two bits."""
RARE = 3.0
"""So many standard deviations above the mean lies the largest sample that has room then."""
OUTPUT_HEADROOM = 1.25
"""Those of outputs, angles, and signals that were chosen to have 16 bits for their small parts."""

Function = Callable[[Array], Array]
"""Of reals, elementwise."""


@dataclass(frozen=True)
class Histogram:
    """Centres of bins, how many elements they hold, and the exact ends of the range; `seen` are
    the functions through which alone the elements are read (none: as they are)."""

    centres: Array
    counts: Array
    low: float
    high: float
    seen: Sequence[Function] = ()

    @cached_property
    def images(self) -> Sequence[Array]:
        """What each function makes of the centres."""
        with np.errstate(all="ignore"):
            return [f(self.centres) for f in self.seen]

    @cached_property
    def weights(self) -> Sequence[float]:
        """What an error of each function counts: that of one by itself as it is, beside others as
        a share of the function's energy, since their units may be far apart. All count as they are
        where no energy is a number."""
        with np.errstate(all="ignore"):
            finite = [np.where(np.abs(y) < np.inf, y, 0.0) for y in self.images]
            energies = [float(np.sum(self.counts * y**2)) for y in finite]
        shares = [1 / e if 0 < e < np.inf else 0.0 for e in energies]
        return shares if len(shares) > 1 and any(shares) else [1.0] * len(shares)

    def bounded(self, end: float) -> bool:
        """Whether an end of the range is more than its outermost element."""
        near = np.abs(self.centres - end) <= (self.high - self.low) / 1000
        count = float(self.counts[near].sum())
        return count > max(2.0, float(self.counts.sum()) / 2000)

    @classmethod
    def expected(cls, parts: Sequence[Statistics], seen: Sequence[Function] = ()) -> Histogram:
        """What samples may hold that were not measured: each that was stands for others like it,
        larger and smaller ones (a kernel density of their sizes; where there are few elements, of
        these). Bounds stay."""
        few = any(_bandwidth(cls.merged([s])) for s in parts)
        if not few and not any(map(_deviation, parts)):
            return cls.merged(parts, seen)
        spread = [_spread(s, cls.merged([s])) for s in parts]
        low, high = min(float(x.min()) for x, _ in spread), max(float(x.max()) for x, _ in spread)
        width = max((high - low) / BINS, MINIMAL_RANGE / BINS)
        first = np.rint(low / width)  # a real: of -1e30 alone it is more than integers hold
        bins = np.concatenate([np.rint(x / width) - first for x, _ in spread]).astype(np.int64)
        counts = np.bincount(bins, np.concatenate([n for _, n in spread]))
        used = np.nonzero(counts)[0]
        return cls((used + first) * width, counts[used], low, high, seen)

    @classmethod
    def merged(cls, parts: Sequence[Statistics], seen: Sequence[Function] = ()) -> Histogram:
        """One histogram of values that share a scale."""
        used = [s.counts > 0 for s in parts]
        return cls(
            np.concatenate([s.centres[u] for s, u in zip(parts, used, strict=True)]),
            np.concatenate([s.counts[u] for s, u in zip(parts, used, strict=True)]),
            min(s.low for s in parts),
            max(s.high for s in parts),
            seen,
        )


def _deviation(s: Statistics) -> float:
    """The standard deviation of samples that each measured one stands for, of the logarithm of
    their sizes; of a single element nothing is known."""
    count = max(float(s.sizes[0]), 1.0)
    if s.counts.sum() < 2:
        return 0.0
    return float(s.unlikeness * count**NARROWING * max(1 - (count - 1) / FEW, 0.0))


def _bandwidth(h: Histogram) -> float:
    """How far, as a standard deviation, others lie from so few elements: `1.06 sigma n^(-1/5)`
    (Silverman, Density Estimation, 1986, equation 3.28), less the more there are."""
    count = float(h.counts.sum())
    if count < 2:
        return 0.0
    mean = float(np.sum(h.counts * h.centres)) / count
    sigma = math.sqrt(float(np.sum(h.counts * (h.centres - mean) ** 2)) / count)
    return float(1.06 * sigma * count**-0.2 * max(1 - count / FEW_ELEMENTS, 0.0))


def _spread(s: Statistics, h: Histogram) -> tuple[Array, Array]:
    """Elements as they are measured, as larger and smaller samples would have them, and beside few
    of them; how many."""
    elements = np.outer(np.exp(_deviation(s) * DEVIATIONS), h.centres).reshape(-1)
    counts = np.outer(NORMAL / NORMAL.sum(), h.counts).reshape(-1)
    if width := _bandwidth(h):
        elements = np.add.outer(width * DEVIATIONS, elements).reshape(-1)
        counts = np.outer(NORMAL / NORMAL.sum(), counts).reshape(-1)
    low = h.low if h.bounded(h.low) else -np.inf
    high = h.high if h.bounded(h.high) else np.inf
    return np.clip(elements, low, high), counts


def choose_quant(
    parts: Sequence[Statistics],
    options: Options,
    fills: Sequence[float] = (),
    seen: Sequence[Function] = (),
) -> Quant:
    """The u8 scale and zero point of values that were measured as `parts`, and of constants
    `fills` among them, which are never clipped; `seen` as of `Histogram`."""
    if not any((*fills, *(end for s in parts for end in (s.low, s.high)))):
        return asymmetric(0.0, ZERO_RANGE)
    low, high = _outlook(parts, options, seen) if parts else (0.0, 0.0)
    return asymmetric(min(low, *fills, 0.0), max(high, *fills, 0.0))


def fitted(parts: Sequence[Statistics], options: Options) -> Quant:
    """The u8 scale and zero point that suit what was measured, and nothing else."""
    return asymmetric(*choose_range(parts, options))


def _outlook(
    parts: Sequence[Statistics], options: Options, seen: Sequence[Function]
) -> tuple[float, float]:
    """The range for samples that were measured and others; methods of literal meaning tell it
    from those that were."""
    if options.method != "mse":
        return choose_range(parts, options, seen)
    return mse_range(Histogram.expected(parts, seen))


def choose_input(parts: Sequence[Statistics], fills: Sequence[float] = ()) -> Quant:
    """The u8 scale and zero point of what comes from outside, with room for data unlike what was
    measured: somewhat larger steps cost less than what saturates. An end at which several elements
    lie is a bound that others won't cross either."""
    h = Histogram.merged(parts)
    room = ROOM * (h.high - h.low)
    low = h.low if h.bounded(h.low) else h.low - room
    high = h.high if h.bounded(h.high) else h.high + room
    return asymmetric(min(low, *fills, 0.0), max(high, *fills, 0.0))


def whole_steps(quant: Quant) -> Quant:
    """A u8 scale that is a power of two, so that whole numbers stay what they are, over the same
    range; a range that 8 bits hold no whole numbers of stays as it is."""
    low, high = (quant.tensor_scale * (end - quant.zero) for end in (0, LEVELS))
    for step in (2.0**k for k in range(math.ceil(math.log2(quant.tensor_scale)), 1)):
        zero = math.ceil(-low / step)
        if step * (LEVELS - zero) >= high:
            return Quant(step, zero)
    return quant


def choose_wide(
    parts: Sequence[Statistics],
    fills: Sequence[float] = (),
    headroom: float = HEADROOM,
    most: float = MOST_HEADROOM,
) -> Quant:
    """The i16 scale of such values, around zero: with 16 bits nothing needs to be clipped. There is
    room for what is larger than all that was measured, the more the less alike samples were."""
    largest = max((abs(end) for s in parts for end in (s.low, s.high)), default=0.0)
    if largest:
        rare = max(s.largest(RARE) for s in parts) / largest
        headroom = max(headroom, min(rare, most))
    return symmetric(max([headroom * largest, *map(abs, fills)]))


def symmetric(largest: float) -> Quant:
    """i16 around zero, up to `largest` on either side."""
    end = max(largest, MINIMAL_RANGE) if largest else ZERO_RANGE
    return Quant(float(np.float32(end / DType.I16.max)))


def choose_range(
    parts: Sequence[Statistics], options: Options, seen: Sequence[Function] = ()
) -> tuple[float, float]:
    """The range that the method keeps; it lies within what was measured."""
    low, high = min(s.low for s in parts), max(s.high for s in parts)
    if options.method == "minmax" or not low < high:
        return low, high
    if options.method == "percentile":
        tail = (1 - options.percentile / 100) / 2
        return min(s.quantile(tail) for s in parts), max(s.quantile(1 - tail) for s in parts)
    return mse_range(Histogram.merged(parts, seen))


def mse_range(h: Histogram) -> tuple[float, float]:
    """The range around zero whose 8-bit rounding has the least squared error, in what is seen of
    the elements: each end is shrunk in turn while the other stays."""
    low, high = min(h.low, 0.0), max(h.high, 0.0)
    for _ in range(2):
        high = _best(h, [(low, high * share) for share in SHRINK])[1]
        low = _best(h, [(low * share, high) for share in SHRINK])[0]
    return low, high


def _best(h: Histogram, ranges: list[tuple[float, float]]) -> tuple[float, float]:
    quants = [asymmetric(low, high) for low, high in ranges]
    some = max(1, AT_ONCE // max(len(h.centres), 1))
    parts = [quants[i : i + some] for i in range(0, len(quants), some)]
    return ranges[int(np.argmin(np.concatenate([_squared_errors(h, part) for part in parts])))]


def squared_error(h: Histogram, quant: Quant) -> float:
    """Sum of squared rounding and saturation errors of what is seen of the elements."""
    return float(_squared_errors(h, [quant])[0])


def _squared_errors(h: Histogram, quants: Sequence[Quant]) -> Array:
    """`squared_error` of each, a row of bins for each in one array."""
    scales = np.array([[q.tensor_scale] for q in quants])
    zeros = np.array([[float(q.zero)] for q in quants])
    steps = _steps(h.centres, scales, zeros)
    if not h.seen:
        return np.asarray(np.sum(h.counts * (_reals(steps, scales, zeros) - h.centres) ** 2, -1))
    levels = _reals(np.arange(LEVELS + 1.0), scales, zeros)
    at = steps.astype(np.int64) + np.arange(levels.size, step=LEVELS + 1)[:, None]
    with np.errstate(all="ignore"):
        errors = sum(
            weight * (np.take(f(levels), at) - known) ** 2
            for f, known, weight in zip(h.seen, h.images, h.weights, strict=True)
        )
    return np.asarray(np.sum(h.counts * np.where(np.isfinite(errors), errors, 0.0), -1))


def rounded(real: Array, quant: Quant) -> Array:
    """What reals are in a u8 quantization."""
    scale, zero = quant.tensor_scale, quant.zero
    return _reals(_steps(real, scale, zero), scale, zero)


def _steps(real: Array, scale: Any, zero: Any) -> Array:
    """The integers that stand for reals, as floats."""
    return np.asarray(np.clip(np.rint(real / scale) + zero, 0, LEVELS))


def _reals(steps: Array, scale: Any, zero: Any) -> Array:
    return np.asarray((steps - zero) * scale)


def signal_to_noise(parts: Sequence[Statistics], quant: Quant) -> float:
    """The SQNR in dB of measured values in a u8 quantization; infinite without noise."""
    h = Histogram.merged(parts)
    noise, signal = squared_error(h, quant), float(np.sum(h.counts * h.centres**2))
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def asymmetric(low: float, high: float) -> Quant:
    """u8 over [low, high] stretched to contain 0, which is exact. Scales are f32 numbers, so that
    a QDQ model in ONNX says the same."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < MINIMAL_RANGE:
        high = low + MINIMAL_RANGE
    scale = float(np.float32((high - low) / LEVELS))
    zero = min(max(math.floor(-low / scale + 0.5), 0), LEVELS)
    return Quant(scale, zero)


def stretched(quant: Quant, factor: float) -> Quant:
    """The quantization of a scale so many times as large around the same zero point."""
    return Quant(float(np.float32(quant.tensor_scale * factor)), quant.zero)


def stored_as(quant: Quant, dtype: DType) -> Quant:
    """The u8 quantization stored in another 8-bit type: the same reals (arithmetic.md (3))."""
    return Quant(quant.tensor_scale, quant.zero + dtype.min)
