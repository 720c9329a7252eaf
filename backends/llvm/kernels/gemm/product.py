"""A convolution or linear layer seen as a matrix product: rows of bytes times packed weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from irc.backends.llvm.code.address import flat_index, slope
from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.halo import Copy
from irc.backends.llvm.work import Work
from irc.loops import Expr, Load, Reduce, Var, children
from irc.ops.conv import QConv2d
from irc.ops.linear import QLinear
from irc.ops.windows import Pair, Window
from irc.plan import dense_strides
from irc.types import Array, DType, Shape
from irc.value import Value


@dataclass(frozen=True)
class Product:
    """`acc[pixel, o] = sum x[pixel + tap] * w[o, tap]` over u8 activations and i8 weights.

    Output pixel (n, y, x) reads, for every tap, `run` bytes from
    `n*pixel[0] + y*pixel[1] + x*pixel[2] + tap[0]*taps[0][1] + tap[1]*taps[1][1] + group*channels`.
    """

    source: Value
    weights: Value
    reduce: Reduce
    pixels: Shape
    """Images, rows and columns of the result."""
    pixel: Shape
    """Bytes from one image, row and column to the next in what is read."""
    taps: tuple[tuple[int, int], ...]
    """Extent and byte step of the loops over taps, outermost first."""
    run: int
    matrix: Array
    """Weights i8 [groups, O/groups, taps, run]."""
    axes: tuple[Var, ...]
    """The result's image, row, column and channel variables; absent ones are no variables."""
    copy: Copy | None = None
    places: Shape = ()
    """Bytes from a pixel to each tap, where these don't follow from steps."""
    piecewise: bool = False
    """Whether each pixel is a row of the copy, so that a part of them can be copied at a time."""

    @property
    def element(self) -> int:
        """Bytes of an activation where it is read: 2 behind a copy that widens."""
        return 1 if self.copy is None else self.copy.element

    @property
    def words(self) -> int:
        """Words of four bytes in a run of what is read."""
        return ceil(self.run * self.element / 4)

    @property
    def depth(self) -> int:
        """Words of four bytes in all."""
        return self.words * prod(extent for extent, _ in self.taps)

    @property
    def group_bytes(self) -> int:
        """Bytes from a group's activations to the next one's."""
        return self.run * self.element if self.groups > 1 else 0

    @property
    def groups(self) -> int:
        """Groups of channels that are products of their own."""
        return int(self.matrix.shape[0])

    @property
    def columns(self) -> int:
        """Output channels of a group."""
        return int(self.matrix.shape[1])

    @property
    def image_bytes(self) -> int:
        """Bytes of an image, roughly, from the first that is read to the last."""
        _, rows, columns = self.pixels
        return rows * max(self.pixel[1], columns * self.pixel[2])

    @property
    def packed(self) -> Array:
        """The matrix in words: i8 [groups, O/groups, taps * words, 4], or 2 where activations are
        i16; runs filled up with 0."""
        groups, columns, taps, run = self.matrix.shape
        each = 4 // self.element
        wide = np.zeros((groups, columns, taps, self.words * each), np.int8)
        wide[..., :run] = self.matrix
        return wide.reshape(groups, columns, taps * self.words, each)


def match(work: Work, *, copied: bool = False) -> Product | None:
    """The work as a product, where it is one: a convolution or linear layer with its tail; over a
    copy of what is read where it must be, or `copied`."""
    anchor = find_anchor(work)
    if anchor is None or anchor.node.w.type.dtype is not DType.I8:
        return None
    if isinstance(anchor.node, QConv2d):
        return _conv(work, anchor.node, anchor, copied=copied)
    return _linear(work, anchor.node, anchor)


def _conv(work: Work, v: QConv2d, anchor: Anchor, *, copied: bool) -> Product | None:
    out, channels, strides = v.shape, v.w.shape[3], anchor.strides
    if channels == 1 and v.groups > 1:
        return None
    copy = None
    window = v.window
    rows_together = window.dilations[1] == 1 and v.groups == 1
    if copied or window.padded or _reads_past(channels, window, strides, rows_together):
        extent = v.x.shape[1:]
        copy = Copy(extent, strides[:3], window.pads, v.x.type.zero)
        strides = dense_strides((out[0], *copy.padded))
    taps, run, matrix = _taps(anchor.weights, window, strides, v.groups, rows_together)
    return Product(
        source=v.x, weights=v.w, reduce=anchor.reduce, pixels=out[:3], copy=copy,
        pixel=(0 if copy else strides[0], strides[1] * v.strides[0], strides[2] * v.strides[1]),
        taps=taps, run=run, matrix=matrix, axes=work.loops.result.axes,
    )  # fmt: skip


def _reads_past(channels: int, window: Window, strides: Shape, rows_together: bool) -> bool:
    """Whether the last word of a run holds bytes of what comes next, maybe past the tensor."""
    together = rows_together and strides[2] == channels
    return bool((channels * (window.kernel[1] if together else 1)) % 4)


def _taps(
    weights: Array, window: Window, strides: Shape, groups: int, rows_together: bool
) -> tuple[tuple[Pair, ...], int, Array]:
    """Loops over taps, bytes of a run, and the matrix of weights. The taps of a kernel row are
    one run where they lie side by side."""
    (kh, kw), channels = window.kernel, weights.shape[3]
    down = (kh, window.dilations[0] * strides[1])
    per_group = weights.reshape(groups, -1, kh, kw, channels)
    columns = per_group.shape[1]
    if rows_together and strides[2] == channels:
        matrix = per_group.reshape(groups, columns, kh, kw * channels)
        return (down,), kw * channels, matrix
    across: Pair = (kw, window.dilations[1] * strides[2])
    matrix = per_group.reshape(groups, columns, kh * kw, channels)
    return (down, across), channels, matrix


