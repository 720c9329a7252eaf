"""Images sampled at points, in regions, and put together from patches."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.ops.core import Const
from irc.ops.grid import GridSample, grid_taps
from irc.ops.reduce import ReduceMax
from irc.ops.shape import Concat
from irc.types import Array, Shape
from irc.value import Value

from .. import normal_forms as forms
from ..builder import check_size
from .conv import per_axis, positive
from .table import Node, Results, handles
from .taps import merged, resampled

MODES = {"bilinear": "linear", "bicubic": "cubic"}
MAX_POINTS, MAX_SAMPLES = 4096, 1 << 24
"""No more points are looked at along one axis of a bin, and in a whole region."""


def _last(node: Node, x: Value) -> Value:
    return node.builder.transpose(x, (0, *range(2, x.type.rank), 1))


def _first(node: Node, y: Value) -> Value:
    rank = y.type.rank
    return node.builder.transpose(y, (0, rank - 1, *range(1, rank - 1)))


@handles("GridSample")
def grid_sample(node: Node) -> Results:
    """At the points of a grid; a constant one becomes taps and weights."""
    x, grid = _last(node, node.x(0)), node.x(1)
    mode = node.text("mode")
    op = GridSample(
        x, grid, MODES.get(mode, mode), node.text("padding_mode"),
        bool(node.integer("align_corners")),
    )  # fmt: skip
    taps = 4 if op.mode == "cubic" else 2
    check_size(8, (*grid.shape[:-1], taps ** grid.shape[-1]))
    if not isinstance(grid, Const):
        return _first(node, node.builder.add(op))
    at, weights = grid_taps(grid.array, x.shape[1:-1], op.mode, op.padding, op.align_corners)
    points = grid.shape[1:-1]
    images = [
        _at_points(node, image, p.reshape(prod(points), -1), w.reshape(prod(points), -1))
        for image, p, w in zip(_each_image(node, x), at, weights, strict=True)
    ]
    y = images[0] if len(images) == 1 else node.builder.add(Concat(tuple(images), 0))
    return _first(node, node.builder.reshape(y, op.shape))


def _each_image(node: Node, x: Value) -> list[Value]:
    """The images of a batch, each with its pixels flat: `[1, P, C]`."""
    count, channels = x.shape[0], x.shape[-1]
    flat = node.builder.reshape(x, (count, prod(x.shape[1:-1]), channels))
    if count == 1:
        return [flat]
    return [forms.gather_axis(node.builder, flat, [i], 0) for i in range(count)]


def _at_points(node: Node, image: Value, places: Array, weights: Array) -> Value:
    return resampled(node.builder, image, {1: merged(places, weights)})


# ---------------------------------------------------------------- regions


@handles("RoiAlign")
def roi_align(node: Node) -> Results:
    """Of constant regions: the mean, or the largest, of points within each bin."""
    x, regions = _last(node, node.x(0)), node.constant(1, "regions").astype(np.float64)
    images = node.constant(2, "batch indices").reshape(-1)
    if x.type.rank != 4 or regions.ndim != 2 or regions.shape[1:] != (4,):
        node.fail(f"regions of shape {list(regions.shape)} of {x.type} are not supported")
    count = x.shape[0]
    fits = len(images) == len(regions) and np.all((images >= 0) & (images < count))
    if not fits or not np.all(np.isfinite(regions)):
        node.fail("each region needs four numbers and the number of its image")
    found = node.attribute("coordinate_transformation_mode")
    shift = 0.5 if found is not None and found.s == b"half_pixel" else 0.0
    size = (node.integer("output_height"), node.integer("output_width"))
    positive(node, "output size", size)
    ratio, mode = node.integer("sampling_ratio"), node.text("mode")
    if mode not in ("avg", "max") or ratio < 0:
        node.fail(f"mode = {mode!r} with sampling_ratio = {ratio} is not supported")
    scaled = regions * node.real("spatial_scale") - shift
    batch = _each_image(node, x)
    made = [
        _bins(node, batch[int(i)], x.shape[1:3], region, size, ratio, shift > 0)
        for i, region in zip(images, scaled, strict=True)
    ]
    if not made:
        return node.builder.const(np.zeros((0, x.shape[3], *size), x.type.dtype.numpy))
    return _first(node, made[0] if len(made) == 1 else node.builder.add(Concat(tuple(made), 0)))


def _bins(
    node: Node, image: Value, sizes: Shape, region: Array, size: tuple[int, int], ratio: int,
    aligned: bool,
) -> Value:  # fmt: skip
    """One region as `[1, *size, C]`."""
    lengths = np.maximum(1.0, np.abs(region[2:] - region[:2])) / size[::-1]
    if max(ratio, float(lengths.max())) > MAX_POINTS:
        node.fail(f"a region is sampled at over {MAX_POINTS} points a bin; give a sampling_ratio")
    taps = [
        _bin_taps(region[1 - axis], region[3 - axis], sizes[axis], size[axis], ratio, aligned)
        for axis in (0, 1)
    ]
    points = [p.shape[1] // 2 for p, _ in taps]
    check_size(16, (*size, *points, 4))
    if prod(size) * prod(points) > MAX_SAMPLES:
        node.fail(f"a region is sampled at {points} points a bin; give a sampling_ratio")
    # [oh, ow, sh, sw, 2, 2]: bins, points in each, the four neighbours of each point
    (py, wy), (px, wx) = (
        (p.reshape(len(p), -1, 2), w.reshape(len(w), -1, 2)) for p, w in taps
    )
    places = py[:, None, :, None, :, None] * sizes[1] + px[None, :, None, :, None, :]
    weights = wy[:, None, :, None, :, None] * wx[None, :, None, :, None, :]
    b, channels, bins = node.builder, image.shape[2], prod(size)
    if node.text("mode") == "avg":
        share = weights / prod(points)
        y = _at_points(node, image, places.reshape(bins, -1), share.reshape(bins, -1))
        return b.reshape(y, (1, *size, channels))
    # The largest of the weighted neighbours, which are not summed up: so ONNX says.
    each = bins * prod(points) * 4
    y = _at_points(node, image, places.reshape(each, 1), weights.reshape(each, 1))
    grouped = b.reshape(y, (1, bins, prod(points) * 4, channels))
    return b.reshape(b.add(ReduceMax(grouped, (2,), False)), (1, *size, channels))


def _bin_taps(
    start: float, end: float, extent: int, bins: int, ratio: int, aligned: bool
) -> tuple[Array, Array]:
    """Along one axis the two neighbours of each point: `[bins, 2 * points]`."""
    length = float(end - start) if aligned else max(float(end - start), 1.0)
    points = ratio or max(1, int(np.ceil(length / bins)))
    step = length / bins
    at = start + (np.arange(bins)[:, None] + (np.arange(points) + 0.5) / points) * step
    outside = (at < -1) | (at > extent)
    at = np.clip(at, 0, extent - 1)
    low = np.floor(at).astype(np.int64)
    part = at - low
    places = np.stack([low, np.minimum(low + 1, extent - 1)], -1)
    weights = np.where(outside[..., None], 0.0, np.stack([1 - part, part], -1))
    return places.reshape(bins, -1), weights.reshape(bins, -1)


# ---------------------------------------------------------------- patches


@handles("Col2Im")
def col2im(node: Node) -> Results:
    """Patches put back where they were taken from, sums where they overlap: a transposed
    convolution whose weights pick."""
    x, build = node.x(), node.builder
    image, kernel = node.whole(1, "image shape"), node.whole(2, "block shape")
    n = len(kernel)
    strides = positive(node, "strides", per_axis(node, "strides", n, 1))
    dilations = positive(node, "dilations", per_axis(node, "dilations", n, 1))
    pads = node.integers("pads") or (0,) * (2 * n)
    taps = prod(kernel)
    if x.type.rank != 3 or len(image) != n or len(pads) != 2 * n or min(*kernel, *pads, 1) < 0:
        node.fail(f"{x.type} as patches {list(kernel)} of {list(image)} is not supported")
    counts = [
        (image[i] + pads[i] + pads[n + i] - forms.span(kernel[i], dilations[i])) // strides[i] + 1
        for i in range(n)
    ]
    if not taps or x.shape[1] % taps or min(counts) < 1 or prod(counts) != x.shape[2]:
        node.fail(f"{x.type} does not hold the patches {list(kernel)} of {list(image)}")
    channels = x.shape[1] // taps
    check_size(4, (x.shape[0], channels, *image))
    check_size(4, (channels, taps, taps))
    pick = np.tile(np.eye(taps, dtype=np.float32), (channels, 1)).reshape(-1, 1, *kernel)
    extra = tuple(
        (image[i] + pads[i] + pads[n + i] - forms.span(kernel[i], dilations[i])) % strides[i]
        for i in range(n)
    )
    patches = build.reshape(x, (*x.shape[:2], *counts))
    w = build.const(pick.astype(x.type.dtype.numpy), name=f"{build.name}.pick")
    return forms.conv_transpose(
        build, patches, w, None, strides, pads, dilations, channels, extra
    )

