"""Images copied to scratch with their padding around them, so that no kernel tests a bound."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from llvmlite import ir

from irc.backends.llvm.kernels.memory import at, copy, fill, times
from irc.backends.llvm.loop import I64, counted, maximum, within
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

    @property
    def padded(self) -> Shape:
        """Rows, columns and channels of the copy."""
        top, left, bottom, right = self.pads
        return self.extent[0] + top + bottom, self.extent[1] + left + right, self.extent[2]

    @property
    def nbytes(self) -> int:
        """Bytes of scratch for one image."""
        return prod(self.padded) + SLACK


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
    """Copy the padded rows from `begin` up to `end`, to where they stand in a whole copy."""
    (height, columns, channels), (top, left, bottom, right) = c.extent, c.pads
    row_bytes = c.padded[1] * channels
    start = at(builder, source, times(builder, image, c.strides[0]))

    def padding(first: int, count: int, begin: Any, end: Any) -> None:
        below = at(builder, to, first * row_bytes)
        if isinstance(begin, int):
            fill(builder, below, count * row_bytes, c.fill, width)
        elif count:
            begin, end = _shifted(builder, first, begin, end)
            with within(builder, count, begin, end, "pad") as row:
                line = at(builder, below, times(builder, row.index, row_bytes))
                fill(builder, line, row_bytes, c.fill, width)

    padding(0, top, begin, end)
    with within(builder, height, *_shifted(builder, top, begin, end), "copy") as row:
        target = at(builder, to, times(builder, row.index, row_bytes))
        target = at(builder, target, top * row_bytes)
        line = at(builder, start, times(builder, row.index, c.strides[1]))
        fill(builder, target, left * channels, c.fill, width)
        inner = at(builder, target, left * channels)
        _copy_columns(builder, c, line, inner, width)
        fill(builder, at(builder, inner, columns * channels), right * channels, c.fill, width)
    padding(top + height, bottom, begin, end)


def copy_row(builder: Any, c: Copy, image: Any, row: Any, to: Any, width: int) -> None:
    """Copy one padded row, an i64, to where it stands in a whole copy; `image` is the image as it
    is."""
    (height, columns, channels), (top, left, _, right) = c.extent, c.pads
    row_bytes = c.padded[1] * channels
    target = at(builder, to, times(builder, row, row_bytes))
    inside = builder.sub(row, ir.Constant(I64, top))
    is_inside = builder.icmp_unsigned("<", inside, ir.Constant(I64, height))
    with builder.if_else(is_inside) as (copied, filled):
        with copied:
            line = at(builder, image, times(builder, inside, c.strides[1]))
            fill(builder, target, left * channels, c.fill, width)
            inner = at(builder, target, left * channels)
            _copy_columns(builder, c, line, inner, width)
            fill(builder, at(builder, inner, columns * channels), right * channels, c.fill, width)
        with filled:
            fill(builder, target, row_bytes, c.fill, width)


def _copy_columns(builder: Any, c: Copy, line: Any, to: Any, width: int) -> None:
    """A row without its padding."""
    columns, channels = c.extent[1:]
    if c.strides[2] == channels or columns == 1:
        copy(builder, to, line, columns * channels, width)
        return
    with counted(builder, columns, label="pixel") as pixel:
        into = at(builder, to, times(builder, pixel.index, channels))
        source = at(builder, line, times(builder, pixel.index, c.strides[2]))
        copy(builder, into, source, channels, width)


def _shifted(builder: Any, first: int, begin: Any, end: Any) -> tuple[Any, Any]:
    """Rows counted from `first` on, none below it."""
    if isinstance(begin, int):
        return max(begin - first, 0), end - first
    from_first = [builder.sub(b, ir.Constant(I64, first), flags=("nsw",)) for b in (begin, end)]
    return maximum(builder, from_first[0], 0), from_first[1]
