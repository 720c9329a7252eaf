"""Moving elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.shape import Concat, Pad, Slice
from irc.types import Shape, broadcast_shapes
from irc.value import Value

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
NOTHING = (
    "aten.alias", "aten.detach", "aten.clone", "aten.contiguous", "aten.lift_fresh_copy",
    "aten.lift_fresh", "aten.detach_",
)  # fmt: skip

FILLED = (
    "aten.full_like", "aten.zeros_like", "aten.ones_like", "aten.new_full", "aten.new_zeros",
    "aten.new_ones",
)  # fmt: skip
"""Operators that look at their input's shape alone: their results are constants."""


@handles(*NOTHING)
def nothing(node: Node) -> Results:
    """What means something to memory alone."""
    node.ignore("memory_format")
    return node.x()


@handles("aten._to_copy", "aten.to", "aten.type_as")
def convert(node: Node) -> Results:
    """To another element type; all floats are f32 here."""
    node.ignore(*node.arguments)
    x = node.x()
    return x if node.dtype is None else node.cast(x, node.dtype)


@handles("aten.copy")
def copy(node: Node) -> Results:
    """The source, in the place of something: of its shape and type."""
    node.ignore("non_blocking")
    old, source = node.x(), node.x("src")
    return node.builder.expand(node.cast(source, old.type.dtype), old.shape)


@handles(*FILLED)
def filled(node: Node) -> Results:
    """A constant of the shape of a tensor, or of a shape."""
    node.ignore(*node.arguments)
    shape = node.integers("size") if "size" in node.arguments else node.x().shape
    value = node.number("fill_value") if "fill_value" in node.arguments else "ones" in node.op
    dtype = (node.dtype or node.x().type.dtype).numpy
    return node.builder.const(np.full(shape, value, dtype))


# ---------------------------------------------------------------- axes


@handles("aten.view", "aten.reshape", "aten._unsafe_view", "aten.view_copy")
def reshape(node: Node) -> Results:
    """-1 takes what is left."""
    if "dtype" in node.arguments:
        node.fail("reading bits as another element type is not supported")
    x = node.x()
    wanted = list(node.integers("shape" if "shape" in node.arguments else "size"))
    if -1 in wanted:
        rest = prod(d for d in wanted if d != -1)
        wanted[wanted.index(-1)] = x.type.size // max(1, rest)
    return node.builder.reshape(x, tuple(wanted))


@handles("aten.flatten")
def flatten(node: Node) -> Results:
    """Several axes become one."""
    x, rank = node.x(), node.x().type.rank
    start, end = node.axis("start_dim", rank), node.axis("end_dim", rank)
    merged = prod(x.shape[start : end + 1])
    return node.builder.reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


@handles("aten.permute", "aten.permute_copy")
def permute(node: Node) -> Results:
    """Axes in another order."""
    x = node.x()
    return node.builder.transpose(x, node.axes("dims", x.type.rank))


@handles("aten.transpose", "aten.t")
def transpose(node: Node) -> Results:
    """Two axes change places."""
    x, rank = node.x(), node.x().type.rank
    order = list(range(rank))
    if node.op == "aten.t":
        return node.builder.transpose(x, tuple(reversed(order)))
    a, b = node.axis("dim0", rank), node.axis("dim1", rank)
    order[a], order[b] = b, a
    return node.builder.transpose(x, tuple(order)) if rank else x


@handles("aten.unsqueeze")
def unsqueeze(node: Node) -> Results:
    """A new axis of extent 1."""
    x = node.x()
    at = node.axis("dim", x.type.rank + 1)
    return node.builder.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


@handles("aten.squeeze")
def squeeze(node: Node) -> Results:
    """Without axes of extent 1: those among the named, or all."""
    x, rank = node.x(), node.x().type.rank
    named = node.axes("dim", rank) if "dim" in node.arguments else range(rank)
    dims = tuple(d for i, d in enumerate(x.shape) if d != 1 or i not in named)
    return node.builder.reshape(x, dims)


# ---------------------------------------------------------------- repeating


@handles("aten.expand", "aten.expand_copy", "aten.broadcast_to")
def expand(node: Node) -> Results:
    """Broadcasting; -1 keeps an axis."""
    node.ignore("implicit")
    x, wanted = node.x(), node.integers("size")
    old = (1,) * (len(wanted) - x.type.rank) + x.shape
    dims = tuple(o if w == -1 else w for w, o in zip(wanted, old, strict=True))
    return node.builder.expand(x, broadcast_shapes(x.shape, dims))


