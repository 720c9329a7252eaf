"""Convolutions and linear layers as an implicit matrix product, u8 activations by i8 weights.

A tile is `rows` pixels by `vectors` vectors of output channels; its accumulators stay in
registers. Per step of four products a word of each pixel is broadcast and meets each vector of
packed weights; nothing is gathered into columns first: a pixel's taps are read where they lie.

    for each image, block of pixel rows          (the block stays in the cache)
        for each block of channels               (its weights stay in the cache)
            for each tile of pixels
                for each tap, for each word:  acc[r][v] += dot(broadcast(x[r]), w[v])
                epilogue: the expression around the reduction, on vectors, and a store
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.kernels.dot import DotProduct, choose
from irc.backends.llvm.kernels.epilogue import column_groups, finish
from irc.backends.llvm.kernels.halo import Copy, copy_rows, read_rows
from irc.backends.llvm.kernels.lanes import join
from irc.backends.llvm.kernels.memory import at, times
from irc.backends.llvm.kernels.product import Product, flatten, match
from irc.backends.llvm.kernels.tile import RegisterTile, carrying
from irc.backends.llvm.loop import I64, counted, only_if, within
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.types import Array

BLOCK_BYTES = 128 * 1024
"""Activations of a block of pixel rows: a part of the second-level cache."""
EPILOGUE_CYCLES = 10
"""Per vector of results, roughly: bias, multiply, shift, clamp, pack, store."""


def gemm(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one convolution or linear layer with its elementwise tail."""
    return next(gemms(work, target), None)


