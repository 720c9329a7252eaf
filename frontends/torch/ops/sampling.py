"""Images sampled at points, cut into patches, and put together from them."""

from __future__ import annotations

from irc.frontends import normal_forms as forms
from irc.frontends import patches
from irc.frontends.deformable import Deformable
from irc.frontends.roi_align import Regions
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.types import Shape
from irc.value import Value

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")
"""By the number that ATen has for them."""


@handles("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample(node: Node) -> Results:
    """At the points of a grid."""
    mode, padding = node.integer("interpolation_mode"), node.integer("padding_mode")
    return patches.grid_sampled(
        node.builder, node.x("input"), node.x("grid"), MODES[mode], PADDINGS[padding],
        align_corners=node.flag("align_corners"),
    )  # fmt: skip


def _window(node: Node) -> tuple[Shape, Shape, Shape, Shape]:
    """Kernel, strides, pads and dilations."""
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, strides, pads, dilations = (node.per_axis(name, 2) for name in names)
    return kernel, strides, pads * 2, dilations


def _in_batch(node: Node, x: Value, rank: int) -> Value:
    return x if x.type.rank == rank else node.builder.reshape(x, (1, *x.shape))


@handles("aten.im2col")
def im2col(node: Node) -> Results:
    """Patches as columns."""
    x = node.x()
    y = patches.cut(node.builder, _in_batch(node, x, 4), *_window(node))
    return y if x.type.rank == 4 else node.builder.reshape(y, y.shape[1:])


@handles("aten.col2im")
def col2im(node: Node) -> Results:
    """Columns as the patches of an image, sums where they overlap."""
    x, size = node.x(), node.per_axis("output_size", 2)
    y = patches.joined(node.builder, _in_batch(node, x, 3), size, *_window(node))
    return y if x.type.rank == 3 else node.builder.reshape(y, y.shape[1:])


@handles("torchvision.deform_conv2d")
def deformable_convolution(node: Node) -> Results:
    """A convolution whose taps look where offsets say, each with a factor of its own perhaps."""
    weight = node.x("weight")
    strides, pads, dilations = (
        (node.integer(f"{name}_h"), node.integer(f"{name}_w"))
        for name in ("stride", "pad", "dilation")
    )
    layer = Deformable(
        weight.shape[2:], strides, pads * 2, dilations,
        node.integer("groups"), node.integer("offset_groups"),
    )  # fmt: skip
    mask = node.x("mask") if node.flag("use_mask") else None
    node.ignore("mask")
    b, bias = node.builder, node.x("bias")
    return layer(b, node.x("input"), weight, node.x("offset"), bias, mask)


@handles("torchvision.roi_align")
def roi_align(node: Node) -> Results:
    """The means of points in regions of one image: rows of its number, 0, and two corners."""
    x, regions, b = node.x("input"), node.x("rois"), node.builder
    if x.shape[0] != 1:
        node.fail(f"regions of {x.shape[0]} images: which region is of which is computed; call it"
                  " for one image at a time")  # fmt: skip
    sampled = Regions(
        node.number("spatial_scale"), (node.integer("pooled_height"), node.integer("pooled_width")),
        node.integer("sampling_ratio"), node.flag("aligned"),
    )  # fmt: skip
    corners = forms.gather_axis(b, regions, [1, 2, 3, 4], 1)
    return patches.first(b, sampled(b, patches.last(b, x), corners))
