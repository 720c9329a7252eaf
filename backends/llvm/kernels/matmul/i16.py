"""Products of two activations by pairs of 16 bits (`vpmaddwd`), where nothing better is proved.

Each element has its zero point taken off and becomes an i16, which 8 bits minus 8 bits always fit;
`vpmaddwd` then multiplies pairs and adds them in 32 bits, exactly. Rows of the left side are
packed a tile at a time, the right side as panels of one vector's columns, pair by pair.

    for each matrix of the batch
        pack the right side
        for each tile of rows
            pack the rows
            for each tile of panels
                for each pair: acc[r][v] += madd(broadcast(row[r]), panel[v])
                epilogue, as in gemm
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import I32, I64, counted, only_if, splat, within
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.matmul.matrices import (
    Indices,
    MatMul,
    Matrix,
    best_cut,
    matrix_start,
    over_matrices,
)
from irc.backends.llvm.kernels.results.epilogue import column_groups, finish
from irc.backends.llvm.kernels.vectors.dot import PAIRS, multiply_pairs
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.operands import zero_point
from irc.backends.llvm.kernels.vectors.tile import carrying
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel
from irc.plan import aligned

I8, I16 = ir.IntType(8), ir.IntType(16)
DEEP = 8
"""Bytes that are read at once where the right side lies transposed."""


def matmuls_i16(found: MatMul, target: Target) -> Iterator[MicroKernel]:
    """Kernels by a few tiles, the one that mostly is best first."""
    panels = ceil(found.columns * 4 / target.vector_bytes)
    widest = min(panels, 4 if target.registers >= 32 else 2)
    for vectors in range(widest, 0, -1):
        rows = min(found.rows, 6 if vectors > 1 else 12)
        yield _kernel(found, rows, vectors, panels, target)


def _kernel(found: MatMul, rows: int, vectors: int, panels: int, target: Target) -> MicroKernel:
    lanes = target.vector_bytes // 4
    right = aligned(panels * found.pairs * lanes * 4, 64)
    cut, units = best_cut(found, rows)
    return MicroKernel(
        name=f"qmatmul_i16_{rows}x{vectors * lanes}_{PAIRS[target.dot]}_{target.vector_bytes * 8}",
        emit=_MatMul(found, rows, vectors, panels, lanes, right, cut).emit,
        scratch=right + aligned(rows * found.pairs * 4, 64),
        units=units,
        reason=f"tile of {rows} rows x {vectors * lanes} columns, both sides packed",
        proof="two products of 16 bits are added in 32: exact",
    )


@dataclass(frozen=True)
class _MatMul:
    m: MatMul
    rows: int
    vectors: int
    panels: int
    lanes: int
    right_bytes: int
    cut: int | None

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        over_matrices(f, self.m, self.cut, _Emitter(self, f).matrix)


class _Emitter:
    def __init__(self, plan: _MatMul, f: KernelFunction) -> None:
        self.plan, self.m, self.f, self.builder = plan, plan.m, f, f.builder
        self.ranges = Ranges(f.work.facts)
        self.panel_bytes = self.m.pairs * plan.lanes * 4
        self.right = f.scratch
        self.left = at(f.builder, f.scratch, plan.right_bytes)
        self.pair = ir.VectorType(I16, 2 * plan.lanes)

    def matrix(self, indices: Indices) -> None:
        """One product of the batch."""
        self._pack_right(matrix_start(self.f, self.m.right, indices))
        left, builder = matrix_start(self.f, self.m.left, indices), self.builder
        step = 0 if self.m.row is None else self.m.left.axes[self.m.row]
        whole, rest = divmod(self.m.rows, self.plan.rows)
        begin, end = 0, whole + (rest > 0)
        if self.plan.cut == self.m.row and self.f.split:
            begin, end = self.f.begin, self.f.end
        with within(builder, whole, begin, end, label="m") as loop:
            first = times(builder, loop.index, self.plan.rows)
            source = at(builder, left, times(builder, first, step))
            self._rows(source, step, self.plan.rows, indices, first)
        if rest:
            with only_if(builder, end, whole + 1):
                first = ir.Constant(I64, whole * self.plan.rows)
                source = at(builder, left, whole * self.plan.rows * step)
                self._rows(source, step, rest, indices, first)

    def _centre(self, values: Any, side: Matrix) -> Any:
        """Bytes as i16 without their zero point."""
        wide = ir.VectorType(I16, values.type.count)
        extended = (self.builder.sext if side.signed else self.builder.zext)(values, wide)
        return self.builder.sub(extended, self._zeros(side, wide))

    def _zeros(self, side: Matrix, vector: Any) -> Any:
        """A side's zero point on every lane, of bytes without its upper bits."""
        zero = self.builder.trunc(zero_point(self.f, side.of), vector.element)
        return splat(self.builder, zero, vector.count)

    # ------------------------------------------------------------ packing

    def _pack_right(self, source: Any) -> None:
        """Panels, one vector of columns wide: [panels][pairs][lanes][2]."""
        lanes, step = self.plan.lanes, self.m.right.axes[-1]
        whole = self.m.columns // lanes
        pack = self._panel if step == 1 else self._panel_across
        if whole:
            with counted(self.builder, whole, label="panel") as loop:
                to = at(self.builder, self.right,
                        times(self.builder, loop.index, self.panel_bytes))  # fmt: skip
                start = times(self.builder, loop.index, lanes * step)
                pack(at(self.builder, source, start), to, lanes)
        if self.m.columns % lanes:
            to = at(self.builder, self.right, whole * self.panel_bytes)
            start = at(self.builder, source, whole * lanes * step)
            pack(start, to, self.m.columns % lanes)

    def _panel(self, source: Any, to: Any, count: int) -> None:
        """Columns side by side: two rows at a time, their bytes in turns."""
        builder, step = self.builder, self.m.right.k
        vector = ir.VectorType(I8, count)

        def rows(first: Any, index: Any, *, both: bool) -> None:
            a = builder.load(first, typ=vector, align=1)
            zero = self._zeros(self.m.right, vector)
            b = builder.load(at(builder, first, step), typ=vector, align=1) if both else zero
            self._store_pairs(self._interleaved(a, b, count), to, index)

        if whole := self.m.depth // 2:
            with counted(builder, whole, label="k") as loop:
                rows(at(builder, source, times(builder, loop.index, 2 * step)), loop.index,
                     both=True)  # fmt: skip
        if self.m.depth % 2:
            last = at(builder, source, (self.m.depth - 1) * step)
            rows(last, ir.Constant(I64, whole), both=False)

    def _interleaved(self, a: Any, b: Any, count: int) -> Any:
        """a0 b0 a1 b1 …, filled up to whole vectors with what is there."""
        order = [lane % count + side * count for lane in range(self.plan.lanes) for side in (0, 1)]
        mask = shuffle_mask(order)
        return self.builder.shuffle_vector(a, b, mask)

    def _store_pairs(self, both: Any, to: Any, index: Any) -> None:
        offset = times(self.builder, index, self.plan.lanes * 4)
        value = self._centre(both, self.m.right)
        self.builder.store(value, at(self.builder, to, offset), align=16)

    def _panel_across(self, source: Any, to: Any, count: int) -> None:
        """Columns far apart, each with its k side by side: eight of them at a time, transposed in
        registers; then the rest in smaller pieces."""
        builder, done = self.builder, self.m.depth // DEEP * DEEP
        if done:
            with counted(builder, done, step=DEEP, label="k") as loop:
                pair = builder.lshr(loop.index, ir.Constant(I64, 1))
                self._across(at(builder, source, loop.index), to, pair, DEEP, count)
        for size in (4, 2, 1):
            if (self.m.depth - done) & size:
                first = at(builder, source, done)
                self._across(first, to, ir.Constant(I64, done // 2), size, count)
                done += size

    def _across(self, source: Any, to: Any, pair: Any, size: int, count: int) -> None:
        """`size` bytes of every column, stored as pairs from `pair` on."""
        builder, lanes = self.builder, self.plan.lanes
        word = ir.IntType(8 * size)
        columns = ir.Constant(ir.VectorType(word, lanes), ir.Undefined)
        for lane in range(lanes):
            address = at(builder, source, min(lane, count - 1) * self.m.right.axes[-1])
            value = builder.load(address, typ=word, align=1)
            columns = builder.insert_element(columns, value, ir.Constant(I32, lane))
        bytes_ = builder.bitcast(columns, ir.VectorType(I8, lanes * size))
        zeros = self._zeros(self.m.right, bytes_.type)
        for i in range(ceil(size / 2)):
            order = [
                lane * size + 2 * i + side if 2 * i + side < size else lanes * size
                for lane in range(lanes) for side in (0, 1)
            ]  # fmt: skip
            mask = shuffle_mask(order)
            index = builder.add(pair, ir.Constant(I64, i))
            self._store_pairs(builder.shuffle_vector(bytes_, zeros, mask), to, index)

    def _pack_left(self, source: Any, step: int, rows: int) -> None:
        """Rows of i16, one after the other, each filled up to whole pairs with 0."""
        builder, depth = self.builder, self.m.depth
        for r in range(rows):
            line, to = at(builder, source, r * step), at(builder, self.left, r * self.m.pairs * 4)
            if depth % 2:
                builder.store(ir.Constant(I16, 0), at(builder, to, depth * 2), align=2)
            piece = min(2 * self.plan.lanes, 1 << (depth.bit_length() - 1))
            whole = depth // piece * piece
            with counted(builder, whole, step=piece, label="k") as loop:
                self._convert(line, to, loop.index, piece)
            if whole < depth:
                self._convert(line, to, ir.Constant(I64, depth - piece), piece)

    def _convert(self, source: Any, to: Any, index: Any, count: int) -> None:
        vector = ir.VectorType(I8, count)
        values = self.builder.load(at(self.builder, source, index), typ=vector, align=1)
        offset = times(self.builder, index, 2)
        self.builder.store(self._centre(values, self.m.left), at(self.builder, to, offset), align=2)

    # ------------------------------------------------------------ products

    def _rows(
        self, source: Any, step: int, rows: int, indices: tuple[Any, ...], first: Any
    ) -> None:
        """A tile of rows by all columns."""
        self._pack_left(source, step, rows)
        vectors, lanes = self.plan.vectors, self.plan.lanes
        full = self.m.columns // lanes // vectors * vectors
        if full:
            with counted(self.builder, full, step=vectors, label="o") as loop:
                self._tile(indices, first, loop.index, rows, vectors, vectors * lanes)
        if full < self.plan.panels:
            rest = self.m.columns - full * lanes
            many = self.plan.panels - full
            self._tile(indices, first, ir.Constant(I64, full), rows, many, rest)

    def _tile(
        self, indices: tuple[Any, ...], first: Any, panel: Any, rows: int, vectors: int,
        columns: int,
    ) -> None:  # fmt: skip
        """Rows by panels; the columns that exist are stored."""
        builder, lanes = self.builder, self.plan.lanes
        base = at(builder, self.right, times(builder, panel, self.panel_bytes))
        zero = constant(ir.VectorType(I32, lanes), 0)
        unroll = next(u for u in (4, 2, 1) if self.m.pairs % u == 0 or self.m.pairs > 2 * u)
        whole = self.m.pairs // unroll * unroll

        def body(index: Any, sums: list[Any]) -> list[Any]:
            for i in range(unroll):
                sums = self._pair(base, builder.add(index, ir.Constant(I64, i)), rows, sums)
            return sums

        sums = carrying(builder, whole, unroll, [zero] * (rows * vectors), body)
        for pair in range(whole, self.m.pairs):
            sums = self._pair(base, ir.Constant(I64, pair), rows, sums)
        channel = times(builder, panel, lanes)
        self._finish(indices, first, channel, [sums[r * vectors : (r + 1) * vectors]
                                               for r in range(rows)], columns)  # fmt: skip

    def _pair(self, base: Any, pair: Any, rows: int, sums: list[Any]) -> list[Any]:
        """One pair of k on every accumulator."""
        builder, lanes, vectors = self.builder, self.plan.lanes, len(sums) // rows
        start = at(builder, base, times(builder, pair, lanes * 4))
        columns = [
            builder.load(at(builder, start, v * self.panel_bytes), typ=self.pair, align=16)
            for v in range(vectors)
        ]
        line = at(builder, self.left, times(builder, pair, 4))
        result: list[Any] = []
        for r in range(rows):
            word = builder.load(at(builder, line, r * self.m.pairs * 4), typ=I32, align=4)
            x = builder.bitcast(splat(builder, word, lanes), self.pair)
            result += [
                multiply_pairs(builder, sums[r * vectors + v], x, w, self.f.target.dot)
                for v, w in enumerate(columns)
            ]
        return result

    def _finish(
        self, indices: tuple[Any, ...], first: Any, channel: Any, sums: list[list[Any]],
        columns: int,
    ) -> None:  # fmt: skip
        """The expression around the reduction, two vectors at a time."""
        builder, lanes = self.builder, self.plan.lanes
        for start, count, width in column_groups(columns, lanes, 2):
            column = builder.add(channel, ir.Constant(I64, start * lanes))
            totals = []
            for r, row in enumerate(sums):
                place = list(indices)
                if self.m.row is not None:
                    place[self.m.row] = builder.add(first, ir.Constant(I64, r), flags=("nsw",))
                total = join(builder, row[start : start + count], width)
                totals.append(((*place, column), total))
            finish(self.f, self.ranges, self.m.reduce, totals, width)
