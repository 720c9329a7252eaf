"""Convolutions and linear layers on AMX: `tdpbusd` multiplies tiles of 16 pixels and 16 channels.

A tile of pixels is up to 16 neighbours in one row of the result; `tileloadd` reads their bytes with
the stride from pixel to pixel, so that, as in `gemm`, nothing is gathered into columns first. Up to
four tiles of accumulators are multiplied together, then stored to scratch, where the expression
around the reduction takes them up, pixel by pixel.

    for each image, part of its tiles of pixels  (the part stays in the cache)
        for each block of channels               (its weights stay in the cache)
            for each group of tiles of pixels
                for each tap, for each chunk:  acc[i][j] += x[i] * w[j]
                for each pixel:  epilogue

The last tile of a row and the last group of an image reach back over the ones before, so that all
are of one size; only new pixels are finished. Chunks of a run reach back likewise, over weights 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from itertools import product as cross
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.kernels.dot import DotProduct, call
from irc.backends.llvm.kernels.epilogue import column_groups, finish, fixed, join
from irc.backends.llvm.kernels.gemm import ChannelBlock, Tile, best_tile, channel_blocks, pack
from irc.backends.llvm.kernels.halo import Copy, copy_rows
from irc.backends.llvm.kernels.memory import at, times
from irc.backends.llvm.kernels.narrow import AT_ONCE
from irc.backends.llvm.kernels.product import Product, flatten, match
from irc.backends.llvm.loop import I32, I64, counted, spanned
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.loops import Expr
from irc.types import Array

I8 = ir.IntType(8)
TILE_ROWS, ROW_BYTES, LANES = 16, 64, 16
"""Of a tile register; and the accumulators in its row."""
REGISTERS = 8
ACCUMULATORS = 4
UNROLLED = 12
"""Chunks that are emitted one after the other rather than looped over."""
PART_BYTES = 768 * 1024
"""Activations of a part of an image: some of the second-level cache."""
FEWEST_CYCLES = 10
"""Of a product, however few pixels it has; else one per pixel."""
EPILOGUE_CYCLES = {1: 7.0, 2: 5.5, 3: 6.0, 4: 5.0}
"""Per vector of results, by how many of a pixel are stored together."""
FAR_BYTES = 15
"""Per cycle, of weights from the last cache or memory, where products hide some of the way."""
NEAR_BYTES = 16 * 1024
"""Weights of a block of channels up to which the CPU fetches the next one's by itself."""
TILINGS = 3
"""Of how many there are kernels."""
GROUP_CYCLES = 60
"""Per group of tiles: addresses, and waiting for the last products."""


def amx(work: Work, target: Target, *, always: bool = False) -> MicroKernel | None:
    """A kernel for one convolution or linear layer, where the CPU has AMX and it pays (or
    `always`)."""
    found = match(work) if target.tiles else None
    if found is None:
        return None
    narrow = flatten(work, found)
    ((tiling, cycles, p), *_), vectors = _choices(narrow, target)
    pays = always or cycles < vectors[1]
    return _kernel(p, narrow.pixels[2], tiling, cycles, vectors) if pays else None


