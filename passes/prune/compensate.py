"""What remains takes over from what goes: the least-squares fit of removed channels by kept ones.

A layer reads channels x = (k, r), of which r go. With `r ~ A k + a`, the best fit over the
samples, `W_r r ~ W_r A k + W_r a`: weights `W_k + W_r A` and bias `b + sum(W_r) a` lose least. It
holds tap by tap, so for convolutions too, but for their padding, where k is 0 and a is not.
(After He, Zhang, Sun: Channel Pruning for Accelerating Very Deep Neural Networks, 2017.)
"""

from __future__ import annotations

import numpy as np

from irc.passes.calibration.moments import Moments, ridged
from irc.passes.prune.statistics import RIDGE
from irc.types import Array


def fit(seen: Moments, kept: Array) -> tuple[Array, Array]:
    """A [R, K] and a [R] of the best `r ~ A k + a`. `kept` is b1 [C]."""
    mean, covariance = seen.mean, seen.covariance
    inner, across = covariance[np.ix_(kept, kept)], covariance[np.ix_(~kept, kept)]
    slope = np.linalg.solve(ridged(inner, RIDGE, seen.uncertainty), across.T).T
    return slope, mean[~kept] - slope @ mean[kept]


def compensated(w: Array, b: Array, seen: Moments, kept: Array) -> tuple[Array, Array]:
    """Weights [O, ..., K] and bias [O] over the kept channels, from those over all [O, ..., C]."""
    slope, offset = fit(seen, kept)
    lost = w[..., ~kept].astype(np.float64)
    taps = tuple(range(1, w.ndim - 1))
    return (
        (w[..., kept] + lost @ slope).astype(w.dtype),
        (b + lost.sum(taps) @ offset).astype(b.dtype),
    )
