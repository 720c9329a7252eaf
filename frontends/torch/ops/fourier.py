"""Fourier transforms, whole and of frames: linear layers of constant sines and cosines."""

from __future__ import annotations

from math import sqrt

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.fourier import check_transform, frames, spectrum
from irc.frontends.torch.ops.complex import argument, of_complex
from irc.frontends.torch.ops.shape import MODES, part
from irc.frontends.torch.ops.table import Complex, Node, Results, handles
from irc.ops.elementwise import Mul
from irc.ops.linear import Linear
from irc.ops.shape import Concat, Pad
from irc.types import Array
from irc.value import Value

LEAST_SHARE = 1e-11
"""The sum of windows' squares below which torch takes an element for a gap."""


def _factor(node: Node, length: int) -> float:
    """What a result over so many elements is multiplied by: 1, or 1 through its root or itself."""
    return 1 / (1, sqrt(length), length)[node.integer("normalization")]


def _matrix(n: int, parts: int, length: int, *, inverse: bool) -> Array:
    """`[2 * length, parts, n]`, real rows first; no division even if inverse."""
    made = spectrum(n, parts, length, inverse=inverse, onesided=False) * (length if inverse else 1)
    return made.reshape(length, 2, n, parts).transpose(1, 0, 3, 2).reshape(2 * length, parts, n)


def _multiplied(node: Node, x: Value | Complex, axis: int, matrix: Array) -> Value:
    """A matrix `[rows, parts, n]` times an axis; the parts of x side by side, one linear layer."""
    build, parts = node.builder, (x.real, x.imag) if isinstance(x, Complex) else (x,)
    rank = parts[0].type.rank
    order = (*(a for a in range(rank) if a != axis), axis)
    moved = tuple(build.transpose(v, order) for v in parts)
    joined = moved[0] if len(moved) == 1 else build.add(Concat(moved, rank - 1))
    w = build.const(matrix.reshape(len(matrix), -1).astype(np.float32), name=f"{build.name}.matrix")
    y = build.add(Linear(joined, w, None))
    return build.transpose(y, tuple(int(a) for a in np.argsort(order)))


def _halves(node: Node, y: Value, axis: int) -> Complex:
    """Real rows, then imaginary ones."""
    half = y.shape[axis] // 2
    return Complex(part(node, y, axis, 0, half), part(node, y, axis, half, 2 * half))


def _transformed(node: Node, x: Value | Complex, axis: int, *, inverse: bool) -> Complex:
    """All bins of one axis, by the factor that the call states."""
    n = x.shape[axis]
    parts = 2 if isinstance(x, Complex) else 1
    check_transform(n, parts, n)
    matrix = _matrix(n, parts, n, inverse=inverse) * _factor(node, n)
    return _halves(node, _multiplied(node, x, axis, matrix), axis)


@handles("aten._fft_r2c")
def from_reals(node: Node) -> Results:
    """The last of the axes first, of which half the bins may do."""
    x = node.x()
    *others, last = node.axes("dim", x.type.rank)
    y = _transformed(node, x, last, inverse=False)
    if node.flag("onesided"):
        count = x.shape[last] // 2 + 1
        y = Complex(*(part(node, v, last, 0, count) for v in (y.real, y.imag)))
    for axis in others:
        y = _transformed(node, y, axis, inverse=False)
    return y


@of_complex("aten._fft_c2c")
def from_complex(node: Node) -> Results:
    """Axis by axis."""
    y, inverse = argument(node), not node.flag("forward")
    for axis in node.axes("dim", y.real.type.rank):
        y = _transformed(node, y, axis, inverse=inverse)
    return y


@of_complex("aten._fft_c2r")
def to_reals(node: Node) -> Results:
    """From half the bins of the last of the axes; those that are left out mirror them."""
    y, length = argument(node), node.integer("last_dim_size")
    *others, last = node.axes("dim", y.real.type.rank)
    for axis in others:
        y = _transformed(node, y, axis, inverse=True)
    n = y.shape[last]
    check_transform(n, 2, length)
    matrix = spectrum(n, 2, length, inverse=True, onesided=True) * length * _factor(node, length)
    return _multiplied(node, y, last, matrix.reshape(length, n, 2).transpose(0, 2, 1))


# ---------------------------------------------------------------- frames


