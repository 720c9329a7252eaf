"""Fourier transforms of known length, and weights of the mel scale."""

from __future__ import annotations

import numpy as np

from irc.frontends.builder import check_size
from irc.frontends.fourier import check_transform, frames, multiplied, spectrum
from irc.frontends.onnx.ops.table import Node, Results, handles


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
    check_transform(n, parts, length)
    order = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    moved = build.transpose(x, order)
    weights = spectrum(n, parts, length, inverse=inverse, onesided=onesided)
    y = multiplied(build, moved, weights)
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
    check_transform(length, signal.shape[2], length)
    if window is not None and len(window) != length:
        node.fail(f"a window of {len(window)} elements for frames of {length} is not supported")
    cut = frames(build, signal, length, step)
    onesided = bool(node.integer("onesided"))
    weights = spectrum(length, signal.shape[2], length, inverse=False, onesided=onesided)
    if window is not None:
        weights = weights * np.repeat(window.astype(np.float64), signal.shape[2])
    y = multiplied(build, cut, weights)
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
