"""The loops of `layers`: products of a group of tiles, while the results of the one before are
finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.loop import I64, counted, i64, minimum, only_if, spanned, within
from irc.backends.llvm.kernels.amx.copy import CopyAhead
from irc.backends.llvm.kernels.amx.results import SINK_BYTES, Columns, Results
from irc.backends.llvm.kernels.amx.stand_in import Left, Right, multiply, where_lent, where_not_lent
from irc.backends.llvm.kernels.amx.tiling import (
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    Blocks,
    Tiling,
    blocks_of,
    chunks,
    vectors,
)
from irc.backends.llvm.kernels.amx.walk import Walk
from irc.backends.llvm.kernels.gemm.product import Product
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.memory import at, prefetch, times
from irc.backends.llvm.work import KernelFunction

I8 = ir.IntType(8)
PART_BYTES = 768 * 1024
"""Activations of a part of an image: some of the second-level cache."""
NEAR_BYTES = 16 * 1024
"""Weights of a block of channels up to which the CPU fetches the next one's by itself."""
LONG = 12
"""Groups of tiles in a block that pay for finishing the last one by itself."""
FETCHED_CHUNKS = 3
"""How far ahead weights that serve one group are fetched."""


@dataclass(frozen=True)
class Block:
    """A block of channels: its first channel, its packed weights, and, where its results are
    finished within it, its channels as they are finished."""

    channel: Any
    weights: Any
    blocks: Blocks
    columns: Sequence[Columns] | None


