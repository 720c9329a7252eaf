"""Upsampling."""

from __future__ import annotations

from math import floor

from irc.ops.resize import ResizeLinear, ResizeNearest, Scales
from irc.types import Shape
from irc.value import Value

from .. import normal_forms as forms
from .table import Node, Results, handles

NEAREST = {
    "aten.upsample_nearest1d": ("asymmetric", "floor"),
    "aten.upsample_nearest2d": ("asymmetric", "floor"),
    "aten._upsample_nearest_exact1d": ("half_pixel", "round_prefer_ceil"),
    "aten._upsample_nearest_exact2d": ("half_pixel", "round_prefer_ceil"),
}
"""Coordinates and rounding, in ONNX's words."""

LINEAR = ("aten.upsample_linear1d", "aten.upsample_bilinear2d")


def _target(node: Node, x: Value) -> tuple[Shape, list[float] | None]:
    """Extents of the result, and scales where these say more."""
    spatial = x.type.rank - 2
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
    names = ["scales"] if spatial == 1 else ["scales_h", "scales_w"]
    node.ignore(*names)
    given = [node.arguments.get(n) for n in names]
    return None if None in given else [node.number(n) for n in names]


def _sized(node: Node, x: Value) -> tuple[tuple[int, int], Scales | None]:
    if x.type.rank not in (3, 4):
        node.fail(f"its input is {x.type}; one or two spatial axes are supported")
    sizes, factors = _target(node, x)
    scales = None
    if factors is not None:
        scales = (1.0, factors[0]) if len(factors) == 1 else (factors[0], factors[1])
    return forms.pair(sizes, 1), scales


def _input(node: Node) -> Value:
    return node.x("input" if "input" in node.arguments else "self")


@handles(*NEAREST)
def nearest(node: Node) -> Results:
    """Each pixel of the result copies one."""
    x = _input(node)
    size, scales = _sized(node, x)
    coordinates, rounding = NEAREST[node.op]
    return forms.on_images(
        node.builder, x, lambda v: ResizeNearest(v, size, coordinates, rounding, scales)
    )


@handles(*LINEAR)
def linear(node: Node) -> Results:
    """Linear along the spatial axes."""
    x = _input(node)
    size, scales = _sized(node, x)
    coordinates = "half_pixel"
    if node.flag("align_corners"):
        coordinates, scales = "align_corners", None
    return forms.on_images(node.builder, x, lambda v: ResizeLinear(v, size, coordinates, scales))
