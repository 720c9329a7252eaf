"""Conv and ConvTranspose."""

from __future__ import annotations

from irc.frontends import normal_forms as forms
from irc.frontends.builder import check_size
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.patches import convolved
from irc.types import Shape
from irc.value import Value


def per_axis(node: Node, name: str, spatial: int, default: int) -> Shape:
    """A list attribute with one entry per spatial axis."""
    given = node.integers(name)
    if given is None:
        return (default,) * spatial
    if len(given) != spatial:
        node.fail(f"{name} {list(given)}: one entry for each of {spatial} spatial axes is needed")
    return given


def spatial_sizes(node: Node) -> Shape:
    """Extents of the spatial axes of the first input."""
    x = node.x()
    if x.type.rank < 3:
        node.fail(f"its input is {x.type}; it has no spatial axes")
    return x.shape[2:]


def explicit_pads(node: Node, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    """The pads `[begin…, end…]` by `pads` or `auto_pad`; refuses absurdly large ones."""
    pads, sizes = _pads(node, kernel, strides, dilations), spatial_sizes(node)
    ends = zip(sizes, pads, pads[len(sizes) :], strict=False)
    check_size(1, (*node.x().shape[:2], *(size + a + b for size, a, b in ends)))
    return pads


def _pads(node: Node, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    sizes = spatial_sizes(node)
    mode, given = node.text("auto_pad"), node.integers("pads")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        upper = mode == "SAME_UPPER"
        return forms.same_pads(sizes, kernel, strides, dilations, upper=upper)
    if mode == "VALID":
        return (0,) * (2 * len(sizes))
    if mode != "NOTSET":
        node.fail(f"auto_pad = {mode!r} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    pads = given or (0,) * (2 * len(sizes))
    if len(pads) != 2 * len(sizes) or min(pads) < 0:
        node.fail(f"pads {list(pads)}: two sizes for each of {len(sizes)} spatial axes are needed")
    return pads


def positive(node: Node, name: str, values: Shape) -> Shape:
    """The values, which must all be at least 1."""
    if min(values) < 1:
        node.fail(f"{name} {list(values)} must be positive")
    return values


def _geometry(node: Node, w: Value) -> tuple[Shape, Shape, Shape]:
    """Kernel, strides and dilations."""
    spatial = len(spatial_sizes(node))
    if w.type.rank != spatial + 2:
        node.fail(f"its input is {node.x().type}, its weights are {w.type}: the axes don't fit")
    kernel = per_axis(node, "kernel_shape", spatial, 0)
    if any(kernel) and kernel != w.shape[2:]:
        node.fail(f"kernel_shape {list(kernel)}, but the weights are {w.type}")
    strides = positive(node, "strides", per_axis(node, "strides", spatial, 1))
    dilations = positive(node, "dilations", per_axis(node, "dilations", spatial, 1))
    return w.shape[2:], strides, dilations


@handles("Conv")
def conv(node: Node) -> Results:
    """Any kernel, stride, dilation, padding and groups over any number of spatial axes."""
    return conv_of(node, node.x(), node.x(1), node.optional(2))


def conv_of(node: Node, x: Value, w: Value, bias: Value | None) -> Value:
    """A convolution of any operands of the node, with its attributes."""
    kernel, strides, dilations = _geometry(node, w)
    pads = explicit_pads(node, kernel, strides, dilations)
    groups = node.integer("group")
    return convolved(node.builder, x, w, bias, strides, pads, dilations, groups)


@handles("ConvTranspose")
def conv_transpose(node: Node) -> Results:
    """Pads come from `pads`, or are what `output_shape` or `auto_pad` need."""
    kernel, strides, dilations = _geometry(node, node.x(1))
    extra = per_axis(node, "output_padding", len(kernel), 0)
    pads, extra = _transposed_pads(node, kernel, strides, dilations, extra)
    return forms.conv_transpose(
        node.builder, node.x(), node.x(1), node.optional(2),
        strides, pads, dilations, node.integer("group"), extra,
    )  # fmt: skip


def _transposed_pads(
    node: Node, kernel: Shape, strides: Shape, dilations: Shape, extra: Shape
) -> tuple[Shape, Shape]:
    """The pads, and what is added at the end, where no padding makes the output large enough."""
    sizes, mode = spatial_sizes(node), node.text("auto_pad")
    wanted = node.integers("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        return explicit_pads(node, kernel, strides, dilations), extra
    node.ignore("pads")
    if wanted is None:
        wanted = tuple(n * s for n, s in zip(sizes, strides, strict=True))
    wanted = wanted[-len(sizes) :]
    check_size(1, (*node.x().shape[:1], *(max(0, n) for n in wanted)))
    begins, ends, added = [], [], list(extra)
    for i, size in enumerate(sizes):
        reach = forms.span(kernel[i], dilations[i])
        total = strides[i] * (size - 1) + extra[i] + reach - wanted[i]
        added[i] += max(0, -total)
        total = max(0, total)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends), tuple(added)
