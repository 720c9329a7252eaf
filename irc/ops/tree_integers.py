"""Trees in integers: which integers their thresholds are, and how large their leaves need be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.types import Array, DType, TensorType

DIGITS, BESIDE, MOSTLY = 5, 2, 0.5
"""Digits of what many tables hold, how many singles away from it a threshold may lie, and the share
of a column's thresholds that tells such a table; of numbers of all digits a tenth lies so."""


def column_scales(x: TensorType, feature: Array) -> tuple[Array, Array]:
    """The scale and the zero point of each node's column, f64."""
    quant = fixedpoint.quant_of(x)
    if quant.axis not in (None, 1):
        raise IRCError(f"trees read columns, {x} has scales along its rows")
    scale, zero = fixedpoint.along_axis(quant, 2)
    columns = (1, x.shape[1])
    return np.broadcast_to(scale, columns)[0][feature], np.broadcast_to(zero, columns)[0][feature]


def integer_of_missing(missing: Sequence[Array], dtype: DType) -> int:
    """The integer for what is missing, of how the nodes of each tree ensemble treat it: the largest
    one where that is always as they treat large numbers, else the least."""
    return dtype.max if all(each.all() for each in missing) else dtype.min


def integer_thresholds(threshold: Array, inclusive: Array, feature: Array, x: TensorType) -> Array:
    """The largest integer of each node's column that stays on its left."""
    scale, zero = column_scales(x, feature)
    steps = threshold / scale
    whole = np.rint(steps)
    with np.errstate(over="ignore"):
        steps = np.where((whole * scale).astype(np.float32) == threshold, whole, steps)
    last = np.where(inclusive, np.ceil(steps) - 1, np.floor(steps)) + zero
    # Nothing real lies below the least integer of reals, and nothing real exceeds the largest.
    low, high = x.ends
    held = np.clip(last, low - 1, high).astype(np.int32)
    return np.asarray(held, x.dtype.numpy if np.all(held >= x.dtype.min) else np.int32)


def of_few_digits(threshold: Array, feature: Array) -> Array:
    """Singles of few decimal digits beside the thresholds of columns that hold such numbers, else
    the thresholds: what lies halfway between two of them may be the single beside a third one."""
    short = np.asarray([float(f"{t:.{DIGITS}g}") for t in threshold.tolist()], np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        beside = np.abs(short - threshold) <= BESIDE * np.spacing(np.abs(threshold))
    share = np.bincount(feature, beside) / np.maximum(np.bincount(feature), 1)
    return np.where(beside & (share[feature] > MOSTLY), short, threshold)


def clamped_leaves(
    children: Array, roots: Array, leaves: Array, bias: Array, depth: int, result: TensorType
) -> Array:
    """The leaves, f64 [L,K], where some exceed the result's whole range no larger than it can
    tell: a tree's leaf beyond this, with the least that the other trees add, is as good as there.
    A step more than the range is kept, so that what was beyond it remains so when rounded."""
    leaves, dtype = leaves.astype(np.float64), result.dtype
    low, high = ((end - result.zero) * result.scale for end in (dtype.min - 1, dtype.max + 1))
    if not np.abs(leaves).max(initial=0) > high - low or not np.isfinite(leaves).all():
        return leaves
    groups, (count, columns) = len(roots), leaves.shape
    added = bias.astype(np.float64).reshape(groups, 1, columns)
    limits = []
    for sign, end in ((1, high), (-1, -low)):  # the upper limit; the lower one, mirrored
        least = _least(children, sign * leaves, depth)[roots]
        most = np.maximum(end - sign * added - _others(least), least)
        limits.append(sign * _largest(children, roots, most, count, depth))
    upper, lower = limits
    reached = lower <= upper
    return np.where(reached, np.clip(leaves, np.minimum(lower, upper), upper), 0.0)


def _others(given: Array) -> Array:
    """The sums [G,T,K] of all trees but each; of none by a difference, which large ones spoil."""
    before, behind = (np.cumsum(a, 1)[:, :-1] for a in (given, given[:, ::-1]))
    zero = np.zeros_like(given[:, :1])
    rest = np.concatenate([behind[:, ::-1], zero], 1)
    return np.asarray(np.concatenate([zero, before], 1) + rest)


def _least(children: Array, leaves: Array, depth: int) -> Array:
    """The least number [nodes + L, K] that is reached from each node or leaf."""
    nodes = len(children)
    found = np.concatenate([np.full((nodes, leaves.shape[1]), np.inf), leaves])
    for _ in range(depth):
        found[:nodes] = found[children].min(1)
    return found


def _largest(children: Array, roots: Array, given: Array, count: int, depth: int) -> Array:
    """Of what was `given` to each root [G,T,K] the largest that comes to each leaf [L,K]; -inf
    where no tree does."""
    nodes = len(children)
    found = np.full((nodes + count, given.shape[2]), -np.inf)
    np.maximum.at(found, roots.reshape(-1), given.reshape(-1, given.shape[2]))
    for _ in range(depth):
        for side in children.T:
            np.maximum.at(found, side, found[:nodes])
    return found[nodes:]
