"""Upsampling."""

from __future__ import annotations

from functools import partial
from math import floor

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.patches import first, last
from irc.frontends.taps import Taps, cubic, interpolated, linear, resampled
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.resize import ResizeLinear, ResizeNearest, Scales, sampling
from irc.types import Shape
from irc.value import Value

NEAREST = ("asymmetric", "floor")
NEAREST_EXACT = ("half_pixel", "round_prefer_ceil")
"""Coordinates and rounding, in ONNX's words."""
CUBIC, CUBIC_SMOOTH = -0.75, -0.5
"""The kernel's parameter, and that of the antialiased one."""


def _sizes(node: Node, x: Value) -> tuple[Shape, list[float] | None]:
    """Extents of the result, and scales where these say more."""
    spatial = x.type.rank - 2
    if not 1 <= spatial <= 3:
        node.fail(f"its input is {x.type}; one to three spatial axes are supported")
    factors = _factors(node, spatial)
    if node.has("output_size"):
        return node.per_axis("output_size", spatial), factors
    node.ignore("output_size")
    if factors is None:
        node.fail("neither a size nor scale factors are given")
    sizes = zip(x.shape[2:], factors, strict=True)
    return tuple(floor(size * factor) for size, factor in sizes), factors


def _factors(node: Node, spatial: int) -> list[float] | None:
    """`scale_factors`, or one argument for each axis, None where they are left out."""
    if "scale_factors" in node.arguments:
        found = node.any("scale_factors")
        return None if found is None else [float(f) for f in found]
    names = ["scales"] if spatial == 1 else ["scales_d", "scales_h", "scales_w"][-spatial:]
    node.ignore(*names)
    given = [node.arguments.get(n) for n in names]
    return None if None in given else [node.number(n) for n in names]


def _input(node: Node) -> Value:
    return node.x("input" if "input" in node.arguments else "self")


def _scales(factors: list[float] | None) -> Scales | None:
    """As the ops of images take them."""
    if factors is None:
        return None
    return (1.0, factors[0]) if len(factors) == 1 else (factors[0], factors[1])


@handles(
    "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_nearest3d",
    "aten._upsample_nearest_exact1d", "aten._upsample_nearest_exact2d",
    "aten._upsample_nearest_exact3d",
)  # fmt: skip
def nearest(node: Node) -> Results:
    """Each pixel of the result copies one."""
    x, build = _input(node), node.builder
    size, factors = _sizes(node, x)
    coordinates, rounding = NEAREST_EXACT if "exact" in node.op else NEAREST
    if len(size) < 3:
        pair, scales = forms.pair(size, 1), _scales(factors)
        return forms.on_images(
            build, x, lambda v: ResizeNearest(v, pair, coordinates, rounding, scales)
        )
    for axis, out in enumerate(size, 2):
        at = sampling(x.shape[axis], out, coordinates, factors[axis - 2] if factors else None)
        places = at.nearest(np.arange(out), rounding)
        x = forms.gather_axis(build, x, np.clip(places, 0, x.shape[axis] - 1).tolist(), axis)
    return x


@handles(
    "aten.upsample_linear1d", "aten.upsample_bilinear2d", "aten.upsample_trilinear3d",
    "aten.upsample_bicubic2d", "aten._upsample_bilinear2d_aa", "aten._upsample_bicubic2d_aa",
)  # fmt: skip
def interpolate(node: Node) -> Results:
    """Linear or cubic along the spatial axes, `aa` with a kernel as wide as what it shrinks."""
    x = _input(node)
    size, factors = _sizes(node, x)
    coordinates = "half_pixel"
    if node.flag("align_corners"):
        coordinates, factors = "align_corners", None
    if len(size) < 3 and "linear" in node.op and not node.op.endswith("_aa"):
        pair, scales = forms.pair(size, 1), _scales(factors)
        return forms.on_images(
            node.builder, x, lambda v: ResizeLinear(v, pair, coordinates, scales)
        )
    return _by_taps(node, x, size, factors, coordinates)


def _by_taps(
    node: Node, x: Value, size: Shape, factors: list[float] | None, coordinates: str
) -> Value:
    """With weights found here, channels last."""
    build, smooth = node.builder, node.op.endswith("_aa")
    kernel, reach = linear, 1
    if "cubic" in node.op:
        kernel, reach = partial(cubic, a=CUBIC_SMOOTH if smooth else CUBIC), 2
    taps: dict[int, Taps] = {}
    for i, out in enumerate(size):
        extent = x.shape[i + 2]
        s = sampling(extent, out, coordinates, factors[i] if factors else None)
        at = (np.arange(out) * s.a + s.b) / s.d
        taps[i + 1] = interpolated(
            at, extent, kernel, reach, stretch=s.a / s.d if smooth else 1.0,
            exclude_outside=smooth,
        )  # fmt: skip
    return first(build, resampled(build, last(build, x), taps))
