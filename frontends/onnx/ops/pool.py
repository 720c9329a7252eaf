"""Pools over windows, and global ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import check_size
from irc.frontends.maxima import from_plane, places, unpooled, window_taps
from irc.frontends.onnx.ops.conv import explicit_pads, per_axis, positive, spatial_sizes
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.volumes import ends
from irc.ops.elementwise import Pow
from irc.ops.reduce import ReduceMax, ReduceMean
from irc.ops.selection import Gather
from irc.ops.unary import Abs
from irc.types import Array, DType, Shape
from irc.value import Value


def _window(node: Node) -> tuple[Shape, Shape, Shape, Shape, Shape]:
    """Kernel, strides, dilations, pads as given, and pads with what rounding up needs."""
    sizes = spatial_sizes(node)
    spatial = len(sizes)
    kernel = positive(node, "kernel_shape", per_axis(node, "kernel_shape", spatial, 0))
    strides = positive(node, "strides", per_axis(node, "strides", spatial, 1))
    dilations = positive(node, "dilations", per_axis(node, "dilations", spatial, 1))
    pads = explicit_pads(node, kernel, strides, dilations)
    round_up = node.attribute("ceil_mode")
    if round_up is None or not round_up.i:
        return kernel, strides, dilations, pads, pads
    if node.text("auto_pad") != "NOTSET":
        node.fail("ceil_mode together with auto_pad is not supported")
    extra = forms.ceil_pads(sizes, kernel, strides, pads, dilations)
    return kernel, strides, dilations, pads, extra


@handles("MaxPool")
def max_pool(node: Node) -> Results:
    """With the places of the maxima, if they are asked for."""
    found = node.attribute("storage_order")
    kernel, strides, dilations, _, pads = _window(node)
    y = forms.max_pool(node.builder, node.x(), kernel, strides, pads, dilations)
    if len([o for o in node.proto.output if o]) < 2:
        return y
    taps = window_taps(spatial_sizes(node), kernel, strides, pads, dilations)
    by_column = found is not None and bool(found.i)
    return y, _places(node, taps, y.shape, by_column=by_column)


def _places(node: Node, taps: Sequence[Array], shape: Shape, *, by_column: bool) -> Value:
    """Where in x, seen as flat, the maximum of each window is."""
    x, build = node.x(), node.builder
    at = places(build, x, taps, by_column=by_column)
    return build.reshape(from_plane(build, at, prod(x.shape[2:])), shape)


@handles("MaxUnpool")
def max_unpool(node: Node) -> Results:
    """Elements put where they were the largest, zeros around them."""
    x, at, build = node.x(0), node.x(1), node.builder
    sizes = spatial_sizes(node)
    n = len(sizes)
    kernel = positive(node, "kernel_shape", per_axis(node, "kernel_shape", n, 0))
    strides = positive(node, "strides", per_axis(node, "strides", n, 1))
    pads = node.integers("pads") or (0,) * (2 * n)
    if len(pads) != 2 * n or at.shape != x.shape or at.type.dtype is not DType.I64:
        node.fail(f"pads {list(pads)} and places {at.type} do not fit {x.type}")
    pooled = tuple(
        (size - 1) * s + k - sum(ends(pads, i))
        for i, (size, s, k) in enumerate(zip(sizes, strides, kernel, strict=True))
    )
    shape = (*x.shape[:2], *pooled)
    wanted = node.whole(2, "output shape") if node.has(2) else shape
    if len(wanted) != len(shape) or min(*shape, *wanted) < 1 or wanted[:2] != shape[:2]:
        node.fail(f"an output of {list(wanted)} from {x.type} is not supported")
    if wanted != shape:
        at = _renumbered(node, at, shape, wanted)
    return unpooled(build, x, at, wanted)


def _renumbered(node: Node, at: Value, shape: Shape, wanted: Shape) -> Value:
    """Places in a tensor of `shape` as those of the same indices in a larger one."""
    if any(w < d for d, w in zip(shape, wanted, strict=True)):
        node.fail(f"an output of {list(wanted)} is too small for {list(shape)}")
    check_size(8, shape)
    index = np.unravel_index(np.arange(prod(shape)), shape)
    table = np.ravel_multi_index(index, wanted).astype(np.int64)
    return node.builder.add(Gather(node.builder.const(table), at, 0))


@handles("AveragePool")
def average_pool(node: Node) -> Results:
    """With padding counted or not."""
    return average_of(node, node.x())


def average_of(node: Node, x: Value) -> Value:
    """An average pool of what the node's first input stands for, with its attributes."""
    kernel, strides, dilations, pads, extra = _window(node)
    counts = node.attribute("count_include_pad")  # not before opset 7
    include = counts is not None and bool(counts.i)
    return forms.avg_pool(
        node.builder, x, kernel, strides, dilations, pads, extra, count_include_pad=include
    )


@handles("LpPool")
def lp_pool(node: Node) -> Results:
    """The p-th root of the sum of p-th powers of magnitudes over each window."""
    x, build, p = node.x(), node.builder, node.integer("p")
    kernel, strides, dilations, pads, extra = _window(node)
    if p < 1 or pads != extra:
        node.fail(f"p = {p} with pads {list(extra)} is not supported")
    powers = _power(node, build.add(Abs(x)), p)
    means = forms.avg_pool(
        build, powers, kernel, strides, dilations, pads, extra, count_include_pad=True
    )
    return _power(node, forms.scaled(build, means, float(prod(kernel))), 1 / p)


@handles("GlobalLpPool")
def global_lp_pool(node: Node) -> Results:
    """As LpPool, over all spatial axes."""
    x, build, p = node.x(), node.builder, node.integer("p")
    sizes = spatial_sizes(node)
    if p < 1:
        node.fail(f"p = {p} is not supported")
    means = forms.global_pool(build, _power(node, build.add(Abs(x)), p), ReduceMean)
    return _power(node, forms.scaled(build, means, float(prod(sizes))), 1 / p)


def _power(node: Node, x: Value, exponent: float) -> Value:
    if exponent == 1:
        return x
    return node.builder.add(Pow(x, node.builder.const(np.asarray(exponent, x.type.dtype.numpy))))


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node) -> Results:
    """Over all spatial axes."""
    spatial_sizes(node)
    op = ReduceMean if node.op == "GlobalAveragePool" else ReduceMax
    return forms.global_pool(node.builder, node.x(), op)
