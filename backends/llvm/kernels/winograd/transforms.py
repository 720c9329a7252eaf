"""The three transforms of Winograd's minimal filtering in LLVM: between an image and the memory of
its products V of inputs, U of weights, and from the sums M the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, counted
from irc.backends.llvm.kernels.gemm.loops import ChannelBlock
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.winograd.minimal import both_ways
from irc.backends.llvm.kernels.winograd.tiling import VECTORS, Tiling
from irc.plan import dense_strides

I8, I16 = ir.IntType(8), ir.IntType(16)


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
        by = constant(self.value.type, bits)
        return _Lanes(self.builder, self.builder.shl(self.value, by))


@dataclass(frozen=True)
class Transforms:
    """The transforms of one tiling, and the addresses of what they read and write."""

    builder: Any
    t: Tiling
    v: Any
    u: Any
    m: Any

    @classmethod
    def of(cls, builder: Any, t: Tiling, scratch: Any) -> Transforms:
        """With all that they need in `scratch`."""
        return cls(builder, t, *(at(builder, scratch, offset) for offset in t.offsets[:3]))

    def of_block(self, channels: ChannelBlock) -> Transforms:
        """With U of a block of outputs, if those of all are kept."""
        if not self.t.kept:
            return self
        each = self.t.u_bytes // (VECTORS * self.t.dot.lanes)
        start = times(self.builder, channels.first, each)
        return replace(self, u=at(self.builder, self.u, start))

    def inputs(self, image: Any, block: Any) -> None:
        """V of a block of rows of tiles of the padded `image`."""
        builder, t = self.builder, self.t
        step = t.dot.nbytes // 2
        strides = dense_strides((1, *t.copy.padded))
        row = strides[1] * t.f.m
        start = at(builder, image, times(builder, block, row))
        with self._tiles() as (y, x, tile), counted(builder, t.channels, step=step) as channel:
            source = at(builder, start, times(builder, y, row))
            source = at(builder, source, times(builder, x, strides[2] * t.f.m))
            source = at(builder, source, channel.index)
            to = at(builder, self.v, times(builder, tile, t.channels * 2))
            to = at(builder, to, times(builder, channel.index, 2))
            vector = ir.VectorType(I8, step)
            size = range(t.f.size)
            image = [[self._load(source, i * strides[1] + j * strides[2], vector,
                                 builder.zext, I16) for j in size] for i in size]  # fmt: skip
            self._store(both_ways(t.f.inputs, image), to, t.v_step)

    def weights(self, chunk: Any, channels: ChannelBlock) -> None:
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

    def results(self, tile: Any, vector: int, added: Any) -> Iterator[tuple[int, int, Any]]:
        """Y of one tile and vector of channels, to each of which something is added: row, column
        and value, row by row."""
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
        if added is not None:
            products[1][1] += _Lanes(builder, added)
        inverse = t.f.inverse - 2**32 if t.f.inverse >= 2**31 else t.f.inverse
        for i, j, result in both_ways(t.f.outputs, products):
            value = result.value
            if inverse != 1:
                value = builder.mul(value, constant(lanes, inverse))
            bits = t.f.shifts[i] + t.f.shifts[j]
            yield i, j, builder.ashr(value, constant(lanes, bits))

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
