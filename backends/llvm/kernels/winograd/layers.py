"""Convolutions of 3x3 taps side by side, by Winograd's minimal filtering: exact in integers.

An image's tiles of m x m results, and the weights, are transformed to (m + 2)^2 products each,
which are matrix products of i16 over the channels (`minimal` says why that is exact). Weights are
stored as they are and transformed at run time, a block of channels at a time: so the library does
not grow, and memory brings 9 bytes where the products take 72. Where all of them, transformed,
stay in the cache, that is done once, before the images.

    for each image, block of rows of tiles          (its inputs, transformed, stay in the cache)
        for each tile, for each block of inputs:    V[q][tile] = transformed inputs
        for each block of output channels
            for each chunk of input channels
                U[q] = transformed weights          (they stay in the cache)
                for each q, each tile of rows:      M[tile][q] += V[q] * U[q]
            for each tile:  for each row of the results of M: epilogue

`tiling` chooses how large these parts are, `transforms` emits V, U and results;
here are the loops around them, the products and the epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, I64, counted, i64
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.gemm.loops import ChannelBlock, channel_blocks
from irc.backends.llvm.kernels.gemm.ordered import direct_cycles
from irc.backends.llvm.kernels.gemm.product import Product, flatten, match
from irc.backends.llvm.kernels.halo import copy_rows, read_rows
from irc.backends.llvm.kernels.results.epilogue import (
    Kept,
    Start,
    beginning,
    finish,
    fixed,
    started,
)
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, prefetch, times
from irc.backends.llvm.kernels.vectors.tile import RegisterTile
from irc.backends.llvm.kernels.winograd.minimal import F2, F4, Filter, proof, proved, result_bound
from irc.backends.llvm.kernels.winograd.tiling import (
    LINE,
    VECTORS,
    Tiling,
    best_cut,
    pack,
    tiling,
)
from irc.backends.llvm.kernels.winograd.transforms import Transforms
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work
from irc.loops import Load
from irc.ops.conv import QConv2d

AT_ONCE = 2
"""Results of a row that are finished together where vectors have less than 64 bytes: blocks of code
for more were too long for valgrind to translate."""
_Tilings = tuple[Anchor, Product, list[Tiling], float]


def winograd(work: Work, target: Target, *, always: bool = False) -> MicroKernel | None:
    """A kernel for one convolution of 3x3 taps with its elementwise tail, where it is proved and
    cheaper than the direct one (or `always`)."""
    found = _tilings(work, target)
    if found is None:
        return None
    anchor, product, (t, *_), direct = found
    return _kernel(work, anchor, product, t, direct) if always or t.cycles < direct else None


def winograds(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by every filter that is proved, the cheapest first, cheaper than the direct
    one or not."""
    found = _tilings(work, target)
    if found is None:
        return
    anchor, product, tilings, direct = found
    for t in tilings:
        yield _kernel(work, anchor, product, t, direct)


def _tilings(work: Work, target: Target) -> _Tilings | None:
    """The convolution, also as a product, its tilings by filters that are proved, the cheapest
    first, and the direct kernel's estimated cycles; None where there is no tiling."""
    anchor = find_anchor(work)
    product = match(work)
    if anchor is None or product is None or not isinstance(anchor.node, QConv2d):
        return None
    if not target.is_x86 or target.vector_bytes < 16 or not _fits(anchor.node):
        return None
    tilings = [tiling(anchor, f, target) for f in (F4, F2) if proved(f, anchor.weights)]
    direct = direct_cycles(flatten(work, product), target)
    tilings.sort(key=lambda t: t.cycles)
    return (anchor, product, tilings, direct) if tilings else None


def _kernel(
    work: Work, anchor: Anchor, product: Product, t: Tiling, direct: float
) -> MicroKernel:
    assert isinstance(anchor.node, QConv2d), "only convolutions are filtered"
    begin = _start(work, anchor, t.f)
    cut, units = best_cut(t, anchor.node.shape[3])
    shape = f"f{t.f.m}_{t.rows}x{VECTORS * t.dot.lanes}"
    return MicroKernel(
        name=f"qwinograd_u8i8_{shape}_{t.dot.kind}_{t.dot.nbytes * 8}",
        key=str((t, anchor.node.pads, cut, begin.addend is not None)),
        emit=_Winograd(begin, anchor.node, product, t, cut).emit,
        arrays=(pack(anchor.weights, t),),
        replaces=(anchor.node.w,),
        scratch=t.scratch,
        units=units,
        reason=f"{t.f.m}x{t.f.m} results by {t.f.size**2} products instead of {9 * t.f.m**2}:"
        f" estimated {direct / t.cycles:.2f} times as fast as directly",
        proof=proof(t.f, anchor.weights),
    )


