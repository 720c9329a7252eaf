"""Products of two activations on AMX: `tdpbusd` or `tdpbssd` multiplies tiles of 16 rows of the
left side, as they lie, by tiles of 16 columns of the right side, packed in signed words (`words`).

    for each matrix of the batch
        pack the right side
        for each tile of rows:  what the right side's zero point makes of its rows, to scratch
        for each block of columns
            for each tile of rows
                acc[j] = the columns' terms
                for each run of words:  acc[j] += x * w[j]
                epilogue of the tile before, from scratch
                acc to scratch
            epilogue of the last tile

The last tile of rows reaches back over the one before, so that all are of one size; only new rows
are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.loop import I32, I64, counted, i64, minimum, spanned, splat
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.amx.results import Columns
from irc.backends.llvm.kernels.amx.stand_in import Left, Right, multiply, where_lent, where_not_lent
from irc.backends.llvm.kernels.matmul.matrices import (
    Indices,
    MatMul,
    best_cut,
    matrix_start,
    over_matrices,
)
from irc.backends.llvm.kernels.matmul.words import WORD, Block, Packer, Words, runs
from irc.backends.llvm.kernels.results.epilogue import Kept, column_groups, finish, fixed
from irc.backends.llvm.kernels.results.narrow import AT_ONCE
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel
from irc.plan import aligned
from irc.types import Array

I8 = ir.IntType(8)
TILE_ROWS, ROW_BYTES, LANES = 16, 64, 16
MOST = 4
"""Tiles of accumulators; the other registers are"""
SUMS, ZEROS, LEFT, RIGHT = 4, 5, 6, 7
SINK = MOST * ROW_BYTES
"""Bytes of results that are none."""


def pays(m: MatMul) -> bool:
    """Whether tiles are filled well enough."""
    return m.rows >= TILE_ROWS // 2 and m.columns >= LANES and m.depth >= 2 * LANES


def matmuls_amx(found: MatMul, target: Target) -> Iterator[MicroKernel]:
    """A kernel, where the CPU has AMX."""
    parts = runs(found.depth, ROW_BYTES // WORD)
    if not target.tiles or parts is None or not fits(found):
        return
    vectors = min(MOST, ceil(found.columns / LANES))
    words = Words(found, parts, LANES, vectors, found.left.of.zero)
    yield _kernel(found, words)


def fits(m: MatMul) -> bool:
    """Whether zero points are bytes of their sides, as a tile of them must be."""
    return all(
        side.of.load.dtype.min <= side.of.zero <= side.of.load.dtype.max
        for side in (m.left, m.right)
    )


def _kernel(found: MatMul, words: Words) -> MicroKernel:
    rows = ceil(found.rows / ceil(found.rows / TILE_ROWS))
    plan = Plan(found, words, rows, *best_cut(found, rows))
    return MicroKernel(
        name=f"qmatmul_{'i8i8' if found.left.signed else 'u8i8'}"
        f"_{rows}x{words.vectors * LANES}_amx",
        key=words.key,
        emit=plan.emit,
        arrays=(plan.configuration(), plan.zeros(), plan.offsets()),
        scratch=plan.scratch,
        units=plan.units,
        reason=f"tiles of {rows} rows x {words.vectors * LANES} columns, the right side packed in"
        " words",
        proof="tdpbusd and tdpbssd wrap in 32 bits: exact",
    )


@dataclass(frozen=True)
class Plan:
    """Tiles of `rows` rows; `units` for threads along the axis `cut`."""

    m: MatMul
    words: Words
    rows: int
    cut: int | None
    units: int

    @property
    def tiles(self) -> int:
        """Tiles of rows of a matrix."""
        return ceil(self.m.rows / self.rows)

    @property
    def sums(self) -> int:
        """Where the rows' terms are, in bytes; behind them a line that vectors of them reach into,
        the accumulators of two tiles, and a place for results that are none."""
        return self.words.nbytes

    @property
    def stored(self) -> int:
        """Where accumulators are."""
        return self.sums + aligned(4 * self.tiles * self.rows, ROW_BYTES) + ROW_BYTES

    @property
    def side(self) -> int:
        """Bytes of the accumulators of a tile."""
        return self.rows * self.words.vectors * ROW_BYTES

    @property
    def sink(self) -> int:
        """Where results go that are none."""
        return self.stored + 2 * self.side

    @property
    def scratch(self) -> int:
        """Bytes of all of it."""
        return self.sink + SINK

    def configuration(self) -> Array:
        """The operand of `ldtilecfg`: palette 1, bytes of a row (u16) and rows of each register."""
        run = self.words.runs[0].words
        shapes = {SUMS: (4, self.rows), ZEROS: (4, run), LEFT: (run * WORD, self.rows),
                  RIGHT: (ROW_BYTES, run)}  # fmt: skip
        shapes |= {r: (ROW_BYTES, self.rows) for r in range(MOST)}
        widths, content = np.zeros(16, np.uint16), np.zeros(64, np.uint8)
        for register, (width, rows) in shapes.items():
            widths[register], content[48 + register] = width, rows
        content[0] = 1
        content[16:48] = widths.view(np.uint8)
        return content

    def zeros(self) -> Array:
        """The right side's zero point for every byte of k, 0 for those that two runs have in
        common in the later one: a column of words; and a line that vectors of them reach into."""
        found = np.full((len(self.words.runs), self.words.runs[0].words * WORD),
                        self.words.zeros[1], np.int8)  # fmt: skip
        for part, run in zip(found, self.words.runs, strict=True):
            part[: run.old] = 0
        return np.pad(found.reshape(-1), (0, ROW_BYTES))

    def offsets(self) -> Array:
        """i64 [runs]: bytes from a row of the left side to what each run reads of it."""
        return np.array([run.start for run in self.words.runs], np.int64)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        emitter = _Emitter(self, f)
        with where_lent(f):
            emitter.call("ldtilecfg", f.arrays[0])
        over_matrices(f, self.m, self.cut, emitter.matrix)
        with where_lent(f):
            emitter.call("tilerelease")


class _Emitter:
    def __init__(self, plan: Plan, f: KernelFunction) -> None:
        self.plan, self.m, self.words, self.f = plan, plan.m, plan.words, f
        self.builder, self.ranges = f.builder, Ranges(f.work.facts)
        self.multiply = "tdpbssd" if self.m.left.signed else "tdpbusd"

    def call(self, name: str, *arguments: Any) -> None:
        """An instruction on tile registers."""
        numbers = [ir.Constant(I8, a) if isinstance(a, int) else a for a in arguments]
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), numbers)

    def matrix(self, indices: Indices) -> None:
        """One product of the batch."""
        builder, f = self.builder, self.f
        Packer(f, self.words).pack(matrix_start(f, self.m.right, indices))
        left = matrix_start(f, self.m.left, indices)
        tiles: tuple[Any, Any] = (0, self.plan.tiles)
        if self.plan.cut == self.m.row and f.split:
            tiles = (f.begin, f.end)
        if self.words.zeros[1]:
            with spanned(builder, *tiles, label="sum") as tile:
                self._sums(left, tile)
        for block in self.words.blocks:
            base = at(builder, f.scratch, self.words.offset(block))
            with counted(builder, block.count, label="o") as number:
                w = at(builder, base, times(builder, number.index, self.words.size(block)))
                more = times(builder, number.index, block.columns)
                column = builder.add(ir.Constant(I64, block.first), more)
                self._block(left, w, column, block, indices, tiles)

    def _block(
        self, left: Any, w: Any, column: Any, block: Block, indices: Indices,
        tiles: tuple[Any, Any],
    ) -> None:  # fmt: skip
        """All tiles of rows by a block of columns."""
        builder, (begin, end) = self.builder, (i64(t) for t in tiles)
        columns = self._columns(column, block)
        with spanned(builder, *tiles, label="m") as tile:
            with where_lent(self.f):
                self._products(left, w, column, block, tile)
            with builder.if_then(builder.icmp_signed("<", begin, tile)):
                before = builder.sub(tile, i64(1))
                self._finish(before, columns, block, indices)
            with where_lent(self.f):
                for j in range(block.vectors):
                    to = at(builder, self._stored(tile), j * ROW_BYTES)
                    self.call("tilestored64", j, to, i64(block.vectors * ROW_BYTES))
            if self.f.asks:
                self._by_vectors(left, w, column, block, tile)
        self._finish(builder.sub(end, i64(1)), columns, block, indices)

    # ------------------------------------------------------------ products

    def _first(self, tile: Any) -> Any:
        """The first row of a tile."""
        wanted = times(self.builder, tile, self.plan.rows)
        return minimum(self.builder, wanted, self.m.rows - self.plan.rows)

    def _source(self, left: Any, tile: Any) -> Any:
        return at(self.builder, left, times(self.builder, self._first(tile), self.m.row_step))

    def _sums(self, left: Any, tile: Any) -> None:
        """`zy sum x` of the rows of a tile, to scratch."""
        builder, x = self.builder, self._source(left, tile)
        to = at(builder, self.f.scratch, self.plan.sums)
        to = at(builder, to, times(builder, tile, 4 * self.plan.rows))
        with where_lent(self.f):
            self._sums_by_tiles(x, to)
        if self.f.asks:
            with where_not_lent(self.f):  # one lane of each row is stored over the others'
                multiply(self.f, self._left(x), Right(self.f.arrays[1], 1, WORD), to, 4)

    def _sums_by_tiles(self, x: Any, to: Any) -> None:
        builder, run_bytes = self.builder, self.words.runs[0].words * WORD
        self.call("tilezero", SUMS)
        for number, run in enumerate(self.words.runs):
            self.call("tileloadd64", LEFT, at(builder, x, run.start), i64(self.m.row_step))
            zeros = at(builder, self.f.arrays[1], number * run_bytes)
            self.call("tileloadd64", ZEROS, zeros, i64(WORD))
            self.call(self.multiply, SUMS, LEFT, ZEROS)
        self.call("tilestored64", SUMS, to, i64(4))

    def _products(self, left: Any, w: Any, column: Any, block: Block, tile: Any) -> None:
        """The accumulators of a tile of rows by a block of columns."""
        builder, x = self.builder, self._source(left, tile)
        self._begin(column, block)
        for run in self.words.runs:
            self.call("tileloadd64", LEFT, at(builder, x, run.start), i64(self.m.row_step))
            packed = at(builder, w, run.first * self.words.stride(block))
            for j in range(block.vectors):
                place = at(builder, packed, j * ROW_BYTES)
                self.call("tileloadd64", RIGHT, place, i64(self.words.stride(block)))
                self.call(self.multiply, j, LEFT, RIGHT)

    def _by_vectors(self, left: Any, w: Any, column: Any, block: Block, tile: Any) -> None:
        """The accumulators of a tile of rows, to scratch, of a process without AMX."""
        stride = block.vectors * ROW_BYTES
        with where_not_lent(self.f):
            x, to = self._left(self._source(left, tile)), self._stored(tile)
            right = Right(w, block.vectors, self.words.stride(block))
            begin = self._terms(column) if self.words.corrected else None
            multiply(self.f, x, right, to, stride, begin)

    def _left(self, x: Any) -> Left:
        runs = self.words.runs
        return Left(x, self.m.row_step, self.plan.rows, self.f.arrays[2], len(runs), runs[0].words,
                    self.m.left.signed)  # fmt: skip

    def _terms(self, column: Any) -> Any:
        """Where the terms of columns from one on are."""
        terms = at(self.builder, self.f.scratch, self.words.terms)
        return at(self.builder, terms, times(self.builder, column, 4))

    def _begin(self, column: Any, block: Block) -> None:
        """The columns' terms in every row of the accumulators."""
        builder, terms = self.builder, self._terms(column)
        for j in range(block.vectors):
            if self.words.corrected:
                self.call("tileloadd64", j, at(builder, terms, j * ROW_BYTES), i64(0))
            else:
                self.call("tilezero", j)

    def _stored(self, tile: Any) -> Any:
        """Where the accumulators of a tile are stored: every other one in the same place."""
        parity = self.builder.and_(tile, i64(1))
        place = at(self.builder, self.f.scratch, self.plan.stored)
        return at(self.builder, place, times(self.builder, parity, self.plan.side))

    # ------------------------------------------------------------ results

    def _columns(self, column: Any, block: Block) -> list[Columns]:
        """A block's columns, as many vectors at a time as are packed together."""
        found = []
        for first, count, width in column_groups(block.columns, LANES, AT_ONCE):
            channel = self.builder.add(column, i64(first * LANES))
            known = fixed(self.f, self.ranges, self.m.reduce, channel, width)
            found.append(Columns(first * ROW_BYTES, channel, count, width, known))
        return found

    def _finish(self, tile: Any, columns: list[Columns], block: Block, indices: Indices) -> None:
        """The expression around the reduction for the new rows of a tile, as many at a time as
        are packed together."""
        builder, rows = self.builder, self.plan.rows
        together = next(n for n in (4, 2, 1) if rows % n == 0 and n * block.vectors <= AT_ONCE)
        first = self._first(tile)
        old = builder.sub(times(builder, tile, rows), first)
        begin = builder.sub(old, builder.urem(old, i64(together)))
        even = self.m.rows % rows == 0
        with spanned(builder, 0 if even else begin, rows, step=together, label="r") as row:
            for c in columns:
                lines = [builder.add(row, i64(r)) for r in range(together)]
                keep = [
                    None if even or together == 1 else self._kept(builder.icmp_signed(">=", r, old))
                    for r in lines
                ]
                totals = [self._total(tile, first, r, c, block, indices) for r in lines]
                finish(self.f, self.ranges, self.m.reduce, totals, c.width, c.known, keep)

    def _kept(self, condition: Any) -> Kept:
        return Kept(condition, at(self.builder, self.f.scratch, self.plan.sink))

    def _total(
        self, tile: Any, first: Any, row: Any, c: Columns, block: Block, indices: Indices
    ) -> tuple[Indices, Any]:
        """A row's place in the result, and its sums."""
        builder, full = self.builder, ir.VectorType(I32, LANES)
        line = at(builder, self._stored(tile), times(builder, row, block.vectors * ROW_BYTES))
        loaded = [
            builder.load(at(builder, line, c.offset + j * ROW_BYTES), typ=full, align=ROW_BYTES)
            for j in range(c.vectors)
        ]
        if self.words.zeros[1]:
            sums = at(builder, self.f.scratch, self.plan.sums)
            number = builder.add(times(builder, tile, self.plan.rows), row)
            term = builder.load(at(builder, sums, times(builder, number, 4)), typ=I32, align=4)
            loaded = [builder.sub(x, splat(builder, term, LANES)) for x in loaded]
        place = list(indices)
        if self.m.row is not None:
            place[self.m.row] = builder.add(first, row, flags=("nsw",))
        return (*place, c.first), join(builder, loaded, c.width)
