"""The loops of a matrix product around its tiles, and the expression behind its sums.

    for each image, block of pixel rows          (the block stays in the cache)
        for each block of channels               (its weights stay in the cache)
            for each tile of pixels
                for each tap, for each word:  acc[r][v] += dot(broadcast(x[r]), w[v])
                epilogue: the expression around the reduction, on vectors, and a store

While a block's weights are used, the next block's are asked for, a part by each tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.loop import I64, counted, i64, minimum, only_if, within
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.gemm.product import Product
from irc.backends.llvm.kernels.halo import Copy, copy_rows, read_rows
from irc.backends.llvm.kernels.results.epilogue import beginning, column_groups, finish, started
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, beyond, times
from irc.backends.llvm.kernels.vectors.tile import Ahead, RegisterTile, carrying
from irc.backends.llvm.work import KernelFunction

BLOCK_BYTES = 128 * 1024
"""Activations of a block of pixel rows: a part of the second-level cache."""
PIECE_BYTES = 32 * 1024
"""Activations of pixels that are copied together: a part of the first-level cache."""
AHEAD_BYTES = 8 * 1024
"""Weights of a block from which on those of the next one are asked for ahead of time."""


@dataclass(frozen=True)
class Tile:
    """Pixels and vectors of channels whose accumulators are in registers at one time."""

    rows: int
    vectors: int


@dataclass(frozen=True)
class Use:
    """One of the times that a block's weights are used: its number (an i64), and of how many."""

    number: Any
    times: int

    def part(self, builder: Any, index: Any, count: int) -> Use:
        """One of `count` that this one consists of."""
        first = times(builder, self.number, count)
        return Use(builder.add(first, index), self.times * count)


def vectors_of(p: Product, dot: DotProduct) -> int:
    """Vectors of channels in a group."""
    return ceil(p.columns / dot.lanes)


