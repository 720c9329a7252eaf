"""Moving elements, and the shape arithmetic that exporters leave behind: it vanishes here."""

from __future__ import annotations

from math import ceil, prod

import numpy as np
from onnx import AttributeProto

from irc.frontends import normal_forms as forms
from irc.frontends.builder import check_size
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.onnx.pinned import cure
from irc.ops.core import Const
from irc.ops.selection import Gather
from irc.ops.shape import Concat, Expand, Pad, Slice
from irc.types import Shape, broadcast_shapes
from irc.value import Value

MAX_REPEATS = 1 << 16


@handles("Constant")
def constant(node: Node) -> Results:
    """A tensor, a number, or a list of numbers."""
    if len(node.given) != 1:
        node.fail("exactly one value is needed")
    (name,) = node.given
    found = node.given[name]
    node.ignore(name)
    if name == "value":
        return node.builder.const(node.tensor(found.t))
    arrays: dict[str, tuple[object, type]] = {
        "value_float": (found.f, np.float32),
        "value_floats": (list(found.floats), np.float32),
        "value_int": (found.i, np.int64),
        "value_ints": (list(found.ints), np.int64),
    }
    if name not in arrays:
        node.fail(f"{name} is not supported")
    data, dtype = arrays[name]
    return node.builder.const(np.asarray(data, dtype))


@handles("ConstantOfShape")
def constant_of_shape(node: Node) -> Results:
    """One number, repeated."""
    shape = node.whole(0, "shape")
    found: AttributeProto | None = node.attribute("value")
    value = np.zeros(1, np.float32) if found is None else node.tensor(found.t)
    if value.size != 1 or any(d < 0 for d in shape):
        node.fail(f"a constant of shape {list(shape)} from {value.size} values")
    check_size(value.itemsize, shape)
    return node.builder.const(np.full(shape, value.reshape(-1)[0], value.dtype))


@handles("Range")
def value_range(node: Node) -> Results:
    """Of constants."""
    start, limit, delta = (node.scalar(i, n) for i, n in enumerate(("start", "limit", "delta")))
    if delta == 0:
        node.fail("its delta is 0")
    node.ignore("stash_type")  # of the float16 forms
    dtype = node.constant(0, "start").dtype
    count = max(0, ceil((limit - start) / delta))
    check_size(dtype.itemsize, (count,))
    return node.builder.const((start + np.arange(count) * delta).astype(dtype))


@handles("Shape")
def shape_of(node: Node) -> Results:
    """A constant, since all shapes are known; `start` and `end` cut a part out."""
    dims = node.x().shape
    start, end = node.attribute("start"), node.attribute("end")
    part = slice(None if start is None else start.i, None if end is None else end.i)
    return node.builder.const(np.asarray(dims[part], np.int64))


@handles("Size")
def size(node: Node) -> Results:
    """A constant."""
    return node.builder.const(np.asarray(node.x().type.size, np.int64))


@handles("NonZero")
def non_zero(node: Node) -> Results:
    """Of constants."""
    x = node.x()
    if not isinstance(x, Const):
        node.fail(
            "the size of its result depends on data, as where a mask of booleans is an index:"
            f" Where, or a product with the mask, keeps the shape{cure(x)}"
        )
    array = x.array
    return node.builder.const(np.asarray(np.nonzero(array), np.int64).reshape(array.ndim, -1))


@handles("Reshape")
def reshape(node: Node) -> Results:
    """0 keeps an axis (unless `allowzero`), -1 takes what is left."""
    x, wanted = node.x(), list(node.whole(1, "shape"))
    allow = node.attribute("allowzero")
    if allow is None or not allow.i:
        for i, d in enumerate(wanted):
            if d == 0 and i >= x.type.rank:
                node.fail(f"shape {wanted} keeps axis {i}, {x.type} has {x.type.rank}")
            wanted[i] = x.shape[i] if d == 0 else d
    if min(wanted, default=0) < -1 or wanted.count(-1) > 1:
        node.fail(f"shape {wanted} is none: one axis may be -1")
    if -1 in wanted:
        rest = prod(d for d in wanted if d != -1)
        if rest == 0 or x.type.size % rest:
            node.fail(f"{x.type} does not fit shape {wanted}")
        wanted[wanted.index(-1)] = x.type.size // rest
    if prod(wanted) != x.type.size:
        node.fail(f"{x.type} does not fit shape {wanted}")
    return node.builder.reshape(x, tuple(wanted))


