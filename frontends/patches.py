"""Images sampled at points, cut into patches, and put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irc.errors import ModelError
from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder, check_size, is_weight
from irc.frontends.taps import merged, resampled
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul
from irc.ops.grid import GridSample, grid_taps
from irc.ops.linear import MatMul
from irc.ops.selection import Gather
from irc.ops.shape import Concat, Pad
from irc.types import Array, Shape
from irc.value import Value


def last(b: Builder, x: Value) -> Value:
    """Channels last, whatever the number of spatial axes."""
    return b.transpose(x, (0, *range(2, x.type.rank), 1))


def first(b: Builder, y: Value) -> Value:
    """Back from channels last."""
    rank = y.type.rank
    return b.transpose(y, (0, rank - 1, *range(1, rank - 1)))


# ---------------------------------------------------------------- points


def grid_sampled(
    b: Builder, x: Value, grid: Value, mode: str, padding: str, *, align_corners: bool
) -> Value:
    """Channels-first x at the points of a grid; a constant one becomes taps and weights."""
    images = last(b, x)
    op = GridSample(images, grid, mode, padding, align_corners)
    check_size(8, (*grid.shape[:-1], (4 if op.mode == "cubic" else 2) ** grid.shape[-1]))
    if not isinstance(grid, Const):
        return first(b, b.add(op))
    at, weights = grid_taps(grid.array, images.shape[1:-1], op.mode, op.padding, align_corners)
    points = prod(grid.shape[1:-1])
    made = [
        at_points(b, image, p.reshape(points, -1), w.reshape(points, -1))
        for image, p, w in zip(each_image(b, images), at, weights, strict=True)
    ]
    y = made[0] if len(made) == 1 else b.add(Concat(tuple(made), 0))
    return first(b, b.reshape(y, op.shape))


def affine_grid(b: Builder, theta: Value, sizes: Shape, *, align_corners: bool) -> Value:
    """The grid [N, *sizes, n] of points that `theta` [N, n, n + 1] makes of those of an image; the
    image's last axis is the first coordinate."""
    n = len(sizes)
    check_size(8, (theta.shape[0], *sizes, n))
    total: Value | None = None
    for j in range(n + 1):
        column = forms.gather_axis(b, theta, [j], 2)
        term = b.reshape(column, (theta.shape[0], *(1,) * n, n))
        if j < n:
            axis = n - 1 - j
            places = _evenly(sizes[axis], align_corners)
            shape = [1] * (n + 2)
            shape[1 + axis] = sizes[axis]
            term = b.add(Mul(term, b.const(places.reshape(shape).astype(np.float32))))
        total = term if total is None else b.add(Add(total, term))
    assert total is not None, "there is a column of offsets at least"
    return b.expand(total, (theta.shape[0], *sizes, n))


def _evenly(extent: int, align_corners: bool) -> Array:
    """The coordinates of an axis's elements: from -1 to 1, of centres or of outermost elements."""
    if align_corners:
        return np.linspace(-1, 1, extent) if extent > 1 else np.zeros(1)
    return (2 * np.arange(extent) + 1) / extent - 1


def each_image(b: Builder, x: Value) -> list[Value]:
    """The images of a channels-last batch, each with its pixels flat: `[1, P, C]`."""
    count, channels = x.shape[0], x.shape[-1]
    flat = b.reshape(x, (count, prod(x.shape[1:-1]), channels))
    if count == 1:
        return [flat]
    return [forms.gather_axis(b, flat, [i], 0) for i in range(count)]


def at_points(b: Builder, image: Value, places: Array, weights: Array) -> Value:
    """Weighted sums of pixels of `[1, P, C]`: places and weights `[points, taps]`."""
    return resampled(b, image, {1: merged(places, weights)})


# ---------------------------------------------------------------- patches


