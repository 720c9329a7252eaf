"""Layer norm and RMS norm over rows that lie side by side, equation (11), on vectors.

    for each block of rows
        for each row
            S, Q = the sums of its elements, and of their squares
            n, r = the reciprocal of a root: one table, some products, one division
        for each row
            p[j] = (u*r + half) >> (shift - n), u = count*x[j] - S
            y[j] = (p[j]*m[j] + b[j]) >> s, then what follows, as in gemm

The long way to a row's reciprocal overlaps with those of its block's other rows. Neither the
variance nor u depends on the zero point, so the elements are taken as they are; without centring,
sums are corrected for it. A product of 64 bits is made of even and of odd lanes, whose constants
lie apart in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import I32, I64, counted, i64, minimum, splat
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.code.rescale import split
from irc.backends.llvm.kernels.results.epilogue import column_groups, finish
from irc.backends.llvm.kernels.results.narrow import AT_ONCE, Narrowing, narrow, register_bytes
from irc.backends.llvm.kernels.rows.square_root import reciprocal_root
from irc.backends.llvm.kernels.vectors.dot import call, multiply_pairs
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.rows import row_blocks, row_offset
from irc.backends.llvm.kernels.vectors.tile import carrying
from irc.backends.llvm.work import KernelFunction
from irc.loops import Expr
from irc.ops.qnorm import QNorm
from irc.types import Array, DType

I16 = ir.IntType(16)
BLOCK = 8
"""Rows whose numbers wait in scratch."""


@dataclass(frozen=True)
class Rows:
    """A norm of rows: m and b for each element of one, the strides of x, what stands for the norm
    in the expression of the result, and a bound of it before its zero point."""

    node: QNorm
    m: Array
    b: Array
    strides: tuple[int, ...]
    result: Expr
    bound: int

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.node.shape[-1]


def pairs(row: Array, lanes: int) -> Array:
    """i64, for each vector of lanes its even ones, then its odd ones; filled up with 0."""
    full = np.zeros(ceil(len(row) / lanes) * lanes, np.int64)
    full[: len(row)] = row
    return np.ascontiguousarray(full.reshape(-1, lanes // 2, 2).transpose(0, 2, 1))


@dataclass(frozen=True)
class Row:
    """What a row's elements have in common: `t*r + c` is shifted right by `first` in 64 bits, then
    by `second` in 32. All are i64; in scratch each stands in every lane of a vector. What is done
    to every lane of a lone one LLVM does to that, and then can't tell that 32 bits hold `r`."""

    r: Any
    c: Any
    first: Any
    second: Any

    @staticmethod
    def nbytes(lanes: int) -> int:
        """In scratch."""
        return 4 * 8 * lanes

    def store(self, builder: Any, to: Any, lanes: int) -> None:
        """Put numbers down."""
        for i, value in enumerate((self.r, self.c, self.first, self.second)):
            builder.store(splat(builder, value, lanes), at(builder, to, 8 * lanes * i), align=16)

    @classmethod
    def load(cls, builder: Any, source: Any, lanes: int) -> Row:
        """Take them up again, as vectors."""
        wide = ir.VectorType(I64, lanes)
        places = (at(builder, source, 8 * lanes * i) for i in range(4))
        return cls(*(builder.load(place, typ=wide, align=16) for place in places))