@handles("Flatten")
def flatten(node: Node) -> Results:
    """Two axes: what stands before `axis`, and the rest."""
    x, axis = node.x(), node.integer("axis")
    rank = x.type.rank
    if not -rank <= axis <= rank:
        node.fail(f"axis {axis} does not exist, the tensor has {rank} axes")
    axis = axis + rank if axis < 0 else axis
    return node.builder.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def _axes(node: Node) -> Shape | None:
    """`axes` as an attribute, since opset 13 as an input; None where they are left out."""
    if "axes" in node.schema.attributes:
        return node.integers("axes")
    return node.whole(1, "axes") if node.has(1) else None


@handles("Squeeze")
def squeeze(node: Node) -> Results:
    """Without axes of extent 1: those named, or all."""
    x, named = node.x(), _axes(node)
    if named is None:
        named = tuple(i for i, d in enumerate(x.shape) if d == 1)
    gone = node.axes(named, x.type.rank)
    if any(x.shape[i] != 1 for i in gone):
        node.fail(f"axes {list(named)} of {x.type} are not all of extent 1")
    return node.builder.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in gone))


@handles("Unsqueeze")
def unsqueeze(node: Node) -> Results:
    """With new axes of extent 1, counted in the result."""
    x, named = node.x(), _axes(node)
    if named is None:
        node.fail("its axes are missing")
    rank = x.type.rank + len(named)
    new = node.axes(named, rank)
    old = iter(x.shape)
    return node.builder.reshape(x, tuple(1 if i in new else next(old) for i in range(rank)))


@handles("Transpose")
def transpose(node: Node) -> Results:
    """Axes reversed where no order is given."""
    x = node.x()
    perm = node.integers("perm")
    if perm is None:
        perm = tuple(reversed(range(x.type.rank)))
    if sorted(perm) != list(range(x.type.rank)):
        node.fail(f"perm {list(perm)} does not order the axes of {x.type}")
    return node.builder.transpose(x, perm)


@handles("Concat")
def concat(node: Node) -> Results:
    """Along an axis."""
    xs = tuple(node.x(i) for i in range(len(node.inputs)))
    axis = node.axis(node.integer("axis"), xs[0].type.rank)
    if len({v.type.rank for v in xs}) > 1:
        node.fail(f"operands {[str(v.type) for v in xs]} differ in their number of axes")
    return xs[0] if len(xs) == 1 else node.builder.add(Concat(xs, axis))


@handles("Split")
def split(node: Node) -> Results:
    """One slice for each output: by sizes (attribute or input), or evenly."""
    x, count = node.x(), len(node.proto.output)
    axis = node.axis(node.integer("axis"), x.type.rank)
    extent = x.shape[axis]
    sizes = node.whole(1, "sizes") if node.has(1) else None
    if "split" in node.schema.attributes:
        sizes = node.integers("split")
    number = node.attribute("num_outputs")
    if number is not None and number.i and number.i != count:
        node.fail(f"num_outputs = {number.i}, but it has {count} outputs")
    if sizes is None:
        part = ceil(extent / count)
        sizes = tuple(max(0, min(part, extent - i * part)) for i in range(count))
    if len(sizes) != count or sum(sizes) != extent or min(sizes) < 0:
        node.fail(f"{extent} elements can't be split into {list(sizes)} for {count} outputs")
    ends = np.cumsum(sizes).tolist()
    return tuple(_part(node, axis, e - n, e) for n, e in zip(sizes, ends, strict=True))