def _window(node: Node, length: int) -> Array:
    """The constant window in the middle of a frame."""
    given = node.constant("window").astype(np.float64) if node.has("window") else None
    size = node.integer("win_length") if node.has("win_length") else length
    node.ignore("window", "win_length")
    window = np.ones(size) if given is None else given
    before = (length - size) // 2
    if window.shape != (size,) or before < 0:
        node.fail(f"a window {list(window.shape)} in frames of {length} is not supported")
    return np.pad(window, (before, length - size - before))


def _hop(node: Node, length: int) -> int:
    node.ignore("hop_length")
    return node.integer("hop_length") if node.has("hop_length") else length // 4


def _onesided(node: Node) -> bool:
    node.ignore("onesided")
    return node.flag("onesided") if node.has("onesided") else True


@handles("aten.stft")
def short_time(node: Node) -> Results:
    """Of overlapping frames `[N, T]` or `[T]` under a constant window: `[N, bins, frames]`."""
    node.ignore("return_complex", "align_to_window")
    build, length = node.builder, node.integer("n_fft")
    x = node.x()
    signal = _padded(node, x if x.type.rank == 2 else build.reshape(x, (1, *x.shape)), length)
    check_transform(length, 1, length)
    bins = length // 2 + 1 if _onesided(node) else length
    scale = 1 / sqrt(length) if node.flag("normalized") else 1.0
    matrix = _matrix(length, 1, length, inverse=False) * _window(node, length) * scale
    kept = np.concatenate([matrix[:bins], matrix[length : length + bins]])
    cut = frames(build, signal, length, _hop(node, length))
    y = build.transpose(_multiplied(node, cut, 2, kept), (0, 2, 1))
    made = _halves(node, y, 1)
    if x.type.rank == 2:
        return made
    return Complex(*(build.reshape(v, v.shape[1:]) for v in (made.real, made.imag)))


def _padded(node: Node, signal: Value, length: int) -> Value:
    """As the overload with `center` asks."""
    if "center" not in node.arguments or not node.flag("center"):
        node.ignore("pad_mode")
        return signal
    mode, half = str(node.any("pad_mode")), length // 2
    if mode not in MODES:
        node.fail(f"pad_mode = {mode!r} is not supported")
    return node.builder.add(Pad(signal, ((0, 0), (half, half)), 0.0, MODES[mode]))


@of_complex("aten.istft")
def inverse_short_time(node: Node) -> Results:
    """Frames put back where they overlap, over the sum of the windows' squares: a transposed
    convolution of the bins."""
    node.ignore("return_complex")
    build, length, y = node.builder, node.integer("n_fft"), argument(node)
    if not _onesided(node) or y.shape[-2] != length // 2 + 1:
        node.fail(f"frames of {length} must be given by the {length // 2 + 1} bins of one side")
    window, hop = _window(node, length), _hop(node, length)
    weights = _synthesis(length, window * (sqrt(length) if node.flag("normalized") else 1.0))
    bins = build.add(Concat((y.real, y.imag), y.real.type.rank - 2))
    batch = bins if bins.type.rank == 3 else build.reshape(bins, (1, *bins.shape))
    w = build.const(weights, name=f"{build.name}.matrix")
    joined = forms.conv_transpose(build, batch, w, None, (hop,), (0, 0), (1,), 1, (0,))
    start, shares = _shares(node, window, batch.shape[2], hop)
    kept = part(node, joined, 2, start, start + len(shares))
    given = build.const(shares.astype(np.float32), name=f"{build.name}.shares")
    result = build.add(Mul(kept, given))
    return build.reshape(result, (*y.shape[:-2], len(shares)))


def _synthesis(length: int, window: Array) -> Array:
    """`[2 * bins, 1, length]`: what each bin's parts add to a frame."""
    made = spectrum(length // 2 + 1, 2, length, inverse=True, onesided=True)
    moved = made.reshape(length, -1, 2).transpose(2, 1, 0).reshape(-1, 1, length)
    return (moved * window).astype(np.float32)


def _shares(node: Node, window: Array, count: int, hop: int) -> tuple[int, Array]:
    """Where the result begins, and what each of its elements is multiplied by."""
    length = len(window)
    total = np.zeros((count - 1) * hop + length)
    for i in range(count):
        total[i * hop : i * hop + length] += window**2
    start = length // 2 if node.flag("center") else 0
    end = start + node.integer("length") if node.has("length") else len(total) - start
    node.ignore("length")
    kept = total[start:end]
    if end > len(total) or not len(kept) or kept.min() < LEAST_SHARE:
        node.fail(f"the windows of {count} frames leave gaps in {end - start} elements")
    return start, 1 / kept