def _linear(work: Work, v: QLinear, anchor: Anchor) -> Product | None:
    """Rows of a linear layer are the columns of one image row; they must lie evenly."""
    lead, depth, strides = v.x.shape[:-1], v.x.shape[-1], anchor.strides
    if not _one_row(work, lead, strides[:-1]):
        return None
    rows, step = prod(lead), _step(lead, strides[:-1])
    copy = None
    if depth % 4:
        copy = Copy((1, rows, depth), (0, 0, step), (0, 0, 0, 0), 0)
        step = depth
    return Product(
        source=v.x, weights=v.w, reduce=anchor.reduce, pixels=(1, 1, rows), pixel=(0, 0, step),
        taps=((1, 0),), run=depth, matrix=anchor.weights.reshape(1, -1, 1, depth),
        axes=work.loops.result.axes, copy=copy,
    )  # fmt: skip


def flatten(work: Work, p: Product) -> Product:
    """All pixels as one row, where what is read, added and written is evenly spaced: then tiles
    need not end with an image row."""
    if p.copy is not None or p.pixels[0] * p.pixels[1] == 1:
        return p
    if not _one_row(work, p.pixels, p.pixel):
        return p
    step = _step(p.pixels, p.pixel)
    return dataclasses.replace(p, pixels=(1, 1, prod(p.pixels)), pixel=(0, 0, step))


def gather(work: Work, p: Product) -> Product | None:
    """The product over a dense copy of the pixels that are read, as one row, where steps pass over
    some and each serves one result alone; None elsewhere."""
    _, rows, columns = p.pixels
    dense = (0, columns * p.run, p.run)
    if p.copy is not None or p.groups > 1 or p.pixel[2] <= p.run or p.matrix.shape[2] > 1:
        return None
    if len(p.axes) < len(dense) + 1 or not _one_row(work, p.pixels, (rows * dense[1], *dense[1:])):
        return None
    copy = Copy((rows, columns, p.run), p.pixel, (0, 0, 0, 0), 0)
    return dataclasses.replace(
        p, pixels=(p.pixels[0], 1, rows * columns), pixel=(0, 0, p.run), copy=copy
    )


def widened(work: Work, p: Product) -> Product:
    """The product over a copy of what is read, as i16: pixel by pixel where all are one row, read
    once."""
    p = gather(work, p) or p
    images, rows, columns = p.pixels
    if p.copy is None and images * rows == 1 and p.matrix.shape[2] == 1 == p.groups:
        copy = Copy((columns, 1, p.run), (0, p.pixel[2], p.run), (0, 0, 0, 0), 0)
        p = dataclasses.replace(p, copy=copy, pixel=(0, 0, p.run), piecewise=True)
    elif p.copy is None:
        p = match(work, copied=True) or p
    assert p.copy is not None, "a product is of a convolution, or its pixels are one row"
    return dataclasses.replace(
        p, copy=dataclasses.replace(p.copy, wide=True),
        pixel=tuple(2 * step for step in p.pixel),
        taps=tuple((extent, 2 * step) for extent, step in p.taps),
    )  # fmt: skip


def _one_row(work: Work, extents: Shape, source: Shape) -> bool:
    """Whether all positions may be counted along the last axis alone: in what is read (its
    strides are `source`), in the result, and in every other operand."""
    other = [_slopes(e, work) for e in _other_loads(work.loops.result.value)]
    return all(
        s is not None and _even(extents, s)
        for s in (source, work.result_strides[:-1], *other)
    )


def _even(extents: Shape, strides: Shape) -> bool:
    """Whether the positions of all axes together are the last axis's, going on."""
    if prod(extents) == 1:
        return True
    last = strides[-1] if strides else 0
    dense = [d * last for d in dense_strides(extents)]
    return all(s == d or e == 1 for s, d, e in zip(strides, dense, extents, strict=True))


def _step(extents: Shape, strides: Shape) -> int:
    return strides[-1] if prod(extents) > 1 else 0


def _other_loads(e: Expr) -> list[Load]:
    """Loads outside of reductions."""
    found: dict[Load, None] = {}
    stack = [e]
    seen: set[Expr] = set()
    while stack:
        x = stack.pop()
        if x in seen or isinstance(x, Reduce):
            continue
        seen.add(x)
        if isinstance(x, Load):
            found[x] = None
        stack.extend(children(x))
    return list(found)


def _slopes(e: Load, work: Work) -> Shape | None:
    """Elements from one position to the next on each axis but the last; None if not linear."""
    if e.fill is None and not _reads_axes(e, work):
        return (0,) * (len(work.loops.result.axes) - 1)
    strides = dense_strides(e.source.shape)
    for formal, actual in zip(work.body.inputs, work.strides, strict=True):
        if formal is e.source:
            strides = actual
    flat = flat_index(e.index, strides)
    slopes = [slope(flat, axis) for axis in work.loops.result.axes[:-1]]
    return None if e.fill is not None or None in slopes else tuple(s or 0 for s in slopes)


def _reads_axes(e: Load, work: Work) -> bool:
    """Whether an axis stands in the index itself: in a table's, which is a computed value, it
    does not (what is loaded to compute that is asked on its own)."""
    stack = list(e.index)
    while stack:
        x = stack.pop()
        if x in work.loops.result.axes:
            return True
        if not isinstance(x, Load | Reduce):
            stack.extend(children(x))
    return False
