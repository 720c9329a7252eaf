"""Thresholds on a growing function of singles, as thresholds on the singles themselves: found by
bisection over all of them, so that each one lies on the side where it lay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irc.types import Array

_HALVINGS = 33
"""Singles are as many as 32 bits tell apart."""


def parted(
    f: Callable[[Array], Array], threshold: Array, inclusive: Array
) -> tuple[Array, Array]:
    """The last single that a growing function keeps below each threshold, and the next one."""
    low = np.full(threshold.shape, _key(np.float32(-np.inf)), np.int64)
    high = np.full(threshold.shape, _key(np.float32(np.inf)), np.int64)
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        found = f(_single(middle))
        beyond = (found > threshold) | (inclusive & (found == threshold))
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return _single(low), _single(high)


def _key(single: np.float32) -> int:
    """A whole number in the order of singles."""
    bits = int(single.view(np.int32))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


def _single(keys: Array) -> Array:
    """The singles that `_key` gave these numbers."""
    bits = np.where(keys >= 0, keys, keys ^ 0x7FFFFFFF)
    return bits.astype(np.int32).view(np.float32)
