"""A padded copy made row by row, ahead of the tiles that read it: while tiles are multiplied, the
units that move bytes have little else to do."""

from __future__ import annotations

from typing import Any

from irc.backends.llvm.code.loop import I64, i64, maximum, minimum
from irc.backends.llvm.kernels.amx.walk import Walk
from irc.backends.llvm.kernels.halo import Copy, copy_rows
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.work import KernelFunction


class CopyAhead:
    """The copy of an image, or of those rows of it that a function's tiles read."""

    def __init__(self, f: KernelFunction, walk: Walk, copy: Copy, to: Any) -> None:
        self.f, self.builder = f, f.builder
        self.walk, self.copy, self.to = walk, copy, to
        with f.builder.goto_entry_block():
            self._next = f.builder.alloca(I64)

    def begin(self, source: Any, n: Any, tile: Any) -> None:
        """Take the `n`th image on; `tile` is the first that will read it."""
        self._image = at(self.builder, source, times(self.builder, n, self.copy.strides[0]))
        first = times(self.builder, self.walk.row(self.builder, i64(tile), last=False), self._step)
        self.builder.store(first if self._by_rows else i64(0), self._next)

    def until(self, tile: Any) -> None:
        """Copy what is still missing of the rows up to those that a tile reads."""
        builder = self.builder
        done, needed = builder.load(self._next, typ=I64), self._needed(tile)
        with builder.if_then(builder.icmp_unsigned("<", done, needed)):
            width = self.f.target.vector_bytes
            copy_rows(builder, self.copy, self._image, 0, self.to, width, done, needed)
        builder.store(maximum(builder, done, needed), self._next)

    @property
    def _by_rows(self) -> bool:
        """Whether the tiles go down the image; else all is one row."""
        return self.walk.rows > 1

    @property
    def _step(self) -> int:
        """Padded rows from one row of the result to the next."""
        return self.walk.p.pixel[1] // (self.copy.padded[1] * self.copy.padded[2])

    def _needed(self, tile: Any) -> Any:
        """Padded rows down to the last that a tile reads."""
        builder, height = self.builder, self.copy.padded[0]
        if not self._by_rows:
            return i64(height)
        row = times(builder, self.walk.row(builder, tile, last=True), self._step)
        window = height - (self.walk.rows - 1) * self._step
        return minimum(builder, builder.add(row, i64(window)), height)
