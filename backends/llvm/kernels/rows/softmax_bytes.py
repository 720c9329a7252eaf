"""Softmax of bytes to bytes along the last axis, equation (9), row by row.

    for each block of rows
        for each row
            its largest element, on vectors
        for each row
            e[j] = exp of each difference to it, and their sum
            r = 2^61 // sum, the row's one division
        for each row
            y[j] = (e[j]*r + C) >> S, packed to bytes four vectors at a time

So no row waits for its own maximum or sum: the other rows of its block are worked on meanwhile.

Where m is a power of two, as for scales that are, both roundings of equation (9) are one:
`floor((floor(e r / 2^31) + h) / 2^q) = floor((e r + h 2^31) / 2^(31 + q))`, of which the high words
of the products suffice for q >= 2.

With AVX512-VBMI an exponential's four bytes are looked up in tables of their own, a vector at a
time; `vpsadbw` sums up each of the four. Unpacked within 16 bytes they are in an order that the
packs undo. Else they are looked up one by one, in a table that lies backwards, so that an element
counts from where the largest one points to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from irc import fixedpoint
from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.division import divided
from irc.backends.llvm.code.loop import I32, I64, counted, spanned, splat
from irc.backends.llvm.code.rescale import high_words, mul_shift_vector, on_x86
from irc.backends.llvm.kernels.results.narrow import AT_ONCE, Narrowing, narrow, narrow_lanes
from irc.backends.llvm.kernels.tables.shuffle import ByteShuffle
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.rows import row_blocks, row_offset
from irc.backends.llvm.kernels.vectors.tile import carrying
from irc.backends.llvm.work import KernelFunction
from irc.loops import Int
from irc.ops.quantization import full_range
from irc.ops.softmax import QSoftmax
from irc.plan import aligned
from irc.types import Array, DType

I8 = ir.IntType(8)
PLANES = 4
"""Bytes of an exponential."""
BLOCK, BLOCK_BYTES = 8, 16 * 1024
"""Most rows of a block, and bytes of their exponentials: a part of the first-level cache."""
NUMBERS = BLOCK * 8
"""Bytes for a number of each row: its maximum, then its reciprocal."""
UNROLLED = 8
"""Exponentials in a round, where they are looked up one by one."""
CHAINS = 2
"""Sums of these that are carried apart."""


@dataclass(frozen=True)
class SoftmaxBytes:
    """Rows of a softmax whose elements lie side by side, on vectors of `nbytes`; whether with
    `planes`, and the axis that is cut for threads."""

    node: QSoftmax
    strides: tuple[int, ...]
    nbytes: int
    planes: bool
    cut: int | None

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.node.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes for the exponentials of a row."""
        return aligned(aligned(self.length, self.nbytes) * 4, 64)

    @property
    def block(self) -> int:
        """Rows of a block."""
        return min(BLOCK, max(1, BLOCK_BYTES // self.row_bytes))

    @property
    def scratch(self) -> int:
        """Bytes for the numbers and the exponentials of a block."""
        return NUMBERS + self.block * self.row_bytes

    def stored(self, table: Array) -> Array:
        """The table as it is read: by bytes, or backwards."""
        if not self.planes:
            return np.ascontiguousarray(table[::-1])
        return np.ascontiguousarray(table.astype("<u4").view(np.uint8).reshape(256, PLANES).T)

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        _Emitter(self, f).emit()


class _Emitter:
    def __init__(self, plan: SoftmaxBytes, f: KernelFunction) -> None:
        self.plan, self.node, self.f, self.builder = plan, plan.node, f, f.builder
        self.lanes = plan.nbytes // 4
        low, high = full_range(self.node.type)
        wide = Int(0, DType.I32)
        self.narrowing = Narrowing(wide, self.node.type.zero, low, high, self.node.dtype)
        self.signed = self.node.x.type.dtype.min < 0

    def emit(self) -> None:
        """All rows."""
        f, builder = self.f, self.builder
        shuffle = ByteShuffle("vpermb", self.plan.nbytes)
        self.lookups = [
            shuffle.prepare(builder, at(builder, f.arrays[0], 256 * i)) for i in range(PLANES)
        ] if self.plan.planes else []  # fmt: skip
        for indices, begin, end in row_blocks(f, self.node.shape, self.plan.cut, self.plan.block):
            for step in (self._find_largest, self._find_reciprocal, self._find_results):
                with spanned(builder, begin, end, label="row") as row:
                    step((*indices, row), builder.sub(row, begin))

    def _number(self, place: Any) -> Any:
        """Where the number of a block's row is."""
        return at(self.builder, self.f.scratch, times(self.builder, place, 8))

    def _source(self, row: tuple[Any, ...]) -> Any:
        offset = row_offset(self.builder, row, self.plan.strides)
        return self.f.places[self.node.x].address(self.builder, offset)

    def _kept(self, place: Any) -> Any:
        """Where the exponentials of a block's row are."""
        first = at(self.builder, self.f.scratch, NUMBERS)
        return at(self.builder, first, times(self.builder, place, self.plan.row_bytes))

    def _find_largest(self, row: tuple[Any, ...], place: Any) -> None:
        largest = self._largest(self._source(row))
        self.builder.store(largest, self._number(place), align=8)

    def _find_reciprocal(self, row: tuple[Any, ...], place: Any) -> None:
        builder, number = self.builder, self._number(place)
        largest = builder.load(number, typ=I8, align=8)
        sums = self._by_planes if self.plan.planes else self._one_by_one
        one = ir.Constant(I64, 1 << fixedpoint.RECIPROCAL_BITS)
        total = sums(self._source(row), largest, self._kept(place))
        builder.store(builder.trunc(divided(builder, one, total), I32), number, align=8)

    def _find_results(self, row: tuple[Any, ...], place: Any) -> None:
        builder = self.builder
        reciprocal = builder.load(self._number(place), typ=I32, align=8)
        offset = row_offset(builder, row, self.f.result.strides)
        write = self._probabilities_by_lanes if self.plan.planes else self._probabilities
        write(self._kept(place), reciprocal, self.f.result.address(builder, offset))

    # ------------------------------------------------------------ the largest

    def _largest(self, x: Any) -> Any:
        """The row's maximum, a byte."""
        builder, length = self.builder, self.plan.length
        piece = min(self.plan.nbytes, 1 << (length.bit_length() - 1))
        vector = ir.VectorType(I8, piece)
        kind = "smax" if self.signed else "umax"
        name = f"llvm.{kind}.v{piece}i8"
        whole = length // piece * piece
        found = builder.load(x, typ=vector, align=1)
        offsets = [*range(piece, whole, piece), *([length - piece] if whole < length else [])]
        if len(offsets) <= UNROLLED:
            for offset in offsets:
                more = builder.load(at(builder, x, offset), typ=vector, align=1)
                found = call(builder, name, vector, [found, more])
        else:
            with counted(builder, whole, step=piece, carry=found, label="max") as loop:
                more = builder.load(at(builder, x, loop.index), typ=vector, align=1)
                loop.carry = call(builder, name, vector, [loop.carry, more])
            last = builder.load(at(builder, x, length - piece), typ=vector, align=1)
            found = call(builder, name, vector, [loop.carry, last])
        if piece == 1:
            return builder.extract_element(found, ir.Constant(I32, 0))
        return call(builder, f"llvm.vector.reduce.{kind}.v{piece}i8", I8, [found])

    # ------------------------------------------------------------ exponentials

    def _one_by_one(self, x: Any, largest: Any, kept: Any) -> Any:
        """Every e to scratch; their sum."""
        builder, length = self.builder, self.plan.length
        extend = builder.sext if self.signed else builder.zext
        back = builder.sub(ir.Constant(I64, 255), extend(largest, I64))
        base = builder.gep(self.f.arrays[0], [back], source_etype=I32)

        def some(start: Any, count: int, sums: list[Any]) -> list[Any]:
            made = list(sums)
            for i in range(count):
                index = builder.add(start, ir.Constant(I64, i))
                d = extend(builder.load(at(builder, x, index), typ=I8, align=1), I64)
                place = builder.gep(base, [d], source_etype=I32)
                e = builder.load(place, typ=I32, align=4)
                builder.store(e, at(builder, kept, times(builder, index, 4)), align=4)
                made[i % CHAINS] = builder.add(made[i % CHAINS], builder.zext(e, I64))
            return made

        sums, whole = [ir.Constant(I64, 0)] * CHAINS, length // UNROLLED * UNROLLED
        if whole:
            sums = carrying(builder, whole, UNROLLED, sums, lambda i, s: some(i, UNROLLED, s))
        first, second = some(ir.Constant(I64, whole), length - whole, sums)
        return builder.add(first, second)

    def _by_planes(self, x: Any, largest: Any, kept: Any) -> Any:
        """Every e to scratch, in the order of its unpacked bytes; their sum."""
        builder, nbytes, length = self.builder, self.plan.nbytes, self.plan.length
        top = splat(builder, largest, nbytes)
        wide = ir.VectorType(I64, nbytes // 8)
        sums: list[Any] = [constant(wide, 0)] * PLANES
        whole = length // nbytes * nbytes

        def vector(offset: Any, count: int, carried: list[Any]) -> list[Any]:
            d = builder.sub(top, self._loaded(at(builder, x, offset), count))
            planes = [self._only(look_up([d])[0], count) for look_up in self.lookups]
            place = at(builder, kept, times(builder, offset, 4))
            for i, value in enumerate(_unpacked(builder, planes)):
                builder.store(value, at(builder, place, i * nbytes), align=nbytes)
            return [builder.add(s, self._sum(p)) for s, p in zip(carried, planes, strict=True)]

        if whole:
            sums = carrying(builder, whole, nbytes, sums, lambda i, s: vector(i, nbytes, s))
        if whole < length:
            sums = vector(ir.Constant(I64, whole), length - whole, sums)
        total = sums[0]
        for i in range(1, PLANES):
            shift = constant(wide, 8 * i)
            total = builder.add(total, builder.shl(sums[i], shift))
        return call(builder, f"llvm.vector.reduce.add.v{wide.count}i64", I64, [total])

    def _sum(self, plane: Any) -> Any:
        """Sums of eight bytes each."""
        zero = constant(plane.type, 0)
        result = ir.VectorType(I64, plane.type.count // 8)
        return call(self.builder, "llvm.x86.avx512.psad.bw.512", result, [plane, zero])

    def _loaded(self, pointer: Any, count: int) -> Any:
        """Bytes of a row, the last vector's others 0."""
        nbytes = self.plan.nbytes
        vector = ir.VectorType(I8, nbytes)
        if count == nbytes:
            return self.builder.load(pointer, typ=vector, align=1)
        name, nothing = f"llvm.masked.load.v{nbytes}i8.p0", constant(vector, 0)
        return call(self.builder, name, vector, [pointer, *self._masked(count), nothing])

    def _masked(self, count: int) -> list[Any]:
        """The operands that say which lanes of memory are meant, and how they lie."""
        lanes = [int(i < count) for i in range(self.plan.nbytes)]
        return [constant(ir.VectorType(ir.IntType(1), self.plan.nbytes), lanes)]

    def _only(self, plane: Any, count: int) -> Any:
        """The first bytes, the others 0."""
        nbytes = self.plan.nbytes
        if count == nbytes:
            return plane
        mask = constant(plane.type, [-1 if i < count else 0 for i in range(nbytes)])
        return self.builder.and_(plane, mask)

    # ------------------------------------------------------------ probabilities

    def _probabilities_by_lanes(self, kept: Any, reciprocal: Any, result: Any) -> None:
        """Results from exponentials that are unpacked."""
        builder, nbytes, length = self.builder, self.plan.nbytes, self.plan.length
        whole = length // nbytes * nbytes

        def vector(offset: Any, count: int) -> None:
            place = at(builder, kept, times(builder, offset, 4))
            values = [self._steps(at(builder, place, i * nbytes), reciprocal, self.lanes)
                      for i in range(AT_ONCE)]  # fmt: skip
            value, to = narrow_lanes(builder, self.narrowing, values), at(builder, result, offset)
            if count == nbytes:
                builder.store(value, to, align=1)
                return
            name = f"llvm.masked.store.v{nbytes}i8.p0"
            call(builder, name, ir.VoidType(), [value, to, *self._masked(count)])

        if whole:
            with counted(builder, whole, step=nbytes, label="p") as loop:
                vector(loop.index, nbytes)
        if whole < length:
            vector(ir.Constant(I64, whole), length - whole)

    def _probabilities(self, kept: Any, reciprocal: Any, result: Any) -> None:
        """Results from exponentials in order; the last vector may overlap the one before."""
        builder, length = self.builder, self.plan.length
        piece = min(self.lanes * AT_ONCE, 1 << (length.bit_length() - 1))
        whole = length // piece * piece
        with counted(builder, whole, step=piece, label="p") as loop:
            self._piece(kept, reciprocal, result, loop.index, piece)
        if whole < length:
            self._piece(kept, reciprocal, result, ir.Constant(I64, length - piece), piece)

    def _piece(self, kept: Any, reciprocal: Any, result: Any, offset: Any, piece: int) -> None:
        builder, each = self.builder, min(self.lanes, piece)
        place = at(builder, kept, times(builder, offset, 4))
        values = [self._steps(at(builder, place, i * 4), reciprocal, each)
                  for i in range(0, piece, each)]  # fmt: skip
        (value,) = narrow(builder, self.narrowing, [join(builder, values, piece)], each * 4)
        builder.store(value, at(builder, result, offset), align=1)

    def _steps(self, pointer: Any, reciprocal: Any, count: int) -> Any:
        """`count` exponentials as steps of the result, before its zero point."""
        builder, m, s = self.builder, self.node.m, self.node.s
        words = ir.VectorType(I32, count)
        e, r = builder.load(pointer, typ=words, align=4), splat(builder, reciprocal, count)

        const = partial(constant, words)
        q = s - (m.bit_length() - 1)
        if m & (m - 1) == 0 and 2 <= q <= 30:
            rounded = builder.add(high_words(builder, e, r), const(1 << (q - 2)))
            return builder.lshr(rounded, const(q - 1))
        wide = ir.VectorType(I64, count)
        product = builder.mul(builder.zext(e, wide), builder.zext(r, wide))
        shift = constant(wide, fixedpoint.PROBABILITY_SHIFT)
        p = builder.trunc(builder.lshr(product, shift), words)
        x86 = on_x86(builder)
        return mul_shift_vector(builder, p, const(m), const(s), (s, s), x86=x86)


def _unpacked(builder: Any, planes: list[Any]) -> list[Any]:
    """The words whose bytes four vectors hold, in the order that packs within 16 bytes undo."""
    pairs = [_interleaved(builder, planes[i], planes[i + 1], 8) for i in (0, 2)]
    return [
        word
        for low, high in zip(*pairs, strict=True)
        for word in _interleaved(builder, low, high, 4)
    ]


def _interleaved(builder: Any, low: Any, high: Any, half: int) -> list[Any]:
    """Elements of two vectors in turns, as twice as wide ones: of every 16 bytes the first half,
    and the second."""
    count = low.type.count
    wide = ir.VectorType(ir.IntType(64 // half * 2), count // 2)
    found = []
    for start in (0, half):
        order = [
            group + start + i + side * count
            for group in range(0, count, 2 * half) for i in range(half) for side in (0, 1)
        ]  # fmt: skip
        mask = shuffle_mask(order)
        found.append(builder.bitcast(builder.shuffle_vector(low, high, mask), wide))
    return found