def patch_counts(
    image: Sequence[int], kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> Shape:
    """How many patches there are along each axis; pads are `[begin…, end…]`."""
    n = len(kernel)
    return tuple(
        (image[i] + pads[i] + pads[n + i] - forms.span(kernel[i], dilations[i])) // strides[i] + 1
        for i in range(n)
    )


def cut(
    b: Builder, x: Value, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> Value:
    """Patches of `[N, C, H, W]` as columns, `[N, C * kh * kw, patches]`; padding is 0."""
    n, c, *sizes = x.shape
    counts = patch_counts(sizes, kernel, strides, pads, dilations)
    if min(counts) < 1:
        raise ModelError(f"{x.type} has no patch of {list(kernel)}")
    check_size(x.type.dtype.numpy.itemsize, (n, c, *kernel, *counts))
    if any(pads):
        spatial = zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)
        x = b.add(Pad(x, ((0, 0), (0, 0), *spatial), name=x.name))
    (rows, columns), width = (
        np.arange(k)[:, np.newaxis] * d + np.arange(count) * s
        for k, d, count, s in zip(kernel, dilations, counts, strides, strict=True)
    ), x.shape[3]
    places = rows[:, np.newaxis, :, np.newaxis] * width + columns[np.newaxis, :, np.newaxis, :]
    flat = b.reshape(x, (n, c, prod(x.shape[2:])))
    at = b.const(places.reshape(prod(kernel), prod(counts)), name=f"{b.name}.patches")
    return b.reshape(b.add(Gather(flat, at, 2)), (n, c * prod(kernel), prod(counts)))


def convolved(
    b: Builder, x: Value, w: Value, bias: Value | None,
    strides: Shape, pads: Shape, dilations: Shape, groups: int,
) -> Value:  # fmt: skip
    """Convolution of channels-first x by weights `[O, C/groups, *kernel]`. Those that are computed,
    as of dynamic filters and trackers, are multiplied with x's patches."""
    n, channels, *sizes = x.shape
    out, per_group, *kernel = w.shape
    fits = groups > 0 and out % groups == 0 and channels == groups * per_group
    if is_weight(w) or len(kernel) > 2 or not fits:
        return forms.conv(b, x, w, bias, strides, pads, dilations, groups)
    if len(kernel) == 1:
        flat = b.reshape(x, (n, channels, 1, *sizes))
        filters = b.reshape(w, (out, per_group, 1, *kernel))
        wide = (0, pads[0], 0, pads[1])
        y = convolved(b, flat, filters, bias, (1, *strides), wide, (1, *dilations), groups)
        return b.reshape(y, (n, out, y.shape[3]))
    columns = cut(b, x, tuple(kernel), strides, pads, dilations)
    depth = per_group * prod(kernel)
    rows = b.reshape(w, (1, groups, out // groups, depth))
    y = b.add(MatMul(rows, b.reshape(columns, (n, groups, depth, columns.shape[2]))))
    y = b.reshape(y, (n, out, *patch_counts(sizes, tuple(kernel), strides, pads, dilations)))
    return y if bias is None else b.add(Add(y, b.reshape(bias, (out, 1, 1))))


def joined(
    b: Builder, x: Value, image: Shape, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> Value:
    """Columns `[N, C * taps, patches]` put back where `cut` takes them from, sums where they
    overlap: a transposed convolution whose weights pick."""
    n, taps = len(kernel), prod(kernel)
    if x.type.rank != 3 or len(image) != n or len(pads) != 2 * n or min(*kernel, *pads, 1) < 0:
        raise ModelError(f"{x.type} as patches {list(kernel)} of {list(image)} is not supported")
    counts = patch_counts(image, kernel, strides, pads, dilations)
    if not taps or x.shape[1] % taps or min(counts) < 1 or prod(counts) != x.shape[2]:
        raise ModelError(f"{x.type} does not hold the patches {list(kernel)} of {list(image)}")
    channels = x.shape[1] // taps
    check_size(4, (x.shape[0], channels, *image))
    check_size(4, (channels, taps, taps))
    pick = np.tile(np.eye(taps, dtype=np.float32), (channels, 1)).reshape(-1, 1, *kernel)
    extra = tuple(
        (image[i] + pads[i] + pads[n + i] - forms.span(kernel[i], dilations[i])) % strides[i]
        for i in range(n)
    )
    patches = b.reshape(x, (*x.shape[:2], *counts))
    w = b.const(pick.astype(x.type.dtype.numpy), name=f"{b.name}.pick")
    return forms.conv_transpose(b, patches, w, None, strides, pads, dilations, channels, extra)
