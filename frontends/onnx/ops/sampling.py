"""Images sampled at points, in regions, and put together from patches."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.frontends import patches
from irc.frontends.builder import check_size
from irc.frontends.deformable import Deformable
from irc.frontends.onnx.ops.conv import per_axis, positive
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.roi_align import Regions
from irc.ops.core import Const
from irc.ops.reduce import ReduceMax
from irc.ops.shape import Concat
from irc.types import Array, Shape
from irc.value import Value

MODES = {"bilinear": "linear", "bicubic": "cubic"}
MAX_POINTS, MAX_SAMPLES = 4096, 1 << 24
"""No more points are looked at along one axis of a bin, and in a whole region."""


@handles("GridSample")
def grid_sample(node: Node) -> Results:
    """At the points of a grid."""
    mode = node.text("mode")
    return patches.grid_sampled(
        node.builder, node.x(0), node.x(1), MODES.get(mode, mode), node.text("padding_mode"),
        align_corners=bool(node.integer("align_corners")),
    )  # fmt: skip


@handles("AffineGrid")
def affine_grid(node: Node) -> Results:
    """The points of an image, moved. (Its body in ONNX fails for a batch of 1.)"""
    theta, (batch, _, *sizes) = node.x(0), node.whole(1, "size")
    n = len(sizes)
    if n not in (2, 3) or theta.shape != (batch, n, n + 1):
        node.fail(f"theta {theta.type} does not fit an image of {n} axes")
    positive(node, "size", tuple(sizes))
    return patches.affine_grid(
        node.builder, theta, tuple(sizes), align_corners=bool(node.integer("align_corners"))
    )


@handles("DeformConv")
def deformable_convolution(node: Node) -> Results:
    """A convolution whose taps look where offsets say, each with a factor of its own perhaps."""
    w = node.x(1)
    kernel = per_axis(node, "kernel_shape", 2, 0)
    if any(kernel) and kernel != w.shape[2:]:
        node.fail(f"kernel_shape {list(kernel)}, but the weights are {w.type}")
    strides, dilations = (
        positive(node, name, per_axis(node, name, 2, 1)) for name in ("strides", "dilations")
    )
    pads = node.integers("pads") or (0,) * 4
    if len(pads) != 4 or min(pads) < 0:
        node.fail(f"pads {list(pads)}: two sizes for each of 2 spatial axes are needed")
    layer = Deformable(
        positive(node, "kernel_shape", w.shape[2:]), strides, pads, dilations,
        node.integer("group"), node.integer("offset_group"),
    )  # fmt: skip
    b, bias, mask = node.builder, node.optional(3), node.optional(4)
    return layer(b, node.x(0), w, node.x(2), bias, mask)


# ---------------------------------------------------------------- regions


@handles("RoiAlign")
def roi_align(node: Node) -> Results:
    """The mean, or of constant regions the largest, of points within each bin."""
    x = patches.last(node.builder, node.x(0))
    if not isinstance(node.x(1), Const):
        return patches.first(node.builder, _computed(node, x, node.x(1)))
    regions = node.constant(1, "regions").astype(np.float64)
    images = node.constant(2, "batch indices").reshape(-1)
    if x.type.rank != 4 or regions.ndim != 2 or regions.shape[1:] != (4,):
        node.fail(f"regions of shape {list(regions.shape)} of {x.type} are not supported")
    count = x.shape[0]
    fits = len(images) == len(regions) and np.all((images >= 0) & (images < count))
    if not fits or not np.all(np.isfinite(regions)):
        node.fail("each region needs four numbers and the number of its image")
    shift, size = 0.5 if _aligned(node) else 0.0, _bin_counts(node)
    ratio, mode = node.integer("sampling_ratio"), node.text("mode")
    if mode not in ("avg", "max") or ratio < 0:
        node.fail(f"mode = {mode!r} with sampling_ratio = {ratio} is not supported")
    scaled = regions * node.real("spatial_scale") - shift
    batch = patches.each_image(node.builder, x)
    made = [
        _bins(node, batch[int(i)], x.shape[1:3], region, size, ratio, shift > 0)
        for i, region in zip(images, scaled, strict=True)
    ]
    if not made:
        return node.builder.const(np.zeros((0, x.shape[3], *size), x.type.dtype.numpy))
    y = made[0] if len(made) == 1 else node.builder.add(Concat(tuple(made), 0))
    return patches.first(node.builder, y)


def _aligned(node: Node) -> bool:
    """Whether pixels lie around their centres."""
    found = node.attribute("coordinate_transformation_mode")
    return found is not None and found.s == b"half_pixel"


def _bin_counts(node: Node) -> tuple[int, int]:
    size = (node.integer("output_height"), node.integer("output_width"))
    positive(node, "output size", size)
    return size


def _computed(node: Node, x: Value, regions: Value) -> Value:
    """Of regions that are computed, all of one image."""
    if x.type.rank != 4 or regions.type.rank != 2 or regions.shape[1:] != (4,):
        node.fail(f"regions {regions.type} of {x.type} are not supported")
    if x.shape[0] != 1:
        node.fail("regions that are computed are those of one image: pin the batch to 1")
    if node.text("mode") != "avg":
        node.fail("of regions that are computed the mean is supported, mode = 'avg', not the"
                  " largest")  # fmt: skip
    sampled = Regions(
        node.real("spatial_scale"), _bin_counts(node), node.integer("sampling_ratio"),
        _aligned(node),
    )  # fmt: skip
    return sampled(node.builder, x, regions)


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
    (py, wy), (px, wx) = ((p.reshape(len(p), -1, 2), w.reshape(len(w), -1, 2)) for p, w in taps)
    places = py[:, None, :, None, :, None] * sizes[1] + px[None, :, None, :, None, :]
    weights = wy[:, None, :, None, :, None] * wx[None, :, None, :, None, :]
    b, channels, bins = node.builder, image.shape[2], prod(size)
    if node.text("mode") == "avg":
        share = weights / prod(points)
        y = patches.at_points(b, image, places.reshape(bins, -1), share.reshape(bins, -1))
        return b.reshape(y, (1, *size, channels))
    # The largest of the weighted neighbours, which are not summed up: so ONNX says.
    each = bins * prod(points) * 4
    y = patches.at_points(b, image, places.reshape(each, 1), weights.reshape(each, 1))
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
    """Patches put back where they were taken from, sums where they overlap."""
    image, kernel = node.whole(1, "image shape"), node.whole(2, "block shape")
    n = len(kernel)
    strides = positive(node, "strides", per_axis(node, "strides", n, 1))
    dilations = positive(node, "dilations", per_axis(node, "dilations", n, 1))
    pads = node.integers("pads") or (0,) * (2 * n)
    return patches.joined(node.builder, node.x(), image, kernel, strides, pads, dilations)
