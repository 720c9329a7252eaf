"""Convolutions of 3x3 taps side by side, by Winograd's minimal filtering: exact in integers.

An image's tiles of m x m results, and the weights, are transformed to (m + 2)^2 products each,
which are matrix products of i16 over the channels (`minimal` says why that is exact). Weights are
stored as they are and transformed at run time, a block of channels at a time: so the library does
not grow, and memory brings 9 bytes where the products take 72.

    for each image, block of rows of tiles          (its inputs, transformed, stay in the cache)
        for each tile, for each block of inputs:    V[q][tile] = transformed inputs
        for each block of output channels
            for each chunk of input channels
                U[q] = transformed weights          (they stay in the cache)
                for each q, each tile of rows:      M[tile][q] += V[q] * U[q]
            for each row of tiles:  Y = the results of M;  for each pixel: epilogue
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.dot import DotProduct
from irc.backends.llvm.kernels.epilogue import finish, fixed
from irc.backends.llvm.kernels.gemm import ChannelBlock, channel_blocks
from irc.backends.llvm.kernels.halo import Copy, copy_rows, read_rows
from irc.backends.llvm.kernels.memory import at, prefetch, times
from irc.backends.llvm.kernels.minimal import F2, F4, Filter, both_ways
from irc.backends.llvm.kernels.ordered import direct_cycles
from irc.backends.llvm.kernels.product import Product, flatten, match
from irc.backends.llvm.kernels.tile import RegisterTile
from irc.backends.llvm.loop import I32, I64, counted, spanned
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.ops.conv import QConv2d
from irc.plan import aligned, dense_strides
from irc.types import Array

I8, I16 = ir.IntType(8), ir.IntType(16)
LINE = 64
"""Bytes between streams that would otherwise fall on one set of the cache."""
INPUT_BYTES, WEIGHT_BYTES = 512 * 1024, 160 * 1024
"""Transformed inputs of a block and weights of a chunk: parts of the second-level cache."""
FEW_TILES, FEW_WEIGHT_BYTES = 8, 40 * 1024
"""With so few tiles in a block weights are read once only: from the first-level cache."""
TILES = 64
"""Tiles of a block at most, where a row of tiles is not more."""
VECTORS = 2
"""Of channels, in a block."""
AT_ONCE = 2
"""Pixels whose results are packed together."""
WEIGHT_CYCLES = {"maddwd": 2.0, "vpdpwssd": 6.0}
"""Per vector of transformed weights: measured, caches included; wider ones take more of them."""
EPILOGUE_CYCLES = 12
"""Per vector of results."""


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
        proof=_told(t.f, anchor.weights),
    )


def _fits(node: QConv2d) -> bool:
    window = node.window
    plain = window.kernel == (3, 3) and window.dilations == (1, 1) and node.strides == (1, 1)
    return plain and node.groups == 1


# ------------------------------------------------------------ proof


def proved(f: Filter, weights: Array) -> bool:
    """Whether transformed inputs and weights fit i16, sums of two products i32, and results what
    the division leaves."""
    inputs = max(abs(v) for v in f.input_range())
    products = f.weight_bound(int(np.abs(weights.astype(np.int16)).max(initial=0)))
    in_words = inputs < 2**15 and products < 2**15 and 2 * inputs * products < 2**31
    return in_words and result_bound(weights) < f.limit


def result_bound(weights: Array) -> int:
    """The largest magnitude of a sum of bytes times the weights of one channel."""
    w = weights.reshape(len(weights), -1).astype(np.int64)
    return 255 * int(max(np.maximum(w, 0).sum(1).max(), np.maximum(-w, 0).sum(1).max()))


def _told(f: Filter, weights: Array) -> str:
    low, high = f.input_range()
    return (
        f"transformed inputs lie in [{low}, {high}], weights likewise in 16 bits; results are at"
        f" most {result_bound(weights)} < {f.limit}, so that their multiples are exact modulo 2^32"
    )


# ------------------------------------------------------------ choice


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut up: `tiles` rows and columns of tiles, `block` rows of them at a
    time; `channels` and `chunk` of inputs, filled up; `rows` of a register tile."""

    f: Filter
    dot: DotProduct
    copy: Copy
    tiles: tuple[int, int]
    block: int
    channels: int
    chunk: int
    rows: int
    cycles: float

    @property
    def q(self) -> int:
        """Products of a tile."""
        return self.f.size**2

    @property
    def count(self) -> int:
        """Tiles of a block."""
        return self.block * self.tiles[1]

    @property
    def width(self) -> int:
        """Bytes of the accumulators of a tile for one product."""
        return VECTORS * self.dot.nbytes

    @property
    def v_step(self) -> int:
        """Bytes of V from one product to the next."""
        return self.count * self.channels * 2 + LINE

    @property
    def u_step(self) -> int:
        """Bytes of U from one product to the next."""
        return self.chunk // 2 * self.width + LINE

    @property
    def offsets(self) -> tuple[int, int, int, int, int]:
        """Where V, U, M and Y begin in scratch, behind the copied image; and the end."""
        row = self.tiles[1] * self.f.m**2 * self.width
        sizes = (self.q * self.v_step, self.q * self.u_step, self.q * self.count * self.width, row)
        starts = [aligned(self.copy.nbytes, LINE)]
        for size in sizes:
            starts.append(aligned(starts[-1] + size, LINE))
        v, u, m, y, end = starts
        return v, u, m, y, end

    @property
    def scratch(self) -> int:
        """Bytes of scratch."""
        return self.offsets[-1]


