"""Pools over windows, and global ones."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.ops.activation import Abs
from irc.ops.elementwise import Pow
from irc.ops.reduce import ReduceMax, ReduceMean
from irc.types import Shape
from irc.value import Value

from .. import normal_forms as forms
from .conv import explicit_pads, per_axis, positive, spatial_sizes
from .table import Node, Results, handles


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
    """Without the indices of the maxima."""
    node.ignore("storage_order")  # it orders the indices
    kernel, strides, dilations, _, pads = _window(node)
    return forms.max_pool(node.builder, node.x(), kernel, strides, pads, dilations)


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
    """The same over all spatial axes."""
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
