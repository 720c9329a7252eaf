"""Products of two activations by `vpdpbusd`: the left side unsigned, as it lies, the right side
packed in signed words (`words`).

    for each matrix of the batch
        pack the right side
        for each tile of rows
            what the right side's zero point makes of each row
            for each block of columns
                acc[r][v] = the columns' terms - the rows'
                for each word: acc[r][v] += dot(broadcast(row[r]), block[v])
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
    best_cut,
    matrix_start,
    over_matrices,
)
from irc.backends.llvm.kernels.matmul.words import Block, Packer, Words, straight
from irc.backends.llvm.kernels.results.epilogue import column_groups, finish
from irc.backends.llvm.kernels.vectors.dot import DotProduct, call
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.tile import RegisterTile
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import KernelFunction, MicroKernel
from irc.plan import aligned

I8 = ir.IntType(8)


def matmuls_dot(found: MatMul, target: Target) -> Iterator[MicroKernel]:
    """Kernels by a few tiles, the one that mostly is best first."""
    runs = straight(found.depth)
    if runs is None or target.dot is not Dot.VPDPBUSD:
        return
    lanes = target.vector_bytes // 4
    zero = found.left.of.zero + (128 if found.left.signed else 0)
    widest = min(ceil(found.columns / lanes), 4 if target.registers >= 32 else 2)
    for vectors in range(widest, 0, -1):
        rows = min(found.rows, 6 if vectors > 1 else 12)
        yield _kernel(found, rows, Words(found, runs, lanes, vectors, zero), target)


def _kernel(found: MatMul, rows: int, words: Words, target: Target) -> MicroKernel:
    cut, units = best_cut(found, rows)
    return MicroKernel(
        name=f"qmatmul_u8i8_{rows}x{words.vectors * words.lanes}_vpdpbusd"
        f"_{target.vector_bytes * 8}",
        key=words.key,
        emit=_Dots(found, rows, words, cut).emit,
        scratch=words.nbytes + (aligned(rows * found.depth, 64) if found.left.signed else 0),
        units=units,
        reason=f"tile of {rows} rows x {words.vectors * words.lanes} columns, the right side"
        " packed in words",
        proof="vpdpbusd wraps in 32 bits: exact",
    )


@dataclass(frozen=True)
class _Dots:
    m: MatMul
    rows: int
    words: Words
    cut: int | None

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        over_matrices(f, self.m, self.cut, _Emitter(self, f).matrix)


class _Emitter:
    def __init__(self, plan: _Dots, f: KernelFunction) -> None:
        self.plan, self.m, self.words, self.f = plan, plan.m, plan.words, f
        self.builder, self.ranges = f.builder, Ranges(f.work.facts)
        self.dot = DotProduct("vpdpbusd", plan.words.lanes * 4)
        self.left = at(f.builder, f.scratch, plan.words.nbytes)

    def matrix(self, indices: Indices) -> None:
        """One product of the batch."""
        builder = self.builder
        Packer(self.f, self.words).pack(
            matrix_start(self.f, self.m.right, indices)
        )
        left = matrix_start(self.f, self.m.left, indices)
        whole, rest = divmod(self.m.rows, self.plan.rows)
        begin, end = 0, whole + (rest > 0)
        if self.plan.cut == self.m.row and self.f.split:
            begin, end = self.f.begin, self.f.end
        with within(builder, whole, begin, end, label="m") as loop:
            self._rows(left, self.plan.rows, indices, times(builder, loop.index, self.plan.rows))
        if rest:
            with only_if(builder, end, whole + 1):
                first = ir.Constant(I64, whole * self.plan.rows)
                self._rows(left, rest, indices, first)

    # ------------------------------------------------------------ rows

    def _rows(self, left: Any, rows: int, indices: Indices, first: Any) -> None:
        """A tile of rows by all columns."""
        builder, step = self.builder, self.m.row_step
        source = at(builder, left, times(builder, first, step))
        if self.m.left.signed:
            source, step = self._unsigned(source, rows, step), self.m.depth
        terms = self._terms(source, rows, step)
        for block in self.words.blocks:
            tile = RegisterTile(self.dot, rows, block.vectors, step)
            base = at(builder, self.f.scratch, self.words.offset(block))
            with counted(builder, block.count, label="o") as number:
                w = at(builder, base, times(builder, number.index, self.words.size(block)))
                column = builder.add(
                    ir.Constant(I64, block.first), times(builder, number.index, block.columns)
                )
                sums = self._starts(rows, terms, column, block)
                for run in self.words.runs:
                    x = at(builder, source, run.start)
                    sums = tile.run(builder, x, at(builder, w, run.first * tile.step),
                                    run.words, sums)  # fmt: skip
                self._finish(indices, first, column, block, sums)

    def _unsigned(self, source: Any, rows: int, step: int) -> Any:
        """Signed rows with their top bits changed, one after the other, in scratch."""
        builder, depth = self.builder, self.m.depth
        piece = min(self.dot.nbytes, 1 << (depth.bit_length() - 1))
        vector = ir.VectorType(I8, piece)
        top = constant(vector, -128)
        for r in range(rows):
            line, to = at(builder, source, r * step), at(builder, self.left, r * depth)

            def move(offset: Any, line: Any = line, to: Any = to) -> None:
                x = builder.load(at(builder, line, offset), typ=vector, align=1)
                builder.store(builder.xor(x, top), at(builder, to, offset), align=1)

            whole = depth // piece * piece
            with counted(builder, whole, step=piece, label="k") as loop:
                move(loop.index)
            if whole < depth:
                move(depth - piece)
        return self.left

    def _terms(self, source: Any, rows: int, step: int) -> list[Any] | None:
        """`zy sum x` of each row, on all lanes; None where zy is 0."""
        if self.words.zeros[1] == 0:
            return None
        lanes = self.words.lanes
        found = [self._term(at(self.builder, source, r * step)) for r in range(rows)]
        return [splat(self.builder, term, lanes) for term in found]

    def _term(self, line: Any) -> Any:
        builder, depth = self.builder, self.m.depth
        piece = min(self.dot.nbytes, 1 << (depth.bit_length() - 1))
        whole = depth // piece * piece
        vector = ir.VectorType(I32, self.words.lanes)
        with counted(builder, whole, step=piece, carry=constant(vector, 0),
                     label="sum") as loop:  # fmt: skip
            loop.carry = self._weighted(line, loop.index, piece, 0, loop.carry)
        total = loop.carry
        if whole < depth:
            old = piece - (depth - whole)
            total = self._weighted(line, depth - piece, piece, old, total)
        name = f"llvm.vector.reduce.add.v{vector.count}i32"
        return call(builder, name, I32, [total])

    def _weighted(self, line: Any, offset: Any, piece: int, old: int, total: Any) -> Any:
        """`total` and zy times `piece` bytes, of which the first `old` don't count."""
        builder, nbytes = self.builder, self.dot.nbytes
        x = builder.load(at(builder, line, offset), typ=ir.VectorType(I8, piece), align=1)
        if piece < nbytes:
            order = shuffle_mask([i % piece for i in range(nbytes)])
            x = builder.shuffle_vector(x, x, order)
        zero = builder.trunc(self.words.loaded_zeros(self.f)[1], I8)
        counting = constant(x.type, [-1 if old <= i < piece else 0 for i in range(nbytes)])
        factors = builder.and_(splat(builder, zero, nbytes), counting)
        return self.dot.accumulate(builder, total, x, factors)

    # ------------------------------------------------------------ results

    def _starts(self, rows: int, terms: list[Any] | None, column: Any, block: Block) -> list[Any]:
        """What the accumulators begin with, row by row."""
        builder, lanes = self.builder, self.words.lanes
        vector = ir.VectorType(I32, lanes)
        of_columns = [constant(vector, 0)] * block.vectors
        if self.words.corrected:
            place = at(builder, self.f.scratch, self.words.terms)
            place = at(builder, place, times(builder, column, 4))
            of_columns = [
                builder.load(at(builder, place, v * lanes * 4), typ=vector, align=16)
                for v in range(block.vectors)
            ]
        if terms is None:
            return of_columns * rows
        return [builder.sub(c, term) for term in terms for c in of_columns]

    def _finish(
        self, indices: Indices, first: Any, column: Any, block: Block, sums: list[Any]
    ) -> None:
        """The expression around the reduction, two vectors at a time."""
        builder, lanes = self.builder, self.words.lanes
        for start, count, width in column_groups(block.columns, lanes, 2):
            channel = builder.add(column, ir.Constant(I64, start * lanes))
            totals = []
            for r in range(len(sums) // block.vectors):
                row = sums[r * block.vectors : (r + 1) * block.vectors]
                place = list(indices)
                if self.m.row is not None:
                    place[self.m.row] = builder.add(first, ir.Constant(I64, r), flags=("nsw",))
                totals.append(((*place, channel), join(builder, row[start : start + count], width)))
            finish(self.f, self.ranges, self.m.reduce, totals, width)
