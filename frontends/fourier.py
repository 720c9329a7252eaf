"""Fourier transforms of known length: matrix products with constant sines and cosines."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder, check_size
from irc.ops.linear import Linear
from irc.ops.selection import Gather
from irc.types import Array
from irc.value import Value

MAX_WEIGHTS = 1 << 24
"""No transform becomes a larger matrix."""


def spectrum(n: int, parts: int, length: int, *, inverse: bool, onesided: bool) -> Array:
    """The matrix `[bins * 2, n * parts]` of a transform of `length` from the first n elements,
    real (parts = 1) or complex; a one-sided inverse gives `[length, n * parts]`, reals."""
    used = min(n, length // 2 + 1 if inverse and onesided else length)
    bins = length // 2 + 1 if onesided and not inverse else length
    turns = np.outer(np.arange(bins), np.arange(used)) % length
    angle = 2 * np.pi * turns / length * (1 if inverse else -1)
    cos, sin = np.cos(angle), np.sin(angle)
    made = np.zeros((bins, 2, n, parts))
    made[:, 0, :used, 0], made[:, 1, :used, 0] = cos, sin
    if parts == 2:
        made[:, 0, :used, 1], made[:, 1, :used, 1] = -sin, cos
    if inverse:
        made /= length
    if not (inverse and onesided):
        return made.reshape(bins * 2, n * parts)
    twice = np.full(n, 2.0)  # what is left out mirrors what is there
    twice[0] = 1.0
    if length % 2 == 0 and length // 2 < n:
        twice[length // 2] = 1.0
    return np.asarray(made[:, 0] * twice[:, None]).reshape(length, n * parts)


def check_transform(n: int, parts: int, length: int) -> None:
    """Raise `ModelError` for a transform of `length` from n elements that there can't be."""
    if parts not in (1, 2) or n < 1 or length < 1:
        raise ModelError(
            f"{n} elements of {parts} parts with length {length} can't be transformed"
        )
    if n * parts * length * 2 > MAX_WEIGHTS:
        raise ModelError(f"a transform of {n} elements to {length} is too large")


def multiplied(b: Builder, x: Value, weights: Array) -> Value:
    """`[..., n, parts]` by a matrix `[rows, n * parts]`: `[..., rows]`."""
    flat = b.reshape(x, (*x.shape[:-2], prod(x.shape[-2:])))
    w = b.const(weights.astype(x.type.dtype.numpy), name=f"{b.name}.transform")
    return b.add(Linear(flat, w, None))


def frames(b: Builder, signal: Value, length: int, step: int) -> Value:
    """Overlapping stretches of a signal `[N, T, ...]`: `[N, frames, length, ...]`."""
    count = (signal.shape[1] - length) // max(1, step) + 1
    if step < 1 or count < 1:
        raise ModelError(
            f"frames of {length} every {step} elements of {signal.type} are not supported"
        )
    check_size(4, (signal.shape[0], count, length, *signal.shape[2:]))
    at = np.arange(count)[:, np.newaxis] * step + np.arange(length)
    return b.add(Gather(signal, b.const(at, name=f"{b.name}.frames"), 1))
