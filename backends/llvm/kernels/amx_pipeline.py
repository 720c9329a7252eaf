"""The loops of `amx`: products of a group of tiles, while the results of the one before are
finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.kernels.amx_copy import CopyAhead
from irc.backends.llvm.kernels.amx_tiling import (
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    Tiling,
    chunks,
    vectors,
)
from irc.backends.llvm.kernels.amx_walk import Walk
from irc.backends.llvm.kernels.dot import call
from irc.backends.llvm.kernels.epilogue import Kept, column_groups, finish, fixed, join
from irc.backends.llvm.kernels.memory import at, times
from irc.backends.llvm.kernels.narrow import AT_ONCE
from irc.backends.llvm.kernels.product import Product
from irc.backends.llvm.kernels.stand_in import Left, Right, multiply, where_lent, where_not_lent
from irc.backends.llvm.loop import I32, I64, counted, i64, minimum, only_if, spanned, within
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.work import KernelFunction
from irc.loops import Expr

I8 = ir.IntType(8)
PART_BYTES = 768 * 1024
"""Activations of a part of an image: some of the second-level cache."""
NEAR_BYTES = 16 * 1024
"""Weights of a block of channels up to which the CPU fetches the next one's by itself."""
LONG = 12
"""Groups of tiles in a block that pay for finishing the last one by itself."""
STRAIGHT = 2
"""Rounds for each chunk that are emitted one after the other."""
MANY = 6
"""Rounds for each chunk that take longer than its products."""
FETCHED_CHUNKS = 3
"""How far ahead weights that serve one group are fetched."""
SINK_BYTES = 4 * ROW_BYTES
"""Where results go that are none: a round's vectors at their widest."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of channels of one width in each group of channels: how many, where their packed
    weights and their channels begin, and the vectors and channels of one."""

    count: int
    start: int
    first: int
    vectors: int
    channels: int

    @property
    def pixels(self) -> int:
        """Pixels that are finished together."""
        return AT_ONCE // min(2, self.vectors) if self.vectors < AT_ONCE else 1


def blocks_of(p: Product, tiling: Tiling, depth: int) -> list[Blocks]:
    """The whole blocks, then the rest. Packed weights take `depth` words per channel."""
    whole = p.columns // (tiling.vectors * LANES)
    rest = vectors(p) - whole * tiling.vectors
    channels = whole * tiling.vectors * LANES
    found = [
        Blocks(whole, 0, 0, tiling.vectors, tiling.vectors * LANES),
        Blocks(1, depth * channels * 4, channels, rest, p.columns - channels),
    ]
    return [b for b in found if b.count and b.vectors]


