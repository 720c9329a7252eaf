"""Layers of one output channel whose weights are all one number: sums of bytes (`LiftWeights`).

Bytes are added by `vpsadbw` where there is one. Of windows of several pixels, the sums of all
pixels, with their padding around them, are made first; they overlap from window to window.

    for each image
        for each row, each pixel:               sums[row][pixel] = the pixel's bytes added up
        for each row of the result
            for some columns at a time:         line = sums of the window's rows
            for some results at a time:         line of the window's columns, times the number
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, I64, counted, i64, spanned, splat
from irc.backends.llvm.kernels.anchor import Anchor, find_anchor
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.memory import at, fill, pieces, times
from irc.backends.llvm.kernels.vectors.rows import row_offset, rows
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, outer_axis
from irc.ops.conv import QConv2d
from irc.ops.quantization import full_range
from irc.plan import dense_strides
from irc.types import DType, Shape

I8 = ir.IntType(8)
WORD = 4
"""Bytes of a sum."""
FEW = 8
"""Bytes of a pixel that are added one by one, if they are fewer."""
_SADBW = {16: "sse2.psad.bw", 32: "avx2.psad.bw", 64: "avx512.psad.bw.512"}


def window_sums(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for such a layer, where it has no tail and the target has vectors."""
    anchor = find_anchor(work)
    if anchor is None or target.vector_bytes < 16 or not _adds_up(work, anchor):
        return None
    node = anchor.node
    if not isinstance(node, QConv2d) or (node.window.kernel == (1, 1) and not node.window.padded):
        return _of_pixels(work, anchor)
    if node.groups > 1 or work.result_strides != dense_strides(node.shape):
        return None
    plan = _Windows(node, anchor)
    return _kernel(work, anchor, "windows", plan.emit, node.shape[1], plan.nbytes)


def _adds_up(work: Work, anchor: Anchor) -> bool:
    """Whether what is behind the sum of products leaves it as it is."""
    node = anchor.node
    plain = node.shape[-1] == 1 and not node.fraction and not node.power
    plain = plain and node.exception is None is node.common
    alike = anchor.weights.size and np.all(anchor.weights == anchor.weights.flat[0])
    if not (plain and alike and work.body.outputs == (node,)):
        return False
    whole = node.type.dtype is DType.I32 and node.type.zero == 0
    if not whole or node.clamp != full_range(node.type):
        return False
    wanted = {node.b: 0, node.m: 2**30, node.s: 30}
    known = ((work.constant(v), number) for v, number in wanted.items())
    return all(c is not None and c.tolist() == [number] for c, number in known)


def _kernel(
    work: Work, anchor: Anchor, kind: str, emit: Callable[[KernelFunction], None], units: int,
    scratch: int = 0,
) -> MicroKernel:  # fmt: skip
    node = anchor.node
    window = (node.strides, node.pads, node.dilations) if isinstance(node, QConv2d) else ()
    return MicroKernel(
        name=f"qsums_u8_{kind}",
        key=f"{node.w.shape} {window} {node.x.type.zero}",
        emit=emit,
        arrays=(np.array([anchor.weights.flat[0]], np.int32),),
        replaces=(node.w, node.b, node.m, node.s),
        scratch=scratch,
        units=units,
        reason="all weights are one number",
        proof="sums are kept in 32 bits, in which they fit",
    )


def _of_pixels(work: Work, anchor: Anchor) -> MicroKernel:
    """Each result is the sum of one pixel's, or one row's, bytes."""
    node, shape = anchor.node, anchor.node.shape
    steps = anchor.strides
    if isinstance(node, QConv2d):
        steps = tuple(s * t for s, t in zip(steps, (1, *node.strides, 1), strict=True))
    cut = outer_axis(shape)

    def emit(f: KernelFunction) -> None:
        builder, source = f.builder, f.places[node.x].pointer
        factor = builder.load(f.arrays[0], typ=I32, align=WORD)
        for place in rows(f, shape, cut):
            pixel = at(builder, source, row_offset(builder, place, steps))
            total = builder.mul(byte_sum(builder, pixel, node.x.shape[-1], f.target), factor)
            to = f.result.address(builder, row_offset(builder, place, f.result.strides))
            builder.store(total, to, align=WORD)

    return _kernel(work, anchor, "pixels", emit, 1 if cut is None else shape[cut])


def byte_sum(builder: Any, pointer: Any, count: int, target: Target) -> Any:
    """The sum of so many u8 that lie side by side: i32."""
    if count < FEW:
        loads = (builder.load(at(builder, pointer, i), typ=I8, align=1) for i in range(count))
        total = ir.Constant(I32, 0)
        for value in loads:
            total = builder.add(total, builder.zext(value, I32))
        return total
    size = min(target.vector_bytes, 1 << (count.bit_length() - 1))
    whole = count // size * size
    adder = _Adder(builder, size, sad=target.is_x86 and size in _SADBW)
    with counted(builder, whole, step=size, carry=adder.zero, label="k") as loop:
        loop.carry = adder.add(loop.carry, at(builder, pointer, loop.index), size)
    total = loop.carry
    if whole < count:
        total = adder.add(total, at(builder, pointer, count - size), count - whole)
    return adder.total(total)


