"""From float weights to i8: a scale per output channel, safe pairs, corrected biases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.proofs import PAIR_LIMIT, kernel_rows, uses_pairs
from irc.types import Array

LARGEST = 127
SHARES = np.linspace(1.0, 0.6, 17)
"""Candidate scales, as shares of the smallest that needs no saturation."""
CHUNK = 1 << 15
"""Weights that are searched at a time."""
BIAS_LIMIT = 2.0**29
"""Biases stay below this in accumulator units, so that they leave the products room."""

NEGLIGIBLE = 1e-30
"""Scales up to this mean a channel without weights (training decays some to 1e-40): 32-bit floats
hardly hold them."""


@dataclass(frozen=True)
class Weights:
    """Quantized weights i8 in the shape of the float ones, and f64 scales per output channel."""

    array: Array
    scales: Array

    @property
    def real(self) -> Array:
        """What the integers stand for, in float64."""
        shape = (-1,) + (1,) * (self.array.ndim - 1)
        return np.asarray(self.array * self.scales.reshape(shape), np.float64)


def quantize_weights(w: Array, importance: Array, smallest: Array, options: Options) -> Weights:
    """Weights [O, ...] as i8 in [-127, 127], symmetric.

    `importance` (like w) weighs the squared errors that the scales minimise; `smallest`, f64[O],
    is a lower bound of each scale. With `pair_safe`, no like-signed neighbours of a kernel row sum
    to more than 128: where the best scale breaks a pair, the pair is saturated together.
    """
    safe = options.pair_safe and uses_pairs(w)
    padded = kernel_rows(w.astype(np.float32))
    rows = padded.reshape(len(w), -1)
    weight = kernel_rows(importance.astype(np.float32)).reshape(len(w), -1)
    base = np.maximum(_largest(rows, safe) / LARGEST, smallest)
    if not options.per_channel:
        base = np.full_like(base, base.max(initial=0))
    base = np.where(base > NEGLIGIBLE, base, max(float(base.max(initial=0)), 1e-8))
    scales = _best_scales(rows, weight, base, smallest, safe, options.per_channel)
    near = _near(_pair_sums(rows, scales), 1.0) if safe else None
    q: Array = _integers(rows, scales, near).reshape(padded.shape)
    used = w.size // (padded.shape[0] * padded.shape[1])
    array = np.ascontiguousarray(q[:, :, :used]).reshape(w.shape).astype(np.int8)
    return Weights(array, scales)


def _best_scales(
    rows: Array, weight: Array, base: Array, smallest: Array, safe: bool, per_channel: bool
) -> Array:
    """The candidate of least error, some channels at a time so that they stay in cache."""
    errors = np.empty((len(SHARES), len(rows)))
    step = max(1, CHUNK // max(1, rows.shape[1]))
    for i in range(0, len(rows), step):
        part = slice(i, i + step)
        sums = _pair_sums(rows[part], base[part]) if safe else None
        for j, share in enumerate(SHARES):
            scales = _rounded(base[part] * share, smallest[part])
            near = None if sums is None else _near(sums, share)
            errors[j, part] = _errors(rows[part], weight[part], scales, near)
    if not per_channel:
        errors = np.broadcast_to(errors.sum(1, keepdims=True), errors.shape)
    return _rounded(base * SHARES[np.argmin(errors, axis=0)], smallest)


def _rounded(scales: Array, smallest: Array) -> Array:
    """Scales as f32 numbers, so that a QDQ model in ONNX says the same."""
    return np.asarray(np.maximum(scales, smallest).astype(np.float32).astype(np.float64))


def _largest(rows: Array, safe: bool) -> Array:
    """What a channel's scale must map to 127: its largest weight or like-signed pair."""
    largest = np.abs(rows).max(1, initial=0)
    if not safe:
        return np.asarray(largest)
    sums = np.abs(rows[:, 0::2] + rows[:, 1::2])  # only like-signed ones can be the largest
    return np.asarray(np.maximum(largest, sums.max(1, initial=0)))


def _errors(rows: Array, weight: Array, scales: Array, near: Array | None) -> Array:
    error = _integers(rows, scales, near)
    error *= scales[:, None].astype(np.float32)
    error -= rows
    error *= error
    return np.asarray(np.einsum("ok,ok->o", weight, error))


def _pair_sums(rows: Array, scales: Array) -> Array:
    """Sums of pairs in units of scales, without their signs: [pairs of all rows]."""
    sums = rows[:, 0::2] + rows[:, 1::2]
    return np.asarray(np.abs(sums / scales[:, None].astype(np.float32)).reshape(-1))


def _near(sums: Array, share: float) -> Array:
    """The pairs, by number, that could exceed the limit by that share of the scales, or by larger
    ones: rounding adds one to a sum at most."""
    return np.flatnonzero(sums > share * (PAIR_LIMIT - 2))


def _integers(rows: Array, scales: Array, near: Array | None) -> Array:
    """The weights in units of their scales, rounded and saturated, where pairs are wanted safe also
    those that are `near` the limit; float32."""
    real = rows / scales[:, None].astype(np.float32)
    q = np.rint(real)
    np.clip(q, -LARGEST, LARGEST, out=q)
    if near is not None:
        _saturate(q.reshape(-1, 2), real.reshape(-1, 2), near)
    return np.asarray(q)


def _saturate(pairs: Array, real: Array, near: Array) -> None:
    """Lower the pairs, of those `near`, whose like-signed sum exceeds the limit, both by half of
    the excess; an odd one comes off the weight that was rounded up further. In place."""
    sums = pairs[near, 0] + pairs[near, 1]
    beyond = np.abs(sums) > PAIR_LIMIT
    where, sums = near[beyond], sums[beyond]
    sign = np.sign(sums)
    over = sign * sums - PAIR_LIMIT
    up = sign[:, None] * (pairs[where] - real[where])
    first = np.where(up[:, 0] >= up[:, 1], np.ceil(over / 2), np.floor(over / 2))
    pairs[where] -= sign[:, None] * np.stack([first, over - first], axis=1)


def per_weight(channel: Array, shape: tuple[int, ...], groups: int) -> Array:
    """A number per input channel, f64[C], as one per weight of [O, ..., C/groups]."""
    outs, per_group = shape[0], shape[-1]
    if groups == 1:
        return np.broadcast_to(channel, shape)
    group = np.arange(outs) // max(outs // groups, 1)
    index = group[:, None] * per_group + np.arange(per_group)
    middle = (outs, *(1,) * (len(shape) - 2), per_group)
    return np.asarray(np.broadcast_to(channel[index].reshape(middle), shape))


def importance(x: Statistics, shape: tuple[int, ...], groups: int) -> Array:
    """How much an error of each weight matters: the mean square of what it multiplies, and a
    little everywhere, for channels that calibration never woke."""
    square = x.mean_square
    return per_weight(square + 1e-3 * float(square.mean()) + 1e-30, shape, groups)


def corrected_bias(bias: Array, w: Array, rounded: Array, x: Statistics, groups: int) -> Array:
    """The bias with the mean error of rounded weights folded in: `b + sum (w - w') E[x]`."""
    error = (w - rounded) * per_weight(x.mean, w.shape, groups)
    return np.asarray(bias + error.reshape(len(w), -1).sum(1))