def piece_tiles(copy: Copy, tile: Tile) -> int:
    """Tiles whose pixels are copied together."""
    return max(1, PIECE_BYTES // (tile.rows * copy.row_bytes))


def scratch_bytes(p: Product, tile: Tile) -> int:
    """What the copy takes, if there is one: of an image, or of a piece."""
    if p.copy is None:
        return 0
    rows, *rest = p.copy.extent
    if p.piecewise:
        rows = min(rows, piece_tiles(p.copy, tile) * tile.rows)
    return replace(p.copy, extent=(rows, *rest)).nbytes


@dataclass(frozen=True)
class ChannelBlock:
    """The block of channels being emitted: its first channel and its group (i64), its packed
    weights, and how many vectors and channels it has."""

    first: Any
    group: Any
    weights: Any
    vectors: int
    channels: int


def channel_blocks(
    builder: Any,
    p: Product,
    pointer: Any,
    column: int,
    vectors: int,
    lanes: int,
    *,
    header: int = 0,
    groups: tuple[Any, Any] | None = None,
    blocks: tuple[Any, Any] | None = None,
) -> Iterator[ChannelBlock]:
    """The blocks of channels of every group: a loop over whole blocks of `vectors`, then the rest.
    Packed weights take `column` bytes per channel behind a block's `header` of so many bytes.
    `groups` and `blocks` say from which to which, default all."""
    size, last = (header + column * v * lanes for v in (vectors, _rest(p, vectors, lanes)))
    whole = p.columns // (vectors * lanes)
    rest = _rest(p, vectors, lanes)
    group_bytes = whole * size + (last if rest else 0)
    first_group, last_group = groups or (0, p.groups)
    begin, end = blocks or (0, whole + (rest > 0))
    with counted(builder, last_group, begin=first_group, label="g") as group:
        start = at(builder, pointer, times(builder, group.index, group_bytes))
        first = times(builder, group.index, p.columns)
        if whole:
            with within(builder, whole, begin, end, label="o") as block:
                weights = at(builder, start, times(builder, block.index, size))
                channel = builder.add(first, times(builder, block.index, vectors * lanes))
                yield ChannelBlock(channel, group.index, weights, vectors, vectors * lanes)
        if rest:
            with only_if(builder, end, whole + 1):
                done = whole * vectors * lanes
                channel = builder.add(first, ir.Constant(I64, done))
                weights = at(builder, start, whole * size)
                yield ChannelBlock(channel, group.index, weights, rest, p.columns - done)


def _rest(p: Product, vectors: int, lanes: int) -> int:
    """Vectors behind the whole blocks."""
    return ceil(p.columns / lanes) - p.columns // (vectors * lanes) * vectors


class Gemm:
    """Emits the loops of the module's docstring. What one tile sums up, and what stands before a
    block's packed weights, can be otherwise."""

    def __init__(self, product: Product, dot: DotProduct, tile: Tile, cut: str) -> None:
        """For a product, by tiles of a dot product, cut for threads along a loop."""
        self.p = product
        self.dot = dot
        self.tile = tile
        self.cut = cut

    @property
    def header(self) -> int:
        """Bytes in front of the packed weights of a block of channels."""
        return self.tile.vectors * self.dot.nbytes if self.dot.signed else 0

    def _bounds(self, cut: str, count: int) -> tuple[Any, Any]:
        """Where a loop of `count` rounds begins and ends: as asked where it is the one that is cut,
        else all of it."""
        return (self.f.begin, self.f.end) if cut == self.cut and self.f.split else (0, count)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        self.start = started(f.work.loops.result.value, self.p.reduce, self.p.axes)
        images, rows, _ = self.p.pixels
        source = f.places[self.p.source].pointer
        if self.p.piecewise:
            self._pieces(source)
            return
        first, last = self._bounds("rows", rows)
        with counted(self.builder, images, label="n") as image:
            base = source
            if self.p.copy is not None:
                self._copy(self.p.copy, source, image.index)
                base = f.scratch
            height = self._block_rows()
            with counted(self.builder, last, begin=first, step=height, label="yb") as block:
                end = block.end(self.builder, last, height)
                for channels in self._blocks():
                    with counted(self.builder, end, begin=block.index, label="y") as row:
                        use = Use(self.builder.sub(row.index, block.index), height)
                        self._row(base, image.index, row.index, channels, use)

    def _pieces(self, source: Any) -> None:
        """The pixels of the only row, as many at a time as are copied together: whole tiles."""
        builder, copy, height, columns = self.builder, self.p.copy, self.tile.rows, self.p.pixels[2]
        assert copy is not None, "pieces are copied"
        begin, end = self._bounds("tiles", ceil(columns / height))
        step = piece_tiles(copy, self.tile)
        with counted(builder, end, begin=begin, step=step, label="piece") as piece:
            stop = minimum(builder, builder.add(piece.index, i64(step)), end)
            first = times(builder, piece.index, height)
            last = minimum(builder, times(builder, stop, height), columns)
            start = at(builder, source, times(builder, first, copy.strides[1]))
            copy_rows(builder, copy, start, 0, self.f.scratch, self.f.target.vector_bytes,
                      0, builder.sub(last, i64(first)))  # fmt: skip
            zero = i64(0)
            once, tiles = Use(zero, 1), (piece.index, stop)
            for channels in self._blocks():
                self._row(self.f.scratch, zero, zero, channels, once, tiles, first)

    def _copy(self, copy: Copy, source: Any, image: Any) -> None:
        """The rows of an image that rows of the result read, with their padding."""
        f, needed = self.f, (0, copy.padded[0])
        if self.cut == "rows":
            step = self.p.pixel[1] // copy.row_bytes
            needed = read_rows(f, copy, self.p.pixels[1], step)
        copy_rows(self.builder, copy, source, image, f.scratch, f.target.vector_bytes, *needed)

    def _block_rows(self) -> int:
        """Rows of a block: a divisor, so that all blocks are alike."""
        rows, columns = self.p.pixels[1:]
        bytes_per_row = max(1, columns * self.p.pixel[2])
        fit = [d for d in range(1, rows + 1) if rows % d == 0 and d * bytes_per_row <= BLOCK_BYTES]
        return max(fit, default=1)

    def _blocks(self) -> Iterator[ChannelBlock]:
        p, vectors = self.p, self.tile.vectors
        column = p.depth * self.dot.streams * self.dot.weight_bytes // self.dot.lanes
        return channel_blocks(
            self.builder, p, self.f.arrays[0], column, vectors, self.dot.lanes,
            header=self.header, groups=self._bounds("groups", p.groups),
            blocks=self._bounds("channels", ceil(vectors_of(p, self.dot) / vectors)),
        )  # fmt: skip

    def _row(
        self, base: Any, n: Any, y: Any, block: ChannelBlock, use: Use,
        tiles: tuple[Any, Any] | None = None, origin: Any = 0,
    ) -> None:  # fmt: skip
        """One row of pixels: whole tiles, then a narrower one; of these only `tiles`, where some
        are asked for. What is read begins with the pixel `origin`."""
        builder, p = self.builder, self.p
        start = at(builder, base, times(builder, n, p.pixel[0]))
        start = at(builder, start, times(builder, y, p.pixel[1]))
        start = at(builder, start, times(builder, block.group, p.group_bytes))
        height = self.tile.rows
        whole, rest = divmod(p.pixels[2], height)
        count = whole + (rest > 0)
        begin, end = tiles or self._bounds("tiles", count)
        if whole:
            with within(builder, whole, begin, end, label="x") as tile:
                x = times(builder, tile.index, height)
                each = use.part(builder, tile.index, count)
                self._tile(self._shifted(start, x, origin), (n, y, x), height, block, each)
        if rest:
            with only_if(builder, end, count):
                x = ir.Constant(I64, whole * height)
                last = use.part(builder, i64(whole), count)
                self._tile(self._shifted(start, x, origin), (n, y, x), rest, block, last)

    def _shifted(self, start: Any, x: Any, origin: Any) -> Any:
        """Where a pixel's bytes begin."""
        x = x if isinstance(origin, int) else self.builder.sub(x, origin)
        return at(self.builder, start, times(self.builder, x, self.p.pixel[2]))

    def _tile(
        self, first: Any, pixel: tuple[Any, Any, Any], rows: int, block: ChannelBlock, use: Use
    ) -> None:
        tile = RegisterTile(self.dot, rows, block.vectors, self.p.pixel[2])
        self._epilogue(pixel, rows, block, self.sums(first, block, tile, use))

    def sums(self, first: Any, block: ChannelBlock, tile: RegisterTile, use: Use) -> list[Any]:
        """The accumulators of a tile whose first pixel's bytes begin at `first`."""
        begin = self.beginning(block, tile)
        weights = at(self.builder, block.weights, self.header)
        return self._taps(0, first, weights, tile, begin, self.ahead(weights, tile, use))

    def beginning(self, block: ChannelBlock, tile: RegisterTile) -> list[Any]:
        """What the accumulators of a tile begin with."""
        added = beginning(
            self.f, self.ranges, self.start, block.first, block.channels, self.dot.lanes
        )
        if not self.dot.signed:
            return tile.zeros() if added is None else added * tile.rows
        packed = tile.packed_beginning(self.builder, block.weights)
        if added is not None:
            packed = [self.builder.add(p, a) for p, a in zip(packed, added, strict=True)]
        return packed * tile.rows

    def ahead(self, weights: Any, tile: RegisterTile, use: Use) -> Ahead | None:
        """The part of the next block's weights that is due while these are used once: they lie
        behind these. None where they are few, or used once only."""
        nbytes = self.p.depth * tile.step
        if not self.f.target.is_x86 or nbytes < AHEAD_BYTES or use.times == 1:
            return None
        step = 1 << (ceil(tile.step / use.times) - 1).bit_length()
        part = times(self.builder, use.number, self.p.depth * step)
        return Ahead(beyond(self.builder, at(self.builder, weights, nbytes), part), step)

    def _taps(
        self, level: int, x: Any, w: Any, tile: RegisterTile, sums: list[Any],
        ahead: Ahead | None,
    ) -> list[Any]:  # fmt: skip
        """The loops over taps, outermost first; then the words of a run."""
        if level == len(self.p.taps):
            return tile.run(self.builder, x, w, self.p.words, sums, ahead)
        extent, step = self.p.taps[level]
        inner = self.p.words
        for count, _ in self.p.taps[level + 1 :]:
            inner *= count

        def body(index: Any, carried: list[Any]) -> list[Any]:
            source = at(self.builder, x, times(self.builder, index, step))
            weights = at(self.builder, w, times(self.builder, index, inner * tile.step))
            left = ahead and ahead.after(self.builder, times(self.builder, index, inner))
            return self._taps(level + 1, source, weights, tile, carried, left)

        return carrying(self.builder, extent, 1, sums, body)

    def _epilogue(
        self, pixel: tuple[Any, Any, Any], rows: int, block: ChannelBlock, sums: list[Any]
    ) -> None:
        """The expression around the reduction, two vectors at a time."""
        lanes = self.dot.lanes
        for start, count, width in column_groups(block.channels, lanes, 2):
            channel = self.builder.add(block.first, ir.Constant(I64, start * lanes))
            totals = []
            for r in range(rows):
                at_row = sums[r * block.vectors : (r + 1) * block.vectors][start : start + count]
                x = self.builder.add(pixel[2], ir.Constant(I64, r), flags=("nsw",))
                place = (pixel[0], pixel[1], x, channel)
                totals.append((place, join(self.builder, at_row, width)))
            finish(self.f, self.ranges, self.start.total, totals, width)
