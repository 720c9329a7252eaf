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

from irc.backends.llvm.kernels.depthwise import Block, Channelwise, find_depthwise
from irc.backends.llvm.kernels.dot import multiply_pairs
from irc.backends.llvm.kernels.epilogue import finish
from irc.backends.llvm.kernels.memory import at, times
from irc.backends.llvm.loop import I32, I64, counted, only_if, within
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.ops.conv import QConv2d
from irc.types import Array

I8, I16 = ir.IntType(8), ir.IntType(16)
STRIP_BYTES = 32 * 1024
"""Packed rows of a strip: a part of the first-level cache."""
TILE = 8
"""Pixels that are computed together, at most."""
TILES = 3
"""Of how many widths there are kernels."""


@dataclass(frozen=True)
class Strip:
    """Output rows that are computed from one packing. Strips start `step` apart, the last one so
    that it ends with the image; all start at an even row of the padded image."""

    rows: int
    step: int
    count: int
    pairs: int
    """Pairs of rows that it reads."""
    columns: int
    """Columns of the padded image that it reads."""

    @property
    def disjoint(self) -> bool:
        """Whether no row is computed twice."""
        return self.count == 1 or self.step == self.rows


def depthwise_pairs(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one depthwise convolution with its elementwise tail."""
    return next(rowpairs(work, target), None)


def rowpairs(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by tiles of a few widths, the one that loads and computes least first."""
    found = find_depthwise(work, target)
    if found is None or found.node.dilations[0] > 1:
        return
    node = found.node
    strip = best_strip(node, found.blocks[0].lanes, repeat=not work.aliased)
    tiles = sorted(range(1, TILE + 1), key=lambda t: (ceil(node.shape[2] / t) * (t + 1), -t))
    for tile in tiles[:TILES]:
        yield _kernel(found, strip, tile, target)


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
        proof="vpmaddwd adds two products of 16 bits in 32: exact",
    )


def phases(node: QConv2d) -> int:
    """How many kinds of output rows there are: starting at even rows, and at odd ones."""
    return 1 if node.strides[0] % 2 == 0 else 2


def best_strip(node: QConv2d, lanes: int, *, repeat: bool) -> Strip:
    """The most rows whose packing fits; `repeat` says that rows may be computed twice."""
    height, width = node.shape[1:3]
    columns = (width - 1) * node.strides[1] + (node.window.kernel[1] - 1) * node.dilations[1] + 1

    def strip(rows: int) -> Strip:
        step = rows if rows == height else rows - rows % phases(node)
        last = (rows - 1) * node.strides[0] + node.window.kernel[0]
        return Strip(rows, step, ceil((height - rows) / step) + 1, ceil(last / 2), columns)

    fits = [height]
    for rows in range(4, height):
        even_end = (height - rows) % phases(node) == 0
        whole = height % rows == 0 and rows % phases(node) == 0
        if whole or (repeat and even_end):
            fits.append(rows)
    sized = [(strip(rows), strip(rows).pairs * columns * lanes * 4) for rows in fits]
    small = [s for s, nbytes in sized if nbytes <= STRIP_BYTES]
    if small:
        return min(small, key=lambda s: (s.count * s.pairs * (1 if s.disjoint else 1.1), -s.rows))
    return min(sized, key=lambda s: s[1])[0]


def best_cut(node: QConv2d, strip: Strip, blocks: tuple[Block, ...]) -> tuple[str, int]:
    """What threads share, and into how many units that is cut: strips, if none does rows of
    another, or vectors of channels; those behind the whole ones go with the last."""
    choices = [("channels", blocks[0].count)]
    if strip.disjoint:
        choices.append(("strips", strip.count))
    return max(choices, key=lambda choice: balance(choice[1]))


def pack(weights: Array, node: QConv2d, block: Block) -> Array:
    """Weights i16 in the order of use: per block, per phase, per column of the window, per pair of
    rows, per channel, two; what is no row of the window is 0."""
    _, kh, kw, _ = weights.shape
    last = block.first + block.lanes * block.count
    part = weights[block.first : last, :, :, 0].astype(np.int16)
    made = []
    for phase in range(phases(node)):
        rows = np.zeros((len(part), row_pairs(node, phase) * 2, kw), np.int16)
        rows[:, phase : phase + kh] = part
        each = rows.reshape(block.count, block.lanes, -1, 2, kw)
        made.append(each.transpose(0, 4, 2, 1, 3).reshape(block.count, -1))
    return np.concatenate(made, axis=1).reshape(-1)


def row_pairs(node: QConv2d, phase: int) -> int:
    """Pairs of rows that a window meets."""
    return ceil((node.window.kernel[0] + phase) / 2)