def amxs(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by a few tilings, the one of fewest estimated cycles first, whether it pays or
    not."""
    found = match(work) if target.tiles else None
    if found is None:
        return
    narrow = flatten(work, found)
    tilings, vectors = _choices(narrow, target)
    for tiling, cycles, p in tilings[:TILINGS]:
        yield _kernel(p, narrow.pixels[2], tiling, cycles, vectors)


def _choices(
    narrow: Product, target: Target
) -> tuple[list[tuple[Tiling, float, Product]], tuple[Tile, float]]:
    """The tilings of a product, and of it over whole rows, with their cycles, the best first; and
    the tile and cycles of vectors."""
    forms = [p for p in (narrow, whole_rows(narrow)) if p is not None]
    tilings = [(t, cycles, p) for p in forms for t, cycles in best_tilings(p)]
    vectors = DotProduct("vpdpbusd", target.vector_bytes)
    best = best_tile(narrow, vectors, target.registers)
    return sorted(tilings, key=lambda c: c[1]), best


def _kernel(
    p: Product, columns: int, tiling: Tiling, cycles: float, vectors: tuple[Tile, float]
) -> MicroKernel:
    """The kernel; `columns` are those of the result's rows, `vectors` what would do without."""
    tile, without = vectors
    dot = DotProduct("vpdpbusd", ROW_BYTES)
    cut, units = best_cut(p, tiling)
    ideal = p.groups * np.prod(p.pixels) * _vectors(p) * _chunks(p) * tiling.chunk / TILE_ROWS
    return MicroKernel(
        name=f"qgemm_u8i8_{tiling.tiles * tiling.rows}x{tiling.vectors * LANES}_amx",
        key=f"{p.pixels} {p.pixel} {p.taps} {p.run} {p.copy} {tiling} {cut}",
        emit=_Amx(p, tiling, cut, columns).emit,
        arrays=(pack(_chunked(p, tiling.chunk), dot, tiling.vectors), configuration(tiling)),
        replaces=(p.weights,),
        scratch=2 * tiling.stored + (p.copy.nbytes if p.copy else 0),
        units=units,
        reason=f"{tiling.tiles} tiles of {tiling.rows} pixels x {tiling.vectors * LANES} channels,"
        f" {tiling.chunk * 4} bytes at a time: {100 * ideal / cycles:.0f} % of its cycles multiply;"
        f" {without / cycles:.1f} times as fast as vectors, tile of {tile.rows} pixels",
        proof="tdpbusd wraps in 32 bits: exact",
    )


# ------------------------------------------------------------ choice


@dataclass(frozen=True)
class Tiling:
    """What is computed at one time: `tiles` tiles of `rows` pixels by `vectors` tiles of channels,
    `chunk` words of four bytes of each pixel in one product."""

    rows: int
    tiles: int
    vectors: int
    chunk: int

    @property
    def stored(self) -> int:
        """Bytes of the accumulators, stored."""
        return self.tiles * TILE_ROWS * self.vectors * ROW_BYTES

    def pools(self) -> tuple[range, range]:
        """Tile registers of activations and of weights; the first ones are accumulators."""
        used = self.tiles * self.vectors
        weights = min(self.vectors, REGISTERS - used - 1)
        end = min(used + self.tiles, REGISTERS - weights)
        return range(used, end), range(end, end + weights)


def whole_rows(p: Product) -> Product | None:
    """The product over whole rows of what is read, as one row: so a tile goes on in the next row
    where rows are narrow. What lies between the rows of the result is computed for nothing."""
    _, rows, columns = p.pixels
    if rows == 1 or p.pixel[1] % p.pixel[2] or p.pixel[1] // p.pixel[2] < columns:
        return None
    extent = (rows - 1) * (p.pixel[1] // p.pixel[2]) + columns
    return dataclasses.replace(p, pixels=(p.pixels[0], 1, extent))


def best_tilings(p: Product) -> list[tuple[Tiling, float]]:
    """Every tiling with its estimated cycles, the one of fewest first."""
    rows = ceil(p.pixels[2] / ceil(p.pixels[2] / TILE_ROWS))
    chunk = ceil(p.words / _run_chunks(p))
    tiles = min(ACCUMULATORS, p.pixels[1] * ceil(p.pixels[2] / rows))
    options = (
        Tiling(rows, t, v, chunk)
        for t, v in cross(range(1, tiles + 1), range(1, min(ACCUMULATORS, _vectors(p)) + 1))
        if t * v <= ACCUMULATORS
    )
    costs = [(_cost(p, option), -option.vectors, option) for option in options]
    return [(tiling, cycles) for cycles, _, tiling in sorted(costs, key=lambda c: c[:2])]


def _cost(p: Product, t: Tiling) -> float:
    """Products one after the other, beside their loads; the weights from far away; then results."""
    total, groups = 0.0, ceil(_tiles(p, t.rows) / t.tiles)
    for v, many in ((t.vectors, _vectors(p) // t.vectors), (_vectors(p) % t.vectors, 1)):
        if v and many:
            multiply = t.tiles * v * max(t.rows, FEWEST_CYCLES)
            products = _chunks(p) * max(multiply, t.tiles * t.rows + v * t.chunk)
            weights = _chunks(p) * t.chunk * v * ROW_BYTES / FAR_BYTES
            results = t.tiles * t.rows * v * EPILOGUE_CYCLES[v]
            total += many * (groups * (products + results + GROUP_CYCLES) + weights)
    return total * p.groups * p.pixels[0]


def _tiles(p: Product, rows: int) -> int:
    """Tiles of pixels in an image."""
    return p.pixels[1] * ceil(p.pixels[2] / rows)


def _vectors(p: Product) -> int:
    return ceil(p.columns / LANES)


def _run_chunks(p: Product) -> int:
    return ceil(p.words / TILE_ROWS)


def _chunks(p: Product) -> int:
    return p.depth // p.words * _run_chunks(p)


def _starts(p: Product, chunk: int) -> list[int]:
    """First word of each chunk of a run; the last one ends with the run."""
    return [min(i * chunk, p.words - chunk) for i in range(_run_chunks(p))]


def _chunked(p: Product, chunk: int) -> Array:
    """The matrix as `Product.packed`, in chunks: what two chunks have in common is 0 in the later
    one."""
    groups, columns = p.packed.shape[:2]
    runs = p.packed.reshape(groups, columns, -1, p.words, 4)
    parts = []
    for number, start in enumerate(_starts(p, chunk)):
        part = runs[..., start : start + chunk, :].copy()
        part[..., : number * chunk - start, :] = 0
        parts.append(part)
    return np.concatenate(parts, axis=3).reshape(groups, columns, -1, 4)


def configuration(t: Tiling) -> Array:
    """The operand of `ldtilecfg`: palette 1, bytes of a row (u16) and rows of each register."""
    words, content = np.zeros(16, np.uint16), np.zeros(64, np.uint8)
    activations, weights = t.pools()
    words[: weights.stop] = ROW_BYTES
    words[activations.start : activations.stop] = t.chunk * 4
    content[0] = 1
    content[16:48] = words.view(np.uint8)
    content[48 : 48 + activations.stop] = t.rows
    content[48 + weights.start : 48 + weights.stop] = t.chunk
    return content


def best_cut(p: Product, t: Tiling) -> tuple[str, int]:
    """Along which loop the work is cut for threads, and into how many units: by groups of tiles of
    pixels, or by blocks of channels where they balance better or hold more bytes than the
    image."""
    pixels = ("tiles", ceil(_tiles(p, t.rows) / t.tiles))
    channels = ("channels", ceil(_vectors(p) / t.vectors))
    channels = ("groups", p.groups) if p.groups > 1 else channels
    wide = p.matrix.nbytes > np.prod(p.pixels) * p.run * p.groups and p.copy is None
    choices = (channels, pixels) if wide else (pixels, channels)
    return max(choices, key=lambda choice: balance(choice[1]) + (choice is choices[0]) * 0.05)


# ------------------------------------------------------------ emission


@dataclass(frozen=True)
class _Place:
    """A tile of pixels: its row, its first pixel, and how many of its pixels are old."""

    y: Any
    x: Any
    old: Any


@dataclass(frozen=True)
class _Columns:
    """Channels that are finished together: where a pixel's accumulators begin, in bytes, the first
    channel (i64), how many vectors and channels, and what is known of them before any pixel."""

    offset: int
    first: Any
    vectors: int
    width: int
    known: Mapping[Expr, Any]


class _Amx:
    def __init__(self, product: Product, tiling: Tiling, cut: str, columns: int) -> None:
        self.p = product
        self.columns = columns
        self.wide = columns != product.pixels[2]
        self.cut = cut
        self.tiling = tiling
        self.count = _tiles(product, tiling.rows)
        self.row_tiles = ceil(product.pixels[2] / tiling.rows)
        fill = self.row_tiles * tiling.rows == product.pixels[2]
        self.even = fill and self.count % tiling.tiles == 0

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        self._call("ldtilecfg", f.arrays[1])
        source, p = f.places[self.p.source].pointer, self.p
        with counted(self.builder, p.pixels[0], label="n") as image:
            base = at(self.builder, source, times(self.builder, image.index, p.pixel[0]))
            if p.copy is not None:
                base = at(self.builder, f.scratch, 2 * self.tiling.stored)
                copy_rows(self.builder, p.copy, source, image.index, base, f.target.vector_bytes,
                          *self._rows(p.copy))  # fmt: skip
            for start, stop in self._parts():
                for block in channel_blocks(
                    self.builder, p, f.arrays[0], self._depth, self.tiling.vectors, LANES,
                    groups=self._bounds("groups"), blocks=self._bounds("channels"),
                ):  # fmt: skip
                    shift = times(self.builder, block.group, p.run if p.groups > 1 else 0)
                    self._block(at(self.builder, base, shift), image.index, start, stop, block)
        self._call("tilerelease")

    @cached_property
    def _depth(self) -> int:
        """Words of packed weights of a channel."""
        return _chunks(self.p) * self.tiling.chunk

    def _call(self, name: str, *arguments: Any) -> None:
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), list(arguments))

    def _parts(self) -> Iterator[tuple[Any, Any]]:
        """First tile and end of every part of an image."""
        image = self.p.pixels[1] * max(self.p.pixel[1], self.p.pixels[2] * self.p.pixel[2])
        size = ceil(self.count / max(1, ceil(image / PART_BYTES)))
        size = ceil(size / self.tiling.tiles) * self.tiling.tiles
        begin, end = self._tiles()
        with counted(self.builder, end, begin=begin, step=size, label="part") as part:
            yield part.index, self._least(self._plus(part.index, size), end)

    def _bounds(self, cut: str) -> tuple[Any, Any] | None:
        """The units to do, where the work is cut by these."""
        return (self.f.begin, self.f.end) if self.f.split and cut == self.cut else None

    def _tiles(self) -> tuple[Any, Any]:
        """The tiles to do: from which to which."""
        bounds = self._bounds("tiles")
        if bounds is None:
            return 0, self.count
        begin, end = (times(self.builder, b, self.tiling.tiles) for b in bounds)
        return begin, self._least(end, self.count)

    def _rows(self, copy: Copy) -> tuple[Any, Any]:
        """The padded rows that those tiles read."""
        builder, rows = self.builder, self.p.pixels[1]
        if self._bounds("tiles") is None or rows == 1:
            return 0, copy.padded[0]
        begin, end = self._tiles()
        step = self.p.pixel[1] // (copy.padded[1] * copy.padded[2])
        first = self._place(begin).y
        last = self._place(builder.sub(end, ir.Constant(I64, 1))).y
        more = ir.Constant(I64, copy.padded[0] - (rows - 1) * step)
        return times(builder, first, step), builder.add(times(builder, last, step), more)

    def _block(self, base: Any, n: Any, start: Any, stop: Any, block: ChannelBlock) -> None:
        """Groups of tiles of a part of the image, for one block of channels: while the products of
        one are under way, the results of the one before are finished."""
        builder, size = self.builder, self.tiling.tiles
        columns = self._columns(block)
        with spanned(builder, start, self._plus(stop, size), step=size, label="t") as wanted:
            number = builder.udiv(builder.sub(wanted, start), ir.Constant(I64, size))
            with builder.if_then(builder.icmp_unsigned("<", wanted, stop)):
                first = self._least(wanted, self.count - size)
                places = [self._place(self._plus(first, i)) for i in range(size)]
                self._multiply([self._address(base, p) for p in places], block, number)
            with builder.if_else(builder.icmp_unsigned("==", wanted, start)) as (at_first, later):
                with at_first:
                    for store in self._stores(number, block.vectors):
                        store()
                with later:
                    before = builder.sub(wanted, ir.Constant(I64, size))
                    self._finish(n, before, number, columns)

    def _finish(self, n: Any, wanted: Any, number: Any, columns: Sequence[_Columns]) -> None:
        """The results of a group, a part of a tile after the other, and between them the stores of
        the group `number` after it: they keep other units busy."""
        builder, vectors = self.builder, sum(c.vectors for c in columns)
        first = self._least(wanted, self.count - self.tiling.tiles)
        buffer = self._buffer(self._plus(number, 1))
        stores = iter(self._stores(number, vectors))
        for i in range(self.tiling.tiles):
            place = self._place(self._plus(first, i))
            skipped = builder.icmp_unsigned("<", self._plus(first, i), wanted)
            rows = ir.Constant(I64, self.tiling.rows)
            place = dataclasses.replace(place, old=builder.select(skipped, rows, place.old))
            tile = at(builder, buffer, i * self._tile_bytes(vectors))
            for start, stop in self._row_parts(vectors):
                self._epilogue(n, place, tile, columns, (start, stop))
                next(stores)()

    def _row_parts(self, count: int) -> list[tuple[int, int]]:
        """A tile's pixels in so many parts, of whole rounds of the epilogue's loops."""
        step = ceil(self.tiling.rows / count / AT_ONCE) * AT_ONCE
        bounds = [min(i * step, self.tiling.rows) for i in range(count + 1)]
        return list(pairwise(bounds))

    def _columns(self, block: ChannelBlock) -> list[_Columns]:
        """The block's channels, as many vectors at a time as are packed together."""
        found = []
        for start, vectors, width in column_groups(block.channels, LANES, AT_ONCE):
            first = self.builder.add(block.first, ir.Constant(I64, start * LANES))
            known = fixed(self.f, self.ranges, self.p.reduce, first, width)
            found.append(_Columns(start * ROW_BYTES, first, vectors, width, known))
        return found

    def _buffer(self, number: Any) -> Any:
        """Where a group's accumulators are stored: there are two places."""
        odd = self.builder.and_(number, ir.Constant(I64, 1))
        return at(self.builder, self.f.scratch, times(self.builder, odd, self.tiling.stored))

    def _tile_bytes(self, vectors: int) -> int:
        return TILE_ROWS * vectors * ROW_BYTES

    def _place(self, tile: Any) -> _Place:
        builder, extent, rows = self.builder, self.p.pixels[2], self.tiling.rows
        if self.row_tiles == 1:
            return _Place(tile, ir.Constant(I64, 0), ir.Constant(I64, 0))
        count = ir.Constant(I64, self.row_tiles)
        y = builder.udiv(tile, count) if self.p.pixels[1] > 1 else ir.Constant(I64, 0)
        wanted = times(builder, builder.sub(tile, builder.mul(y, count)), rows)
        x = self._least(wanted, extent - rows)
        return _Place(y, x, builder.sub(wanted, x))

    def _address(self, base: Any, place: _Place) -> Any:
        builder, pixel = self.builder, self.p.pixel
        row = at(builder, base, times(builder, place.y, pixel[1]))
        return at(builder, row, times(builder, place.x, pixel[2]))

    def _least(self, value: Any, bound: Any) -> Any:
        bound = ir.Constant(I64, bound) if isinstance(bound, int) else bound
        builder = self.builder
        return builder.select(builder.icmp_unsigned("<", value, bound), value, bound)

    def _plus(self, value: Any, number: int) -> Any:
        return self.builder.add(value, ir.Constant(I64, number), flags=("nuw", "nsw"))

    # -------------------------------------------------------- products

    def _multiply(self, xs: Sequence[Any], block: ChannelBlock, number: Any) -> None:
        """The products of a group, the `number`th of its block. Each group fetches its part of the
        next block's weights from far away."""
        lines = self.tiling.chunk * block.vectors
        groups = ceil(self.count / self.tiling.tiles)
        self.fetched = ceil(lines / groups) if groups > 1 else 0
        size = _chunks(self.p) * self._chunk_bytes(block.vectors)
        if size < NEAR_BYTES:
            self.fetched = 0
        part = times(self.builder, number, self.fetched * ROW_BYTES)
        self.ahead = self.builder.add(part, ir.Constant(I64, size))
        for register in range(self.tiling.tiles * block.vectors):
            self._call("tilezero", ir.Constant(I8, register))
        self._taps(0, xs, block.weights, block.vectors)

    def _taps(self, level: int, xs: Sequence[Any], w: Any, vectors: int) -> None:
        """The loops over taps, outermost first; then the chunks of a run."""
        if level == len(self.p.taps):
            self._run(xs, w, vectors)
            return
        extent, step = self.p.taps[level]
        inner = _run_chunks(self.p)
        for count, _ in self.p.taps[level + 1 :]:
            inner *= count
        size = inner * self._chunk_bytes(vectors)
        for index in self._looped(extent, unrolled=extent * inner <= UNROLLED):
            moved = [at(self.builder, x, self._scaled(index, step)) for x in xs]
            self._taps(level + 1, moved, at(self.builder, w, self._scaled(index, size)), vectors)

    def _run(self, xs: Sequence[Any], w: Any, vectors: int) -> None:
        """The chunks of a run."""
        starts, chunk = _starts(self.p, self.tiling.chunk), self.tiling.chunk
        even = [s for i, s in enumerate(starts) if s == i * chunk]
        for index in self._looped(len(even), unrolled=len(starts) <= UNROLLED):
            moved = [at(self.builder, x, self._scaled(index, chunk * 4)) for x in xs]
            weights = at(self.builder, w, self._scaled(index, self._chunk_bytes(vectors)))
            self._chunk(moved, weights, vectors)
        if len(even) < len(starts):
            moved = [at(self.builder, x, starts[-1] * 4) for x in xs]
            self._chunk(moved, at(self.builder, w, len(even) * self._chunk_bytes(vectors)), vectors)

    def _looped(self, extent: int, *, unrolled: bool) -> Iterator[Any]:
        """Indices: numbers, or those of a loop."""
        if unrolled:
            yield from range(extent)
            return
        unroll = max(u for u in (1, 2, 3, 4) if extent % u == 0)
        with counted(self.builder, extent, step=unroll, label="k") as loop:
            for i in range(unroll):
                yield self._plus(loop.index, i)

    def _scaled(self, index: Any, factor: int) -> Any:
        return index * factor if isinstance(index, int) else times(self.builder, index, factor)

    def _chunk_bytes(self, vectors: int) -> int:
        """Bytes of packed weights in a chunk."""
        return self.tiling.chunk * vectors * ROW_BYTES

    def _chunk(self, xs: Sequence[Any], w: Any, vectors: int) -> None:
        """One product of every tile of pixels by every tile of channels."""
        self._fetch(at(self.builder, w, self.ahead))
        activations, weights = self.tiling.pools()
        for i, x in enumerate(xs):
            a = activations[i % len(activations)]
            self._load(a, x, self.p.pixel[2])
            for j in range(vectors):
                b = weights[j % len(weights)]
                if i == 0:
                    self._load(b, at(self.builder, w, j * ROW_BYTES), vectors * ROW_BYTES)
                registers = (ir.Constant(I8, r) for r in (i * vectors + j, a, b))
                self._call("tdpbusd", *registers)

    def _fetch(self, pointer: Any) -> None:
        """Into the second-level cache."""
        hints = [ir.Constant(I32, n) for n in (0, 2, 1)]
        for line in range(self.fetched):
            address = at(self.builder, pointer, line * ROW_BYTES)
            call(self.builder, "llvm.prefetch.p0", ir.VoidType(), [address, *hints])

    def _load(self, register: int, pointer: Any, stride: int) -> None:
        numbers = ir.Constant(I8, register), ir.Constant(I64, stride)
        self._call("tileloadd64", numbers[0], pointer, numbers[1])

    # -------------------------------------------------------- results

    def _stores(self, number: Any, vectors: int) -> list[Callable[[], None]]:
        """What stores the accumulators of a group to scratch, each on its own: per pixel, those of
        its channels."""
        buffer, stride = self._buffer(number), vectors * ROW_BYTES

        def store(i: int, j: int) -> None:
            to = at(self.builder, buffer, i * self._tile_bytes(vectors) + j * ROW_BYTES)
            register = ir.Constant(I8, i * vectors + j)
            self._call("tilestored64", register, to, ir.Constant(I64, stride))

        return [partial(store, i, j) for i in range(self.tiling.tiles) for j in range(vectors)]

    def _epilogue(
        self, n: Any, place: _Place, tile: Any, columns: Sequence[_Columns], part: tuple[int, int]
    ) -> None:
        """The expression around the reduction for the new ones of some pixels of a tile."""
        builder = self.builder
        stride = ROW_BYTES * sum(c.vectors for c in columns)
        for c in columns:
            at_once = 1 if self.wide else AT_ONCE // c.vectors
            for row, pixels in self._rounds(place.old, part, at_once):
                line = at(builder, tile, times(builder, row, stride))
                x = builder.add(place.x, row, flags=("nuw", "nsw"))
                with self._inside(place.y, x) as (y, column):
                    totals = []
                    for i in range(pixels):
                        total = self._totals(at(builder, line, i * stride + c.offset), c)
                        totals.append(((n, y, self._plus(column, i), c.first), total))
                    finish(self.f, self.ranges, self.p.reduce, totals, c.width, c.known)

    @contextmanager
    def _inside(self, y: Any, x: Any) -> Iterator[tuple[Any, Any]]:
        """A pixel's row and column; of whole rows, only those inside of the result."""
        if not self.wide:
            yield y, x
            return
        builder, width = self.builder, self.p.pixel[1] // self.p.pixel[2]
        row = builder.udiv(x, ir.Constant(I64, width))
        column = builder.sub(x, times(builder, row, width))
        with builder.if_then(builder.icmp_unsigned("<", column, ir.Constant(I64, self.columns))):
            yield row, column

    def _rounds(self, old: Any, part: tuple[int, int], pixels: int) -> Iterator[tuple[Any, int]]:
        """Loops over a part of a tile's pixels, from `old` on: so many at a time, then one by
        one."""
        builder, (low, high) = self.builder, part
        start: Any = ir.Constant(I64, low)
        if not self.even:
            later = builder.icmp_unsigned(">", old, start)
            start = builder.select(later, self._least(old, high), start)
        count = builder.sub(ir.Constant(I64, high), start)
        whole = builder.sub(count, builder.urem(count, ir.Constant(I64, pixels)))
        end = builder.add(start, whole)
        if high - low >= pixels:
            with self._if(whole, always=self.even), \
                 spanned(builder, start, end, step=pixels, label="r") as row:  # fmt: skip
                yield row, pixels
        if pixels > 1 and not (self.even and (high - low) % pixels == 0):
            with self._if(builder.sub(count, whole), always=self.even), \
                 spanned(builder, end, high, label="r") as row:  # fmt: skip
                yield row, 1

    @contextmanager
    def _if(self, count: Any, *, always: bool) -> Iterator[None]:
        if always:
            yield
            return
        some = self.builder.icmp_unsigned("!=", count, ir.Constant(I64, 0))
        with self.builder.if_then(some):
            yield

    def _totals(self, pointer: Any, c: _Columns) -> Any:
        full = ir.VectorType(I32, LANES)
        loaded = [
            self.builder.load(at(self.builder, pointer, j * ROW_BYTES), typ=full, align=ROW_BYTES)
            for j in range(c.vectors)
        ]
        return join(self.builder, loaded, c.width)
