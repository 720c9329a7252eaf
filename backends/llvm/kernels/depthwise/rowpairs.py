"""Depthwise convolutions over pairs of rows, packed as `vpmaddwd` wants them.

Of one vector of channels, a strip of rows is packed first: two rows, 2j and 2j + 1, become one of
i16 in turns, the padding among them. An output row that starts at an even row then needs no more
than loads; one that starts at an odd row takes the same pairs by weights that are shifted by one
row. Every pair serves all rows of the window, and all of its columns, that meet it.

    for each image, strip of rows, vector of channels
        pack the strip                      (it stays in the first-level cache)
        for each row, tile of pixels
            for each column, for each pair of rows: acc[i] += madd(column, w)
            epilogue, as in gemm
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import (
    I32,
    I64,
    counted,
    i64,
    maximum,
    minimum,
    only_if,
    spanned,
    within,
)
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.depthwise.layers import (
    Block,
    Channelwise,
    channelwise_start,
    find_depthwise,
    finish_pixels,
    load_channels,
    same_pairs,
    source_of,
)
from irc.backends.llvm.kernels.depthwise.strips import (
    Padding,
    Strip,
    best_strip,
    image_cycles,
    phases,
    row_pairs,
)
from irc.backends.llvm.kernels.results.epilogue import beginning
from irc.backends.llvm.kernels.vectors.dot import multiply_pairs
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.tile import carrying
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import (
    OTHERS_BYTES,
    KernelFunction,
    MicroKernel,
    Work,
    shared_cycles,
)
from irc.ops.conv import QConv2d
from irc.types import Array

I8, I16 = ir.IntType(8), ir.IntType(16)
YMM = 32
"""Bytes of vectors whose bytes are interleaved before they are widened; wider ones would cross
their lanes."""
TILE = 8
"""Pixels that are computed together, at most."""
TILES = 3
"""Of how many widths there are kernels."""
SPILLED = 0.45
"""Of the time of a pixel: more, where its sums don't stay in registers beside weights; sums of four
pixels do in 16 registers."""


def depthwise_pairs(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one depthwise convolution with its elementwise tail."""
    return next(rowpairs(work, target), None)


