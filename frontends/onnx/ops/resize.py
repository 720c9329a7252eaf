"""Resize and Upsample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import floor, isfinite

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import check_size
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.taps import Taps, cubic, interpolated, linear, resampled
from irc.ops.resample import along
from irc.ops.resize import COORDINATES, ROUNDINGS, ResizeLinear, ResizeNearest, Scales, sampling
from irc.ops.selection import Where
from irc.types import Array, Shape
from irc.value import Value

MAX_TAPS = 1024
"""How many elements one may be made of, along an axis."""


@dataclass(frozen=True)
class _Axis:
    """One axis: extents before and after, and the scale, None where it is their ratio."""

    size: int
    out: int
    scale: float | None = None

    @property
    def ratio(self) -> float:
        """Elements of the result per element."""
        return self.out / self.size if self.scale is None else self.scale

    @property
    def same(self) -> bool:
        """Whether nothing changes along this axis."""
        return self.out == self.size and self.scale in (None, 1.0)


@handles("Upsample", "Resize")
def resize(node: Node) -> Results:
    """Nearest, linear and cubic along any axes."""
    axes = _axes(node)
    mode = node.text("mode")
    if mode not in ("nearest", "linear", "bilinear", "cubic"):
        node.fail(f"mode = {mode!r} is not supported, only nearest, linear and cubic")
    how = _how(node, mode)
    if how.coordinates == CROP:
        return _cropped(node, axes, how)
    if all(a.same for a in axes):
        return node.x()
    if mode == "nearest":
        return _nearest(node, axes, how.coordinates, how.rounding)
    if mode != "cubic" and not how.antialias and not how.exclude and _on_spatial(axes):
        return _linear(node, axes, how.coordinates)
    return _by_taps(node, axes, how)


CROP = "tf_crop_and_resize"


@dataclass(frozen=True)
class _How:
    """How elements of the result map to coordinates, and these to weights."""

    mode: str
    coordinates: str
    rounding: str
    antialias: bool = False
    exclude: bool = False
    cubic: float = -0.75

    def taps(self, at: Array, extent: int, stretch: float) -> Taps:
        """What the elements at these coordinates of an axis take."""
        if self.mode == "nearest":
            place = np.clip(rounded(at, self.rounding), 0, extent - 1)[:, np.newaxis]
            return Taps(place.astype(np.int64), np.ones(place.shape))
        kernel = partial(cubic, a=self.cubic) if self.mode == "cubic" else linear
        return interpolated(
            at, extent, kernel, 2 if self.mode == "cubic" else 1,
            stretch=stretch if self.antialias else 1.0, exclude_outside=self.exclude,
        )  # fmt: skip


def rounded(at: Array, rounding: str) -> Array:
    """Coordinates as whole numbers."""
    match rounding:
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
        case "round_prefer_ceil":
            return np.floor(at + 0.5)
    return np.ceil(at - 0.5)


def _how(node: Node, mode: str) -> _How:
    if node.opset < 11:
        return _How(mode, "asymmetric", "floor")
    coordinates, rounding = node.text("coordinate_transformation_mode"), node.text("nearest_mode")
    if coordinates not in (*COORDINATES, CROP):
        node.fail(f"coordinate_transformation_mode = {coordinates!r} is not supported")
    if mode == "nearest" and rounding not in ROUNDINGS:
        node.fail(f"nearest_mode = {rounding!r} is not supported")
    if coordinates != CROP:
        node.ignore("extrapolation_value")
    antialias = node.attribute("antialias")
    return _How(
        mode, coordinates, rounding, antialias is not None and bool(antialias.i),
        bool(node.integer("exclude_outside")), node.real("cubic_coeff_a"),
    )  # fmt: skip


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
    if sizes is not None:
        found = _proportioned(node, found, at)
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
    return node.whole(3, "sizes")


def _proportioned(node: Node, axes: list[_Axis], at: list[int]) -> list[_Axis]:
    """One scale for all resized axes, if the model wants their proportions kept: the smallest that
    the sizes ask for, or the largest. Sizes are then rounded, half up."""
    found = node.attribute("keep_aspect_ratio_policy")
    policy = "stretch" if found is None else found.s.decode("utf-8", "replace")
    if policy == "stretch":
        return axes
    if policy not in ("not_larger", "not_smaller"):
        node.fail(f"keep_aspect_ratio_policy = {policy!r} is not supported")
    choose = min if policy == "not_larger" else max
    scale = choose(axes[i].ratio for i in at)
    made = list(axes)
    for i in at:
        made[i] = replace(axes[i], out=floor(axes[i].size * scale + 0.5), scale=scale)
    return made


def _scales(node: Node) -> list[float] | None:
    node.ignore("keep_aspect_ratio_policy")
    if "scales" in node.schema.attributes:
        scales = node.reals("scales")
        return None if scales is None else list(scales)
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
    """Of one or two spatial axes."""
    size, scales = _target(axes)
    return forms.on_images(
        node.builder, node.x(), lambda x: ResizeLinear(x, size, coordinates, scales)
    )


def _by_taps(node: Node, axes: list[_Axis], how: _How) -> Value:
    """Along any axes, with weights found here."""
    taps: dict[int, Taps] = {}
    for i, axis in enumerate(axes):
        if axis.same:
            continue
        _check_taps(node, axis, how)
        s = sampling(axis.size, axis.out, how.coordinates, axis.scale)
        at = (np.arange(axis.out) * s.a + s.b) / s.d
        taps[i] = how.taps(at, axis.size, 1 / axis.ratio)
    return resampled(node.builder, node.x(), taps)


def _check_taps(node: Node, axis: _Axis, how: _How) -> None:
    """Tables must not be absurdly large, nor the shrinking that they are for."""
    wide = 4 * max(1.0, axis.size / axis.out if how.antialias else 1.0)
    if wide > MAX_TAPS:
        node.fail(f"antialiasing from {axis.size} to {axis.out} elements is not supported")
    check_size(8, (axis.out, int(wide)))


def _cropped(node: Node, axes: list[_Axis], how: _How) -> Value:
    """Of a constant region of interest; what lies outside of x is the extrapolation value."""
    if how.antialias or how.exclude:
        node.fail("tf_crop_and_resize with antialias or exclude_outside is not supported")
    x, build = node.x(), node.builder
    starts, ends = _region(node, len(axes))
    inside: Array = np.ones((1,) * len(axes), np.bool_)
    taps: dict[int, Taps] = {}
    for i, axis in enumerate(axes):
        _check_taps(node, axis, how)
        last = axis.size - 1
        length = axis.size * axis.ratio
        step = (ends[i] - starts[i]) * last / (length - 1) if length != 1 else 0.0
        first = starts[i] * last if length != 1 else (starts[i] + ends[i]) * last / 2
        at = first + np.arange(axis.out) * step
        taps[i] = how.taps(np.clip(at, 0, last), axis.size, 1.0)
        inside = inside & along((at >= 0) & (at <= last), len(axes), i)
    y = resampled(build, x, taps) if how.mode != "nearest" else _gathered(node, x, taps)
    if inside.all():
        return y
    fill = build.const(np.asarray(node.real("extrapolation_value"), x.type.dtype.numpy))
    mask = np.broadcast_to(inside, y.shape)
    return build.add(Where(build.const(mask, name=f"{build.name}.inside"), y, fill))


def _gathered(node: Node, x: Value, taps: dict[int, Taps]) -> Value:
    for axis, found in taps.items():
        x = forms.gather_axis(node.builder, x, found.places[:, 0].tolist(), axis)
    return x


def _region(node: Node, rank: int) -> tuple[list[float], list[float]]:
    """Where the region starts and ends along each axis, as shares of its extent."""
    roi = [float(v) for v in node.constant(1, "region of interest").reshape(-1)]
    named = node.integers("axes") if "axes" in node.schema.attributes else None
    at = list(range(rank)) if named is None else list(node.axes(named, rank))
    if len(roi) != 2 * len(at) or not all(map(isfinite, roi)):
        node.fail(f"a region of {len(roi)} numbers for {len(at)} axes: two for each are needed")
    starts, ends = [0.0] * rank, [1.0] * rank
    for i, axis in enumerate(at):
        starts[axis], ends[axis] = roi[i], roi[len(at) + i]
    return starts, ends