@dataclass(frozen=True)
class _Adder:
    """Adds up vectors of `size` u8, by `vpsadbw` (`sad`) or widened."""

    builder: Any
    size: int
    sad: bool

    @property
    def zero(self) -> Any:
        """The sums before the first vector."""
        kind = ir.VectorType(I64, self.size // 8) if self.sad else ir.VectorType(I32, self.size)
        return constant(kind, 0)

    def add(self, sums: Any, pointer: Any, last: int) -> Any:
        """The sums with those of the `last` ones of a vector."""
        builder, kind = self.builder, ir.VectorType(I8, self.size)
        value = builder.load(pointer, typ=kind, align=1)
        if last < self.size:
            mask = [0] * (self.size - last) + [-1] * last
            value = builder.and_(value, constant(kind, mask))
        if not self.sad:
            return builder.add(sums, builder.zext(value, sums.type))
        zero = constant(kind, 0)
        name = f"llvm.x86.{_SADBW[self.size]}"
        return builder.add(sums, call(builder, name, sums.type, [value, zero]))

    def total(self, sums: Any) -> Any:
        """All lanes together: i32."""
        element = sums.type.element
        name = f"llvm.vector.reduce.add.v{sums.type.count}i{element.width}"
        found = call(self.builder, name, element, [sums])
        return self.builder.trunc(found, I32) if self.sad else found


@dataclass(frozen=True)
class _Windows:
    """Sums over windows of several pixels, or with padding."""

    node: QConv2d
    anchor: Anchor

    @property
    def padded(self) -> Shape:
        """Rows and columns of the image with its padding."""
        top, left, bottom, right = self.node.pads
        _, height, width, _ = self.node.x.shape
        return height + top + bottom, width + left + right

    @property
    def line(self) -> int:
        """Bytes of a row's sums."""
        return self.padded[1] * WORD

    @property
    def nbytes(self) -> int:
        """Bytes of scratch: all sums, and a line."""
        return prod(self.padded) * WORD + self.line

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        builder, node = f.builder, self.node
        images, height, width, _ = node.shape
        begin, end = (f.begin, f.end) if f.split else (0, height)
        factor = builder.load(f.arrays[0], typ=I32, align=WORD)
        line = at(builder, f.scratch, prod(self.padded) * WORD)
        step = node.strides[0]
        last = times(builder, builder.sub(i64(end), i64(1)), step)
        reach = (node.window.kernel[0] - 1) * node.dilations[0] + 1
        with counted(builder, images, label="n") as image:
            source = at(builder, f.places[node.x].pointer,
                        times(builder, image.index, self.anchor.strides[0]))  # fmt: skip
            read = builder.add(last, i64(reach))
            with spanned(builder, times(builder, begin, step), read, label="row") as row:
                self._row(f, source, row)
            with spanned(builder, begin, end, label="y") as y:
                first = at(builder, f.scratch, times(builder, y, step * self.line))
                self._add(f, first, self.padded[1], line, taps=0, pitch=self.line)
                place = builder.add(times(builder, image.index, height * width),
                                    times(builder, y, width))  # fmt: skip
                to = f.result.address(builder, place)
                self._add(f, line, width, to, taps=1, pitch=WORD, factor=factor)

    def _row(self, f: KernelFunction, source: Any, row: Any) -> None:
        """The sums of a row's pixels, i64 the number of the row with its padding."""
        builder, node, width = f.builder, self.node, f.target.vector_bytes
        top, left, _, right = node.pads
        _, height, columns, channels = node.x.shape
        padding = node.x.type.zero * channels
        to = at(builder, f.scratch, times(builder, row, self.line))
        inside = builder.sub(row, i64(top))
        is_inside = builder.icmp_unsigned("<", inside, i64(height))
        with builder.if_else(is_inside) as (real, filled):
            with real:
                fill(builder, to, left, padding, width, I32)
                behind = at(builder, to, (left + columns) * WORD)
                fill(builder, behind, right, padding, width, I32)
                start = at(builder, source, times(builder, inside, self.anchor.strides[1]))
                with counted(builder, columns, label="x") as x:
                    pixel = at(builder, start, times(builder, x.index, self.anchor.strides[2]))
                    total = byte_sum(builder, pixel, channels, f.target)
                    place = at(builder, to, times(builder, builder.add(x.index, i64(left)), WORD))
                    builder.store(total, place, align=WORD)
            with filled:
                fill(builder, to, self.padded[1], padding, width, I32)

    def _add(
        self, f: KernelFunction, source: Any, count: int, to: Any, *, taps: int, pitch: int,
        factor: Any = None,
    ) -> None:  # fmt: skip
        """Sums of the taps of one axis, so many side by side, `pitch` bytes from one tap's element
        to the next: some at a time where results are neighbours, times `factor` if there is one."""
        builder, node = f.builder, self.node
        stride = node.strides[1] if taps == 1 else 1
        kernel, dilation = node.window.kernel[taps], node.dilations[taps]

        def some(index: Any, lanes: int) -> None:
            kind: Any = ir.VectorType(I32, lanes) if lanes > 1 else I32
            zero = constant(kind, 0)
            start = at(builder, source, times(builder, index, stride * WORD))
            with counted(builder, kernel, carry=zero, label="tap") as tap:
                place = at(builder, start, times(builder, tap.index, dilation * pitch))
                value = builder.load(place, typ=kind, align=WORD)
                tap.carry = builder.add(tap.carry, value)
            total = tap.carry
            if factor is not None:
                many = splat(builder, factor, lanes) if lanes > 1 else factor
                total = builder.mul(total, many)
            builder.store(total, at(builder, to, times(builder, index, WORD)), align=WORD)

        pieces(builder, count, f.target.vector_bytes // WORD if stride == 1 else 1, some)