def _start(work: Work, anchor: Anchor, f: Filter) -> Start:
    """What is added to products rather than to results: a bias with which these still fit."""
    nest = work.loops.result
    begin = started(nest.value, anchor.reduce, nest.axes)
    array = work.constant(begin.addend.source) if isinstance(begin.addend, Load) else None
    if array is None:
        return Start(anchor.reduce)
    largest = int(np.abs(array.astype(np.int64)).max(initial=0))
    fits = result_bound(anchor.weights) + largest < f.limit
    return begin if fits else Start(anchor.reduce)


def _fits(node: QConv2d) -> bool:
    window = node.window
    plain = window.kernel == (3, 3) and window.dilations == (1, 1) and node.strides == (1, 1)
    return plain and node.groups == 1


# ------------------------------------------------------------ emission


class _Winograd:
    def __init__(
        self, begin: Start, node: QConv2d, product: Product, t: Tiling, cut: str
    ) -> None:
        self.start = begin
        self.cut = cut
        self.node = node
        self.product = product
        self.t = t

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        t, source = self.t, f.places[self.node.x].pointer
        self.transforms = Transforms.of(self.builder, t, f.scratch)
        split = self.cut if f.split else ""
        rows, blocks = (0, t.copy.padded[0]), t.tiles[0] // t.block
        begin, end = (f.begin, f.end) if split == "blocks" else (0, blocks)
        if split == "blocks":
            rows = read_rows(f, t.copy, blocks, t.block * t.f.m)
        if t.kept:
            for channels in self._blocks():
                self.transforms.of_block(channels).weights(i64(0), channels)
        with counted(self.builder, self.node.shape[0], label="n") as image:
            copy_rows(self.builder, t.copy, source, image.index, f.scratch,
                      f.target.vector_bytes, *rows)  # fmt: skip
            with counted(self.builder, end, begin=begin, label="block") as number:
                block = times(self.builder, number.index, t.block)
                self.transforms.inputs(f.scratch, block)
                for channels in self._blocks():
                    self._channels(image.index, block, channels)

    def _blocks(self) -> Iterator[ChannelBlock]:
        """The blocks of output channels that are asked for."""
        t, asked = self.t, self.cut == "channels" and self.f.split
        return channel_blocks(
            self.builder, self.product, self.f.arrays[0], t.channels * 9, VECTORS, t.dot.lanes,
            blocks=(self.f.begin, self.f.end) if asked else None,
        )  # fmt: skip

    def _channels(self, image: Any, block: Any, channels: ChannelBlock) -> None:
        builder, t = self.builder, self.t
        transforms = self.transforms.of_block(channels)
        with counted(builder, t.channels, step=t.chunk, label="chunk") as chunk:
            if not t.kept:
                transforms.weights(chunk.index, channels)
            with counted(builder, t.q, label="q") as q:
                if not t.kept:
                    self._fetch(q.index, chunk.index, channels)
                self._products(transforms.u, q.index, chunk.index, channels)
        width = min(channels.channels, channels.vectors * t.dot.lanes)
        known = fixed(self.f, self.ranges, self.start.total, channels.first, width)
        added = self._added(channels)
        with counted(builder, t.block, label="ty") as row:
            first = times(builder, row.index, t.tiles[1])
            y = times(builder, builder.add(block, row.index, flags=("nsw",)), t.f.m)
            with counted(builder, t.tiles[1], label="tx") as column:
                tile = builder.add(first, column.index, flags=("nsw",))
                # One vector after the other: the products of all at once would fill the registers.
                vectors = [list(self.transforms.results(tile, v, a)) for v, a in enumerate(added)]
                results = zip(*vectors, strict=True)
                together = t.f.m if t.dot.nbytes == 64 else AT_ONCE
                x = times(builder, column.index, t.f.m)
                while line := list(islice(results, together)):
                    self._finish((image, y, x, channels.first), line, width, known)

    def _added(self, channels: ChannelBlock) -> list[Any]:
        """What is added to a product of each vector of channels; None: nothing."""
        lanes = self.t.dot.lanes
        found = beginning(
            self.f, self.ranges, self.start, channels.first, channels.channels, lanes
        )
        if found is None:
            return [None] * channels.vectors
        factor = constant(ir.VectorType(I32, lanes), self.t.f.one)
        return [self.builder.mul(v, factor) for v in found]

    def _fetch(self, q: Any, chunk: Any, channels: ChannelBlock) -> None:
        """Ask for a part of the weights of the chunk after this one, which lie behind its own."""
        builder, t = self.builder, self.t
        column = 9 * channels.vectors * t.dot.nbytes // 4
        lines = ceil(t.chunk * column / t.q / LINE)
        start = at(builder, channels.weights, times(builder, chunk, column))
        start = at(builder, start, times(builder, q, lines * LINE))
        for line in range(lines):
            prefetch(builder, start, t.chunk * column + line * LINE)

    def _products(self, u: Any, q: Any, chunk: Any, channels: ChannelBlock) -> None:
        """M of one product for all tiles of a block; weights lie from `u` on."""
        builder, t = self.builder, self.t
        x = at(builder, self.transforms.v, times(builder, q, t.v_step))
        x = at(builder, x, times(builder, chunk, 2))
        w = at(builder, u, times(builder, q, t.u_step))
        m = at(builder, self.transforms.m, times(builder, q, t.width))
        whole = t.count // t.rows * t.rows

        def tile(first: Any, rows: int) -> None:
            register = RegisterTile(t.dot, rows, channels.vectors, t.channels * 2)
            source = at(builder, x, times(builder, first, t.channels * 2))
            to = at(builder, m, times(builder, first, t.q * t.width))
            places = [at(builder, to, r * t.q * t.width + v * t.dot.nbytes)
                      for r in range(rows) for v in range(channels.vectors)]  # fmt: skip
            sums = self._before(chunk, places, register.zeros())
            sums = register.run(builder, source, w, t.chunk // 2, sums)
            for place, value in zip(places, sums, strict=True):
                builder.store(value, place, align=16)

        if whole:
            with counted(builder, whole, step=t.rows, label="t") as first:
                tile(first.index, t.rows)
        if whole < t.count:
            tile(ir.Constant(I64, whole), t.count - whole)

    def _before(self, chunk: Any, places: list[Any], zeros: list[Any]) -> list[Any]:
        """The sums of the chunks before: none of the first."""
        builder = self.builder
        if self.t.chunk == self.t.channels:
            return zeros
        first = builder.icmp_unsigned("==", chunk, ir.Constant(I64, 0))
        return [
            builder.select(first, zero, builder.load(place, typ=zero.type, align=16))
            for place, zero in zip(places, zeros, strict=True)
        ]

    def _finish(
        self, tile: tuple[Any, Any, Any, Any], line: Sequence[Any], width: int,
        known: dict[Any, Any],
    ) -> None:  # fmt: skip
        """Neighbours in a row of a tile's results, of all vectors of channels, finished together. A
        row outside of the image is skipped, of a row inside what lies outside goes nowhere."""
        builder, (n, y, x, channel) = self.builder, tile
        i, height = line[0][0][0], self.node.shape[1]
        row = builder.add(y, ir.Constant(I64, i), flags=("nsw",))
        inside: AbstractContextManager[Any] = nullcontext()
        if self._may_lie_outside(i, height):
            inside = builder.if_then(builder.icmp_signed("<", row, ir.Constant(I64, height)))
        totals, keep = [], list[Kept | None]()
        with inside:
            for vectors in sorted(line, key=lambda of: of[0][1]):
                column, kept = self._column(x, vectors[0][1])
                total = join(builder, [value for _, _, value in vectors], width)
                totals.append(((n, row, column, channel), total))
                keep.append(kept)
            finish(self.f, self.ranges, self.start.total, totals, width, known, keep)

    def _may_lie_outside(self, offset: int, extent: int) -> bool:
        """Whether a tile's row or column of results is missing in the last one."""
        return 0 < extent % self.t.f.m <= offset

    def _column(self, first: Any, offset: int) -> tuple[Any, Kept | None]:
        """A column of the result, the last one where it lies outside, and the test of that (None
        where it can't)."""
        builder, extent = self.builder, self.node.shape[2]
        index = builder.add(first, ir.Constant(I64, offset), flags=("nsw",))
        if not self._may_lie_outside(offset, extent):
            return index, None
        inside = builder.icmp_signed("<", index, ir.Constant(I64, extent))
        sink = at(builder, self.f.scratch, self.t.offsets[3])
        return builder.select(inside, index, ir.Constant(I64, extent - 1)), Kept(inside, sink)
