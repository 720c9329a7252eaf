"""Images copied to scratch with their padding around them, so that no kernel tests a bound."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from irc.backends.llvm.kernels.memory import at, copy, fill, times
from irc.backends.llvm.loop import counted
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


def copy_image(builder: Any, c: Copy, source: Any, image: Any, to: Any, width: int) -> None:
    """Copy one image into scratch, its padding filled with the zero point."""
    (height, columns, channels), (top, left, bottom, right) = c.extent, c.pads
    row_bytes = c.padded[1] * channels
    start = at(builder, source, times(builder, image, c.strides[0]))
    fill(builder, to, top * row_bytes, c.fill, width)
    with counted(builder, height, label="copy") as row:
        target = at(builder, to, times(builder, row.index, row_bytes))
        target = at(builder, target, top * row_bytes)
        line = at(builder, start, times(builder, row.index, c.strides[1]))
        fill(builder, target, left * channels, c.fill, width)
        inner = at(builder, target, left * channels)
        if c.strides[2] == channels or columns == 1:
            copy(builder, inner, line, columns * channels, width)
        else:
            with counted(builder, columns, label="pixel") as pixel:
                into = at(builder, inner, times(builder, pixel.index, channels))
                copy(builder, into, at(builder, line, times(builder, pixel.index, c.strides[2])),
                     channels, width)  # fmt: skip
        fill(builder, at(builder, inner, columns * channels), right * channels, c.fill, width)
    below = at(builder, to, (top + height) * row_bytes)
    fill(builder, below, bottom * row_bytes, c.fill, width)
