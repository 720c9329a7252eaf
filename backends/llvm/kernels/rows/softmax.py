"""Softmax along the last axis, equation (9), row by row.

    for each row
        its largest element, on vectors
        e[j] = exp of each difference to it, from tables, and their sum
        r = 2^61 // sum, the row's one division
        p[j] = (e[j] * r) >> 31, and (6), on vectors
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from irc import fixedpoint
from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.division import divided
from irc.backends.llvm.code.loop import I32, I64, counted, splat
from irc.backends.llvm.code.rescale import mul_shift_vector, on_x86
from irc.backends.llvm.kernels.rows.softmax_bytes import SoftmaxBytes
from irc.backends.llvm.kernels.tables.shuffle import byte_shuffle
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.packs import packs
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, outer_axis
from irc.ops.quantization import full_range
from irc.ops.softmax import QSoftmax
from irc.plan import aligned
from irc.types import Array

SHORTEST = 4
"""Elements of a row whose bytes are packed together."""


def softmax(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for a softmax by itself along the last axis."""
    nodes = [v for v in work.body.order if isinstance(v, QSoftmax)]
    if len(nodes) != 1 or sum(bool(v.operands) for v in work.body.order) != 1:
        return None
    (node,) = nodes
    if not packs(target):
        return None
    inputs, rank = work.body.inputs, len(work.kernel.shape)
    if node.x not in inputs or node.axis != rank - 1 or 0 in node.shape:
        return None
    strides = work.strides[[v is node.x for v in inputs].index(True)]
    largest = (2**fixedpoint.EXP_BITS * node.m >> node.s) + 2 + abs(node.type.zero)
    if strides[-1] != 1 or work.result_strides[-1] != 1 or largest >= 2**31:
        return None
    table = work.constant(node.table)
    if table is None or not _is_exponential(table):
        return None
    cut = outer_axis(work.kernel.shape)
    if node.x.type.dtype.bits == 8 and node.dtype.bits == 8 and node.shape[-1] >= SHORTEST:
        return _of_bytes(work, target, node, strides, table)
    return MicroKernel(
        name=f"qsoftmax_{node.x.type.dtype.value}_rows_{target.vector_bytes * 8}",
        key=f"{cut} {strides} {node.x.type.dtype.value}",
        emit=_Softmax(node, strides, target.vector_bytes // 4, cut).emit,
        scratch=aligned(node.shape[-1] * 4, 64),
        units=1 if cut is None else work.kernel.shape[cut],
        reason="exponentials are kept, and a row is divided once",
    )


def _of_bytes(
    work: Work, target: Target, node: QSoftmax, strides: tuple[int, ...], table: Array
) -> MicroKernel:
    """The kernel of bytes to bytes."""
    shuffle, cut = byte_shuffle(target), outer_axis(work.kernel.shape)
    planes = shuffle is not None and shuffle.kind == "vpermb"
    plan = SoftmaxBytes(node, strides, target.vector_bytes, planes, cut)
    return MicroKernel(
        name=f"qsoftmax_{node.x.type.dtype.value}_{'vpermb' if planes else 'rows'}"
        f"_{target.vector_bytes * 8}",
        key=f"{cut} {strides} {node.x.type.dtype.value}",
        emit=plan.emit,
        arrays=(plan.stored(table),),
        replaces=(node.table,) if node.table in work.body.inputs else (),
        scratch=plan.scratch,
        units=1 if cut is None else work.kernel.shape[cut],
        reason="exponentials are kept, and a row is divided once",
    )


def _is_exponential(table: Array) -> bool:
    """Whether the tables start with 1 and stay within it: then no sum of a row is less than 1, and
    its reciprocal fits 32 bits."""
    one = 2**fixedpoint.EXP_BITS
    return bool(np.all(table[::256] == one) and table.min() >= 0 and table.max() <= one)


@dataclass(frozen=True)
class _Softmax:
    node: QSoftmax
    strides: tuple[int, ...]
    lanes: int
    cut: int | None

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.node.shape[-1]

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        self._rows(f, 0, ir.Constant(I64, 0), ir.Constant(I64, 0))

    def _rows(self, f: KernelFunction, axis: int, source: Any, result: Any) -> None:
        """The loops over rows; offsets in elements."""
        shape, builder = self.node.shape, f.builder
        if axis == len(shape) - 1:
            self._row(f, source, result)
            return
        split = axis == self.cut and f.split
        begin, end = (f.begin, f.end) if split else (0, shape[axis])
        with counted(builder, end, begin=begin, label="row") as loop:
            self._rows(
                f, axis + 1,
                builder.add(source, times(builder, loop.index, self.strides[axis])),
                builder.add(result, times(builder, loop.index, f.result.strides[axis])),
            )  # fmt: skip

    def _row(self, f: KernelFunction, source: Any, result: Any) -> None:
        builder = f.builder
        x = f.places[self.node.x].address(builder, source)
        largest = self._largest(builder, x)
        total = self._exponentials(f, x, largest)
        one = ir.Constant(I64, 1 << fixedpoint.RECIPROCAL_BITS)
        reciprocal = builder.trunc(divided(builder, one, total), I32)
        self._probabilities(f, reciprocal, f.result.address(builder, result))

    def _largest(self, builder: Any, x: Any) -> Any:
        """The row's maximum, an i64."""
        dtype = self.node.x.type.dtype
        element, nbytes = ir.IntType(dtype.bits), dtype.bits // 8
        piece = min(self.lanes * 4 // nbytes, 1 << (self.length.bit_length() - 1))
        vector = ir.VectorType(element, piece)
        signed = dtype.min < 0
        start = constant(vector, dtype.min)

        def more(so_far: Any, offset: Any) -> Any:
            value = builder.load(at(builder, x, offset), typ=vector, align=nbytes)
            compare = builder.icmp_signed if signed else builder.icmp_unsigned
            return builder.select(compare(">", value, so_far), value, so_far)

        whole = self.length // piece * piece
        with counted(builder, whole, step=piece, carry=start, label="max") as loop:
            loop.carry = more(loop.carry, times(builder, loop.index, nbytes))
        found = loop.carry
        if whole < self.length:
            found = more(found, (self.length - piece) * nbytes)
        kind = "smax" if signed else "umax"
        if piece == 1:
            found = builder.extract_element(found, ir.Constant(I32, 0))
        else:
            name = f"llvm.vector.reduce.{kind}.v{piece}i{dtype.bits}"
            found = call(builder, name, element, [found])
        return (builder.sext if signed else builder.zext)(found, I64)

    def _exponentials(self, f: KernelFunction, x: Any, largest: Any) -> Any:
        """Every e to scratch; their sum."""
        builder, dtype = f.builder, self.node.x.type.dtype
        extend = builder.sext if dtype.min < 0 else builder.zext
        zero = ir.Constant(I64, 0)
        with counted(builder, self.length, carry=zero, label="e") as loop:
            address = at(builder, x, times(builder, loop.index, dtype.bits // 8))
            value = builder.load(address, typ=ir.IntType(dtype.bits), align=dtype.bits // 8)
            e = self._exponential(f, builder.sub(largest, extend(value, I64)))
            to = at(builder, f.scratch, times(builder, loop.index, 4))
            builder.store(builder.trunc(e, I32), to, align=4)
            loop.carry = builder.add(loop.carry, e)
        return loop.carry

    def _exponential(self, f: KernelFunction, d: Any) -> Any:
        """exp of -d steps of x, an i64 of 30 fractional bits."""
        builder = f.builder
        if self.node.x.type.dtype.bits == 8:
            return self._entry(f, d)
        low = self._entry(f, builder.and_(d, ir.Constant(I64, 255)))
        high = builder.lshr(d, ir.Constant(I64, 8))
        high = self._entry(f, builder.add(high, ir.Constant(I64, 256)))
        half = ir.Constant(I64, 1 << (fixedpoint.EXP_BITS - 1))
        product = builder.add(builder.mul(low, high), half)
        return builder.lshr(product, ir.Constant(I64, fixedpoint.EXP_BITS))

    def _entry(self, f: KernelFunction, index: Any) -> Any:
        address = f.places[self.node.table].address(f.builder, index)
        return f.builder.zext(f.builder.load(address, typ=I32, align=4), I64)

    def _probabilities(self, f: KernelFunction, reciprocal: Any, result: Any) -> None:
        """Results from the exponentials; the last vector may overlap the one before."""
        builder = f.builder
        count = min(self.lanes, 1 << (self.length.bit_length() - 1))
        whole = self.length // count * count
        with counted(builder, whole, step=count, label="p") as loop:
            self._vector(f, reciprocal, result, loop.index, count)
        if whole < self.length:
            last = ir.Constant(I64, self.length - count)
            self._vector(f, reciprocal, result, last, count)

    def _vector(
        self, f: KernelFunction, reciprocal: Any, result: Any, index: Any, count: int
    ) -> None:
        builder, wide = f.builder, ir.VectorType(I64, count)
        words = ir.VectorType(I32, count)
        e = builder.load(at(builder, f.scratch, times(builder, index, 4)), typ=words, align=4)
        r = builder.zext(splat(builder, reciprocal, count), wide)
        product = builder.mul(builder.zext(e, wide), r)
        shift = constant(wide, fixedpoint.PROBABILITY_SHIFT)
        p = builder.trunc(builder.lshr(product, shift), words)
        y = self._rescaled(builder, p, count)
        dtype = self.node.dtype
        stored = ir.VectorType(ir.IntType(dtype.bits), count)
        address = at(builder, result, times(builder, index, dtype.bits // 8))
        value = y if dtype.bits == 32 else builder.trunc(y, stored)
        builder.store(value, address, align=dtype.bits // 8)

    def _rescaled(self, builder: Any, p: Any, count: int) -> Any:
        """(6), clamped to the result's range."""
        m, s = self.node.m, self.node.s

        const = partial(constant, p.type)
        if count > 1:
            y = mul_shift_vector(builder, p, const(m), const(s), (s, s), x86=on_x86(builder))
        else:
            wide = ir.VectorType(I64, 1)
            product = builder.mul(builder.sext(p, wide), constant(wide, m))
            product = builder.add(product, constant(wide, 1 << (s - 1)))
            y = builder.trunc(builder.ashr(product, constant(wide, s)), p.type)
        y = builder.add(y, const(self.node.type.zero))
        low, high = (const(bound) for bound in full_range(self.node.type))
        y = builder.select(builder.icmp_signed("<", y, low), low, y)
        return builder.select(builder.icmp_signed(">", y, high), high, y)
