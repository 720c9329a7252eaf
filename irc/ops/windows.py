"""Sliding windows over NHWC tensors: the geometry that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Operand, Select, maximum, minimum
from irc.types import Array, DType, Shape

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right."""

CHUNK_BYTES = 1 << 23
CACHE_BYTES = 1 << 18


@dataclass(frozen=True)
class Window:
    """Kernel extent, strides, dilations and padding over the two spatial axes."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    def __post_init__(self) -> None:
        lengths = (len(self.kernel), len(self.strides), len(self.pads), len(self.dilations))
        if lengths != (2, 2, 4, 2):
            raise TypeCheckError("two strides, two dilations and four pads are needed")
        if min(*self.kernel, *self.strides, *self.dilations) < 1 or min(self.pads) < 0:
            raise TypeCheckError(
                f"kernel {self.kernel}, strides {self.strides}, dilations {self.dilations} must be"
                f" positive, pads {self.pads} not negative"
            )

    def output(self, height: int, width: int) -> Pair:
        """Spatial extent of the result; raises `TypeCheckError` where the window doesn't fit."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        top, left, bottom, right = self.pads
        h = (height + top + bottom - spans[0]) // self.strides[0] + 1
        w = (width + left + right - spans[1]) // self.strides[1] + 1
        if h < 1 or w < 1:
            raise TypeCheckError(
                f"a window of {spans[0]}x{spans[1]} does not fit {height}x{width}"
                f" with pads {self.pads}"
            )
        return h, w

    def source(self, y: Expr, x: Expr, ky: Expr, kx: Expr) -> tuple[Operand, Operand]:
        """Input row and column that tap (ky, kx) of output (y, x) reads; may lie in the padding."""
        row = y * self.strides[0] + ky * self.dilations[0] - self.pads[0]
        column = x * self.strides[1] + kx * self.dilations[1] - self.pads[1]
        return row, column

    @property
    def padded(self) -> bool:
        """Whether any tap can lie outside of the input."""
        return any(self.pads)

    def counts(self, height: int, width: int) -> Array:
        """How many taps of each output pixel lie inside of the input: i64[Ho,Wo]."""
        found = []
        for axis, extent in enumerate((height, width)):
            starts = np.arange(self.output(height, width)[axis]) * self.strides[axis]
            steps = np.arange(self.kernel[axis]) * self.dilations[axis] - self.pads[axis]
            at = starts[:, None] + steps
            found.append(((at >= 0) & (at < extent)).sum(1, dtype=np.int64))
        return np.asarray(found[0][:, None] * found[1])

    def count(self, i: Expr, axis: int, extent: int) -> Expr:
        """How many taps along an axis lie inside of the input, for output row or column i."""
        d = self.dilations[axis]
        start = i * self.strides[axis] - self.pads[axis]
        end = minimum((extent + d - 1 - start) // d, self.kernel[axis])
        return end - maximum((d - 1 - start) // d, 0)

    def pad(self, x: Array, fill: float) -> Array:
        """The input with its padding around it."""
        top, left, bottom, right = self.pads
        widths = ((0, 0), (top, bottom), (left, right), (0, 0))
        return np.pad(x, widths, constant_values=fill) if self.padded else x

    def taps(self, padded: Array, out: Pair) -> Iterator[tuple[int, int, Array]]:
        """For each tap, the strided view of the padded input that it reads: [N, Ho, Wo, C]."""
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y0, x0 = ky * self.dilations[0], kx * self.dilations[1]
                y1 = y0 + (out[0] - 1) * self.strides[0] + 1
                x1 = x0 + (out[1] - 1) * self.strides[1] + 1
                yield ky, kx, padded[:, y0 : y1 : self.strides[0], x0 : x1 : self.strides[1]]


@dataclass(frozen=True)
class TransposedWindow:
    """The window of a transposed convolution: input pixel i adds to output pixels
    `i*stride + k*dilation - pad`. `output_padding` rows and columns follow at bottom and right."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    output_padding: Pair = (0, 0)
    padded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Window(self.kernel, self.strides, self.pads, self.dilations)
        if len(self.output_padding) != 2 or min(self.output_padding) < 0:
            raise TypeCheckError(f"output_padding {self.output_padding} must be two sizes")

    def canvas(self, height: int, width: int) -> Pair:
        """Spatial extent of the result before the pads are cut off."""
        h, w = (
            (n - 1) * s + (k - 1) * d + 1 + extra
            for n, s, k, d, extra in zip(
                (height, width), self.strides, self.kernel, self.dilations, self.output_padding,
                strict=True,
            )
        )  # fmt: skip
        return h, w

    def output(self, height: int, width: int) -> Pair:
        """Spatial extent of the result; raises `TypeCheckError` where the pads leave nothing."""
        (h, w), (top, left, bottom, right) = self.canvas(height, width), self.pads
        if h - top - bottom < 1 or w - left - right < 1:
            raise TypeCheckError(f"pads {self.pads} leave nothing of a result of {h}x{w}")
        return h - top - bottom, w - left - right

    def source(self, y: Expr, x: Expr, ky: Expr, kx: Expr) -> tuple[Operand, Operand]:
        """Input row and column that tap (ky, kx) of output (y, x) reads: outside of the input, or
        -1, where it reads none."""
        row = y + self.pads[0] - ky * self.dilations[0]
        column = x + self.pads[1] - kx * self.dilations[1]
        return _divided(row, self.strides[0]), _divided(column, self.strides[1])


def _divided(at: Expr, stride: int) -> Expr:
    if stride == 1:
        return at
    return Select((at % stride).equals(0), at // stride, Int(-1, DType.I64))


def correlate_transposed(x: Array, w: Array, window: TransposedWindow, groups: int) -> Array:
    """The transposed cross-correlation: each input pixel adds its multiple of the kernel. x
    [N,H,W,C], w [O,kh,kw,C/groups], both in one float dtype; result [N,Ho,Wo,O] in it."""
    n, height, width, channels = x.shape
    out = window.output(height, width)
    canvas = np.zeros((n, *window.canvas(height, width), w.shape[0]), x.dtype)
    spread = Window(window.kernel, window.strides, dilations=window.dilations)
    taken, made = channels // groups, w.shape[0] // groups
    for g in range(groups):
        pixels = np.ascontiguousarray(x[..., g * taken : (g + 1) * taken]).reshape(-1, taken)
        part = w[g * made : (g + 1) * made]
        for ky, kx, view in spread.taps(canvas, (height, width)):
            share = pixels @ part[:, ky, kx].T
            view[..., g * made : (g + 1) * made] += share.reshape(n, height, width, made)
    top, left = window.pads[:2]
    return canvas[:, top : top + out[0], left : left + out[1]]


def correlate(x: Array, w: Array, window: Window, groups: int, fill: float = 0) -> Array:
    """2-D cross-correlation. x [N,H,W,C], w [O,kh,kw,C/groups], both in one float dtype; result
    [N,Ho,Wo,O] in it. In float64 this is exact for integers whose sums stay below 2^53."""
    out = window.output(x.shape[1], x.shape[2])
    padded = window.pad(x, fill)
    if w.shape[3] == 1 and groups == x.shape[3]:
        return _depthwise(padded, w, window, out)
    dense = _pointwise if window.kernel == (1, 1) else _by_columns
    parts = [
        dense(xs, ws, window, out)
        for xs, ws in zip(np.split(padded, groups, 3), np.split(w, groups, 0), strict=True)
    ]
    return parts[0] if groups == 1 else np.concatenate(parts, axis=3)


def _depthwise(padded: Array, w: Array, window: Window, out: Pair) -> Array:
    """Tap by tap, some rows at a time so that the sums stay in the cache; each channel may give
    several. A row of pixels is one vector: those that a tap reads lie side by side."""
    n, channels, made = padded.shape[0], padded.shape[3], w.shape[0]
    if made > channels:
        padded = np.repeat(padded, made // channels, axis=3)
    step, length = window.strides[1], out[1] * made
    phases = [np.ascontiguousarray(padded[:, :, p::step]) for p in range(step)]
    rows = [p.reshape(n, p.shape[1], -1) for p in phases]
    taps = np.tile(w[..., 0].transpose(1, 2, 0), out[1])
    result = np.zeros((n, out[0], length), padded.dtype)
    count = max(1, CACHE_BYTES // max(1, n * length * padded.itemsize))
    for y in range(0, out[0], count):
        acc = result[:, y : y + count]
        for ky, kx in np.ndindex(*window.kernel):
            top = y * window.strides[0] + ky * window.dilations[0]
            bottom = top + (acc.shape[1] - 1) * window.strides[0] + 1
            at, phase = divmod(kx * window.dilations[1], step)
            part = rows[phase][:, top : bottom : window.strides[0], at * made : at * made + length]
            acc += part * taps[ky, kx]
    return result.reshape(n, *out, made)


def _pointwise(padded: Array, w: Array, window: Window, out: Pair) -> Array:
    """A 1x1 kernel is one matrix product; without strides not even a copy is made."""
    _, _, pixels = next(window.taps(padded, out))
    columns = np.ascontiguousarray(pixels).reshape(len(padded) * out[0] * out[1], padded.shape[3])
    return (columns @ w[:, 0, 0].T).reshape(padded.shape[0], *out, w.shape[0])


def _by_columns(padded: Array, w: Array, window: Window, out: Pair) -> Array:
    """By columns and BLAS, some output rows at a time so that the columns stay small."""
    n, channels = padded.shape[0], padded.shape[3]
    depth = window.kernel[0] * window.kernel[1] * channels
    matrix = w.reshape(w.shape[0], depth).T
    result = np.empty((n, *out, w.shape[0]), padded.dtype)
    rows = max(1, CHUNK_BYTES // max(1, n * out[1] * depth * padded.itemsize))
    for y in range(0, out[0], rows):
        count = min(rows, out[0] - y)
        part = padded[:, y * window.strides[0] :]
        columns = np.empty((n, count, out[1], *window.kernel, channels), padded.dtype)
        for ky, kx, view in window.taps(part, (count, out[1])):
            columns[:, :, :, ky, kx] = view
        product = columns.reshape(n * count * out[1], depth) @ matrix
        result[:, y : y + count] = product.reshape(n, count, out[1], len(w))
    return result


def need_nhwc(what: str, shape: Shape) -> None:
    """Raise `TypeCheckError` unless the shape has the four axes of an image batch."""
    if len(shape) != 4:
        raise TypeCheckError(f"{what} has {len(shape)} axes {list(shape)}, [N, H, W, C] is needed")
