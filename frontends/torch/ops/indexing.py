"""Elements taken from and put into places, by index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder, check_size
from irc.frontends.indexing import (
    front,
    places_along,
    put_at,
    row_numbers,
    scattered,
    taken_along,
    taken_at,
)
from irc.frontends.torch.ops.table import DATA_SHAPED, Node, Results, handles
from irc.ops.core import Const
from irc.ops.elementwise import Mul
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from irc.ops.selection import Gather, Where
from irc.types import DType, Shape
from irc.value import Value

REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max",
              "amin": "min"}  # fmt: skip
"""What torch calls the ways to join an old and a new element."""

# ---------------------------------------------------------------- taking


@handles("aten.embedding")
def embedding(node: Node) -> Results:
    """Rows of a table."""
    node.ignore("padding_idx", "scale_grad_by_freq", "sparse")  # they concern gradients
    return node.builder.add(Gather(node.x("weight"), node.x("indices"), 0))


@handles("aten.as_strided")
def as_strided(node: Node) -> Results:
    """Elements by their places in memory, of what lies there in order."""
    x, build = node.x(), node.builder
    size, stride = (tuple(int(n) for n in node.any(name)) for name in ("size", "stride"))
    check_size(8, size)
    at = np.full((1,) * len(size), int(node.any("storage_offset") or 0))
    for axis, (extent, step) in enumerate(zip(size, stride, strict=True)):
        at = at + np.arange(extent).reshape(-1, *(1,) * (len(size) - 1 - axis)) * step
    if not node.dense or at.max(initial=0) >= x.type.size:
        node.fail("what is read by strides must lie in order in memory: call contiguous() before,"
                  " or say it by unfold, view and permute")  # fmt: skip
    return build.add(Gather(build.reshape(x, (x.type.size,)), build.const(at), 0))


@handles("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(node: Node) -> Results:
    """Sums, weighted ones too, means or maxima of rows of a table, over bags of one size."""
    node.ignore("scale_grad_by_freq", "sparse")
    build, count, size = node.builder, *_bags(node)
    op = (ReduceSum, ReduceMean, ReduceMax)[node.integer("mode")]
    at = build.reshape(node.x("indices"), (count, size))
    rows = build.add(Gather(node.x("weight"), at, 0))
    if weights := node.optional("per_sample_weights"):
        rows = build.add(Mul(rows, build.reshape(weights, (count, size, 1))))
    return (build.add(op(rows, (1,), False)), *(None,) * (node.count - 1))


def _bags(node: Node) -> tuple[int, int]:
    """How many there are, and the size of each."""
    offsets, total = node.x("offsets"), node.x("indices").type.size
    if not isinstance(offsets, Const):
        node.fail("offsets are given at run time: give it the numbers of bags of one size as a"
                  " matrix [bags, size]")  # fmt: skip
    starts = offsets.array.astype(np.int64)
    if node.flag("include_last_offset"):
        starts = starts[:-1]
    sizes = np.diff([*starts, total])
    if not len(starts) or not sizes[0] or np.any(sizes != sizes[0]):
        node.fail(f"bags of {sizes.tolist()} elements are not supported, only of one size")
    return len(starts), int(sizes[0])


@handles("aten.index_select")
def index_select(node: Node) -> Results:
    """Elements of one axis."""
    x = node.x()
    index = node.x("index")
    return node.builder.add(Gather(x, index, node.axis("dim", x.type.rank)))


def _indices(node: Node) -> dict[int, Value]:
    """Integer tensors by the axis that they index; constant masks as the places that they name."""
    found: dict[int, Value] = {}
    axis = 0
    for v in node.any("indices"):
        if v is None:
            axis += 1
        elif v.type.dtype is not DType.BOOL:
            found[axis] = v
            axis += 1
        elif isinstance(v, Const):
            for places in np.nonzero(v.array):
                found[axis] = node.builder.const(places, name=f"{v.name}.places")
                axis += 1
        else:
            node.fail(f"a mask of booleans is its index; {DATA_SHAPED}")
    return found


@handles("aten.index", "aten._unsafe_index")
def index(node: Node) -> Results:
    """By integer tensors for one axis or several, which broadcast."""
    x, given = node.x(), _indices(node)
    if not given:
        return x
    if len(given) == 1:
        ((axis, at),) = given.items()
        return node.builder.add(Gather(x, at, axis))
    return _grid(node, x, given) or taken_at(node.builder, x, given)


def _grid(node: Node, x: Value, given: Mapping[int, Value]) -> Value | None:
    """One gather for each axis, where the indices make a grid: constants for neighbouring axes, of
    which each has an axis of the result to itself, in order."""
    axes = list(given)
    for k, at in enumerate(given.values()):
        alone = all(d == 1 for j, d in enumerate(at.shape[::-1]) if j != len(axes) - 1 - k)
        if not isinstance(at, Const) or not alone or at.type.rank > len(axes):
            return None
    if axes[-1] != axes[0] + len(axes) - 1:
        return None
    for i, at in given.items():
        x = node.builder.add(Gather(x, node.builder.reshape(at, (at.type.size,)), i))
    return x


@handles("aten.gather")
def gather(node: Node) -> Results:
    """Along an axis, an index for each element of the result."""
    node.ignore("sparse_grad")
    x, build = node.x(), node.builder
    axis = node.axis("dim", x.type.rank)
    return taken_along(build, x, front(build, node.x("index"), x.shape[axis]), axis)


@handles("aten.take")
def take(node: Node) -> Results:
    """Elements of a tensor seen as flat."""
    x, build = node.x(), node.builder
    flat = build.reshape(x, (x.type.size,))
    return build.add(Gather(flat, front(build, node.x("index"), x.type.size), 0))


@handles("aten.diagonal", "aten.diagonal_copy")
def diagonal(node: Node) -> Results:
    """Elements whose indices along two axes differ by `offset`, along a new last axis."""
    x, build, offset = node.x(), node.builder, node.integer("offset")
    rank = x.type.rank
    rows, columns = node.axis("dim1", rank), node.axis("dim2", rank)
    rest = [a for a in range(rank) if a not in (rows, columns)]
    moved = build.transpose(x, (*rest, rows, columns))
    height, width = moved.shape[-2:]
    first, second = max(0, -offset), max(0, offset)
    count = max(0, min(height - first, width - second))
    flat = build.reshape(moved, (*moved.shape[:-2], height * width))
    places = ((first + np.arange(count)) * width + second + np.arange(count)).tolist()
    return forms.gather_axis(build, flat, places, len(rest))


@handles("aten.unfold")
def unfold(node: Node) -> Results:
    """Windows of an axis, their elements along a new last axis."""
    x, build = node.x(), node.builder
    rank = x.type.rank
    axis, size, step = node.axis("dimension", rank), node.integer("size"), node.integer("step")
    count = (x.shape[axis] - size) // step + 1
    at = np.arange(count)[:, np.newaxis] * step + np.arange(size)
    taken = build.add(Gather(x, build.const(at, name=f"{build.name}.windows"), axis))
    order = (*range(axis + 1), *range(axis + 2, rank + 1), axis + 1)
    return build.transpose(taken, order)


# ---------------------------------------------------------------- putting


@handles("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(node: Node) -> Results:
    """Into places along an axis; those that are computed take no products."""
    x, build, at = node.x(), node.builder, node.x("index")
    axis = node.axis("dim", x.type.rank)
    how, own = _reduction(node), node.flag("include_self") if node.has("include_self") else True
    node.ignore("include_self")
    rows = row_numbers(build, at, axis, x.shape)
    if rows is not None and "src" in node.arguments:
        new = node.operand("src", x.type.dtype)
        if new.shape == at.shape:
            return put_at(build, x, {axis: rows}, new, how, own=own)
    places = front(build, at, x.shape[axis])
    new = _updates(node, x, places.shape)
    numbers = places_along(build, places, axis, x.shape)
    return scattered(build, x, new, numbers, (), how, own=own)


def _reduction(node: Node) -> str:
    """How an old and a new element are joined."""
    node.ignore("reduce")
    if not node.has("reduce"):
        return "add" if node.op == "aten.scatter_add" else "none"
    given = str(node.any("reduce"))
    return REDUCTIONS.get(given, given)


def _updates(node: Node, x: Value, shape: Shape) -> Value:
    """What goes into the places: a number, or the first elements of a tensor."""
    if "value" in node.arguments:
        return node.builder.expand(node.operand("value", x.type.dtype), shape)
    source = node.operand("src", x.type.dtype)
    if source.shape == shape:
        return source
    ends = tuple(d - s for d, s in zip(source.shape, shape, strict=True))
    return forms.crop(node.builder, source, (0,) * len(ends), ends)


@handles("aten.index_put", "aten._unsafe_index_put")
def index_put(node: Node) -> Results:
    """Values into places; a mask takes one value for all."""
    x = node.x()
    values = node.operand("values", x.type.dtype)
    how = "add" if node.flag("accumulate") else "none"
    masks = [v for v in node.any("indices") if v is not None and v.type.dtype is DType.BOOL]
    if masks and not isinstance(masks[0], Const):
        return _masked(node, x, values, how)
    given = _indices(node)
    return put_at(node.builder, x, given, values, how)


def _masked(node: Node, x: Value, values: Value, how: str) -> Value:
    """A choice: the mask is of x's first axes, and what is put there is the same everywhere."""
    mask, *others = node.any("indices")
    same = mask is not None and values.type.rank <= x.type.rank - mask.type.rank
    if mask is None or others or how != "none" or not (same or values.type.size == 1):
        node.fail(
            "values that differ, put where a mask of booleans is set, are not supported: use"
            " torch.where"
        )
    build = node.builder
    wide = build.reshape(mask, (*mask.shape, *(1,) * (x.type.rank - mask.type.rank)))
    value = build.reshape(values, ()) if values.type.size == 1 else values
    return build.add(Where(wide, value, x))