class AmxLoops:
    """Emits the function of a product."""

    def __init__(self, product: Product, tiling: Tiling, cut: str, columns: int) -> None:
        self.p = product
        self.tiling = tiling
        self.cut = cut
        self.walk = Walk(product, tiling, columns)
        self.chunks = chunks(product)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of `layers`' docstring. `f.arrays` are packed weights, the configuration
        of the tile registers, and the offsets of the chunks."""
        self.f, self.builder = f, f.builder
        self.results = Results(f, self.walk)
        self.copy = self._copy()
        with where_lent(f):
            self._call("ldtilecfg", f.arrays[1])
        with counted(self.builder, self.p.pixels[0], label="n") as image:
            base = self._image(image.index)
            for start, stop in self._parts():
                for blocks in blocks_of(self.p, self.tiling, self._depth):
                    self._pipeline(image.index, base, start, stop, blocks)
        with where_lent(f):
            self._call("tilerelease")

    def _copy(self) -> CopyAhead | None:
        """The padded copy, behind the accumulators in scratch."""
        if self.p.copy is None:
            return None
        to = at(self.builder, self.f.scratch, 2 * self.tiling.stored + SINK_BYTES)
        return CopyAhead(self.f, self.walk, self.p.copy, to)

    @property
    def _depth(self) -> int:
        """Words of packed weights of a channel."""
        return self.chunks * self.tiling.chunk

    def _call(self, name: str, *arguments: Any) -> None:
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), list(arguments))

    def _plus(self, value: Any, number: int) -> Any:
        return self.builder.add(value, ir.Constant(I64, number), flags=("nuw", "nsw"))

    # -------------------------------------------------------- what is done

    def _image(self, n: Any) -> Any:
        """Where an image is read: as it lies, or its padded copy, which is begun."""
        source = self.f.places[self.p.source].pointer
        if self.copy is None:
            return at(self.builder, source, times(self.builder, n, self.p.pixel[0]))
        first = self._tiles()[0]
        self.copy.begin(source, n, first)
        self.copy.until(self._group_end(i64(first)))
        return self.copy.to

    def _group_end(self, wanted: Any) -> Any:
        """The last tile of a group."""
        return self._plus(self.walk.first(self.builder, wanted), self.tiling.tiles - 1)

    def _parts(self) -> Iterator[tuple[Any, Any]]:
        """First tile and end of every part of an image."""
        size = ceil(self.walk.count / max(1, ceil(self.p.image_bytes / PART_BYTES)))
        size = ceil(size / self.tiling.tiles) * self.tiling.tiles
        begin, end = self._tiles()
        with counted(self.builder, end, begin=begin, step=size, label="part") as part:
            yield part.index, minimum(self.builder, self._plus(part.index, size), end)

    def _bounds(self, cut: str) -> tuple[Any, Any] | None:
        """The units to do, where the work is cut by these."""
        return (self.f.begin, self.f.end) if self.f.split and cut == self.cut else None

    def _tiles(self) -> tuple[Any, Any]:
        """The tiles to do: from which to which."""
        bounds = self._bounds("tiles")
        if bounds is None:
            return 0, self.walk.count
        begin, end = (times(self.builder, b, self.tiling.tiles) for b in bounds)
        return begin, minimum(self.builder, end, self.walk.count)

    @contextmanager
    def _each(self, blocks: Blocks) -> Iterator[tuple[Any, Any, Any]]:
        """A loop over blocks of channels: each one's group, first channel and packed weights."""
        builder, depth = self.builder, self._depth
        group_bytes = depth * vectors(self.p) * LANES * 4
        first, last = self._bounds("groups") or (0, self.p.groups)
        count = ceil(vectors(self.p) / self.tiling.vectors)
        begin, end = self._bounds("channels") or (0, count)
        with counted(builder, last, begin=first, label="g") as group:
            start = at(builder, self.f.arrays[0], times(builder, group.index, group_bytes))
            start = at(builder, start, blocks.start)
            channel = self._plus(times(builder, group.index, self.p.columns), blocks.first)
            if blocks.first:
                with only_if(builder, end, count):
                    yield group.index, channel, start
                return
            with within(builder, blocks.count, begin, end, label="o") as block:
                size = depth * blocks.channels * 4
                more = times(builder, block.index, blocks.channels)
                yield (
                    group.index,
                    builder.add(channel, more),
                    at(builder, start, times(builder, block.index, size)),
                )

    # -------------------------------------------------------- the pipeline

    def _pipeline(self, n: Any, base: Any, start: Any, stop: Any, blocks: Blocks) -> None:
        """All groups of tiles of a part of the image, for blocks of one width. Each finishes the
        one before it, also if that was of the block before, and the last one is finished behind;
        blocks of many groups end each on its own, so that what is known of their channels is
        computed once."""
        long = self.groups >= LONG
        if not long:
            self.results.none(blocks)
        with self._each(blocks) as (group, channel, weights):
            if long:
                self.results.none(blocks)
            columns = self.results.columns(blocks, channel) if long else None
            block = Block(channel, weights, blocks, columns)
            source = at(self.builder, base, times(
                self.builder, group, self.p.run if self.p.groups > 1 else 0))  # fmt: skip
            with spanned(self.builder, start, stop, step=self.tiling.tiles, label="t") as wanted:
                self._group(n, source, (start, wanted), block)
            if columns is not None:
                self.results.finish(n, columns, blocks)
        if not long:
            self.results.finish(n, self.results.columns(blocks), blocks)

    @property
    def groups(self) -> int:
        """Groups of tiles in an image."""
        return ceil(self.walk.count / self.tiling.tiles)

    def _group(self, n: Any, source: Any, tiles: tuple[Any, Any], block: Block) -> None:
        """The products of a group, and between them what the pending one waits for; then the
        accumulators are stored."""
        builder, size, blocks = self.builder, self.tiling.tiles, block.blocks
        start, wanted = tiles
        columns = block.columns or self.results.columns(blocks)
        first = self.walk.first(builder, wanted)
        xs = [self.walk.address(builder, source, self._plus(first, i)) for i in range(size)]
        ahead = self._ahead(builder.udiv(builder.sub(wanted, i64(start)), i64(size)), blocks)
        with where_lent(self.f):
            for register in range(size * blocks.vectors):
                self._call("tilezero", ir.Constant(I8, register))
        if self.copy is not None:
            self.copy.until(self._group_end(self._plus(wanted, size)))
        with counted(builder, self.chunks, label="k") as k:
            offset = builder.gep(self.f.arrays[2], [k.index], inbounds=True, source_etype=I64)
            offset = builder.load(offset, typ=I64, align=8)
            chunk_bytes = self.tiling.chunk * blocks.vectors * ROW_BYTES
            w = at(builder, block.weights, times(builder, k.index, chunk_bytes))
            with where_lent(self.f):
                self._chunk([at(builder, x, offset) for x in xs], w, ahead, blocks)
            if not self.results.outlast(blocks):
                self.results.some(n, k.index, columns, blocks)
            elif self._shared_chunks:
                self._share(n, k.index, columns, blocks)
        self._stores(n, columns, blocks)
        if self.f.asks:
            self._by_vectors(xs, block)
        self.results.stored(first, wanted, block.channel)

    def _stores(self, n: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The accumulators to scratch; where results take longer than products, a part of them
        before each store too, which keeps other units busy."""
        builder, stores = self.builder, self.tiling.tiles * blocks.vectors
        places = [divmod(number, blocks.vectors) for number in range(stores)]
        if not self.results.outlast(blocks):
            with where_lent(self.f):
                for i, j in places:
                    self._store(i, j, blocks)
            return
        with counted(builder, stores, label="s") as turn:
            self._share(n, self._plus(turn.index, self._shared_chunks), columns, blocks)
            with where_lent(self.f):
                for number, (i, j) in enumerate(places):
                    with only_if(builder, turn.index, number):
                        self._store(i, j, blocks)

    @property
    def _shared_chunks(self) -> int:
        """How many chunks take a part of the results that take longer than products: all where
        something is added to these, else none, for the first store finds enough to do."""
        return self.chunks if self.results.operands else 0

    def _share(self, n: Any, number: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The pending group's rounds as far as they are due with a chunk or store by number."""
        whole = self._shared_chunks + self.tiling.tiles * blocks.vectors
        rounds = times(self.builder, self._plus(number, 1), self.results.rounds(blocks))
        self.results.finish(n, columns, blocks, self.builder.udiv(rounds, i64(whole)))

    def _by_vectors(self, xs: Sequence[Any], block: Block) -> None:
        """The accumulators to scratch of a process without AMX."""
        f, count, stride = self.f, block.blocks.vectors, block.blocks.vectors * ROW_BYTES
        with where_not_lent(f):
            for i, x in enumerate(xs):
                to = at(self.builder, self.results.next_place, i * TILE_ROWS * stride)
                left = Left(x, self.p.pixel[2], self.tiling.rows, f.arrays[2], self.chunks,
                            self.tiling.chunk)  # fmt: skip
                multiply(f, left, Right(block.weights, count, stride), to, stride)

    # -------------------------------------------------------- products

    def _ahead(self, number: Any, blocks: Blocks) -> tuple[Any, int]:
        """How far ahead the `number`th group of a block fetches weights from far away, and how
        many lines in each chunk: its part of the next block's, or what it will need itself."""
        size = self._depth * blocks.vectors * ROW_BYTES
        lines = self.tiling.chunk * blocks.vectors
        if size < NEAR_BYTES:
            return i64(0), 0
        if self.groups == 1:
            return i64(FETCHED_CHUNKS * lines * ROW_BYTES), lines
        lines = ceil(lines / self.groups)
        return self._plus(times(self.builder, number, lines * ROW_BYTES), size), lines

    def _chunk(self, xs: Sequence[Any], w: Any, ahead: tuple[Any, int], blocks: Blocks) -> None:
        """One product of every tile of pixels by every tile of channels."""
        self._fetch(at(self.builder, w, ahead[0]), ahead[1])
        activations, weights = self.tiling.pools()
        for i, x in enumerate(xs):
            a = activations[i % len(activations)]
            self._load(a, x, self.p.pixel[2])
            for j in range(blocks.vectors):
                b = weights[j % len(weights)]
                if i == 0:
                    self._load(b, at(self.builder, w, j * ROW_BYTES), blocks.vectors * ROW_BYTES)
                registers = (ir.Constant(I8, r) for r in (i * blocks.vectors + j, a, b))
                self._call("tdpbusd", *registers)

    def _fetch(self, pointer: Any, lines: int) -> None:
        """Into the second-level cache; what is needed soon into the first."""
        for line in range(lines):
            prefetch(self.builder, pointer, line * ROW_BYTES, near=self.groups == 1)

    def _load(self, register: int, pointer: Any, stride: int) -> None:
        numbers = ir.Constant(I8, register), ir.Constant(I64, stride)
        self._call("tileloadd64", numbers[0], pointer, numbers[1])

    def _store(self, i: int, j: int, blocks: Blocks) -> None:
        """Accumulators to scratch: per pixel, those of its channels."""
        stride = blocks.vectors * ROW_BYTES
        to = at(self.builder, self.results.next_place, i * TILE_ROWS * stride + j * ROW_BYTES)
        register = ir.Constant(I8, i * blocks.vectors + j)
        self._call("tilestored64", register, to, ir.Constant(I64, stride))