class NormRows:
    """Emits the loops of the module's docstring."""

    def __init__(self, found: Rows, lanes: int, cut: int | None) -> None:
        self.found, self.node, self.lanes, self.cut = found, found.node, lanes, cut
        self.norm = found.node.norm
        self.words, self.wide = ir.VectorType(I32, lanes), ir.VectorType(I64, lanes // 2)
        self.dtype = found.node.x.type.dtype
        self.offset = 2**15 if self.dtype is DType.U16 else 0

    @staticmethod
    def constants(found: Rows, lanes: int) -> tuple[Array, Array]:
        """m and b as they are stored."""
        return pairs(found.m, lanes), pairs(found.b, lanes)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self.f, self.builder, self.ranges = f, f.builder, Ranges(f.work.facts)
        lanes = self.wide.count
        nbytes = Row.nbytes(lanes)
        for indices, begin, end in row_blocks(f, self.node.shape, self.cut, BLOCK):

            def each(begin: Any = begin, end: Any = end, outer: Any = indices) -> Iterator[Any]:
                with counted(f.builder, end, begin=begin, label="row") as loop:
                    kept = times(f.builder, f.builder.sub(loop.index, i64(begin)), nbytes)
                    yield self._at((*outer, loop.index)), at(f.builder, f.scratch, kept)

            for (x, _), kept in each():
                self._row(x).store(f.builder, kept, lanes)
            for (x, row), kept in each():
                self._elements(x, row, self._numbers(kept))

    def _numbers(self, kept: Any) -> Row:
        """A row's, from where they were put down."""
        return Row.load(self.builder, kept, self.wide.count)

    def _at(self, row: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Where a row of x begins."""
        start = row_offset(self.builder, row, self.found.strides)
        return self.f.places[self.node.x].address(self.builder, start), row

    def _load(self, x: Any, index: Any, count: int, element: Any, lanes: int) -> Any:
        """`count` elements from `index` on, wider, behind them 0; u16 less 2^15, so that they fit
        an i16."""
        builder, stored = self.builder, ir.IntType(self.dtype.bits)
        address = at(builder, x, times(builder, index, self.dtype.bits // 8))
        value = builder.load(address, typ=ir.VectorType(stored, count), align=self.dtype.bits // 8)
        signed = self.dtype.min < 0
        if self.offset:
            signed = True
            value = builder.xor(value, constant(value.type, 2**15))
        if count < lanes:
            order = [min(i, count) for i in range(lanes)]
            zeros = constant(value.type, 0)
            mask = shuffle_mask(order)
            value = builder.shuffle_vector(value, zeros, mask)
        full = ir.VectorType(element, lanes)
        if stored is element:
            return value
        return (builder.sext if signed else builder.zext)(value, full)

    # ------------------------------------------------------------ a row's statistics

    def _row(self, x: Any) -> Row:
        builder, norm = self.builder, self.norm
        total, squares = self._sums(x)
        zero = self.node.x.type.zero - self.offset
        if norm.centred:
            v = builder.sub(times(builder, squares, norm.count), builder.mul(total, total))
            moved = total
        else:
            v = builder.sub(squares, builder.mul(total, i64(2 * zero)))
            v = builder.add(v, i64(norm.count * zero**2))
            moved = i64(zero)
        lift = i64(abs(norm.lift))
        v = builder.shl(v, lift) if norm.lift >= 0 else builder.ashr(v, lift)
        d = builder.add(v, i64(norm.epsilon))
        n, r = reciprocal_root(builder, self.f.arrays[2], d)
        shift = builder.sub(i64(norm.shift), n)
        half = builder.shl(i64(1), builder.sub(shift, i64(1)))
        first = minimum(builder, shift, 32) if norm.shift > 32 else shift
        c = builder.sub(half, builder.mul(moved, r))
        return Row(r, c, first, builder.sub(shift, first))

    def _sums(self, x: Any) -> tuple[Any, Any]:
        """The sums of a row's elements, as they are taken, and of their squares: i64."""
        count, length = 2 * self.lanes, self.found.length
        whole = length // count * count
        squares = self.words if self.dtype.bits == 8 else self.wide
        sums = [constant(t, 0) for t in (self.words, squares)]
        if whole:
            sums = carrying(
                self.builder, whole, count, sums,
                lambda index, carried: self._add(self._halves(x, index, count), carried),
            )  # fmt: skip
        if whole < length:
            sums = self._add(self._halves(x, i64(whole), length - whole), sums)
        total, squared = (self._sum(v) for v in sums)
        squared = self.builder.zext(squared, I64) if self.dtype.bits == 8 else squared
        return self.builder.sext(total, I64), squared

    def _halves(self, x: Any, index: Any, count: int) -> Any:
        return self._load(x, index, count, I16, 2 * self.lanes)

    def _add(self, x: Any, sums: list[Any]) -> list[Any]:
        """A vector of i16 to the sum and to the sum of squares. Two squares of 16 bits make at most
        2^31, which an unsigned word holds."""
        builder = self.builder
        ones = constant(x.type, 1)
        dot = self.f.target.dot
        total = multiply_pairs(builder, sums[0], x, ones, dot)
        if self.dtype.bits == 8:
            return [total, multiply_pairs(builder, sums[1], x, x, dot)]
        squares = multiply_pairs(builder, None, x, x, dot)
        words = builder.bitcast(squares, self.wide)
        low = builder.and_(words, constant(self.wide, 2**32 - 1))
        high = builder.lshr(words, constant(self.wide, 32))
        return [total, builder.add(sums[1], builder.add(low, high))]

    def _sum(self, vector: Any) -> Any:
        """Over all lanes."""
        element = vector.type.element
        name = f"llvm.vector.reduce.add.v{vector.type.count}i{element.width}"
        return call(self.builder, name, element, [vector])

    # ------------------------------------------------------------ a row's elements

    def _elements(self, x: Any, indices: tuple[Any, ...], row: Row) -> None:
        lanes, length = self.lanes, self.found.length
        whole = length // (AT_ONCE * lanes) * AT_ONCE * lanes
        if whole:
            with counted(self.builder, whole, step=AT_ONCE * lanes, label="j") as loop:
                self._group(x, indices, row, loop.index, AT_ONCE, AT_ONCE * lanes)
        for start, count, width in column_groups(length - whole, lanes, AT_ONCE):
            self._group(x, indices, row, i64(whole + start * lanes), count, width)

    def _group(
        self, x: Any, indices: tuple[Any, ...], row: Row, first: Any, count: int, width: int
    ) -> None:
        """Some vectors of a row, `width` elements of them."""
        builder, lanes = self.builder, self.lanes
        values = []
        for v in range(count):
            column = builder.add(first, i64(v * lanes), flags=("nuw", "nsw"))
            elements = self._load(x, column, min(lanes, width - v * lanes), I32, lanes)
            values.append(self._normalized(elements, column, row))
        value = self._bounded(join(builder, values, count * lanes))
        value = join(builder, [value], width)
        place = (*indices, first)
        finish(self.f, self.ranges, self.found.result, [(place, value)], width)

    def _normalized(self, x: Any, column: Any, row: Row) -> Any:
        """`(p*m + b) >> s` of a vector of elements."""
        builder = self.builder
        if self.norm.centred:
            x = builder.mul(x, splat(builder, ir.Constant(I32, self.norm.count), self.lanes))
        r = self._narrow(row.r)
        parts = [builder.add(builder.mul(t, r), row.c) for t in split(builder, x)]
        parts = [builder.lshr(t, row.first) for t in parts]
        if self.norm.shift > 32:
            parts = [self._low_shifted(t, row.second) for t in parts]
        start = times(builder, column, 8)
        ms, bs = (self._constants(at(builder, a, start)) for a in self.f.arrays[:2])
        products = [
            builder.add(builder.mul(self._narrow(t), self._narrow(m)), b)
            for t, m, b in zip(parts, ms, bs, strict=True)
        ]
        return self._shifted(products)

    def _low_shifted(self, value: Any, bits: Any) -> Any:
        """The low words shifted right, with their signs."""
        words = self.builder.bitcast(value, self.words)
        shifted = self.builder.ashr(words, self.builder.bitcast(bits, self.words))
        return self.builder.bitcast(shifted, self.wide)

    def _constants(self, pointer: Any) -> list[Any]:
        """The constants of even lanes, then of odd ones."""
        size = self.wide.count * 8
        return [
            self.builder.load(at(self.builder, pointer, i * size), typ=self.wide, align=16)
            for i in (0, 1)
        ]

    def _narrow(self, value: Any) -> Any:
        """An i64 vector of which LLVM is told that 32 bits hold it."""
        word = constant(self.wide, 32)
        return self.builder.ashr(self.builder.shl(value, word), word)

    def _shifted(self, products: list[Any]) -> Any:
        """Even and odd products behind `s` bits, as words side by side."""
        builder, lanes, s = self.builder, self.lanes, self.node.s
        first = min(s, 32)
        even = builder.lshr(products[0], constant(self.wide, first))
        odd = builder.shl(products[1], constant(self.wide, 32 - first))
        order = [lane + lanes * (lane % 2) for lane in range(lanes)]
        y = builder.shuffle_vector(
            builder.bitcast(even, self.words), builder.bitcast(odd, self.words),
            shuffle_mask(order),
        )  # fmt: skip
        return builder.ashr(y, constant(self.words, s - first)) if s > 32 else y

    def _bounded(self, y: Any) -> Any:
        """Past the zero point, clamped, in the result's dtype."""
        builder, node = self.builder, self.node
        zero, (low, high), dtype = node.type.zero, node.clamp, node.dtype
        nbytes = register_bytes(self.f.target, y.type.count)
        if dtype.bits == 8 and nbytes:
            ends = Narrowing(self.found.result, zero, low, high, dtype)
            return narrow(builder, ends, [y], nbytes)[0]

        const = partial(constant, y.type)
        y = builder.add(y, const(zero))
        for bound, test in ((low, "<"), (high, ">")):
            limit = const(bound)
            y = builder.select(builder.icmp_signed(test, y, limit), limit, y)
        return builder.trunc(y, ir.VectorType(ir.IntType(dtype.bits), y.type.count))
