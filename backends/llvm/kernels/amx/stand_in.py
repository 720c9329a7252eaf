"""What stands in for AMX where a library may not have it: the products of one tile by `vpdpbusd`.

Such a library holds each kernel once. Its tiles, weights, accumulators in scratch and the
expression around the reduction are AMX's; only the instructions on tile registers are passed over,
and the accumulators of a tile come from a function that all kernels share:

    for each block of the tile's rows               (the last one reaches back over the one before)
        acc[r][v] = what they begin with
        for each chunk, for each word:  acc[r][v] += dot(broadcast(x[r]), w[v])
        acc to scratch
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.dispatch import tiles_lent
from irc.backends.llvm.code.functions import PTR, declare
from irc.backends.llvm.code.loop import I32, I64, counted, i64, minimum, splat
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.tile import RegisterTile, carrying
from irc.backends.llvm.work import KernelFunction

I8 = ir.IntType(8)
DOT = DotProduct("vpdpbusd", 64)
REGISTERS, MOST_ROWS, LATENCY = 32, 16, 5.0
NOTHING = 4 * DOT.nbytes
"""Bytes of 0 that accumulators may begin with."""


@contextmanager
def where_lent(f: KernelFunction) -> Iterator[None]:
    """Emit what follows for processes that have AMX: without a test where all have."""
    if not f.asks:
        yield
        return
    with f.builder.if_then(tiles_lent(f.builder), likely=True):
        yield


@contextmanager
def where_not_lent(f: KernelFunction) -> Iterator[None]:
    """Emit what follows for processes that don't have AMX; only where `f.asks`."""
    lacking = f.builder.not_(tiles_lent(f.builder))
    with f.builder.if_then(lacking, likely=False):
        yield


@dataclass(frozen=True)
class Left:
    """A tile of activations: where its first row is, bytes from row to row, rows; the pointer to
    its chunks' offsets (i64), how many they are, and of how many words each."""

    x: Any
    step: int
    rows: int
    offsets: Any
    chunks: int
    words: int
    signed: bool = False


@dataclass(frozen=True)
class Right:
    """Packed words of `vectors` vectors, and bytes from one word to the next."""

    w: Any
    vectors: int
    step: int


def multiply(
    f: KernelFunction, left: Left, right: Right, to: Any, to_step: int, begin: Any = None
) -> None:
    """Accumulators of a tile, row by row `to_step` bytes apart, from what they `begin` with in
    every row (default 0)."""
    rows = best_rows(left.rows, right.vectors, signed=left.signed)
    function = _function(f, Body(rows, right.vectors, left.step, left.signed))
    begin = _zeros(f) if begin is None else begin
    numbers = (left.rows, left.chunks, left.words, right.step, to_step)
    f.builder.call(function, [left.x, left.offsets, right.w, begin, to, *map(i64, numbers)])