def gemms(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it, by tiles of any width, the one of fewest estimated cycles first; then one on
    vectors half as wide, which some CPUs run at a higher clock."""
    product = match(work)
    chosen = None if product is None else choose(target, product.packed)
    if product is None or chosen is None:
        return
    dot, proof = chosen
    dot = narrowed(dot, product.columns)
    product = flatten(work, product)
    for tile, cycles in best_tiles(product, dot, target.registers):
        yield _kernel(product, dot, tile, cycles, proof)
    if dot.nbytes > 16:
        dot = dataclasses.replace(dot, nbytes=dot.nbytes // 2)
        yield _kernel(product, dot, *best_tile(product, dot, target.registers), proof)


def _kernel(
    product: Product, dot: DotProduct, tile: Tile, cycles: float, proof: str
) -> MicroKernel:
    name = f"qgemm_u8i8_{tile.rows}x{tile.vectors * dot.lanes}_{dot.kind}_{dot.nbytes * 8}"
    cut, units = best_cut(product, dot, tile)
    ideal = products_cycles(product, dot)
    return MicroKernel(
        name=name,
        key=layout_key(product, cut),
        emit=Gemm(product, dot, tile, cut).emit,
        arrays=(pack(product.packed, dot, tile.vectors),),
        replaces=(product.weights,),
        scratch=product.copy.nbytes if product.copy else 0,
        units=units,
        reason=f"tile of {tile.rows} pixels x {tile.vectors * dot.lanes} channels:"
        f" {100 * ideal / max(cycles, 1):.0f} % of its cycles multiply",
        proof=proof,
    )


def layout_key(p: Product, cut: str) -> str:
    """What the code depends on besides the tile."""
    return f"{p.pixels} {p.pixel} {p.taps} {p.run} {p.copy} {cut}"


def narrowed(dot: DotProduct, columns: int) -> DotProduct:
    """Narrower vectors where the channels don't fill wide ones."""
    while dot.nbytes > 16 and columns <= dot.lanes // 2:
        dot = dataclasses.replace(dot, nbytes=dot.nbytes // 2)
    return dot


# ------------------------------------------------------------ choice


@dataclass(frozen=True)
class Tile:
    """Pixels and vectors of channels whose accumulators are in registers at one time."""

    rows: int
    vectors: int


def best_tile(p: Product, dot: DotProduct, registers: int) -> tuple[Tile, float]:
    """The tile of fewest estimated cycles, and these."""
    return best_tiles(p, dot, registers)[0]


def best_tiles(p: Product, dot: DotProduct, registers: int) -> list[tuple[Tile, float]]:
    """Of each width the tile of fewest estimated cycles, and these; the best first."""
    found = []
    for vectors in range(1, min(4, _vectors(p, dot)) + 1):
        left = registers - vectors * dot.streams - 1 - dot.temporaries
        most = left // (vectors + dot.by_lane)
        tiles = [Tile(rows, vectors) for rows in range(1, min(14, most) + 1)]
        costs = [(cost(p, dot, tile), -tile.rows * tile.vectors, tile) for tile in tiles]
        found += [min(costs, key=lambda c: c[:2])] if costs else []
    return [(tile, cycles) for cycles, _, tile in sorted(found, key=lambda c: c[:2])]


def products_cycles(p: Product, dot: DotProduct) -> float:
    """Cycles of the products alone."""
    return p.depth * dot.cycles * float(np.prod(p.pixels)) * p.groups * _vectors(p, dot)


def best_cut(p: Product, dot: DotProduct, tile: Tile) -> tuple[str, int]:
    """Along which loop the work is cut for threads, and into how many units: the one of best
    balance; of equal ones that which leaves each thread the larger operand's part alone."""
    blocks = ceil(_vectors(p, dot) / tile.vectors)
    channels = ("groups", p.groups) if p.groups > 1 else ("channels", blocks)
    tiles = ceil(p.pixels[2] / tile.rows)
    pixels = ("rows", p.pixels[1]) if p.pixels[1] > 1 else ("tiles", tiles)
    read = p.pixels[0] * p.pixels[1] * p.pixels[2] * p.run * p.groups
    wide = p.matrix.nbytes > read and p.copy is None
    choices = (channels, pixels) if wide else (pixels, channels)
    return max(choices, key=lambda choice: balance(choice[1]) + (choice is choices[0]) * 0.05)


def cost(p: Product, dot: DotProduct, tile: Tile) -> float:
    """Estimated cycles by a tile."""
    columns = sum(
        _tile_cycles(p.depth, rows, vectors, dot) * many_rows * many_vectors
        for rows, many_rows in _split(p.pixels[2], tile.rows)
        for vectors, many_vectors in _split(_vectors(p, dot), tile.vectors)
    )
    return columns * p.groups * p.pixels[0] * p.pixels[1]


def _tile_cycles(depth: int, rows: int, vectors: int, dot: DotProduct) -> float:
    """Two multiply ports, two load ports, four instructions a cycle, and the latency of a chain of
    dot products; some of the loads are not hidden, and so is some of every tile."""
    multiply = rows * vectors * dot.cycles
    loads = rows + vectors * dot.streams
    issue = (rows * vectors * dot.instructions + loads + 3) / 4
    latency = 5.0 if dot.kind == "vpdpbusd" else 1.0
    exposed = 0.2 * loads if dot.temporaries else 0
    word = max(multiply, loads / 2, issue, latency) + exposed
    return depth * word + rows * vectors * EPILOGUE_CYCLES + 5


def _vectors(p: Product, dot: DotProduct) -> int:
    return ceil(p.columns / dot.lanes)


def _split(extent: int, step: int) -> list[tuple[int, int]]:
    """(size, how many): whole steps, and what is left."""
    parts = [(step, extent // step), (extent % step, 1)]
    return [(size, count) for size, count in parts if size and count]


def pack(packed: Array, dot: DotProduct, vectors: int) -> Array:
    """Weights, as `Product.packed` has them, in the order of use: per group and block of channels
    what its sums begin with, if that is not 0; per word, per stream, the channels of the block with
    four bytes each. Missing channels are 0."""
    blocks: list[Array] = []
    for group in packed:
        for start in range(0, len(group), vectors * dot.lanes):
            part = group[start : start + vectors * dot.lanes]
            block = np.zeros((ceil(len(part) / dot.lanes) * dot.lanes, *part.shape[1:]), np.int8)
            block[: len(part)] = part
            if dot.signed:
                beginning = np.zeros(vectors * dot.lanes, np.int32)
                beginning[: len(block)] = dot.beginning(block)
                blocks.append(beginning.view(np.int8))
            blocks.append(_streams(block, dot).reshape(-1))
    return np.concatenate(blocks)


def _streams(block: Array, dot: DotProduct) -> Array:
    """[words, streams, lanes, 4]."""
    words = dot.arranged(np.ascontiguousarray(block.transpose(1, 0, 2)))
    if dot.streams == 1:
        return words[:, None]
    even, odd = words.copy(), words.copy()
    even[..., 1::2] = 0
    odd[..., 0::2] = 0
    return np.stack([even, odd], axis=1)


# ------------------------------------------------------------ emission


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
    depth: int,
    vectors: int,
    lanes: int,
    *,
    header: int = 0,
    groups: tuple[Any, Any] | None = None,
    blocks: tuple[Any, Any] | None = None,
) -> Iterator[ChannelBlock]:
    """The blocks of channels of every group: a loop over whole blocks of `vectors`, then the rest.
    Packed weights take `depth` words per channel behind a block's `header` of so many bytes.
    `groups` and `blocks` say from which to which, default all."""
    size, last = (header + depth * v * lanes * 4 for v in (vectors, _rest(p, vectors, lanes)))
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
        images, rows, _ = self.p.pixels
        source = f.places[self.p.source].pointer
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
                        self._row(base, image.index, row.index, channels)

    def _copy(self, copy: Copy, source: Any, image: Any) -> None:
        """The rows of an image that rows of the result read, with their padding."""
        f, needed = self.f, (0, copy.padded[0])
        if self.cut == "rows":
            step = self.p.pixel[1] // (copy.padded[1] * copy.padded[2])
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
        return channel_blocks(
            self.builder, p, self.f.arrays[0], p.depth * self.dot.streams, vectors, self.dot.lanes,
            header=self.header, groups=self._bounds("groups", p.groups),
            blocks=self._bounds("channels", ceil(_vectors(p, self.dot) / vectors)),
        )  # fmt: skip

    def _row(self, base: Any, n: Any, y: Any, block: ChannelBlock) -> None:
        """One row of pixels: whole tiles, then a narrower one."""
        builder, p = self.builder, self.p
        start = at(builder, base, times(builder, n, p.pixel[0]))
        start = at(builder, start, times(builder, y, p.pixel[1]))
        start = at(builder, start, times(builder, block.group, p.run if p.groups > 1 else 0))
        height = self.tile.rows
        whole, rest = divmod(p.pixels[2], height)
        begin, end = self._bounds("tiles", whole + (rest > 0))
        if whole:
            with within(builder, whole, begin, end, label="x") as tile:
                x = times(builder, tile.index, height)
                self._tile(start, (n, y, x), height, block)
        if rest:
            with only_if(builder, end, whole + 1):
                self._tile(start, (n, y, ir.Constant(I64, whole * height)), rest, block)

    def _tile(
        self, start: Any, pixel: tuple[Any, Any, Any], rows: int, block: ChannelBlock
    ) -> None:
        builder = self.builder
        first = at(builder, start, times(builder, pixel[2], self.p.pixel[2]))
        tile = RegisterTile(self.dot, rows, block.vectors, self.p.pixel[2])
        self._epilogue(pixel, rows, block, self.sums(first, block, tile))

    def sums(self, first: Any, block: ChannelBlock, tile: RegisterTile) -> list[Any]:
        """The accumulators of a tile whose first pixel's bytes begin at `first`."""
        begin = tile.zeros()
        if self.dot.signed:
            begin = tile.repeated(self.builder, block.weights)
        weights = at(self.builder, block.weights, self.header)
        return self._taps(0, first, weights, tile, begin)

    def _taps(self, level: int, x: Any, w: Any, tile: RegisterTile, sums: list[Any]) -> list[Any]:
        """The loops over taps, outermost first; then the words of a run."""
        if level == len(self.p.taps):
            return tile.run(self.builder, x, w, self.p.words, sums)
        extent, step = self.p.taps[level]
        inner = self.p.words
        for count, _ in self.p.taps[level + 1 :]:
            inner *= count

        def body(index: Any, carried: list[Any]) -> list[Any]:
            source = at(self.builder, x, times(self.builder, index, step))
            weights = at(self.builder, w, times(self.builder, index, inner * tile.step))
            return self._taps(level + 1, source, weights, tile, carried)

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
            finish(self.f, self.ranges, self.p.reduce, totals, width)
