"""Resize and Upsample."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np

from irc.ops.resize import COORDINATES, ROUNDINGS, ResizeLinear, ResizeNearest, Scales, sampling
from irc.types import Shape
from irc.value import Value

from .. import normal_forms as forms
from ..builder import check_size
from .table import Node, Results, handles


@dataclass(frozen=True)
class _Axis:
    """One axis: extents before and after, and the scale, None where it is their ratio."""

    size: int
    out: int
    scale: float | None = None

    @property
    def same(self) -> bool:
        """Whether nothing changes along this axis."""
        return self.out == self.size and self.scale in (None, 1.0)


@handles("Upsample", "Resize")
def resize(node: Node) -> Results:
    """Nearest along any axes, linear along the spatial ones."""
    axes = _axes(node)
    mode = node.text("mode")
    if mode not in ("nearest", "linear", "bilinear"):
        node.fail(f"mode = {mode!r} is not supported, only nearest and linear")
    coordinates, rounding = _coordinates(node, mode)
    if all(a.same for a in axes):
        return node.x()
    if mode == "nearest":
        return _nearest(node, axes, coordinates, rounding)
    return _linear(node, axes, coordinates)


def _coordinates(node: Node, mode: str) -> tuple[str, str]:
    """How elements of the result map to coordinates, and how these are rounded."""
    if node.opset < 11:
        return "asymmetric", "floor"
    node.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value")
    antialias = node.attribute("antialias")
    if antialias is not None and antialias.i:
        node.fail(f"antialias = {antialias.i} is not supported")
    coordinates = node.text("coordinate_transformation_mode")
    if coordinates not in COORDINATES:
        node.fail(f"coordinate_transformation_mode = {coordinates!r} is not supported")
    rounding = node.text("nearest_mode")
    if mode == "nearest" and rounding not in ROUNDINGS:
        node.fail(f"nearest_mode = {rounding!r} is not supported")
    return coordinates, rounding


def _axes(node: Node) -> list[_Axis]:
    """Every axis of x with its target, by sizes or scales, as attribute or input."""
    x = node.x()
    rank = x.type.rank
    named = node.integers("axes") if "axes" in node.schema.attributes else None
    at = list(range(rank)) if named is None else list(node.axes(named, rank))
    found = [_Axis(d, d) for d in x.shape]
    sizes, scales = _sizes(node), _scales(node)
    given = scales if sizes is None else sizes
    if given is None or len(given) != len(at):
        node.fail(f"one scale or size for each of {len(at)} axes is needed")
    for i, value in zip(at, given, strict=True):
        size = x.shape[i]
        if value <= 0 or size == 0:
            node.fail(f"axis {i} of {x.type} can't be resized by or to {value}")
        if sizes is None:
            found[i] = _Axis(size, floor(size * value), float(value))
            _refuse_ambiguous(node, found[i])
        else:
            found[i] = _Axis(size, int(value))
    check_size(x.type.dtype.numpy.itemsize, tuple(a.out for a in found))
    if any(a.out < 1 for a in found):
        node.fail(f"the scales {given} leave no elements of {x.type}")
    return found


def _refuse_ambiguous(node: Node, axis: _Axis) -> None:
    """Aligned corners by a scale that leaves part of an element: ONNX counts that part as extent,
    onnxruntime does not, and no model says which of them it was made for."""
    if node.opset < 11 or axis.scale is None or axis.size * axis.scale == axis.out:
        return
    if node.text("coordinate_transformation_mode") == "align_corners":
        node.fail(
            f"align_corners with {axis.size} elements scaled by {axis.scale:g} means different"
            " things to different runtimes; give sizes instead of scales"
        )


def _sizes(node: Node) -> Shape | None:
    if node.opset < 11 or not node.has(3) or node.x(3).type.size == 0:
        return None
    policy = node.attribute("keep_aspect_ratio_policy")
    if policy is not None and policy.s != b"stretch":
        node.fail(f"keep_aspect_ratio_policy = {policy.s.decode()!r} is not supported")
    return node.whole(3, "sizes")


def _scales(node: Node) -> list[float] | None:
    node.ignore("keep_aspect_ratio_policy")
    if "scales" in node.schema.attributes:
        found = node.attribute("scales")
        return None if found is None else [float(s) for s in found.floats]
    at = 1 if node.opset < 11 else 2
    if not node.has(at) or node.x(at).type.size == 0:
        return None
    return [float(s) for s in node.constant(at, "scales").reshape(-1)]


def _on_spatial(axes: list[_Axis]) -> bool:
    """Whether only one or two spatial axes of an image change."""
    return len(axes) in (3, 4) and axes[0].same and axes[1].same


def _target(axes: list[_Axis]) -> tuple[tuple[int, int], Scales | None]:
    """Size and scales of the two spatial axes."""
    size = forms.pair([a.out for a in axes[2:]], 1)
    scales = [a.out / a.size if a.scale is None else a.scale for a in axes[2:]]
    stated = any(a.scale is not None for a in axes[2:])
    both = (1.0, scales[0]) if len(scales) == 1 else (scales[0], scales[1])
    return size, both if stated else None


def _nearest(node: Node, axes: list[_Axis], coordinates: str, rounding: str) -> Value:
    """On images `resize_nearest`, otherwise one gather for each axis that changes."""
    shrinks = node.opset < 11 and any(a.out < a.size for a in axes)
    if _on_spatial(axes) and not shrinks:
        size, scales = _target(axes)
        return forms.on_images(
            node.builder, node.x(), lambda x: ResizeNearest(x, size, coordinates, rounding, scales)
        )
    y = node.x()
    for i, axis in enumerate(axes):
        # Before opset 11 nothing says how to round; runtimes round up where they shrink.
        how = "ceil" if node.opset < 11 and axis.out < axis.size else rounding
        at = sampling(axis.size, axis.out, coordinates, axis.scale)
        y = forms.gather_axis(node.builder, y, at.nearest(np.arange(axis.out), how).tolist(), i)
    return y


def _linear(node: Node, axes: list[_Axis], coordinates: str) -> Value:
    if not _on_spatial(axes):
        sizes = [a.out for a in axes]
        node.fail(
            f"linear resize of {node.x().type} to {sizes} is not supported: only of one or two"
            " spatial axes"
        )
    size, scales = _target(axes)
    return forms.on_images(
        node.builder, node.x(), lambda x: ResizeLinear(x, size, coordinates, scales)
    )
