"""The way of tiles over an image, as run-time arithmetic: tile by tile, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.loop import I64, minimum
from irc.backends.llvm.kernels.amx.tiling import Tiling, tiles
from irc.backends.llvm.kernels.gemm.product import Product
from irc.backends.llvm.kernels.vectors.memory import at, times


@dataclass(frozen=True)
class TilePlace:
    """A tile of pixels: its row, its first pixel, and how many of its pixels are those of the tile
    before it."""

    y: Any
    x: Any
    old: Any


@dataclass(frozen=True)
class PixelPlace:
    """A pixel of the result, and whether it is one that is new: None where all are. What is no
    pixel of the result has the first one's place."""

    y: Any
    x: Any
    new: Any


@dataclass(frozen=True)
class Walk:
    """`tiling` over the pixels of a product, whose result has `columns` columns: fewer than the
    product has pixels in a row where that goes over whole rows of what is read."""

    p: Product
    tiling: Tiling
    columns: int

    @property
    def count(self) -> int:
        """Tiles of an image."""
        return tiles(self.p, self.tiling.rows)

    @property
    def row_tiles(self) -> int:
        """Tiles of a row."""
        return ceil(self.p.pixels[2] / self.tiling.rows)

    @property
    def wide(self) -> bool:
        """Whether some pixels lie between the rows of the result."""
        return self.columns != self.p.pixels[2]

    @property
    def even(self) -> bool:
        """Whether no tile reaches back over another."""
        fill = self.row_tiles * self.tiling.rows == self.p.pixels[2]
        return fill and self.count % self.tiling.tiles == 0

    def first(self, builder: Any, wanted: Any) -> Any:
        """The tile that a group begins with: earlier than `wanted` where the image ends."""
        return minimum(builder, wanted, self.count - self.tiling.tiles)

    def tile(self, builder: Any, number: Any) -> TilePlace:
        """The place of a tile; the last one of a row reaches back."""
        zero, extent, rows = ir.Constant(I64, 0), self.p.pixels[2], self.tiling.rows
        if self.row_tiles == 1:
            return TilePlace(number, zero, zero)
        count = ir.Constant(I64, self.row_tiles)
        y = builder.udiv(number, count) if self.p.pixels[1] > 1 else zero
        wanted = times(builder, builder.sub(number, builder.mul(y, count)), rows)
        x = minimum(builder, wanted, extent - rows)
        return TilePlace(y, x, builder.sub(wanted, x))

    def address(self, builder: Any, base: Any, number: Any) -> Any:
        """Where the activations of a tile begin."""
        place, pixel = self.tile(builder, number), self.p.pixel
        row = at(builder, base, times(builder, place.y, pixel[1]))
        return at(builder, row, times(builder, place.x, pixel[2]))

    @property
    def width(self) -> int:
        """Pixels from one row of what is read to the next, where the product goes over them."""
        return self.p.pixel[1] // self.p.pixel[2]

    @property
    def rows(self) -> int:
        """Rows of the result."""
        if not self.wide:
            return self.p.pixels[1]
        return (self.p.pixels[2] - self.columns) // self.width + 1

    def row(self, builder: Any, number: Any, *, last: bool) -> Any:
        """The row of the result in which a tile begins, or ends."""
        place = self.tile(builder, number)
        if not self.wide:
            return place.y
        more = ir.Constant(I64, self.tiling.rows - 1 if last else 0)
        return builder.udiv(builder.add(place.x, more), ir.Constant(I64, self.width))

    def pixel(
        self, builder: Any, number: Any, wanted: Any, row: Any, *, beyond: bool
    ) -> PixelPlace:
        """The place of a row of a tile, which is new from the tile `wanted` on; the row may lie
        `beyond` the tile's last one."""
        place = self.tile(builder, number)
        x = builder.add(place.x, row, flags=("nuw", "nsw"))
        tests = [] if self.even else [
            builder.icmp_unsigned(">=", row, place.old),
            builder.icmp_unsigned(">=", number, wanted),
        ]  # fmt: skip
        y = place.y
        if self.wide:
            width = ir.Constant(I64, self.width)
            y = builder.udiv(x, width)
            x = builder.sub(x, builder.mul(y, width))
            tests.append(builder.icmp_unsigned("<", x, ir.Constant(I64, self.columns)))
        if beyond:
            tests.append(builder.icmp_unsigned("<", row, ir.Constant(I64, self.tiling.rows)))
        return _only(builder, y, x, tests)


def _only(builder: Any, y: Any, x: Any, tests: Sequence[Any]) -> PixelPlace:
    """The place where all tests hold."""
    if not tests:
        return PixelPlace(y, x, None)
    new = reduce(builder.and_, tests)
    zero = ir.Constant(I64, 0)
    return PixelPlace(builder.select(new, y, zero), builder.select(new, x, zero), new)
