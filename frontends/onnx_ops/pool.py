"""Pools over windows, and global ones."""

from __future__ import annotations

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


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node) -> Results:
    """Over all spatial axes."""
    spatial_sizes(node)
    op = ReduceMean if node.op == "GlobalAveragePool" else ReduceMax
    return forms.global_pool(node.builder, node.x(), op)
