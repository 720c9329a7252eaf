"""Copies and fills of known size, without libc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.functions import I8, I64
from irc.backends.llvm.code.loop import counted, i64

I16 = ir.IntType(16)


def at(builder: Any, pointer: Any, offset: Any) -> Any:
    """`pointer` moved by bytes: a number, or an i64."""
    if isinstance(offset, int):
        if offset == 0:
            return pointer
        offset = ir.Constant(I64, offset)
    return builder.gep(pointer, [offset], inbounds=True, source_etype=I8)


def times(builder: Any, index: Any, factor: int) -> Any:
    """`index * factor` without overflow; a number where both are."""
    if isinstance(index, int):
        return index * factor
    return builder.mul(index, ir.Constant(I64, factor), flags=("nsw",))


def beyond(builder: Any, pointer: Any, offset: Any) -> Any:
    """`pointer` moved by bytes (an i64), maybe out of its array: to ask for, not to read."""
    return builder.gep(pointer, [i64(offset)], source_etype=I8)


def prefetch(builder: Any, pointer: Any, offset: int, *, near: bool = False) -> None:
    """Ask for a line that will be read, of the second-level cache, or of the first (`near`); it
    may lie outside of any array."""
    name = "llvm.prefetch.p0"
    declared = builder.module.globals.get(name)
    if declared is None:
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), *[ir.IntType(32)] * 3])
        declared = ir.Function(builder.module, kind, name)
    read, level, data = (ir.Constant(ir.IntType(32), v) for v in (0, 2 + near, 1))
    builder.call(declared, [beyond(builder, pointer, offset), read, level, data])


def copy(builder: Any, to: Any, source: Any, nbytes: int, width: int) -> None:
    """Copy bytes with vectors of up to `width`; the last one may overlap the one before."""
    pieces(builder, nbytes, width, lambda offset, size: _move(builder, to, source, offset, size))


def widen(builder: Any, to: Any, source: Any, nbytes: int, width: int) -> None:
    """Copy bytes, u8, as i16, in the same way."""

    def move(offset: Any, size: int) -> None:
        value = builder.load(at(builder, source, offset), typ=ir.VectorType(I8, size), align=1)
        value = builder.zext(value, ir.VectorType(I16, size))
        builder.store(value, at(builder, to, times(builder, offset, 2)), align=1)

    pieces(builder, nbytes, width, move)


def fill(
    builder: Any, to: Any, count: int, value: int, width: int, element: Any = I8
) -> None:
    """Set elements, bytes unless told otherwise, with vectors of up to `width` bytes."""
    size = element.width // 8

    def store(offset: Any, lanes: int) -> None:
        vector = constant(ir.VectorType(element, lanes), value)
        offset = offset if size == 1 else times(builder, offset, size)
        builder.store(vector, at(builder, to, offset), align=1)

    pieces(builder, count, width // size, store)


def _move(builder: Any, to: Any, source: Any, offset: Any, size: int) -> None:
    vector = ir.VectorType(I8, size)
    value = builder.load(at(builder, source, offset), typ=vector, align=1)
    builder.store(value, at(builder, to, offset), align=1)


def pieces(builder: Any, count: int, width: int, piece: Callable[[Any, int], None]) -> None:
    """Call `piece(offset, size)` so that pieces of up to `width` cover so many bytes, or elements;
    the last one may overlap the one before."""
    if count <= 0:
        return
    size = min(width, 1 << (count.bit_length() - 1))
    whole = count // size * size
    with counted(builder, whole, step=size, label="byte") as loop:
        piece(loop.index, size)
    if whole != count:
        piece(count - size, size)
