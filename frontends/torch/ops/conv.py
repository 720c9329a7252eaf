"""Convolutions and transposed convolutions."""

from __future__ import annotations

from collections.abc import Callable

from irc.frontends import normal_forms as forms
from irc.frontends.patches import convolved
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.types import Shape
from irc.value import Value


def spatial_axes(node: Node) -> int:
    """From the operator's name: `…1d`, `…2d`, `…3d`, also `…2d_with_indices`."""
    return next(n for n in (1, 2, 3) if f"{n}d" in node.op)


def batched(node: Node, x: Value, spatial: int, f: Callable[[Value], Value]) -> Value:
    """A function of [N, C, *spatial] applied to a tensor that may lack the batch axis."""
    if x.type.rank == spatial + 2:
        return f(x)
    if x.type.rank != spatial + 1:
        node.fail(f"its input is {x.type}, it takes {spatial} spatial axes")
    y = f(node.builder.reshape(x, (1, *x.shape)))
    return node.builder.reshape(y, y.shape[1:])


@handles("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(node: Node) -> Results:
    """Any kernel, stride, dilation, padding and groups; padding may be "same" or "valid"."""
    spatial = spatial_axes(node)
    x, w, bias = node.x("input"), node.x("weight"), node.optional("bias")
    strides, dilations = node.per_axis("stride", spatial), node.per_axis("dilation", spatial)
    pads = _pads(node, spatial, x.shape[-spatial:], w.shape[2:], strides, dilations)
    groups = node.integer("groups")
    return batched(
        node, x, spatial,
        lambda v: convolved(node.builder, v, w, bias, strides, pads, dilations, groups),
    )  # fmt: skip


def _pads(
    node: Node, spatial: int, sizes: Shape, kernel: Shape, strides: Shape, dilations: Shape
) -> Shape:
    """`[begin…, end…]`."""
    match node.any("padding"):
        case "valid":
            return (0,) * (2 * spatial)
        case "same":
            return forms.same_pads(sizes, kernel, strides, dilations, upper=True)
    return node.per_axis("padding", spatial) * 2


@handles("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(node: Node) -> Results:
    """The gradient of a convolution, as a layer."""
    spatial = spatial_axes(node)
    x, w, bias = node.x("input"), node.x("weight"), node.optional("bias")
    strides, dilations = node.per_axis("stride", spatial), node.per_axis("dilation", spatial)
    pads = node.per_axis("padding", spatial) * 2
    extra = node.per_axis("output_padding", spatial)
    groups = node.integer("groups")
    return batched(
        node, x, spatial,
        lambda v: forms.conv_transpose(
            node.builder, v, w, bias, strides, pads, dilations, groups, extra
        ),
    )  # fmt: skip


@handles("aten.convolution")
def convolution(node: Node) -> Results:
    """What `conv*` become where something decomposed them."""
    x, w, bias = node.x("input"), node.x("weight"), node.optional("bias")
    spatial = w.type.rank - 2
    strides, dilations = node.per_axis("stride", spatial), node.per_axis("dilation", spatial)
    pads, extra = node.per_axis("padding", spatial) * 2, node.per_axis("output_padding", spatial)
    groups, build = node.integer("groups"), node.builder
    if node.flag("transposed"):
        return forms.conv_transpose(build, x, w, bias, strides, pads, dilations, groups, extra)
    return convolved(build, x, w, bias, strides, pads, dilations, groups)
