"""Pools over windows, and adaptive ones whose windows are all alike."""

from __future__ import annotations

from itertools import pairwise

from irc.ops.reduce import ReduceMax, ReduceMean
from irc.types import Shape
from irc.value import Value

from .. import normal_forms as forms
from .conv import batched
from .table import Node, Results, handles

Window = tuple[Shape, Shape, Shape, Shape, Shape]


def _spatial(node: Node) -> int:
    """From the operator's name: `…1d`, `…2d`, `…2d_with_indices`."""
    return 1 if "1d" in node.op else 2


def _window(node: Node, dilations: Shape) -> Window:
    """Kernel, strides, dilations, pads, and pads with what rounding up needs."""
    spatial, x = _spatial(node), node.x()
    kernel = node.per_axis("kernel_size", spatial)
    strides = node.per_axis("stride", spatial) if node.any("stride") else kernel
    pads = node.per_axis("padding", spatial) * 2
    if not node.flag("ceil_mode"):
        return kernel, strides, dilations, pads, pads
    extra = forms.ceil_pads(x.shape[-spatial:], kernel, strides, pads, dilations)
    return kernel, strides, dilations, pads, extra


@handles("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool2d_with_indices")
def max_pool(node: Node) -> Results:
    """Without the indices of the maxima."""
    spatial = _spatial(node)
    dilations = node.per_axis("dilation", spatial)
    kernel, strides, _, _, pads = _window(node, dilations)
    y = batched(
        node, node.x(), spatial,
        lambda x: forms.max_pool(node.builder, x, kernel, strides, pads, dilations),
    )  # fmt: skip
    return (y, None) if node.count > 1 else y


@handles("aten.avg_pool1d", "aten.avg_pool2d")
def avg_pool(node: Node) -> Results:
    """With padding counted or not."""
    spatial = _spatial(node)
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
    "aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d",
)  # fmt: skip
def adaptive_pool(node: Node) -> Results:
    """A global pool, or one over windows; refused where these are not all alike."""
    spatial, x = _spatial(node), node.x()
    sizes = x.shape[-spatial:]
    given = node.any("output_size")
    wanted = [given] if isinstance(given, int) else list(given)
    outs = tuple(s if o is None else int(o) for o, s in zip(wanted, sizes, strict=True))
    y = batched(node, x, spatial, lambda v: _adaptive(node, v, sizes, outs))
    return (y, None) if node.count > 1 else y


def _adaptive(node: Node, x: Value, sizes: Shape, outs: Shape) -> Value:
    build, largest = node.builder, "max" in node.op
    if outs == sizes:
        return x
    if set(outs) == {1}:
        return forms.global_pool(build, x, ReduceMax if largest else ReduceMean)
    windows = [_regular(node, s, o) for s, o in zip(sizes, outs, strict=True)]
    kernel, strides = tuple(k for k, _ in windows), tuple(s for _, s in windows)
    ones, none = (1,) * len(sizes), (0,) * (2 * len(sizes))
    if largest:
        return forms.max_pool(build, x, kernel, strides, none, ones)
    return forms.avg_pool(build, x, kernel, strides, ones, none, none, count_include_pad=False)


def _regular(node: Node, size: int, out: int) -> tuple[int, int]:
    """Kernel and stride of the windows `[floor(i * size / out), ceil((i + 1) * size / out))`."""
    starts = [i * size // out for i in range(out)]
    spans = {-(-(i + 1) * size // out) - start for i, start in enumerate(starts)}
    steps = {b - a for a, b in pairwise(starts)} or {1}
    if len(spans) != 1 or len(steps) != 1 or 0 in steps:
        node.fail(
            f"from {size} to {out} elements its windows are not all alike, which is not supported;"
            f" use an input for which {out} divides the extent, or a pool of a fixed kernel"
        )
    return spans.pop(), steps.pop()