def rowpairs(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by tiles of a few widths, the one that loads and computes least first."""
    found = find_depthwise(work, target)
    if found is None or found.node.dilations[0] > 1:
        return
    node = found.node
    strip = best_strip(node, found.blocks[0].lanes)
    for tile in best_tiles(node.shape[2], target)[:TILES]:
        yield _kernel(found, strip, tile, target)


def best_tiles(width: int, target: Target) -> list[int]:
    """Widths of tiles for rows of so many pixels, the one first that loads and computes least."""
    free = target.registers // 4
    if not target.is_x86 or free >= TILE:
        return sorted(range(1, TILE + 1), key=lambda t: (ceil(width / t) * (t + 1), -t))

    def cost(tile: int) -> float:
        return (tile + 1 + SPILLED * max(0, tile - free)) * (tile > 0)

    def costs(tile: int) -> tuple[float, int]:
        whole, rest = divmod(width, tile)
        return whole * cost(tile) + cost(rest), -tile

    return sorted(range(1, min(TILE, width) + 1), key=costs)


def _kernel(found: Channelwise, strip: Strip, tile: int, target: Target) -> MicroKernel:
    anchor, node, blocks = found.anchor, found.node, found.blocks
    cut, units = best_cut(node, strip, blocks)
    kernel = "x".join(map(str, node.window.kernel))
    zeros = np.full(64, node.x.type.zero, np.uint8)
    return MicroKernel(
        name=f"qdepthwise_u8i8_{kernel}_{tile}x{blocks[0].lanes}_rowpairs_"
        f"{target.vector_bytes * 8}",
        key=str((node.strides, node.pads, node.dilations, blocks, strip, cut)),
        emit=_RowPairs(found, strip, tile, cut).emit,
        arrays=(np.concatenate([pack(anchor.weights, node, b) for b in blocks]), zeros),
        replaces=(node.w,),
        scratch=strip.pairs * strip.columns * blocks[0].lanes * 4,
        units=units,
        reason=f"strips of {strip.rows} rows, tile of {tile} pixels,"
        f" {blocks[0].lanes} channels at a time",
        proof="two products of 16 bits are added in 32: exact",
    )


def best_cut(node: QConv2d, strip: Strip, blocks: tuple[Block, ...]) -> tuple[str, int]:
    """What threads share, and into how many units that is cut: rows, of each phase one, or vectors
    of channels, those behind the whole ones with the last. Neighbouring layers are cut by rows:
    of channels, most was written by others."""
    cycles = image_cycles(node, strip.rows, blocks[0].lanes) * node.shape[0]
    rows, channels = ceil(node.shape[1] / phases(node)), blocks[0].count
    by_channels = shared_cycles(channels, cycles, node.x.type.nbytes / OTHERS_BYTES)
    by_rows = shared_cycles(rows, cycles, 0)
    return ("rows", rows) if by_rows < by_channels else ("channels", channels)


def pack(weights: Array, node: QConv2d, block: Block) -> Array:
    """Per block, per phase: i32 what skipped rows of padding come to, per number of pairs skipped
    above and below, per channel; then weights i16, per pair of rows, per column of the window, per
    channel, two; what is no row of the window is 0."""
    _, kh, kw, _ = weights.shape
    last = block.first + block.lanes * block.count
    part = weights[block.first : last, :, :, 0].astype(np.int16)
    made = []
    for phase in range(phases(node)):
        pairs = row_pairs(node, phase)
        rows = np.zeros((len(part), pairs * 2, kw), np.int16)
        rows[:, phase : phase + kh] = part
        each = rows.reshape(block.count, block.lanes, pairs, 2, kw)
        made.append(_skipped(each.sum(axis=(3, 4), dtype=np.int32), node))
        made.append(each.transpose(0, 2, 4, 1, 3).reshape(block.count, -1))
    return np.concatenate([m.view(np.uint8) for m in made], axis=1).reshape(-1)


def _skipped(sums: Array, node: QConv2d) -> Array:
    """i32 [blocks, ...] from the sums [blocks, lanes, pairs] of weights."""
    count, lanes, pairs = sums.shape
    padding = Padding.of(node)
    if not padding.skips:
        return np.zeros((count, 0), np.int32)
    made = np.zeros((count, padding.above + 1, padding.below + 1, lanes), np.int32)
    for above in range(padding.above + 1):
        for below in range(padding.below + 1):
            gone = np.arange(pairs) < above
            gone |= np.arange(pairs) >= pairs - below
            made[:, above, below] = node.x.type.zero * sums[:, :, gone].sum(axis=2)
    return made.reshape(count, -1)


@dataclass(frozen=True)
class Window:
    """Of a row: its first pair that is computed and how many (numbers, or i64), what sums begin
    with, the others and a bias (None: nothing), where the weights of all begin, and these
    themselves, by pair and column, where all are computed."""

    begin: Any
    count: Any
    sums: Any
    weights: Any
    loaded: list[list[Any]]


class _RowPairs:
    def __init__(self, found: Channelwise, strip: Strip, tile: int, cut: str) -> None:
        self.anchor = found.anchor
        self.node = found.node
        self.multiplier = found.multiplier
        self.blocks = found.blocks
        self.strip = strip
        self.tile = tile
        self.cut = cut
        self.padding = Padding.of(found.node)

    def _bounds(self, cut: str, count: int) -> tuple[Any, Any]:
        """From which to which round a loop goes: as asked where it is the one that is cut."""
        return (self.f.begin, self.f.end) if cut == self.cut and self.f.split else (0, count)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        self.start = channelwise_start(f, self.anchor, begun=self.padding.skips)
        source, builder = f.places[self.node.x].pointer, f.builder
        first, last = self._image_rows()
        with counted(builder, self.node.shape[0], label="n") as image:
            base = at(builder, source, times(builder, image.index, self.anchor.strides[0]))
            with spanned(builder, first, last, step=self.strip.rows, label="strip") as start:
                rows = minimum(builder, builder.sub(i64(last), start), self.strip.rows)
                for channel, weights, lanes in self._channels():
                    read = source_of(builder, channel, self.multiplier)
                    self._pack(at(builder, base, read), (start, rows), lanes)
                    self._rows(image.index, (start, rows), channel, weights, lanes)

    def _image_rows(self) -> tuple[Any, Any]:
        """From which row of the result to which."""
        height, count = self.node.shape[1], phases(self.node)
        begin, end = self._bounds("rows", ceil(height / count))
        if isinstance(end, int):
            return 0, height
        end = minimum(self.builder, times(self.builder, end, count), height)
        return times(self.builder, begin, count), end

    def _channels(self) -> Iterator[tuple[Any, Any, int]]:
        """First channel, packed weights and lanes of every vector of channels."""
        whole, *others = self.blocks
        begin, end = self._bounds("channels", whole.count)
        with within(self.builder, whole.count, begin, end, label="c") as loop:
            yield self._channel(whole, loop.index, 0)
        start = self._weights_of(whole.lanes) * whole.count
        with only_if(self.builder, end, whole.count):
            for block in others:
                with counted(self.builder, block.count, label="c") as loop:
                    yield self._channel(block, loop.index, start)
                start += self._weights_of(block.lanes) * block.count

    def _channel(self, block: Block, index: Any, start: int) -> tuple[Any, Any, int]:
        builder = self.builder
        first = builder.add(times(builder, index, block.lanes), ir.Constant(I64, block.first))
        weights = at(builder, self.f.arrays[0], start)
        size = self._weights_of(block.lanes)
        return first, at(builder, weights, times(builder, index, size)), block.lanes

    def _weights_of(self, lanes: int) -> int:
        """Bytes of the weights of one vector of channels."""
        return sum(self._weight_bytes(phase, lanes) for phase in range(phases(self.node)))

    def _weight_bytes(self, phase: int, lanes: int) -> int:
        pairs = row_pairs(self.node, phase) * self.node.window.kernel[1]
        return (self.padding.states + pairs) * lanes * 4

    # ------------------------------------------------------------ packing

    def _pack(self, image: Any, strip: tuple[Any, Any], lanes: int) -> None:
        """Pairs of rows that a strip of output rows reads (the first one, how many):
        [pairs][columns][lanes][2]."""
        builder, node = self.builder, self.node
        start, _ = strip
        first = times(builder, start, node.strides[0])
        first = builder.sub(first, ir.Constant(I64, node.pads[0]))
        left = min(node.pads[1], self.strip.columns)
        inside = min(node.x.shape[2], self.strip.columns - left)
        with within(builder, self.strip.pairs, *self._packed(*strip), label="pair") as pair:
            row = builder.add(first, times(builder, pair.index, 2))
            following = builder.add(row, ir.Constant(I64, 1))
            rows = [self._row(image, row), self._row(image, following)]
            size = self.strip.columns * lanes * 4
            to = at(builder, self.f.scratch, times(builder, pair.index, size))
            self._fill(to, 0, left, lanes)
            if inside:
                with counted(builder, inside, label="x") as x:
                    column = builder.add(x.index, ir.Constant(I64, left))
                    both = [self._load(p, builder.mul(x.index, step), lanes) for p, step in rows]
                    self._store(to, column, both, lanes)
            self._fill(to, left + inside, self.strip.columns, lanes)

    def _packed(self, start: Any, rows: Any) -> tuple[Any, Any]:
        """From which to which of its pairs a strip is packed."""
        builder, node = self.builder, self.node
        read = times(builder, builder.sub(rows, i64(1)), node.strides[0])
        read = builder.add(read, i64(node.window.kernel[0] + 1))
        pairs = builder.lshr(read, i64(1))
        if not self.padding.skips:
            return i64(0), pairs
        return self._among(self._first_pair(start), self.padding.real, pairs)

    def _first_pair(self, row: Any) -> Any:
        """The first pair of rows that an output row's window meets."""
        step = times(self.builder, row, self.node.strides[0])
        return self.builder.lshr(step, ir.Constant(I64, 1))

    def _among(self, first: Any, real: tuple[int, int], count: Any) -> tuple[Any, Any]:
        """Of `count` pairs from `first` on, those that hold rows of the image."""
        builder = self.builder
        begin, end = (builder.sub(ir.Constant(I64, r), first) for r in real)
        begin = minimum(builder, maximum(builder, begin, 0), count)
        return begin, maximum(builder, minimum(builder, end, count), begin)

    def _row(self, image: Any, row: Any) -> tuple[Any, Any]:
        """Where a row begins and the bytes from pixel to pixel; rows of the padding are one pixel
        that stays."""
        builder, strides = self.builder, self.anchor.strides
        height = ir.Constant(I64, self.node.x.shape[1])
        inside = builder.icmp_unsigned("<", row, height)
        row = builder.select(inside, row, ir.Constant(I64, 0))
        pointer = at(builder, image, times(builder, row, strides[1]))
        step = builder.select(inside, ir.Constant(I64, strides[2]), ir.Constant(I64, 0))
        return builder.select(inside, pointer, self.f.arrays[1]), step

    def _load(self, pointer: Any, offset: Any, lanes: int) -> Any:
        address = at(self.builder, pointer, offset)
        return load_channels(self.builder, address, lanes, self.multiplier)

    def _store(self, to: Any, column: Any, both: list[Any], lanes: int) -> None:
        builder, words = self.builder, ir.VectorType(I32, lanes)
        if self.multiplier >= lanes:
            value = same_pairs(builder, both, lanes)
        elif lanes * 4 <= YMM:
            order = [lane + side for lane in range(lanes) for side in (0, lanes)]
            mask = shuffle_mask(order)
            pairs = builder.shuffle_vector(*both, mask)
            value = builder.zext(pairs, ir.VectorType(I16, 2 * lanes))
        else:
            low, high = (builder.zext(b, words) for b in both)
            value = builder.or_(low, builder.shl(high, constant(words, 16)))
        address = at(builder, to, times(builder, column, lanes * 4))
        builder.store(value, address, align=16)

    def _fill(self, to: Any, first: int, last: int, lanes: int) -> None:
        """Columns of padding."""
        if first >= last:
            return
        zero = self.node.x.type.zero * 0x10001
        value = constant(ir.VectorType(I32, lanes), zero)
        with counted(self.builder, last - first, label="x") as x:
            column = self.builder.add(x.index, ir.Constant(I64, first))
            address = at(self.builder, to, times(self.builder, column, lanes * 4))
            self.builder.store(value, address, align=16)

    # ------------------------------------------------------------ products

    def _rows(
        self, image: Any, strip: tuple[Any, Any], channel: Any, weights: Any, lanes: int
    ) -> None:
        """The rows of a strip, one of each phase in turn; the last of an image may be one alone."""
        builder, count = self.builder, phases(self.node)
        start, number = strip
        whole = builder.and_(number, i64(-count))
        with within(builder, self.strip.rows, i64(0), whole, label="y", step=count) as loop:
            for phase in range(count):
                y = builder.add(loop.index, i64(phase))
                self._line(image, start, y, phase, channel, weights, lanes)
        if self.node.shape[1] % count:
            with builder.if_then(builder.icmp_signed("<", whole, number)):
                self._line(image, start, whole, 0, channel, weights, lanes)

    def _line(
        self, image: Any, start: Any, y: Any, phase: int, channel: Any, weights: Any, lanes: int
    ) -> None:
        """One row of pixels, whose window begins at an even or (phase 1) odd row of the strip."""
        builder, width = self.builder, self.node.shape[2]
        size = self.strip.columns * lanes * 4
        line = at(builder, self.f.scratch, times(builder, self._first_pair(y), size))
        weights = at(builder, weights, phase * self._weight_bytes(0, lanes))
        row = builder.add(start, y)
        window = self._window(row, phase, channel, weights, lanes)
        whole = width // self.tile * self.tile
        if whole:
            with counted(builder, whole, step=self.tile, label="x") as x:
                place = (image, row, x.index, channel)
                self._tile(line, place, self.tile, window, lanes)
        if whole < width:
            place = (image, row, ir.Constant(I64, whole), channel)
            self._tile(line, place, width - whole, window, lanes)

    def _window(self, row: Any, phase: int, channel: Any, weights: Any, lanes: int) -> Window:
        """What all tiles of a row have in common."""
        builder, pairs = self.builder, row_pairs(self.node, phase)
        added = beginning(self.f, self.ranges, self.start, channel, lanes, lanes) or [None]
        if not self.padding.skips:
            loaded = [self._weights(weights, pair, lanes) for pair in range(pairs)]
            return Window(0, pairs, added[0], weights, loaded)
        begin, end = self._among(self._first_pair(row), self.padding.real, pairs)
        below = builder.sub(ir.Constant(I64, pairs), end)
        state = builder.add(times(builder, begin, self.padding.below + 1), below)
        vector = ir.VectorType(I32, lanes)
        address = at(builder, weights, times(builder, state, lanes * 4))
        skipped = builder.load(address, typ=vector, align=4)
        if added[0] is not None:
            skipped = builder.add(skipped, added[0])
        weights = at(builder, weights, self.padding.states * lanes * 4)
        return Window(begin, builder.sub(end, begin), skipped, weights, [])

    def _weights(self, pointer: Any, pair: Any, lanes: int) -> list[Any]:
        """Weight vectors of a pair of rows by column."""
        width, vector = self.node.window.kernel[1], ir.VectorType(I16, 2 * lanes)
        pointer = at(self.builder, pointer, self._scaled(pair, width * lanes * 4))
        return [
            self.builder.load(at(self.builder, pointer, x * lanes * 4), typ=vector, align=4)
            for x in range(width)
        ]

    def _scaled(self, index: Any, factor: int) -> Any:
        return index * factor if isinstance(index, int) else times(self.builder, index, factor)

    def _tile(
        self, line: Any, place: tuple[Any, ...], count: int, window: Window, lanes: int
    ) -> None:
        builder = self.builder
        start = at(builder, line, times(builder, place[2], self.node.strides[1] * lanes * 4))
        sums: list[Any] = [window.sums] * count
        if window.loaded:
            for pair, weights in enumerate(window.loaded):
                sums = self._pair(start, pair, weights, sums, lanes)
            finish_pixels(self.f, self.ranges, self.start, place, sums, lanes)
            return

        def body(index: Any, carried: list[Any]) -> list[Any]:
            pair = builder.add(window.begin, index)
            weights = self._weights(window.weights, pair, lanes)
            return self._pair(start, pair, weights, carried, lanes)

        sums = carrying(builder, window.count, 1, sums, body)
        finish_pixels(self.f, self.ranges, self.start, place, sums, lanes)

    def _pair(
        self, start: Any, pair: Any, weights: list[Any], sums: list[Any], lanes: int
    ) -> list[Any]:
        """The sums after one pair of rows."""
        builder, node, sums = self.builder, self.node, list(sums)
        start = at(builder, start, self._scaled(pair, self.strip.columns * lanes * 4))
        taps = [
            (i * node.strides[1] + kx * node.dilations[1], i, kx)
            for i in range(len(sums))
            for kx in range(node.window.kernel[1])
        ]
        vector = ir.VectorType(I16, 2 * lanes)
        for column in sorted({c for c, _, _ in taps}):
            value = builder.load(at(builder, start, column * lanes * 4), typ=vector, align=16)
            for _, i, kx in (t for t in taps if t[0] == column):
                sums[i] = multiply_pairs(builder, sums[i], value, weights[kx], self.f.target.dot)
        return sums