def _part(node: Node, axis: int, start: int, stop: int) -> Value:
    x = node.x()
    starts, stops = [0] * x.type.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return node.builder.add(Slice(x, tuple(starts), tuple(stops), (1,) * x.type.rank))


@handles("Slice")
def slice_(node: Node) -> Results:
    """Starts, ends, axes and steps by attribute, since opset 10 by input."""
    x = node.x()
    if "starts" in node.schema.attributes:
        starts, ends = node.integers("starts") or (), node.integers("ends") or ()
        axes, steps = node.integers("axes"), None
    else:
        starts, ends = node.whole(1, "starts"), node.whole(2, "ends")
        axes = node.whole(3, "axes") if node.has(3) else None
        steps = node.whole(4, "steps") if node.has(4) else None
    axes = node.axes(tuple(range(len(starts))) if axes is None else axes, x.type.rank)
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        node.fail("one start, end and step (not 0) for each axis are needed")
    entries = [(0, d, 1) for d in x.shape]
    for axis, start, end, by in zip(axes, starts, ends, steps, strict=True):
        entries[axis] = _normal(start, end, by, x.shape[axis])
    first, stop, step = zip(*entries, strict=True) if entries else ((), (), ())
    return node.builder.add(Slice(x, first, stop, step))


def _normal(start: int, end: int, step: int, extent: int) -> tuple[int, int, int]:
    """Counted from the front and clamped as ONNX says; a stop of -1 with a negative step lies
    before element 0."""
    start, end = (v + extent if v < 0 else v for v in (start, end))
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    start, end = min(max(start, 0), max(high, 0)), min(max(end, low), high)
    if len(range(start, end, step)) == 0:
        return 0, 0, 1
    return start, end, step


@handles("Pad")
def pad(node: Node) -> Results:
    """By attribute or input; negative pads cut off."""
    x, rank = node.x(), node.x().type.rank
    mode = node.text("mode")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        node.fail(f"mode = {mode!r} is not supported")
    begins, ends = _pads(node, rank)
    if mode == "wrap":
        return _wrapped(node, x, begins, ends)
    value = _pad_value(node)
    cut = tuple(max(0, -p) for p in begins), tuple(max(0, -p) for p in ends)
    if any(cut[0]) or any(cut[1]):
        if any(d < a + b for d, a, b in zip(x.shape, *cut, strict=True)):
            node.fail(f"pads {[*begins, *ends]} cut more off than {x.type} has")
        x = forms.crop(node.builder, x, *cut)
    widths = tuple((max(0, a), max(0, b)) for a, b in zip(begins, ends, strict=True))
    if not any(map(any, widths)):
        return x
    return node.builder.add(Pad(x, widths, value, mode))


def _wrapped(node: Node, x: Value, begins: Shape, ends: Shape) -> Value:
    """Copies of the tensor all around it."""
    grown = tuple(a + d + b for a, d, b in zip(begins, x.shape, ends, strict=True))
    if min(grown, default=0) < 0 or 0 in x.shape:
        node.fail(f"pads {[*begins, *ends]} do not fit {x.type}")
    check_size(x.type.dtype.numpy.itemsize, grown)
    for axis, (size, total) in enumerate(zip(x.shape, grown, strict=True)):
        at = (np.arange(total) - begins[axis]) % size
        x = forms.gather_axis(node.builder, x, at.tolist(), axis)
    return x


def _pads(node: Node, rank: int) -> tuple[Shape, Shape]:
    """Elements before and after, per axis."""
    pads = (node.integers("pads") or ()) if node.opset < 11 else node.whole(1, "pads")
    axes = node.whole(3, "axes") if node.has(3) else tuple(range(rank))
    axes = node.axes(axes, rank)
    if len(pads) != 2 * len(axes):
        node.fail(f"{len(pads)} pads for {len(axes)} axes: two for each are needed")
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[len(axes) + i]
    return tuple(begins), tuple(ends)


def _pad_value(node: Node) -> float:
    if node.opset < 11:
        return node.real("value")
    if not node.has(2) or node.x(2).type.size == 0:
        return 0.0
    return float(node.scalar(2, "fill value"))


