"""Depthwise convolutions: lanes are channels, two vertical taps meet in one `vpmaddwd`.

For each column of the window, rows are taken in pairs: their bytes are interleaved and widened to
i16, so that one instruction multiplies both by their weights and adds the two products, exactly. A
tile of neighbouring pixels shares its columns: each is loaded and widened once.

    for each image, row of pixels
        for each block of channels       (its weights stay in registers)
            for each tile of pixels
                for each column, for each pair of rows: acc[i] += madd(column, w)
                epilogue, as in gemm
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import shuffle_mask
from irc.backends.llvm.code.loop import I32, I64, counted, splat
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.halo import Copy, copy_rows, read_rows
from irc.backends.llvm.kernels.results.epilogue import Start, beginning, finish, started
from irc.backends.llvm.kernels.vectors.dot import multiplies, multiply_pairs
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work
from irc.ops.conv import QConv2d
from irc.plan import dense_strides
from irc.types import Array, Shape

I8, I16 = ir.IntType(8), ir.IntType(16)
NARROWEST = 4
"""Lanes of the narrowest block of channels."""
TILES = (8, 4, 2)
"""Pixels of a tile; at most a quarter of the registers."""


@dataclass(frozen=True)
class Block:
    """Channels that are computed together: `count` blocks of `lanes` from `first` on."""

    first: int
    lanes: int
    count: int = 1


@dataclass(frozen=True)
class Channelwise:
    """A depthwise convolution over u8, and the blocks of channels that it is computed in."""

    anchor: Anchor
    node: QConv2d
    blocks: tuple[Block, ...]

    @property
    def multiplier(self) -> int:
        """How many channels are made of each one that is read, a power of two."""
        return self.node.shape[3] // self.node.groups


def depthwise(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one depthwise convolution with its elementwise tail."""
    return next(depthwises(work, target), None)


