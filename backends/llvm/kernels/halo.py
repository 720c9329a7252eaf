"""Images copied to scratch with their padding around them, so that no kernel tests a bound."""

from __future__ import annotations

import hashlib
from copy import copy as copy_of
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.functions import I8
from irc.backends.llvm.code.loop import I64, counted, i64, spanned
from irc.backends.llvm.kernels.vectors.memory import I16, at, copy, fill, times, widen
from irc.backends.llvm.work import KernelFunction
from irc.ops.windows import Pads
from irc.types import Shape

SLACK = 64
"""Bytes behind a copied image that a word of four may reach into."""


@dataclass(frozen=True)
class Copy:
    """The image copied to scratch with its padding around it, dense, before it is read."""

    extent: Shape
    """Rows, columns and channels of the image as it is."""
    strides: Shape
    """Bytes per image, row and column of it."""
    pads: Pads
    fill: int
    paired: bool = False
    """Two rows by two columns of the padded image lie together, as one pixel of four times the
    channels."""
    wide: bool = False
    """Each byte, a u8, becomes an i16."""

    @property
    def gathers(self) -> bool:
        """Whether pixels lie apart in the image as it is."""
        return self.strides[2] > self.extent[2]

    @property
    def dense(self) -> Shape:
        """Rows, columns and channels of the padded image."""
        top, left, bottom, right = self.pads
        return self.extent[0] + top + bottom, self.extent[1] + left + right, self.extent[2]

    @property
    def padded(self) -> Shape:
        """Rows, columns and channels of the copy."""
        rows, columns, channels = self.dense
        return (ceil(rows / 2), ceil(columns / 2), 4 * channels) if self.paired else self.dense

    @property
    def line(self) -> int:
        """Bytes of a row that waits for the other one of its pair."""
        return prod(self.dense[1:]) + SLACK

    @property
    def element(self) -> int:
        """Bytes of an element of the copy."""
        return 2 if self.wide else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the copy."""
        return prod(self.padded[1:]) * self.element

    @property
    def nbytes(self) -> int:
        """Bytes of scratch for one image."""
        whole = self.padded[0] * self.row_bytes
        return whole + SLACK + (2 * self.line if self.paired else 0)


def read_rows(f: KernelFunction, c: Copy, rows: int, step: int) -> tuple[Any, Any]:
    """The padded rows, from … up to …, that the function's units read, which are rows of the
    result, `rows` in all, `step` padded rows apart."""
    if not f.split:
        return 0, c.padded[0]
    more = ir.Constant(I64, c.padded[0] - rows * step)
    return times(f.builder, f.begin, step), f.builder.add(times(f.builder, f.end, step), more)


def copy_rows(
    builder: Any, c: Copy, source: Any, image: Any, to: Any, width: int, begin: Any, end: Any
) -> None:
    """Copy the padded rows from `begin` up to `end` (more than `begin`), to where they stand in a
    whole copy."""
    start = at(builder, source, times(builder, image, c.strides[0]))
    builder.call(_function(builder, c, width), [start, to, i64(begin), i64(end)])


def _function(builder: Any, c: Copy, width: int) -> Any:
    """`void copy_rows(image, to, begin, end)`: one for all kernels that copy alike."""
    attributes = builder.function.attributes
    cpu = next((a for a in attributes if a.startswith('"target-cpu"')), "")
    name = f"copy_rows_{hashlib.sha256(f'{c} {width} {cpu}'.encode()).hexdigest()[:12]}"
    known = builder.module.globals.get(name)
    if known is not None:
        return known
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), ir.PointerType(), I64, I64])
    function = ir.Function(builder.module, kind, name)
    # Lower levels come first: what they have, the others have too.
    function.attributes = copy_of(attributes)
    function.linkage = "internal"
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    image, to, begin, end = function.args
    to.add_attribute("noalias")
    with spanned(inside, begin, end, label="row") as row:
        target = at(inside, to, times(inside, row, c.row_bytes))
        if c.paired:
            _copy_pair(inside, c, image, row, target, at(inside, to, prod(c.padded) + SLACK), width)
        else:
            _copy_row(inside, c, image, row, target, width)
    inside.ret_void()
    return function


def _copy_pair(
    builder: Any, c: Copy, image: Any, pair: Any, to: Any, lines: Any, width: int
) -> None:
    """Copy two padded rows, two columns of one beside two of the other; each row is made in one of
    two `lines` first. What is moved may be longer than two short columns: the next stand over
    it."""
    places = [at(builder, lines, i * c.line) for i in (0, 1)]
    first = times(builder, pair, 2)
    for i, line in enumerate(places):
        _copy_row(builder, c, image, builder.add(first, i64(i)), line, width)
    nbytes = 2 * c.dense[2]
    longer = ir.VectorType(ir.IntType(8), 1 << (nbytes - 1).bit_length())
    with counted(builder, c.padded[1], label="pair") as column:
        source, target = (times(builder, column.index, n * nbytes) for n in (1, 2))
        for i, line in enumerate(places):
            into = at(builder, at(builder, to, target), i * nbytes)
            if nbytes > SLACK:
                copy(builder, into, at(builder, line, source), nbytes, width)
                continue
            value = builder.load(at(builder, line, source), typ=longer, align=1)
            builder.store(value, into, align=1)


def _copy_row(builder: Any, c: Copy, image: Any, row: Any, target: Any, width: int) -> None:
    """Copy one padded row, an i64, to `target`; `image` is the image as it is."""
    (height, columns, channels), (top, left, _, right) = c.extent, c.pads
    inside = builder.sub(row, ir.Constant(I64, top))
    is_inside = builder.icmp_unsigned("<", inside, ir.Constant(I64, height))
    with builder.if_else(is_inside) as (copied, filled):
        with copied:
            line = at(builder, image, times(builder, inside, c.strides[1]))
            _fill(builder, c, target, left * channels, width)
            inner = at(builder, target, left * channels * c.element)
            _copy_columns(builder, c, line, inner, width)
            behind = at(builder, inner, columns * channels * c.element)
            _fill(builder, c, behind, right * channels, width)
        with filled:
            _fill(builder, c, target, prod(c.dense[1:]), width)


def _fill(builder: Any, c: Copy, to: Any, count: int, width: int) -> None:
    fill(builder, to, count, c.fill, width, I16 if c.wide else I8)


def _copy_columns(builder: Any, c: Copy, line: Any, to: Any, width: int) -> None:
    """A row without its padding."""
    columns, channels = c.extent[1:]
    move = widen if c.wide else copy
    if c.strides[2] == channels or columns == 1:
        move(builder, to, line, columns * channels, width)
        return
    with counted(builder, columns, label="pixel") as pixel:
        into = at(builder, to, times(builder, pixel.index, channels * c.element))
        source = at(builder, line, times(builder, pixel.index, c.strides[2]))
        move(builder, into, source, channels, width)