@handles("aten.index_add")
def index_add(node: Node) -> Results:
    """Slices added to those with constant numbers along an axis."""
    x, build = node.x(), node.builder
    axis = node.axis("dim", x.type.rank)
    new = forms.scaled(build, node.operand("source", x.type.dtype), node.number("alpha"))
    return put_at(build, x, {axis: node.x("index")}, new, "add")


@handles("aten.index_reduce")
def index_reduce(node: Node) -> Results:
    """Slices joined with those with given numbers along an axis."""
    x = node.x()
    new = node.operand("source", x.type.dtype)
    how, own = _reduction(node), node.flag("include_self") if node.has("include_self") else True
    node.ignore("include_self")
    axis = node.axis("dim", x.type.rank)
    return put_at(node.builder, x, {axis: node.x("index")}, new, how, own=own)


@handles("aten.index_copy")
def index_copy(node: Node) -> Results:
    """Slices in the place of those with given numbers along an axis."""
    x = node.x()
    axis = node.axis("dim", x.type.rank)
    return put_at(
        node.builder, x, {axis: node.x("index")}, node.operand("source", x.type.dtype)
    )


@handles("aten.slice_scatter", "aten.select_scatter")
def slice_scatter(node: Node) -> Results:
    """A tensor in the place of a slice, or of one element of an axis."""
    x, build = node.x(), node.builder
    axis = node.axis("dim", x.type.rank)
    extent, new = x.shape[axis], node.operand("src", x.type.dtype)
    node.ignore("start", "end", "step", "index")
    if node.op == "aten.select_scatter":
        places = [node.counted(node.integer("index"), extent)]
        new = build.reshape(new, (*new.shape[:axis], 1, *new.shape[axis:]))
    else:
        start, end = (node.integer(n) if node.has(n) else None for n in ("start", "end"))
        places = list(range(extent))[start : end : node.integer("step")]
    new = build.expand(new, (*x.shape[:axis], len(places), *x.shape[axis + 1 :]))
    if places and places == list(range(places[0], places[-1] + 1)):
        return _between(build, x, new, places[0], axis)
    source = np.arange(extent)
    source[places] = extent + np.arange(len(places))
    return forms.gather_axis(build, forms.concat(build, (x, new), axis), source.tolist(), axis)


def _between(build: Builder, x: Value, new: Value, start: int, axis: int) -> Value:
    """A tensor with a new part from `start` on."""
    end = start + new.shape[axis]
    none, extent = (0,) * x.type.rank, x.shape[axis]
    before = (*none[:axis], extent - start, *none[axis + 1 :])
    behind = (*none[:axis], end, *none[axis + 1 :])
    ends = forms.crop(build, x, none, before), forms.crop(build, x, behind, none)
    return forms.concat(build, (ends[0], new, ends[1]), axis)


@handles("aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_consecutive",
         "aten.unique_dim")  # fmt: skip
def data_shaped(node: Node) -> Results:
    """Refused: the shape of the result depends on data."""
    node.fail(DATA_SHAPED)