def best_rows(rows: int, vectors: int, *, signed: bool) -> int:
    """Rows of a block: those that take the fewest cycles."""
    spare = REGISTERS - (2 * vectors + 2 if signed else vectors + 1)
    most = min(rows, MOST_ROWS, spare // vectors)

    def cycles(block: int) -> float:
        return ceil(rows / block) * max(block * vectors * DOT.cycles, LATENCY)

    return min(range(1, most + 1), key=lambda block: (cycles(block), -block))


def _zeros(f: KernelFunction) -> Any:
    module = f.builder.module
    name = f"{module.name}_nothing"
    if name not in module.globals:
        made: Any = ir.GlobalVariable(module, ir.ArrayType(I8, NOTHING), name)
        made.linkage, made.global_constant, made.align = "internal", True, DOT.nbytes
        made.initializer = ir.Constant(made.value_type, None)
    return module.globals[name]


def _function(f: KernelFunction, body: Body) -> Any:
    """The function for blocks of one shape, emitted at first need."""
    module = f.builder.module
    kind = "i8" if body.signed else "u8"
    name = f"{module.name}_dot_{kind}_{body.rows}x{body.vectors}_{body.step}"
    if name not in module.globals:
        function = declare(module, name, [PTR] * 5 + [I64] * 5, f.target)
        for attribute in ("optsize", "cold", "noduplicate"):  # nor the loops that call it
            function.attributes.add(attribute)
        body.emit(ir.IRBuilder(function.append_basic_block("entry")), Given(*function.args))
    return module.globals[name]


class Given(NamedTuple):
    """What the function is called with: the first row and the offsets of its chunks, packed words,
    what accumulators begin with, where they go; then numbers, i64: rows, chunks, words of a chunk,
    bytes from one packed word to the next, and from one row of accumulators to the next."""

    x: Any
    offsets: Any
    w: Any
    begin: Any
    to: Any
    rows: Any
    chunks: Any
    words: Any
    w_step: Any
    to_step: Any


@dataclass(frozen=True)
class Body:
    """The function for `rows` rows at a time by `vectors` vectors."""

    rows: int
    vectors: int
    step: int
    signed: bool

    def emit(self, builder: Any, given: Given) -> None:
        """Emit the loops of the module's docstring."""
        with counted(builder, given.rows, step=self.rows, label="m") as row:
            first = minimum(builder, row.index, builder.sub(given.rows, i64(self.rows)))
            source = at(builder, given.x, times(builder, first, self.step))
            sums = self._sums(builder, source, given)
            place = at(builder, given.to, builder.mul(first, given.to_step))
            for r in range(self.rows):
                for v in range(self.vectors):
                    line = at(builder, place, v * DOT.nbytes)
                    builder.store(sums[r * self.vectors + v], line, align=4)
                place = at(builder, place, given.to_step)
        builder.ret_void()

    def _sums(self, builder: Any, x: Any, given: Given) -> list[Any]:
        """The accumulators of the block of rows from `x` on after all chunks."""
        zeros = RegisterTile(DOT, 1, self.vectors, 0).zeros()
        starts = [
            builder.load(at(builder, given.begin, v * DOT.nbytes), typ=z.type, align=4)
            for v, z in enumerate(zeros)
        ]

        def chunk(k: Any, carried: list[Any]) -> list[Any]:
            place = at(builder, given.offsets, times(builder, k, 8))
            offset = builder.load(place, typ=I64, align=8)
            before = builder.mul(builder.mul(k, given.words), given.w_step)
            packed = at(builder, given.w, before)

            def word(number: Any, sums: list[Any]) -> list[Any]:
                more = builder.add(offset, times(builder, number, 4))
                line = at(builder, packed, builder.mul(number, given.w_step))
                return self._word(builder, at(builder, x, more), line, sums)

            return carrying(builder, given.words, 1, carried, word)

        offs = zeros if self.signed else []
        sums = carrying(builder, given.chunks, 1, starts * self.rows + offs, chunk)
        if not self.signed:
            return sums
        terms = sums[-self.vectors :]
        return [builder.sub(s, terms[i % self.vectors])
                for i, s in enumerate(sums[: -self.vectors])]  # fmt: skip

    def _word(self, builder: Any, first: Any, line: Any, sums: list[Any]) -> list[Any]:
        """One word of every row on every accumulator. Signed bytes are multiplied with their top
        bits changed, which adds 128 times the weights: that is summed up beside them."""
        vector = ir.VectorType(I8, DOT.nbytes)
        weights = [
            builder.load(at(builder, line, v * DOT.nbytes), typ=vector, align=4)
            for v in range(self.vectors)
        ]
        top = constant(vector, -128)
        found = list[Any]()
        for r in range(self.rows):
            x = builder.load(at(builder, first, r * self.step), typ=I32, align=1)
            pixel = builder.bitcast(splat(builder, x, DOT.lanes), vector)
            pixel = builder.xor(pixel, top) if self.signed else pixel
            for w in weights:
                found.append(DOT.accumulate(builder, sums[len(found)], pixel, w))
        terms = sums[len(found) :]
        return found + [DOT.accumulate(builder, t, top, w)
                        for t, w in zip(terms, weights, strict=False)]  # fmt: skip