@handles("aten.repeat", "aten.tile")
def repeat(node: Node) -> Results:
    """Copies of the tensor along each axis."""
    x, build = node.x(), node.builder
    times = node.integers("repeats" if "repeats" in node.arguments else "dims")
    rank = max(len(times), x.type.rank)
    times = (1,) * (rank - len(times)) + times
    y = build.reshape(x, (1,) * (rank - x.type.rank) + x.shape)
    dims = tuple(t if d == 1 else d for d, t in zip(y.shape, times, strict=True))
    for axis, (extent, count) in enumerate(zip(y.shape, times, strict=True)):
        if extent != 1 and count != 1:
            y = build.add(Concat((y,) * count, axis))
            dims = (*dims[:axis], extent * count, *dims[axis + 1 :])
    return node.builder.expand(y, dims)


# ---------------------------------------------------------------- joining and cutting


@handles("aten.cat", "aten.concat")
def concat(node: Node) -> Results:
    """Along an axis; tensors [0] count for nothing, as they always did."""
    dtype = node.dtype
    given = [v for v in node.xs("tensors") if v.shape != (0,)] or list(node.xs("tensors"))[:1]
    xs = tuple(v if dtype is None else node.cast(v, dtype) for v in given)
    axis = node.axis("dim", xs[0].type.rank)
    return xs[0] if len(xs) == 1 else node.builder.add(Concat(xs, axis))


@handles("aten.stack")
def stack(node: Node) -> Results:
    """Along a new axis."""
    xs, build = node.xs("tensors"), node.builder
    axis = node.axis("dim", xs[0].type.rank + 1)
    dims = (*xs[0].shape[:axis], 1, *xs[0].shape[axis:])
    parts = tuple(build.reshape(v, dims) for v in xs)
    return parts[0] if len(parts) == 1 else build.add(Concat(parts, axis))