@handles("Gather")
def gather(node: Node) -> Results:
    """Constant indices are counted from the front."""
    x, indices = node.x(0), node.x(1)
    axis = node.axis(node.integer("axis"), x.type.rank)
    if isinstance(indices, Const):
        extent, array = x.shape[axis], indices.array
        if array.size and not -extent <= array.min() <= array.max() < extent:
            node.fail(f"its indices reach from {array.min()} to {array.max()}, of {extent}")
        front = np.where(array < 0, array + extent, array).astype(array.dtype)
        indices = node.builder.const(front, name=indices.name)
    return node.builder.add(Gather(x, indices, axis))


@handles("Expand")
def expand(node: Node) -> Results:
    """Broadcasting, in which the given shape may be the smaller one."""
    x = node.x()
    dims = node.whole(1, "shape")
    if any(d < 0 for d in dims):
        node.fail(f"shape {list(dims)} has a negative dimension")
    dims = broadcast_shapes(x.shape, dims)
    return x if dims == x.shape else node.builder.add(Expand(x, dims))


@handles("Tile")
def tile(node: Node) -> Results:
    """Broadcasting along axes of extent 1, copies of the tensor along others."""
    x, repeats = node.x(), node.whole(1, "repeats")
    if len(repeats) != x.type.rank or min(repeats, default=0) < 0:
        node.fail(f"repeats {list(repeats)}: one for each axis of {x.type} is needed")
    result = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
    check_size(x.type.dtype.numpy.itemsize, result)
    if prod(result) == 0:
        return node.builder.const(np.zeros(result, x.type.dtype.numpy))
    return _tiled(node, x, repeats)


def _tiled(node: Node, x: Value, repeats: Shape) -> Value:
    dims = tuple(r if d == 1 else d for d, r in zip(x.shape, repeats, strict=True))
    y = x if dims == x.shape else node.builder.add(Expand(x, dims))
    for axis, (d, r) in enumerate(zip(x.shape, repeats, strict=True)):
        if r > MAX_REPEATS and d > 1:
            node.fail(f"{r} repeats are not supported")
        if r > 1 and d > 1:
            y = node.builder.add(Concat((y,) * r, axis))
    return y


@handles("DepthToSpace")
def depth_to_space(node: Node) -> Results:
    """Blocks of channels become blocks of pixels."""
    x, block, mode = node.x(), node.integer("blocksize"), "DCR"
    if node.attribute("mode") is not None:
        mode = node.text("mode")
    if x.type.rank != 4 or block < 1 or x.shape[1] % block**2 or mode not in ("DCR", "CRD"):
        node.fail(f"{x.type} with blocksize {block} and mode {mode!r} is not supported")
    n, c, h, w = x.shape
    depth, build = c // block**2, node.builder
    if mode == "DCR":
        parts = build.reshape(x, (n, block, block, depth, h, w))
        moved = build.transpose(parts, (0, 3, 4, 1, 5, 2))
    else:
        parts = build.reshape(x, (n, depth, block, block, h, w))
        moved = build.transpose(parts, (0, 1, 4, 2, 5, 3))
    return build.reshape(moved, (n, depth, h * block, w * block))


@handles("SpaceToDepth")
def space_to_depth(node: Node) -> Results:
    """Blocks of pixels become blocks of channels."""
    x, block, mode = node.x(), node.integer("blocksize"), "DCR"
    if node.attribute("mode") is not None:
        mode = node.text("mode")
    fits = x.type.rank == 4 and block >= 1 and not x.shape[2] % block and not x.shape[3] % block
    if not fits or mode not in ("DCR", "CRD"):
        node.fail(f"{x.type} with blocksize {block} and mode {mode!r} is not supported")
    n, c, h, w = x.shape
    build = node.builder
    parts = build.reshape(x, (n, c, h // block, block, w // block, block))
    moved = build.transpose(parts, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return build.reshape(moved, (n, c * block**2, h // block, w // block))
