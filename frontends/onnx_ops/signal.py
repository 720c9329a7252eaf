"""Fourier transforms of known length: matrix products with constant sines and cosines."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.ops.linear import Linear
from irc.ops.selection import Gather
from irc.types import Array
from irc.value import Value

from ..builder import check_size
from .table import Node, Results, handles

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


def _transformed(node: Node, x: Value, weights: Array) -> Value:
    """`[..., n, parts]` by a matrix, `[..., rows]`."""
    build = node.builder
    flat = build.reshape(x, (*x.shape[:-2], prod(x.shape[-2:])))
    w = build.const(weights.astype(x.type.dtype.numpy), name=f"{build.name}.transform")
    return build.add(Linear(flat, w, None))


def _check(node: Node, n: int, parts: int, length: int) -> None:
    if parts not in (1, 2) or n < 1 or length < 1:
        node.fail(f"{n} elements of {parts} parts with length {length} can't be transformed")
    if n * parts * length * 2 > MAX_WEIGHTS:
        node.fail(f"a transform of {n} elements to {length} is too large")


@handles("DFT")
def dft(node: Node) -> Results:
    """Along a constant axis; the last axis holds real and imaginary parts."""
    x, build = node.x(), node.builder
    rank = x.type.rank
    if rank < 2:
        node.fail(f"{x.type} has no axis of complex numbers")
    if node.opset < 20:
        wanted = node.integer("axis")
    else:
        wanted = int(node.scalar(2, "axis")) if node.has(2) else -2
    axis = node.axis(wanted, rank)
    if axis == rank - 1:
        node.fail("its axis holds the complex numbers")
    inverse, onesided = bool(node.integer("inverse")), bool(node.integer("onesided"))
    n, parts = x.shape[axis], x.shape[-1]
    length = 2 * (n - 1) if inverse and onesided else n
    length = int(node.scalar(1, "length")) if node.has(1) else length
    _check(node, n, parts, length)
    order = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    moved = build.transpose(x, order)
    weights = spectrum(n, parts, length, inverse=inverse, onesided=onesided)
    y = _transformed(node, moved, weights)
    results = 1 if inverse and onesided else 2
    y = build.reshape(y, (*y.shape[:-1], y.shape[-1] // results, results))
    return build.transpose(y, tuple(int(a) for a in np.argsort(order)))


@handles("STFT")
def stft(node: Node) -> Results:
    """Of overlapping frames under a constant window."""
    x, build = node.x(), node.builder
    if x.type.rank not in (2, 3):
        node.fail(f"{x.type} is no signal")
    step = int(node.scalar(1, "frame step"))
    window = node.constant(2, "window").reshape(-1) if node.has(2) else None
    if node.has(3):
        length = int(node.scalar(3, "frame length"))
    else:
        length = 0 if window is None else len(window)
    signal = x if x.type.rank == 3 else build.reshape(x, (*x.shape, 1))
    _check(node, length, signal.shape[2], length)
    frames = (signal.shape[1] - length) // max(1, step) + 1
    if step < 1 or frames < 1 or (window is not None and len(window) != length):
        node.fail(f"frames of {length} every {step} elements of {x.type} are not supported")
    check_size(4, (signal.shape[0], frames, length, signal.shape[2]))
    at = np.arange(frames)[:, np.newaxis] * step + np.arange(length)
    cut = build.add(Gather(signal, build.const(at, name=f"{build.name}.frames"), 1))
    onesided = bool(node.integer("onesided"))
    weights = spectrum(length, signal.shape[2], length, inverse=False, onesided=onesided)
    if window is not None:
        weights = weights * np.repeat(window.astype(np.float64), signal.shape[2])
    y = _transformed(node, cut, weights)
    return build.reshape(y, (*y.shape[:-1], y.shape[-1] // 2, 2))


@handles("MelWeightMatrix")
def mel_weights(node: Node) -> Results:
    """A constant, by ONNX's reference: triangles between bins that are even on the mel scale."""
    whole = (node.scalar(i, "input") for i in range(3))
    bins, length, rate = (int(v) for v in whole)
    low, high = (float(node.scalar(i, "frequency")) for i in (3, 4))
    if min(bins, length, rate) < 1 or not 0 <= low < high <= rate:
        node.fail(f"{bins} bins from {low} to {high} Hz at {rate} are not supported")
    spectrum_bins = length // 2 + 1
    check_size(8, (spectrum_bins, bins + 2))
    mel = [2595 * np.log10(1 + f / 700) for f in (low, high)]
    even = np.arange(bins + 2) * ((mel[1] - mel[0]) / (bins + 2)) + mel[0]
    edges = ((length + 1) * (700 * (10 ** (even / 2595) - 1)) // rate).astype(np.int64)
    result = np.zeros((spectrum_bins, bins))
    number = np.arange(spectrum_bins)
    for i in range(bins):
        start, centre, end = edges[i : i + 3]
        rising = (number - start) / max(1, centre - start)
        falling = (end - number) / max(1, end - centre)
        up = (number >= start) & (number <= centre) & (centre > start)
        down = (number >= centre) & (number < end)
        result[:, i] = np.where(down, falling, np.where(up, rising, 0.0))
        if start == centre and centre < spectrum_bins:
            result[centre, i] = 1.0
    dtype = node.element_type(node.integer("output_datatype"))
    return node.builder.const(result.astype(dtype))
