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
            for each row of tiles:  Y = the results of M;  for each pixel: epilogue

`winograd_tiling` chooses how large these parts are, `winograd_transforms` emits V, U and Y; here
are the loops around them, the products and the epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.epilogue import finish, fixed
from irc.backends.llvm.kernels.gemm_loops import ChannelBlock, channel_blocks
from irc.backends.llvm.kernels.halo import copy_rows, read_rows
from irc.backends.llvm.kernels.memory import at, prefetch, times
from irc.backends.llvm.kernels.minimal import F2, F4, proof, proved
from irc.backends.llvm.kernels.ordered import direct_cycles
from irc.backends.llvm.kernels.product import Product, flatten, match
from irc.backends.llvm.kernels.tile import RegisterTile
from irc.backends.llvm.kernels.winograd_tiling import (
    LINE,
    VECTORS,
    Tiling,
    best_cut,
    pack,
    tiling,
)
from irc.backends.llvm.kernels.winograd_transforms import Transforms
from irc.backends.llvm.loop import I32, I64, counted, i64, spanned
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work
from irc.ops.conv import QConv2d

AT_ONCE = 2
"""Pixels whose results are packed together."""
_Tilings = tuple[Anchor, Product, list[Tiling], float]


def winograd(work: Work, target: Target, *, always: bool = False) -> MicroKernel | None:
    """A kernel for one convolution of 3x3 taps with its elementwise tail, where it is proved and
    cheaper than the direct one (or `always`)."""
    found = _tilings(work, target)
    if found is None:
        return None
    anchor, product, (t, *_), direct = found
    return _kernel(anchor, product, t, direct) if always or t.cycles < direct else None


def winograds(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by every filter that is proved, the cheapest first, cheaper than the direct
    one or not."""
    found = _tilings(work, target)
    if found is None:
        return
    anchor, product, tilings, direct = found
    for t in tilings:
        yield _kernel(anchor, product, t, direct)


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


def _kernel(anchor: Anchor, product: Product, t: Tiling, direct: float) -> MicroKernel:
    assert isinstance(anchor.node, QConv2d), "only convolutions are filtered"
    cut, units = best_cut(t, anchor.node.shape[3])
    shape = f"f{t.f.m}_{t.rows}x{VECTORS * t.dot.lanes}"
    return MicroKernel(
        name=f"qwinograd_u8i8_{shape}_{t.dot.kind}_{t.dot.nbytes * 8}",
        key=str((t, anchor.node.pads, cut)),
        emit=_Winograd(anchor, anchor.node, product, t, cut).emit,
        arrays=(pack(anchor.weights, t),),
        replaces=(anchor.node.w,),
        scratch=t.scratch,
        units=units,
        reason=f"{t.f.m}x{t.f.m} results by {t.f.size**2} products instead of {9 * t.f.m**2}:"
        f" estimated {direct / t.cycles:.2f} times as fast as directly",
        proof=proof(t.f, anchor.weights),
    )


def _fits(node: QConv2d) -> bool:
    window = node.window
    plain = window.kernel == (3, 3) and window.dilations == (1, 1) and node.strides == (1, 1)
    return plain and node.groups == 1


# ------------------------------------------------------------ emission


class _Winograd:
    def __init__(
        self, anchor: Anchor, node: QConv2d, product: Product, t: Tiling, cut: str
    ) -> None:
        self.anchor = anchor
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
        known = fixed(self.f, self.ranges, self.anchor.reduce, channels.first, width)
        with counted(builder, t.block, label="ty") as row:
            with counted(builder, t.tiles[1], label="tx") as x:
                first = times(builder, row.index, t.tiles[1])
                tile = builder.add(first, x.index, flags=("nsw",))
                for vector in range(channels.vectors):
                    self.transforms.results(tile, x.index, vector)
            first = builder.add(block, row.index, flags=("nsw",))
            self._finish(image, times(builder, first, t.f.m), channels, width, known)

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
        self, n: Any, y: Any, channels: ChannelBlock, width: int, known: dict[Any, Any]
    ) -> None:
        """The rows of pixels of a row of tiles, as many as the image has."""
        builder, t = self.builder, self.t
        _, height, columns, _ = self.node.shape
        with counted(builder, t.f.m, label="i") as i:
            row = builder.add(y, i.index, flags=("nsw",))
            offset = times(builder, i.index, t.tiles[1] * t.f.m * t.width)
            line = at(builder, self.transforms.y, offset)

            inside: AbstractContextManager[Any] = nullcontext()
            if height % t.f.m:
                inside = builder.if_then(builder.icmp_signed("<", row, ir.Constant(I64, height)))
            whole = columns // AT_ONCE * AT_ONCE
            with inside:
                for start, stop, step in ((0, whole, AT_ONCE), (whole, columns, 1)):
                    if start < stop:
                        with spanned(builder, start, stop, step=step, label="x") as x:
                            self._pixels(n, row, x, step, line, channels.first, width, known)

    def _pixels(
        self, n: Any, row: Any, x: Any, count: int, line: Any, channel: Any, width: int,
        known: dict[Any, Any],
    ) -> None:  # fmt: skip
        """Neighbours in a row, finished together."""
        builder = self.builder
        element = I32 if width == 1 else ir.VectorType(I32, width)
        totals = []
        for i in range(count):
            column = builder.add(x, ir.Constant(I64, i), flags=("nsw",))
            place = at(builder, line, times(builder, column, self.t.width))
            total = builder.load(place, typ=element, align=4)
            totals.append(((n, row, column, channel), total))
        finish(self.f, self.ranges, self.anchor.reduce, totals, width, known)