class _RowPairs:
    def __init__(self, found: Channelwise, strip: Strip, tile: int, cut: str) -> None:
        self.anchor = found.anchor
        self.node = found.node
        self.blocks = found.blocks
        self.strip = strip
        self.tile = tile
        self.cut = cut

    def _bounds(self, cut: str, count: int) -> tuple[Any, Any]:
        """From which to which round a loop goes: as asked where it is the one that is cut."""
        return (self.f.begin, self.f.end) if cut == self.cut and self.f.split else (0, count)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        source, builder = f.places[self.node.x].pointer, f.builder
        last = ir.Constant(I64, self.node.shape[1] - self.strip.rows)
        with counted(builder, self.node.shape[0], label="n") as image:
            base = at(builder, source, times(builder, image.index, self.anchor.strides[0]))
            begin, end = self._bounds("strips", self.strip.count)
            with counted(builder, end, begin=begin, label="strip") as strip:
                start = times(builder, strip.index, self.strip.step)
                start = builder.select(builder.icmp_signed("<", start, last), start, last)
                for channel, weights, lanes in self._channels():
                    self._pack(at(builder, base, channel), start, lanes)
                    self._rows(image.index, start, channel, weights, lanes)

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
        return row_pairs(self.node, phase) * self.node.window.kernel[1] * lanes * 4

    # ------------------------------------------------------------ packing

    def _pack(self, image: Any, start: Any, lanes: int) -> None:
        """Pairs of rows from output row `start` on: [pairs][columns][lanes][2]."""
        builder, node = self.builder, self.node
        first = times(builder, start, node.strides[0])
        first = builder.sub(first, ir.Constant(I64, node.pads[0]))
        left = min(node.pads[1], self.strip.columns)
        inside = min(node.x.shape[2], self.strip.columns - left)
        with counted(builder, self.strip.pairs, label="pair") as pair:
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
        value = self.builder.load(
            at(self.builder, pointer, offset), typ=ir.VectorType(I8, lanes), align=1
        )
        return self.builder.zext(value, ir.VectorType(I32, lanes))

    def _store(self, to: Any, column: Any, both: list[Any], lanes: int) -> None:
        high = self.builder.shl(both[1], ir.Constant(both[1].type, [16] * lanes))
        address = at(self.builder, to, times(self.builder, column, lanes * 4))
        self.builder.store(self.builder.or_(both[0], high), address, align=16)

    def _fill(self, to: Any, first: int, last: int, lanes: int) -> None:
        """Columns of padding."""
        if first >= last:
            return
        zero = self.node.x.type.zero * 0x10001
        value = ir.Constant(ir.VectorType(I32, lanes), [zero] * lanes)
        with counted(self.builder, last - first, label="x") as x:
            column = self.builder.add(x.index, ir.Constant(I64, first))
            address = at(self.builder, to, times(self.builder, column, lanes * 4))
            self.builder.store(value, address, align=16)

    # ------------------------------------------------------------ products

    def _rows(self, image: Any, start: Any, channel: Any, weights: Any, lanes: int) -> None:
        """The rows of the strip, one of each phase in turn."""
        builder, count = self.builder, phases(self.node)
        whole = self.strip.rows // count * count
        if whole:
            with counted(builder, whole, step=count, label="y") as loop:
                for phase in range(count):
                    y = builder.add(loop.index, ir.Constant(I64, phase))
                    self._line(image, start, y, phase, channel, weights, lanes)
        if whole < self.strip.rows:
            y = ir.Constant(I64, whole)
            self._line(image, start, y, 0, channel, weights, lanes)

    def _line(
        self, image: Any, start: Any, y: Any, phase: int, channel: Any, weights: Any, lanes: int
    ) -> None:
        """One row of pixels, whose window begins at an even or (phase 1) odd row of the strip."""
        builder, width = self.builder, self.node.shape[2]
        first = builder.lshr(times(builder, y, self.node.strides[0]), ir.Constant(I64, 1))
        size = self.strip.columns * lanes * 4
        line = at(builder, self.f.scratch, times(builder, first, size))
        weights = at(builder, weights, phase * self._weight_bytes(0, lanes))
        row = builder.add(start, y)
        whole = width // self.tile * self.tile
        loaded = self._weights(weights, phase, lanes)
        if whole:
            with counted(builder, whole, step=self.tile, label="x") as x:
                place = (image, row, x.index, channel)
                self._tile(line, place, self.tile, loaded, lanes)
        if whole < width:
            place = (image, row, ir.Constant(I64, whole), channel)
            self._tile(line, place, width - whole, loaded, lanes)

    def _weights(self, pointer: Any, phase: int, lanes: int) -> list[list[Any]]:
        """Weight vectors by column and pair of rows."""
        pairs, vector = row_pairs(self.node, phase), ir.VectorType(I16, 2 * lanes)

        def load(index: int) -> Any:
            address = at(self.builder, pointer, index * lanes * 4)
            return self.builder.load(address, typ=vector, align=4)

        return [[load(x * pairs + p) for p in range(pairs)]
                for x in range(self.node.window.kernel[1])]  # fmt: skip

    def _tile(
        self, line: Any, place: tuple[Any, ...], count: int, weights: list[list[Any]], lanes: int
    ) -> None:
        builder, node = self.builder, self.node
        start = at(builder, line, times(builder, place[2], node.strides[1] * lanes * 4))
        sums: list[Any] = [None] * count
        taps = [
            (i * node.strides[1] + kx * node.dilations[1], i, kx)
            for i in range(count)
            for kx in range(node.window.kernel[1])
        ]
        vector = ir.VectorType(I16, 2 * lanes)
        for column in sorted({c for c, _, _ in taps}):
            for pair in range(len(weights[0])):
                offset = (pair * self.strip.columns + column) * lanes * 4
                value = builder.load(at(builder, start, offset), typ=vector, align=16)
                for _, i, kx in (t for t in taps if t[0] == column):
                    sums[i] = multiply_pairs(
                        builder, sums[i], value, weights[kx][pair],
                        accumulating=self.f.target.dot is Dot.VPDPBUSD,
                    )  # fmt: skip
        self._finish(place, sums, lanes)

    def _finish(self, place: tuple[Any, ...], sums: list[Any], lanes: int) -> None:
        n, y, x, channel = place
        totals = [
            ((n, y, self.builder.add(x, ir.Constant(I64, i), flags=("nsw",)), channel), total)
            for i, total in enumerate(sums)
        ]
        finish(self.f, self.ranges, self.anchor.reduce, totals, lanes)
