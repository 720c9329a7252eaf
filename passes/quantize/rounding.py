"""Weights rounded one after the other, each making up for the errors of those before it.

What a row of weights w multiplies has the covariance H, so that rounding it to q costs
`(w - q) H (w - q)ᵀ` of the layer's mean square; its mean is left to the bias. With the upper
Cholesky factor U of H^-1, column i is rounded and its error taken over by those behind it:

    e = (w_i - q_i) / U_ii,    w_j -= e U_ij  for j > i

(optimal brain surgeon, Hassibi, Stork 1993; column by column for all rows at once, Frantar et al.:
GPTQ, 2022). Pairs that would saturate are held here, and made up for like any other error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irc.passes.calibration.moments import LayerMoments, ridged
from irc.passes.quantize.weights import LARGEST, Weights
from irc.proofs import PAIR_LIMIT
from irc.types import Array

RIDGE = 1e-2
"""The share of the variances' mean that is added to them."""
AT_ONCE = 32
"""Columns after which the errors are handed on to all that are left."""
CHUNK = 1 << 20
"""Weights that are rounded at a time."""


def compensated(w: Array, plain: Weights, seen: LayerMoments, pair_safe: bool) -> Weights:
    """Weights [O, ...] by the scales of `plain`, whose rounding costs less by what was `seen`;
    where a row gains nothing it stays, and so do all where inputs hardly vary."""
    columns = seen.columns
    real, scales = columns.matrix(w), columns.matrix(plain.scales)
    found = columns.matrix(plain.array.copy())
    for part, moments in zip(columns.blocks, seen.blocks, strict=True):
        if moments.count < 2:
            continue
        covariance = ridged(moments.covariance, RIDGE, moments.uncertainty)
        upper = _factor(covariance)
        if upper is None:
            continue
        seconds = columns.seconds[part] & pair_safe
        for rows in _some(real.shape[0] * real.shape[1], real.shape[1], len(seconds)):
            units = real[:, rows, part] / scales[:, rows]
            made = _columnwise(units, upper, seconds)
            before = _cost(units - found[:, rows, part], covariance)
            better = _cost(units - made, covariance) < before
            found[:, rows, part] = np.where(better[..., None], made, found[:, rows, part])
    return Weights(found.reshape(w.shape), plain.scales)


def _factor(covariance: Array) -> Array | None:
    """U of covariances [G, K, K]; None where one is no more than what was rounded off its sums."""
    try:
        return np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2)
    except np.linalg.LinAlgError:
        return None


def _some(each: int, rows: int, columns: int) -> Iterator[slice]:
    """Rows of a layer, as many at a time as bound the memory."""
    step = max(1, CHUNK * rows // max(1, each * columns))
    return (slice(i, i + step) for i in range(0, rows, step))


def _columnwise(w: Array, upper: Array, seconds: Array) -> Array:
    """Integers for w [G, R, K] in units, by factors [G, K, K]."""
    left = w.swapaxes(-1, -2).copy()  # [G, K, R]: a column's elements lie side by side
    q, count = np.zeros(left.shape), left.shape[1]
    for begin in range(0, count, AT_ONCE):
        end = min(begin + AT_ONCE, count)
        errors = np.empty((len(left), end - begin, left.shape[2]))
        for i in range(begin, end):
            q[:, i] = _rounded(left[:, i], q[:, i - 1] if seconds[i] else None)
            error = (left[:, i] - q[:, i]) / upper[:, i, i, None]
            left[:, i + 1 : end] -= upper[:, i, i + 1 : end, None] * error[:, None]
            errors[:, i - begin] = error
        left[:, end:] -= upper[:, begin:end, end:].swapaxes(-1, -2) @ errors
    return q.swapaxes(-1, -2)


def _rounded(w: Array, before: Array | None) -> Array:
    """A column as integers that saturate no pair with the column before it."""
    q = np.clip(np.rint(w), -LARGEST, LARGEST)
    return q if before is None else np.clip(q, -PAIR_LIMIT - before, PAIR_LIMIT - before)


def _cost(errors: Array, covariance: Array) -> Array:
    """[G, R] of errors [G, R, K]."""
    return np.asarray(((errors @ covariance) * errors).sum(-1))
