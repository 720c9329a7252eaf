"""More than two spatial axes: the first one joins the channels (convolutions) or goes by itself
(pools), until two are left.

    conv3d(x [N,C,D,H,W]) = conv2d(windows of x along D [N*D', kd*C, H, W])

A convolution stays one multiply-accumulate with one rounding; a pool is a pool of pools.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.ops.selection import Gather
from irc.ops.shape import Pad
from irc.types import Array, Shape
from irc.value import Value

MAX_PLACES = 1 << 24
"""No axis is read more often than this."""


def window_places(
    size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> Array:
    """Which element each tap of each window of one axis reads, `[windows, kernel]`; `size` stands
    for the padding."""
    count = (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
    _check(count, kernel)
    first = np.arange(max(0, count))[:, np.newaxis] * stride - pads[0]
    at = first + np.arange(kernel) * dilation
    return np.where((at >= 0) & (at < size), at, size)


def transposed_places(
    size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, extra: int
) -> Array:
    """As `window_places`, for a transposed convolution: the element that each tap adds to each
    result, `[results, kernel]`."""
    count = (size - 1) * stride + (kernel - 1) * dilation + 1 + extra - sum(pads)
    _check(count, kernel)
    ahead = np.arange(max(0, count))[:, np.newaxis] + pads[0] - np.arange(kernel) * dilation
    at, rest = np.divmod(ahead, stride)
    return np.where((rest == 0) & (at >= 0) & (at < size), at, size)


def _check(windows: int, kernel: int) -> None:
    if windows * kernel > MAX_PLACES:
        raise ModelError(f"{windows} windows of {kernel} elements along one axis are too many")


def folded(b: Builder, x: Value, places: Array, groups: int) -> Value:
    """x `[N, C, D, ...]` as `[N*D', groups*kd*C/groups, ...]`: the windows of its first spatial
    axis among the channels of each group."""
    n, c, size, *rest = x.shape
    if places.max(initial=0) == size:
        widths = tuple((0, int(axis == 2)) for axis in range(x.type.rank))
        x = b.add(Pad(x, widths, name=x.name))
    at = b.const(np.ascontiguousarray(places, np.int64), name=f"{b.name}.windows")
    taken = b.add(Gather(x, at, 2))
    windows, kernel = places.shape
    split = b.reshape(taken, (n, groups, c // groups, windows, kernel, *rest))
    moved = b.transpose(split, (0, 3, 1, 4, 2, *range(5, 5 + len(rest))))
    return b.reshape(moved, (n * windows, kernel * c, *rest))


def unfolded(b: Builder, y: Value, batch: int) -> Value:
    """`[N*D', O, ...]` as `[N, O, D', ...]`."""
    images, channels, *rest = y.shape
    split = b.reshape(y, (batch, images // max(1, batch), channels, *rest))
    return b.transpose(split, (0, 2, 1, *range(3, 3 + len(rest))))


def conv_weights(b: Builder, w: Value) -> Value:
    """`[O, C/groups, kd, ...]` as `[O, kd*C/groups, ...]`."""
    out, channels, kernel, *rest = w.shape
    moved = b.transpose(w, (0, 2, 1, *range(3, w.type.rank)))
    return b.reshape(moved, (out, kernel * channels, *rest))


def conv_transpose_weights(b: Builder, w: Value, groups: int) -> Value:
    """`[C, O/groups, kd, ...]` as `[groups*kd*C/groups, O/groups, ...]`."""
    channels, out, kernel, *rest = w.shape
    split = b.reshape(w, (groups, channels // groups, out, kernel, *rest))
    moved = b.transpose(split, (0, 3, 1, 2, *range(4, 4 + len(rest))))
    return b.reshape(moved, (channels * kernel, out, *rest))


Pool = Callable[[Value, slice], Value]
"""A pool of a channels-first tensor whose spatial axes are this part of the window's."""


def pool(b: Builder, x: Value, inner: Pool, outer: Callable[[Value], Value]) -> Value:
    """A pool over all spatial axes but the first by `inner`, then over the first by `outer`, which
    takes it as the height of an image whose width is not pooled."""
    n, c, depth, *rest = x.shape
    slices = b.reshape(b.transpose(x, (0, 2, 1, *range(3, x.type.rank))), (n * depth, c, *rest))
    y = unfolded(b, inner(slices, slice(1, None)), n)
    sizes = y.shape[3:]
    z = outer(b.reshape(y, (n, c, depth, prod(sizes))))
    return b.reshape(z, (n, c, z.shape[2], *sizes))


def flat(b: Builder, x: Value) -> Value:
    """All spatial axes but the last as one."""
    return b.reshape(x, (*x.shape[:2], prod(x.shape[2:-1]), x.shape[-1]))


def ends(pads: Shape, axis: int) -> tuple[int, int]:
    """The pads of one axis, of pads `[begin…, end…]`."""
    return pads[axis], pads[len(pads) // 2 + axis]


def part(pads: Shape, at: slice) -> Shape:
    """The pads `[begin…, end…]` of some axes."""
    half = len(pads) // 2
    return (*pads[:half][at], *pads[half:][at])


def height(pads: Shape) -> Shape:
    """The pads of the first axis alone, as the height of an image."""
    begin, end = ends(pads, 0)
    return begin, 0, end, 0
