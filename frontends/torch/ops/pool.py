"""Pools over windows, and adaptive ones, whose windows need not be alike."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.maxima import from_plane, places, unpooled, window_taps
from irc.frontends.patches import first, last
from irc.frontends.taps import Taps, resampled
from irc.frontends.torch.ops.conv import batched, spatial_axes
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.reduce import ReduceMax, ReduceMean
from irc.ops.selection import Gather
from irc.types import Shape
from irc.value import Value

Window = tuple[Shape, Shape, Shape, Shape, Shape]


def _window(node: Node, dilations: Shape) -> Window:
    """Kernel, strides, dilations, pads, and pads with what rounding up needs."""
    spatial, x = spatial_axes(node), node.x()
    kernel = node.per_axis("kernel_size", spatial)
    strides = node.per_axis("stride", spatial) if node.any("stride") else kernel
    pads = node.per_axis("padding", spatial) * 2
    if not node.flag("ceil_mode"):
        return kernel, strides, dilations, pads, pads
    extra = forms.ceil_pads(x.shape[-spatial:], kernel, strides, pads, dilations)
    return kernel, strides, dilations, pads, extra


@handles(
    "aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d",
    "aten.max_pool1d_with_indices", "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices",
)  # fmt: skip
def max_pool(node: Node) -> Results:
    """With the places of the maxima within their planes, if they are asked for."""
    spatial, x, build = spatial_axes(node), node.x(), node.builder
    dilations = node.per_axis("dilation", spatial)
    kernel, strides, _, _, pads = _window(node, dilations)
    y = batched(
        node, x, spatial, lambda v: forms.max_pool(build, v, kernel, strides, pads, dilations)
    )
    if node.count == 1:
        return y
    taps = window_taps(x.shape[-spatial:], kernel, strides, pads, dilations)
    images = build.reshape(x, (prod(x.shape[: -spatial - 1]), *x.shape[-spatial - 1 :]))
    return y, build.reshape(places(build, images, taps), y.shape)


@handles("aten.max_unpool2d", "aten.max_unpool3d")
def max_unpool(node: Node) -> Results:
    """Elements put where they were the largest, zeros around them."""
    node.ignore("stride", "padding")  # which the size has in it
    x, at, spatial, build = node.x(), node.x("indices"), spatial_axes(node), node.builder
    sizes = tuple(int(d) for d in node.any("output_size"))
    planes, shape = prod(x.shape[:-spatial]), (*x.shape[:-spatial], *sizes)
    at = build.reshape(at, (planes, prod(at.shape[-spatial:])))
    return unpooled(build, x, from_plane(build, at, prod(sizes)), shape)


@handles("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def avg_pool(node: Node) -> Results:
    """With padding counted or not."""
    spatial = spatial_axes(node)
    kernel, strides, dilations, pads, extra = _window(node, (1,) * spatial)
    include = node.flag("count_include_pad")
    return batched(
        node, node.x(), spatial,
        lambda x: forms.avg_pool(
            node.builder, x, kernel, strides, dilations, pads, extra, count_include_pad=include
        ),
    )  # fmt: skip


@handles(
    "aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten._adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d", "aten._adaptive_avg_pool3d",
    "aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d",
)  # fmt: skip
def adaptive_pool(node: Node) -> Results:
    """A global pool, one over windows that are alike, or one with windows of its own."""
    spatial, x = spatial_axes(node), node.x()
    sizes = x.shape[-spatial:]
    given = node.any("output_size")
    wanted = [given] * spatial if isinstance(given, int) else list(given)
    outs = tuple(s if o is None else int(o) for o, s in zip(wanted, sizes, strict=True))
    if min(*sizes, *outs) < 1:
        node.fail(f"from {list(sizes)} to {list(outs)} elements: nothing is there")
    y = batched(node, x, spatial, lambda v: _adaptive(node, v, sizes, outs))
    return (y, None) if node.count > 1 else y


def _adaptive(node: Node, x: Value, sizes: Shape, outs: Shape) -> Value:
    build, largest = node.builder, "max" in node.op
    if outs == sizes:
        return x
    if set(outs) == {1}:
        return forms.global_pool(build, x, ReduceMax if largest else ReduceMean)
    windows = [_regular(s, o) for s, o in zip(sizes, outs, strict=True)]
    if None in windows:
        return _uneven(build, x, sizes, outs, largest=largest)
    kernel, strides = zip(*(w for w in windows if w), strict=True)
    ones, none = (1,) * len(sizes), (0,) * (2 * len(sizes))
    if largest:
        return forms.max_pool(build, x, kernel, strides, none, ones)
    return forms.avg_pool(build, x, kernel, strides, ones, none, none, count_include_pad=False)


def _bounds(size: int, out: int) -> list[tuple[int, int]]:
    """The windows `[floor(i * size / out), ceil((i + 1) * size / out))`."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def _regular(size: int, out: int) -> tuple[int, int] | None:
    """Kernel and stride of the windows; None where they are not all alike."""
    bounds = _bounds(size, out)
    spans = {end - start for start, end in bounds}
    steps = {b[0] - a[0] for a, b in pairwise(bounds)} or {1}
    return (spans.pop(), steps.pop()) if len(spans) == len(steps) == 1 and 0 not in steps else None


def _uneven(b: Builder, x: Value, sizes: Shape, outs: Shape, *, largest: bool) -> Value:
    """Axis by axis: means are sums with constant weights, a maximum may see an element twice."""
    y = last(b, x)
    taps: dict[int, Taps] = {}
    for axis, (size, out) in enumerate(zip(sizes, outs, strict=True), 1):
        taps[axis] = _window_taps(_bounds(size, out))
    if not largest:
        y = resampled(b, y, taps)
    else:
        for axis, found in taps.items():
            at = b.const(found.places, name=f"{b.name}.windows{axis}")
            y = b.add(ReduceMax(b.add(Gather(y, at, axis)), (axis + 1,), False))
    return first(b, y)


def _window_taps(bounds: list[tuple[int, int]]) -> Taps:
    """The elements of each window, the last one again where others have more, and equal weights."""
    spans = np.array([end - start for start, end in bounds])[:, np.newaxis]
    numbers = np.arange(spans.max())
    first = np.array([start for start, _ in bounds])[:, np.newaxis]
    places = first + np.minimum(numbers, spans - 1)
    return Taps(places.astype(np.int64), np.where(numbers < spans, 1 / spans, 0.0))
