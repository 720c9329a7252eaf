"""Large arrays, some elements at a time: what is computed on the way stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from irc.types import Array

BLOCK = 1 << 15
"""Elements at a time."""


def along_first(shape: tuple[int, ...]) -> Iterator[slice]:
    """Parts of the first axis, of about as many elements."""
    rows = shape[0]
    step = max(1, BLOCK * rows // max(1, math.prod(shape)))
    return (slice(i, i + step) for i in range(0, rows, step))


def by_blocks(f: Callable[[Array], Array], x: Array, dtype: npt.DTypeLike) -> Array:
    """`f(x)`, for an `f` that makes of each element one of `dtype`, whatever stands beside it."""
    if x.size <= BLOCK:
        return np.asarray(f(x), dtype)
    flat, made = x.reshape(-1), np.empty(x.size, dtype)
    for i in range(0, x.size, BLOCK):
        made[i : i + BLOCK] = f(flat[i : i + BLOCK])
    return made.reshape(x.shape)