class Pending:
    """What a group of tiles, whose accumulators are stored, still waits for, as variables: `done`
    tells how many of its rounds are finished, `side` which of two places its accumulators have, in
    bytes; the next group's go to the other one."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        names = ("done", "number", "wanted", "channel", "side")
        with builder.goto_entry_block():
            self._places = {name: builder.alloca(I64) for name in names}

    def set(self, **values: Any) -> None:
        """Give variables a value, i64."""
        for name, value in values.items():
            self.builder.store(value, self._places[name])

    def get(self, name: str) -> Any:
        """The value of a variable."""
        return self.builder.load(self._places[name], typ=I64)


@dataclass(frozen=True)
class Columns:
    """Columns (channels) that are finished together: where the accumulators of a row (a pixel)
    begin, in bytes, the first column (i64), how many vectors and columns, and what is known of them
    before any row."""

    offset: int
    first: Any
    vectors: int
    width: int
    known: Mapping[Expr, Any]


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
        """Emit the loops of `amx`'s docstring. `f.arrays` are packed weights, the configuration
        of the tile registers, and the offsets of the chunks."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        self.pending = Pending(self.builder)
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
        image = self.p.pixels[1] * max(self.p.pixel[1], self.p.pixels[2] * self.p.pixel[2])
        size = ceil(self.walk.count / max(1, ceil(image / PART_BYTES)))
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
            self._none_pending(blocks)
        with self._each(blocks) as (group, channel, weights):
            if long:
                self._none_pending(blocks)
            columns = self._columns(channel, blocks) if long else None
            block = Block(channel, weights, blocks, columns)
            source = at(self.builder, base, times(
                self.builder, group, self.p.run if self.p.groups > 1 else 0))  # fmt: skip
            with spanned(self.builder, start, stop, step=self.tiling.tiles, label="t") as wanted:
                self._group(n, source, (start, wanted), block)
            if columns is not None:
                self._finish(n, i64(self._round_count(blocks)), columns, blocks)
        if not long:
            columns = self._columns(self.pending.get("channel"), blocks)
            self._finish(n, i64(self._round_count(blocks)), columns, blocks)

    @property
    def groups(self) -> int:
        """Groups of tiles in an image."""
        return ceil(self.walk.count / self.tiling.tiles)

    def _none_pending(self, blocks: Blocks) -> None:
        done, zero = i64(self._round_count(blocks)), i64(0)
        self.pending.set(done=done, number=zero, wanted=zero, channel=zero, side=zero)

    def _group(self, n: Any, source: Any, tiles: tuple[Any, Any], block: Block) -> None:
        """The products of a group, and between them what the pending one waits for; then the
        accumulators are stored."""
        builder, size, blocks = self.builder, self.tiling.tiles, block.blocks
        start, wanted = tiles
        columns = block.columns or self._columns(self.pending.get("channel"), blocks)
        first = self.walk.first(builder, wanted)
        xs = [self.walk.address(builder, source, self._plus(first, i)) for i in range(size)]
        ahead = self._ahead(builder.udiv(builder.sub(wanted, i64(start)), i64(size)), blocks)
        with where_lent(self.f):
            for register in range(size * blocks.vectors):
                self._call("tilezero", ir.Constant(I8, register))
        if self.copy is not None:
            self.copy.until(self._group_end(self._plus(wanted, size)))
        each = ceil(self._round_count(blocks) / self.chunks)
        with counted(builder, self.chunks, label="k") as k:
            offset = builder.gep(self.f.arrays[2], [k.index], inbounds=True, source_etype=I64)
            offset = builder.load(offset, typ=I64, align=8)
            chunk_bytes = self.tiling.chunk * blocks.vectors * ROW_BYTES
            w = at(builder, block.weights, times(builder, k.index, chunk_bytes))
            with where_lent(self.f):
                self._chunk([at(builder, x, offset) for x in xs], w, ahead, blocks)
            if each < MANY:
                self._some_rounds(n, k.index, each, columns, blocks)
        self._stores(n, each, columns, blocks)
        if self.f.asks:
            self._by_vectors(xs, block)
        side = builder.sub(i64(self.tiling.stored), self.pending.get("side"))
        self.pending.set(
            done=i64(0), number=first, wanted=wanted, channel=block.channel, side=side
        )

    def _stores(self, n: Any, each: int, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The accumulators to scratch; where results take longer than products, a part of them
        before each store, which keeps other units busy."""
        builder, stores = self.builder, self.tiling.tiles * blocks.vectors
        places = [divmod(number, blocks.vectors) for number in range(stores)]
        if each < MANY:
            with where_lent(self.f):
                for i, j in places:
                    self._store(i, j, blocks)
            return
        with counted(builder, stores, label="s") as turn:
            rounds = times(builder, self._plus(turn.index, 1), self._round_count(blocks))
            self._finish(n, builder.udiv(rounds, i64(stores)), columns, blocks)
            with where_lent(self.f):
                for number, (i, j) in enumerate(places):
                    with only_if(builder, turn.index, number):
                        self._store(i, j, blocks)

    def _by_vectors(self, xs: Sequence[Any], block: Block) -> None:
        """The accumulators to scratch of a process without AMX."""
        f, count, stride = self.f, block.blocks.vectors, block.blocks.vectors * ROW_BYTES
        with where_not_lent(f):
            other = self.builder.sub(i64(self.tiling.stored), self.pending.get("side"))
            for i, x in enumerate(xs):
                to = at(self.builder, at(self.builder, f.scratch, other), i * TILE_ROWS * stride)
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
        hints = [ir.Constant(I32, n) for n in (0, 3 if self.groups == 1 else 2, 1)]
        for line in range(lines):
            address = at(self.builder, pointer, line * ROW_BYTES)
            call(self.builder, "llvm.prefetch.p0", ir.VoidType(), [address, *hints])

    def _load(self, register: int, pointer: Any, stride: int) -> None:
        numbers = ir.Constant(I8, register), ir.Constant(I64, stride)
        self._call("tileloadd64", numbers[0], pointer, numbers[1])

    def _store(self, i: int, j: int, blocks: Blocks) -> None:
        """Accumulators to scratch: per pixel, those of its channels."""
        stride = blocks.vectors * ROW_BYTES
        other = self.builder.sub(i64(self.tiling.stored), self.pending.get("side"))
        to = at(self.builder, self.f.scratch, other)
        to = at(self.builder, to, i * TILE_ROWS * stride + j * ROW_BYTES)
        register = ir.Constant(I8, i * blocks.vectors + j)
        self._call("tilestored64", register, to, ir.Constant(I64, stride))

    # -------------------------------------------------------- results

    def _tile_rounds(self, blocks: Blocks) -> int:
        return ceil(self.tiling.rows / blocks.pixels)

    def _round_count(self, blocks: Blocks) -> int:
        """Rounds that finish a group: of some pixels each."""
        return self.tiling.tiles * self._tile_rounds(blocks)

    def _columns(self, channel: Any, blocks: Blocks) -> list[Columns]:
        """A block's channels, as many vectors at a time as are packed together."""
        found = []
        for start, count, width in column_groups(blocks.channels, LANES, AT_ONCE):
            first = self._plus(channel, start * LANES)
            known = fixed(self.f, self.ranges, self.p.reduce, first, width)
            found.append(Columns(start * ROW_BYTES, first, count, width, known))
        return found

    def _some_rounds(
        self, n: Any, chunk: Any, each: int, columns: Sequence[Columns], blocks: Blocks
    ) -> None:
        """`each` of the pending group's rounds, as many as there are for one chunk: one or two
        without a loop, whose end the CPU would not foresee."""
        builder, count = self.builder, self._round_count(blocks)
        if each > STRAIGHT or count % each:
            until = times(builder, self._plus(chunk, 1), each)
            self._finish(n, minimum(builder, until, count), columns, blocks)
            return
        done = self.pending.get("done")
        with builder.if_then(builder.icmp_unsigned("<", done, i64(count))):
            for i in range(each):
                self._round(n, self._plus(done, i), columns, blocks)
            self.pending.set(done=self._plus(done, each))

    def _finish(self, n: Any, until: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The pending group's rounds up to `until`."""
        builder, done = self.builder, self.pending.get("done")
        with (
            builder.if_then(builder.icmp_unsigned("<", done, until)),
            spanned(builder, done, until, label="r") as number,
        ):
            self._round(n, number, columns, blocks)
            self.pending.set(done=self._plus(number, 1))

    def _round(self, n: Any, number: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The expression around the reduction for some pixels of the pending group."""
        builder, stride = self.builder, blocks.vectors * ROW_BYTES
        per_tile = ir.Constant(I64, self._tile_rounds(blocks))
        tile = builder.udiv(number, per_tile)
        row = times(builder, builder.urem(number, per_tile), blocks.pixels)
        line = at(builder, self.f.scratch, self.pending.get("side"))
        line = at(builder, line, times(builder, tile, TILE_ROWS * stride))
        line = at(builder, line, times(builder, row, stride))
        tile = builder.add(self.pending.get("number"), tile)
        place = partial(self.walk.pixel, builder, tile, self.pending.get("wanted"))
        beyond = self.tiling.rows % blocks.pixels != 0
        places = [place(self._plus(row, i), beyond=beyond) for i in range(blocks.pixels)]
        sink = at(builder, self.f.scratch, 2 * self.tiling.stored)
        keep = [None if p.new is None else Kept(p.new, sink) for p in places]
        for c in columns:
            totals = [
                ((n, p.y, p.x, c.first), self._totals(at(builder, line, i * stride + c.offset), c))
                for i, p in enumerate(places)
            ]
            finish(self.f, self.ranges, self.p.reduce, totals, c.width, c.known, keep)

    def _totals(self, pointer: Any, c: Columns) -> Any:
        full = ir.VectorType(I32, LANES)
        loaded = [
            self.builder.load(at(self.builder, pointer, j * ROW_BYTES), typ=full, align=ROW_BYTES)
            for j in range(c.vectors)
        ]
        return join(self.builder, loaded, c.width)
