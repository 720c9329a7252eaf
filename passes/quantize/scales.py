"""From measured ranges to scales and zero points of 8-bit activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irc.passes.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.types import Array, DType, Quant

MINIMAL_RANGE = 1e-6
LEVELS = 255
SHRINK = np.linspace(1.0, 0.2, 41)
"""The candidates of the MSE search: shares of the measured range that are kept."""


@dataclass(frozen=True)
class Histogram:
    """Centres of bins, how many elements they hold, and the exact ends of the range."""

    centres: Array
    counts: Array
    low: float
    high: float

    @classmethod
    def merged(cls, parts: Sequence[Statistics]) -> Histogram:
        """One histogram of values that share a scale."""
        used = [s.counts > 0 for s in parts]
        return cls(
            np.concatenate([s.centres[u] for s, u in zip(parts, used, strict=True)]),
            np.concatenate([s.counts[u] for s, u in zip(parts, used, strict=True)]),
            min(s.low for s in parts),
            max(s.high for s in parts),
        )


def choose_quant(
    parts: Sequence[Statistics], options: Options, fills: Sequence[float] = ()
) -> Quant:
    """The u8 scale and zero point of values that were measured as `parts`, and of constants
    `fills` among them, which are never clipped."""
    low, high = choose_range(parts, options) if parts else (0.0, 0.0)
    return asymmetric(min(low, *fills, 0.0), max(high, *fills, 0.0))


def choose_range(parts: Sequence[Statistics], options: Options) -> tuple[float, float]:
    """The range that the method keeps; it lies within what was measured."""
    low, high = min(s.low for s in parts), max(s.high for s in parts)
    if options.method == "minmax" or not low < high:
        return low, high
    if options.method == "percentile":
        tail = (1 - options.percentile / 100) / 2
        return min(s.quantile(tail) for s in parts), max(s.quantile(1 - tail) for s in parts)
    return mse_range(Histogram.merged(parts))


def mse_range(h: Histogram) -> tuple[float, float]:
    """The range around zero whose 8-bit rounding has the least squared error: each end is shrunk
    in turn while the other stays."""
    low, high = min(h.low, 0.0), max(h.high, 0.0)
    for _ in range(2):
        high = _best(h, [(low, high * share) for share in SHRINK])[1]
        low = _best(h, [(low * share, high) for share in SHRINK])[0]
    return low, high


def _best(h: Histogram, ranges: list[tuple[float, float]]) -> tuple[float, float]:
    errors = [squared_error(h, asymmetric(low, high)) for low, high in ranges]
    return ranges[int(np.argmin(errors))]


def squared_error(h: Histogram, quant: Quant) -> float:
    """Sum of squared rounding and saturation errors of the histogram's elements."""
    scale, zero = quant.tensor_scale, quant.zero
    q = np.clip(np.rint(h.centres / scale) + zero, 0, LEVELS)
    return float(np.sum(h.counts * ((q - zero) * scale - h.centres) ** 2))


def asymmetric(low: float, high: float) -> Quant:
    """u8 over [low, high] stretched to contain 0, which is exact. Scales are f32 numbers, so that
    a QDQ model in ONNX says the same."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < MINIMAL_RANGE:
        high = low + MINIMAL_RANGE
    scale = float(np.float32((high - low) / LEVELS))
    zero = min(max(math.floor(-low / scale + 0.5), 0), LEVELS)
    return Quant(scale, zero)


def stored_as(quant: Quant, dtype: DType) -> Quant:
    """The u8 quantization stored in another 8-bit type: the same reals (arithmetic.md (3))."""
    return Quant(quant.tensor_scale, quant.zero + dtype.min)