_Tilings = tuple[Anchor, Product, list[Tiling], float]


def tiling(anchor: Anchor, f: Filter, target: Target) -> Tiling:
    """How to cut up a convolution, and its estimated cycles."""
    node: Any = anchor.node
    _, height, width, outputs = node.shape
    dot = DotProduct("vpdpwssd" if target.dot is Dot.VPDPBUSD else "maddwd", target.vector_bytes)
    step = target.vector_bytes // 2
    channels = aligned(node.x.shape[3], step)
    tiles = ceil(height / f.m), ceil(width / f.m)
    fits = min(TILES, INPUT_BYTES // (f.size**2 * channels * 2))
    block = max(d for d in range(1, tiles[0] + 1)
                if tiles[0] % d == 0 and (d == 1 or d * tiles[1] <= fits))  # fmt: skip
    weight_bytes = FEW_WEIGHT_BYTES if block * tiles[1] <= FEW_TILES else WEIGHT_BYTES
    chunk = max(c for c in range(step, channels + 1, step)
                if channels % c == 0
                and (c == step or f.size**2 * c // 2 * VECTORS * dot.nbytes <= weight_bytes)
                )  # fmt: skip
    most = min((target.registers - VECTORS - 1 - dot.temporaries) // VECTORS, 6)
    rows = min(range(3, most + 1), key=lambda r: (_row_cycles(block * tiles[1], r, dot), -r))
    top, left, _, _ = node.pads
    _, rows_in, columns_in, depth = node.x.shape
    pads = (top, left, tiles[0] * f.m + 2 - rows_in - top, tiles[1] * f.m + 2 - columns_in - left)
    copy = Copy((rows_in, columns_in, depth), anchor.strides[:3], pads, node.x.type.zero)
    cycles = node.shape[0] * _cycles(f, tiles, block, channels, outputs, dot)
    cycles += node.shape[0] * height * width * ceil(outputs / dot.lanes) * EPILOGUE_CYCLES
    return Tiling(f, dot, copy, tiles, block, channels, chunk, rows, cycles)


def _row_cycles(tiles: int, rows: int, dot: DotProduct) -> float:
    """Cycles of one word of so many tiles, by register tiles of so many rows."""
    parts = [rows] * (tiles // rows) + [tiles % rows] * (tiles % rows > 0)
    return sum(max(r * VECTORS * dot.cycles, (r + VECTORS) / 2, 1.0) for r in parts)


def _cycles(
    f: Filter, tiles: tuple[int, int], block: int, channels: int, outputs: int, dot: DotProduct
) -> float:
    """Estimated cycles of an image but for its epilogue."""
    count, vectors, q = prod(tiles), ceil(outputs / dot.lanes), f.size**2
    products = count * q * (channels // 2) * vectors * dot.cycles
    inputs = count * channels / dot.lanes / 2 * 3 * q
    weights = tiles[0] // block * (channels // 2) * vectors * WEIGHT_CYCLES[dot.kind] * q
    results = count * vectors * 3.5 * q
    return products + inputs + weights + results


def best_cut(t: Tiling, outputs: int) -> tuple[str, int]:
    """Along which loop the work is cut for threads, and into how many units: by blocks of rows of
    tiles, or by blocks of outputs, for each of which all inputs are transformed again."""
    choices = (
        ("blocks", t.tiles[0] // t.block),
        ("channels", ceil(ceil(outputs / t.dot.lanes) / VECTORS)),
    )
    return max(choices, key=lambda choice: balance(choice[1]) + (choice is choices[0]) * 0.05)


def pack(weights: Array, t: Tiling) -> Array:
    """Weights i8 in the order of use: per block of channels, per pair of inputs, per tap, the
    channels of the block with two bytes each. What is missing is 0."""
    outputs, _, _, depth = weights.shape
    lanes = t.dot.lanes
    wide = np.zeros((aligned(outputs, lanes), 9, t.channels), np.int8)
    wide[:outputs, :, :depth] = weights.reshape(outputs, 9, depth)
    blocks = [wide[o : o + VECTORS * lanes] for o in range(0, len(wide), VECTORS * lanes)]
    pairs = [b.reshape(len(b), 9, -1, 2).transpose(2, 1, 0, 3).reshape(-1) for b in blocks]
    return np.ascontiguousarray(np.concatenate(pairs))


# ------------------------------------------------------------ emission


@dataclass(frozen=True)
class _Lanes:
    """A vector in LLVM with the arithmetic that filters are written in; it wraps."""

    builder: Any
    value: Any

    def __add__(self, other: _Lanes) -> _Lanes:
        return _Lanes(self.builder, self.builder.add(self.value, other.value))

    def __sub__(self, other: _Lanes) -> _Lanes:
        return _Lanes(self.builder, self.builder.sub(self.value, other.value))

    def __lshift__(self, bits: int) -> _Lanes:
        by = ir.Constant(self.value.type, [bits] * self.value.type.count)
        return _Lanes(self.builder, self.builder.shl(self.value, by))


class _Winograd:
    def __init__(
        self, anchor: Anchor, node: QConv2d, product: Product, t: Tiling, cut: str
    ) -> None:
        self.anchor = anchor
        self.cut = cut
        self.node = node
        self.product = product
        self.t = t
        self.strides = dense_strides((1, *t.copy.padded))

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder = f, f.builder
        self.ranges = Ranges(f.work.facts)
        t, source = self.t, f.places[self.node.x].pointer
        self.v, self.u, self.m, self.y = (at(self.builder, f.scratch, o) for o in t.offsets[:4])
        split = self.cut if f.split else ""
        rows, blocks = (0, t.copy.padded[0]), t.tiles[0] // t.block
        begin, end = (f.begin, f.end) if split == "blocks" else (0, blocks)
        if split == "blocks":
            rows = read_rows(f, t.copy, blocks, t.block * t.f.m)
        with counted(self.builder, self.node.shape[0], label="n") as image:
            copy_rows(self.builder, t.copy, source, image.index, f.scratch,
                      f.target.vector_bytes, *rows)  # fmt: skip
            with counted(self.builder, end, begin=begin, label="block") as number:
                block = times(self.builder, number.index, t.block)
                self._inputs(block)
                depth = t.channels * 9 // 4
                for channels in channel_blocks(
                    self.builder, self.product, f.arrays[0], depth, VECTORS, t.dot.lanes,
                    blocks=(f.begin, f.end) if split == "channels" else None,
                ):  # fmt: skip
                    self._channels(image.index, block, channels)

    def _inputs(self, block: Any) -> None:
        """V of a block of rows of tiles."""
        builder, t = self.builder, self.t
        step = t.dot.nbytes // 2
        row = self.strides[1] * t.f.m
        start = at(builder, self.f.scratch, times(builder, block, row))
        with self._tiles() as (y, x, tile), counted(builder, t.channels, step=step) as channel:
            source = at(builder, start, times(builder, y, row))
            source = at(builder, source, times(builder, x, self.strides[2] * t.f.m))
            source = at(builder, source, channel.index)
            to = at(builder, self.v, times(builder, tile, t.channels * 2))
            to = at(builder, to, times(builder, channel.index, 2))
            vector = ir.VectorType(I8, step)
            size = range(t.f.size)
            image = [[self._load(source, i * self.strides[1] + j * self.strides[2], vector,
                                 builder.zext, I16) for j in size] for i in size]  # fmt: skip
            self._store(both_ways(t.f.inputs, image), to, t.v_step)

    @contextmanager
    def _tiles(self) -> Iterator[tuple[Any, Any, Any]]:
        """Row, column and number of every tile of a block."""
        t = self.t
        with (
            counted(self.builder, t.block, label="ty") as y,
            counted(self.builder, t.tiles[1], label="tx") as x,
        ):
            first = times(self.builder, y.index, t.tiles[1])
            yield y.index, x.index, self.builder.add(first, x.index, flags=("nsw",))

    def _load(self, source: Any, offset: int, vector: Any, extend: Any, element: Any) -> _Lanes:
        value = self.builder.load(at(self.builder, source, offset), typ=vector, align=1)
        return _Lanes(self.builder, extend(value, ir.VectorType(element, vector.count)))

    def _store(self, tile: Iterator[tuple[int, int, _Lanes]], to: Any, step: int) -> None:
        """Store a transformed tile, `step` bytes from product to product."""
        for i, j, lanes in tile:
            place = (i * self.t.f.size + j) * step
            self.builder.store(lanes.value, at(self.builder, to, place), align=16)

    def _channels(self, image: Any, block: Any, channels: ChannelBlock) -> None:
        builder, t = self.builder, self.t
        with counted(builder, t.channels, step=t.chunk, label="chunk") as chunk:
            self._weights(chunk.index, channels)
            with counted(builder, t.q, label="q") as q:
                self._fetch(q.index, chunk.index, channels)
                self._products(q.index, chunk.index, channels)
        width = min(channels.channels, channels.vectors * t.dot.lanes)
        known = fixed(self.f, self.ranges, self.anchor.reduce, channels.first, width)
        with counted(builder, t.block, label="ty") as row:
            with counted(builder, t.tiles[1], label="tx") as x:
                first = times(builder, row.index, t.tiles[1])
                tile = builder.add(first, x.index, flags=("nsw",))
                for vector in range(channels.vectors):
                    self._results(tile, x.index, vector)
            first = builder.add(block, row.index, flags=("nsw",))
            self._finish(image, times(builder, first, t.f.m), channels, width, known)

    def _weights(self, chunk: Any, channels: ChannelBlock) -> None:
        """U of a chunk of inputs and a block of outputs."""
        builder, t = self.builder, self.t
        nbytes = t.dot.nbytes
        vector = ir.VectorType(I8, nbytes // 2)
        tap = channels.vectors * nbytes // 2
        start = at(builder, channels.weights, times(builder, chunk, 9 * tap // 2))
        with (
            counted(builder, t.chunk // 2, label="pair") as pair,
            counted(builder, channels.vectors, label="v") as v,
        ):
            source = at(builder, start, times(builder, pair.index, 9 * tap))
            source = at(builder, source, times(builder, v.index, nbytes // 2))
            to = at(builder, self.u, times(builder, pair.index, channels.vectors * nbytes))
            to = at(builder, to, times(builder, v.index, nbytes))
            taps = [[self._load(source, (3 * i + j) * tap, vector, builder.sext, I16)
                     for j in range(3)] for i in range(3)]  # fmt: skip
            self._store(both_ways(t.f.weights, taps, by_rows=True), to, t.u_step)

    def _fetch(self, q: Any, chunk: Any, channels: ChannelBlock) -> None:
        """Ask for a part of the weights of the chunk after this one, which lie behind its own."""
        builder, t = self.builder, self.t
        column = 9 * channels.vectors * t.dot.nbytes // 4
        lines = ceil(t.chunk * column / t.q / LINE)
        start = at(builder, channels.weights, times(builder, chunk, column))
        start = at(builder, start, times(builder, q, lines * LINE))
        for line in range(lines):
            prefetch(builder, start, t.chunk * column + line * LINE)

    def _products(self, q: Any, chunk: Any, channels: ChannelBlock) -> None:
        """M of one product for all tiles of a block."""
        builder, t = self.builder, self.t
        x = at(builder, self.v, times(builder, q, t.v_step))
        x = at(builder, x, times(builder, chunk, 2))
        w = at(builder, self.u, times(builder, q, t.u_step))
        m = at(builder, self.m, times(builder, q, t.width))
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

    def _results(self, tile: Any, x: Any, vector: int) -> None:
        """Y of one tile and vector of channels."""
        builder, t = self.builder, self.t
        lanes = ir.VectorType(I32, t.dot.lanes)
        source = at(builder, self.m, times(builder, tile, t.q * t.width))
        size, nbytes = t.f.size, t.dot.nbytes
        products = [
            [
                _Lanes(builder, builder.load(
                    at(builder, source, (i * size + j) * t.width + vector * nbytes),
                    typ=lanes, align=16))
                for j in range(size)
            ]
            for i in range(size)
        ]  # fmt: skip
        inverse = t.f.inverse - 2**32 if t.f.inverse >= 2**31 else t.f.inverse
        to = at(builder, self.y, times(builder, x, t.f.m * t.width))
        for i, j, result in both_ways(t.f.outputs, products):
            value = result.value
            if inverse != 1:
                value = builder.mul(value, ir.Constant(lanes, [inverse] * lanes.count))
            bits = t.f.shifts[i] + t.f.shifts[j]
            value = builder.ashr(value, ir.Constant(lanes, [bits] * lanes.count))
            place = (i * t.tiles[1] * t.f.m + j) * t.width + vector * nbytes
            builder.store(value, at(builder, to, place), align=16)

    def _finish(
        self, n: Any, y: Any, channels: ChannelBlock, width: int, known: dict[Any, Any]
    ) -> None:
        """The rows of pixels of a row of tiles, as many as the image has."""
        builder, t = self.builder, self.t
        _, height, columns, _ = self.node.shape
        with counted(builder, t.f.m, label="i") as i:
            row = builder.add(y, i.index, flags=("nsw",))
            line = at(builder, self.y, times(builder, i.index, t.tiles[1] * t.f.m * t.width))

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
