"""The error function of arrays, which NumPy lacks, to two units in the last place of float64.

From a known point c at most 2^-10 away, d = x - c: by Taylor's series, whose terms are the Hermite
polynomials H (Abramowitz, Stegun, 7.1.19):

    erf(c + d) = erf(c) + 2/√π exp(-c²) Σ (-1)^n H_n(c) d^(n+1) / (n+1)!

The first term left out, n = 5, is below 2^-60.
"""

from __future__ import annotations

import math

import numpy as np

from irc.types import Array

POINTS = 512
"""Known points of a unit."""
LARGEST = 6.0
"""Where erf is 1 in float64."""
_AT = np.arange(LARGEST * POINTS + 1) / POINTS
_KNOWN = np.array([math.erf(c) for c in _AT])
_SLOPE = 2 / math.sqrt(math.pi) * np.exp(-np.square(_AT))


def erf(real: Array) -> Array:
    """The error function of each element, float64; NaN of NaN."""
    size = np.fmin(np.abs(real), LARGEST)
    nearest = np.rint(size * POINTS).astype(np.int64)
    c = _AT[nearest]
    d, s = size - c, c * c
    third = c * (2 * s - 3) / 6 - d * ((4 * s - 12) * s + 3) / 30
    series = d * (1 - d * (c - d * ((2 * s - 1) / 3 - d * third)))
    found = np.copysign(_KNOWN[nearest] + _SLOPE[nearest] * series, real)
    return np.asarray(np.where(np.isnan(real), real, found), np.float64)