def depthwises(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by tiles of fewer and fewer pixels."""
    found = find_depthwise(work, target)
    if found is None:
        return
    for tile in TILES:
        if tile <= target.registers // 4:
            yield _kernel(found, min(found.node.shape[2], tile), target)


def find_depthwise(work: Work, target: Target) -> Channelwise | None:
    """The depthwise convolution of a work and the vectors of channels that do it; None where it is
    none, or `target` has no vectors for it."""
    anchor = find_anchor(work)
    if anchor is None or not isinstance(anchor.node, QConv2d) or not multiplies(target):
        return None
    node = anchor.node
    channels = node.shape[3]
    single = node.groups == node.x.shape[3] > 1 and (channels // node.groups).bit_count() == 1
    if not single or target.vector_bytes < 16:
        return None
    blocks = channel_blocks(channels, target.vector_bytes // 4, overlap=not work.aliased)
    return None if blocks is None else Channelwise(anchor, node, blocks)


def _kernel(found: Channelwise, tile: int, target: Target) -> MicroKernel:
    anchor, node, blocks = found.anchor, found.node, found.blocks
    copy = None
    if node.window.padded:
        copy = Copy(node.x.shape[1:], anchor.strides[:3], node.pads, node.x.type.zero)
    kernel = "x".join(map(str, node.window.kernel))
    return MicroKernel(
        name=f"qdepthwise_u8i8_{kernel}_{tile}x{blocks[0].lanes}_{target.vector_bytes * 8}",
        key=str((node.strides, node.pads, node.dilations, blocks)),
        emit=_Depthwise(found, tile, copy).emit,
        arrays=(np.concatenate([pack(anchor.weights, b) for b in blocks]),),
        replaces=(node.w,),
        scratch=copy.nbytes if copy else 0,
        units=node.shape[1],
        reason=f"tile of {tile} pixels, {blocks[0].lanes} channels at a time",
        proof="two products of 16 bits are added in 32: exact",
    )


def channel_blocks(channels: int, lanes: int, *, overlap: bool) -> tuple[Block, ...] | None:
    """Blocks that cover the channels: whole vectors, then one more that ends at the end and does
    some channels twice, or else narrower ones; None where the rest is too narrow."""
    whole, rest = divmod(channels, lanes)
    blocks = [Block(0, lanes, whole)] if whole else []
    if rest and whole and overlap:
        return (*blocks, Block(channels - lanes, lanes))
    first = whole * lanes
    while rest:
        width = 1 << (rest.bit_length() - 1)
        if width < NARROWEST:
            return None
        blocks.append(Block(first, width))
        first, rest = first + width, rest - width
    return tuple(blocks)


def pack(weights: Array, block: Block) -> Array:
    """Weights i16 in the order of use: per block, per column of the window, per pair of rows, per
    channel, two; a missing row is 0."""
    _, kh, kw, _ = weights.shape
    pairs = np.zeros((len(weights), ceil(kh / 2) * 2, kw), np.int16)
    pairs[:, :kh] = weights[..., 0]
    last = block.first + block.lanes * block.count
    part = pairs[block.first : last].reshape(block.count, block.lanes, -1, 2, kw)
    return np.ascontiguousarray(part.transpose(0, 4, 2, 1, 3)).reshape(-1)


def channelwise_start(f: KernelFunction, anchor: Anchor, *, begun: bool = False) -> Start:
    """What sums begin with: with a bias where that takes no instruction, since products are added
    as they are made, or sums have `begun` anyway."""
    if not begun and f.target.dot is not Dot.VPDPBUSD:
        return Start(anchor.reduce)
    nest = f.work.loops.result
    return started(nest.value, anchor.reduce, nest.axes)


def finish_pixels(
    f: KernelFunction, ranges: Ranges, start: Start, place: tuple[Any, ...], sums: list[Any],
    lanes: int,
) -> None:
    """The results of pixels side by side from a place (image, row, column, channel) on."""
    n, y, x, channel = place
    totals = [
        ((n, y, f.builder.add(x, ir.Constant(I64, i), flags=("nsw",)), channel), total)
        for i, total in enumerate(sums)
    ]
    finish(f, ranges, start.total, totals, lanes)


def source_of(builder: Any, channel: Any, multiplier: int) -> Any:
    """The channel that is read for one that is computed."""
    if multiplier == 1:
        return channel
    return builder.lshr(channel, ir.Constant(I64, multiplier.bit_length() - 1))


def load_channels(builder: Any, address: Any, lanes: int, multiplier: int) -> Any:
    """Bytes of channels side by side, each as often as it is read; one byte where all lanes read
    the same."""
    if multiplier >= lanes:
        return builder.load(address, typ=I8, align=1)
    loaded = builder.load(address, typ=ir.VectorType(I8, lanes // multiplier), align=1)
    if multiplier == 1:
        return loaded
    order = [lane // multiplier for lane in range(lanes)]
    mask = shuffle_mask(order)
    return builder.shuffle_vector(loaded, ir.Constant(loaded.type, ir.Undefined), mask)


def same_pairs(builder: Any, rows: Sequence[Any], lanes: int) -> Any:
    """A byte of one row, or of two in 16 bits each, in all lanes of 32. Vectors of one byte would
    be put together byte by byte."""
    word, *others = (builder.zext(row, I32) for row in rows)
    for other in others:
        word = builder.or_(word, builder.shl(other, ir.Constant(I32, 16)))
    return splat(builder, word, lanes)


class _Depthwise:
    def __init__(self, found: Channelwise, tile: int, copy: Copy | None) -> None:
        self.anchor = found.anchor
        self.node = found.node
        self.multiplier = found.multiplier
        self.blocks = found.blocks
        self.tile = tile
        self.copy = copy
        self.strides: Shape = self.anchor.strides
        if copy is not None:
            self.strides = dense_strides((self.node.shape[0], *copy.padded))

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        self.start = channelwise_start(f, self.anchor)
        source = f.places[self.node.x].pointer
        images, rows, _, _ = self.node.shape
        last = f.end if f.split else rows
        with counted(self.builder, images, label="n") as image:
            base = at(self.builder, source, times(self.builder, image.index, self.strides[0]))
            if self.copy is not None:
                needed = read_rows(f, self.copy, rows, self.node.strides[0])
                copy_rows(self.builder, self.copy, source, image.index, f.scratch,
                          f.target.vector_bytes, *needed)  # fmt: skip
                base = f.scratch
            with counted(self.builder, last, begin=f.begin, label="y") as row:
                step = self.strides[1] * self.node.strides[0]
                line = at(self.builder, base, times(self.builder, row.index, step))
                for channel, weights, lanes in self._channels():
                    self._row(line, (image.index, row.index), channel, weights, lanes)

    def _channels(self) -> Iterator[tuple[Any, Any, int]]:
        """First channel, packed weights and lanes of every block."""
        builder, start = self.builder, 0
        kh, kw = self.node.window.kernel
        for block in self.blocks:
            size = block.lanes * ceil(kh / 2) * 2 * kw * 2
            with counted(builder, block.count, label="c") as loop:
                first = builder.add(
                    times(builder, loop.index, block.lanes), ir.Constant(I64, block.first)
                )
                weights = at(builder, self.f.arrays[0], start)
                yield first, at(builder, weights, times(builder, loop.index, size)), block.lanes
            start += size * block.count

    def _row(
        self, line: Any, place: tuple[Any, Any], channel: Any, weights: Any, lanes: int
    ) -> None:
        builder, width = self.builder, self.node.shape[2]
        loaded = self._weights(weights, lanes)
        line = at(builder, line, source_of(builder, channel, self.multiplier))
        whole = width // self.tile * self.tile
        with counted(builder, whole, step=self.tile, label="x") as pixel:
            self._tile(line, (*place, pixel.index, channel), self.tile, loaded, lanes)
        if whole < width:
            x = ir.Constant(I64, whole)
            self._tile(line, (*place, x, channel), width - whole, loaded, lanes)

    def _weights(self, pointer: Any, lanes: int) -> list[list[Any]]:
        """Weight vectors by column and pair of rows."""
        vector = ir.VectorType(I16, 2 * lanes)
        height, width = self.node.window.kernel
        pairs = ceil(height / 2)

        def load(index: int) -> Any:
            address = at(self.builder, pointer, index * lanes * 4)
            return self.builder.load(address, typ=vector, align=4)

        return [[load(x * pairs + p) for p in range(pairs)] for x in range(width)]

    def _tile(
        self, line: Any, place: tuple[Any, ...], count: int, weights: list[list[Any]], lanes: int
    ) -> None:
        builder, node = self.builder, self.node
        step = self.strides[2] * node.strides[1]
        start = at(builder, line, times(builder, place[2], step))
        added = beginning(self.f, self.ranges, self.start, place[-1], lanes, lanes) or [None]
        sums = added * count
        taps = [
            (i * node.strides[1] + kx * node.dilations[1], i, kx)
            for i in range(count)
            for kx in range(node.window.kernel[1])
        ]
        for column in sorted({c for c, _, _ in taps}):
            for pair, value in enumerate(self._column(start, column, lanes)):
                for _, i, kx in (t for t in taps if t[0] == column):
                    tap = weights[kx][pair]
                    sums[i] = multiply_pairs(builder, sums[i], value, tap, self.f.target.dot)
        finish_pixels(self.f, self.ranges, self.start, place, sums, lanes)

    def _column(self, start: Any, column: int, lanes: int) -> list[Any]:
        """The rows of one column of the window, in pairs as i16."""
        kh = self.node.window.kernel[0]
        offset = column * self.strides[2]
        step = self.strides[1] * self.node.dilations[0]
        places = (at(self.builder, start, offset + r * step) for r in range(kh))
        rows = [load_channels(self.builder, p, lanes, self.multiplier) for p in places]
        return [self._pair(rows[r : r + 2], lanes) for r in range(0, kh, 2)]

    def _pair(self, rows: list[Any], lanes: int) -> Any:
        builder, pairs = self.builder, ir.VectorType(I16, 2 * lanes)
        if self.multiplier >= lanes:
            return builder.bitcast(same_pairs(builder, rows, lanes), pairs)
        if len(rows) == 1:
            return builder.bitcast(builder.zext(rows[0], ir.VectorType(I32, lanes)), pairs)
        order = [lane + lanes * side for lane in range(lanes) for side in (0, 1)]
        mask = shuffle_mask(order)
        return builder.zext(builder.shuffle_vector(*rows, mask), pairs)