def part(node: Node, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Elements of one axis: `start:stop:step` as the op `slice` takes it."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    starts, stops, steps = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return node.builder.add(Slice(x, tuple(starts), tuple(stops), tuple(steps)))


@handles("aten.split", "aten.split_with_sizes", "aten.chunk")
def split(node: Node) -> Results:
    """By the size of parts, by all sizes, or by the number of parts."""
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    extent = x.shape[axis]
    if node.op == "aten.chunk":
        size = max(1, -(-extent // node.integer("chunks")))
        sizes = _even(extent, size)
    elif "split_size" in node.arguments and isinstance(node.any("split_size"), int):
        sizes = _even(extent, max(1, node.integer("split_size")))
    else:
        sizes = node.integers("split_sizes" if "split_sizes" in node.arguments else "split_size")
    ends = list(accumulate(sizes))
    return tuple(part(node, x, axis, e - s, e) for s, e in zip(sizes, ends, strict=True))


def _even(extent: int, size: int) -> Shape:
    return tuple(min(size, extent - at) for at in range(0, max(extent, 1), size))


@handles("aten.unbind")
def unbind(node: Node) -> Results:
    """Each element of an axis."""
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    return tuple(_one(node, x, axis, i) for i in range(x.shape[axis]))


def _one(node: Node, x: Value, axis: int, index: int) -> Value:
    taken = part(node, x, axis, index, index + 1)
    return node.builder.reshape(taken, (*x.shape[:axis], *x.shape[axis + 1 :]))


@handles("aten.select", "aten.select_copy")
def select(node: Node) -> Results:
    """One element of an axis."""
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    return _one(node, x, axis, node.counted(node.integer("index"), x.shape[axis]))


@handles("aten.slice", "aten.slice_copy", "aten.narrow")
def slice_(node: Node) -> Results:
    """Part of an axis; bounds count from the end where negative, and are clamped."""
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    extent = x.shape[axis]
    start = node.integer("start") if node.has("start") else 0
    node.ignore("start", "end")
    if node.op == "aten.narrow":
        stop, step = start % extent + node.integer("length"), 1
    else:
        stop = node.integer("end") if node.has("end") else extent
        step = node.integer("step")
    start, stop, step = slice(start, stop, step).indices(extent)
    if start >= stop:
        start, stop = 0, 0
    return part(node, x, axis, start, stop, step)


@handles("aten.flip")
def flip(node: Node) -> Results:
    """Axes backwards."""
    x = node.x()
    y = x
    for axis in node.axes("dims", x.type.rank):
        if x.shape[axis] > 1:
            y = part(node, y, axis, x.shape[axis] - 1, -1, -1)
    return y


@handles("aten.roll")
def roll(node: Node) -> Results:
    """Elements shifted along axes, around the end; without axes, along all as one."""
    x, shifts, build = node.x(), node.integers("shifts"), node.builder
    if not node.any("dims"):
        flat = build.reshape(x, (x.type.size,))
        return build.reshape(_rolled(node, flat, 0, shifts[0]), x.shape)
    y = x
    for axis, shift in zip(node.axes("dims", x.type.rank), shifts, strict=True):
        y = _rolled(node, y, axis, shift)
    return y


def _rolled(node: Node, x: Value, axis: int, shift: int) -> Value:
    extent = x.shape[axis]
    cut = -shift % max(1, extent)
    if cut == 0:
        return x
    parts = part(node, x, axis, cut, extent), part(node, x, axis, 0, cut)
    return node.builder.add(Concat(parts, axis))


# ---------------------------------------------------------------- padding and pixels


@handles(
    "aten.constant_pad_nd", "aten.pad", "aten.reflection_pad1d", "aten.reflection_pad2d",
    "aten.reflection_pad3d", "aten.replication_pad1d", "aten.replication_pad2d",
    "aten.replication_pad3d",
)  # fmt: skip
def pad(node: Node) -> Results:
    """Pairs of sizes from the last axis on; negative ones cut off."""
    x = node.x()
    name = "pad" if "pad" in node.arguments else "padding"
    given = node.integers(name)
    mode = str(node.any("mode")) if "mode" in node.arguments else "constant"
    mode = "reflect" if "reflection" in node.op else mode
    mode = "replicate" if "replication" in node.op else mode
    if mode not in (*MODES, "circular"):
        node.fail(f"mode = {mode!r} is not supported")
    value = node.number("value", 0.0) if "value" in node.arguments else 0.0
    pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]
    widths = [(0, 0)] * (x.type.rank - len(pairs)) + pairs
    cut = tuple(max(0, -a) for a, _ in widths), tuple(max(0, -b) for _, b in widths)
    if any(map(any, cut)):
        x = forms.crop(node.builder, x, *cut)
    grown = tuple((max(0, a), max(0, b)) for a, b in widths)
    if mode == "circular":
        return _around(node, x, grown)
    return node.builder.add(Pad(x, grown, value, MODES[mode])) if any(map(any, grown)) else x


def _around(node: Node, x: Value, widths: Sequence[tuple[int, int]]) -> Value:
    """Each axis goes on at its other end."""
    for axis, (before, after) in enumerate(widths):
        extent = x.shape[axis]
        if before or after:
            start = part(node, x, axis, extent - before, extent)
            x = forms.concat(node.builder, (start, x, part(node, x, axis, 0, after)), axis)
    return x


@handles("aten.pixel_shuffle", "aten.pixel_unshuffle")
def pixel_shuffle(node: Node) -> Results:
    """Blocks of channels become blocks of pixels, or back."""
    x, build = node.x(), node.builder
    *outer, c, h, w = x.shape
    n = prod(outer)
    if node.op == "aten.pixel_shuffle":
        r = node.integer("upscale_factor")
        parts = build.reshape(x, (n, c // r**2, r, r, h, w))
        moved = build.transpose(parts, (0, 1, 4, 2, 5, 3))
        return build.reshape(moved, (*outer, c // r**2, h * r, w * r))
    r = node.integer("downscale_factor")
    parts = build.reshape(x, (n, c, h // r, r, w // r, r))
    moved = build.transpose(parts, (0, 1, 3, 5, 2, 4))
    return build.reshape(moved, (*outer, c * r**2, h // r, w // r))


@handles("aten.channel_shuffle")
def channel_shuffle(node: Node) -> Results:
    """Channels of several groups, dealt out in turn."""
    x, build, groups = node.x(), node.builder, node.integer("groups")
    n, c, *rest = x.shape
    parts = build.reshape(x, (n, groups, c // groups, *rest))
    moved = build.transpose(parts, (0, 2, 1, *range(3, 3 + len(rest))))
    return build.reshape(moved, x.shape)
