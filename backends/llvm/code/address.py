"""Addresses of elements: where a tensor lies, and offsets in it as expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.loops import Binary, Expr, Int, Var, walk
from irc.types import DType, Shape


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: a pointer to its first element, and strides in elements."""

    pointer: Any
    strides: Shape
    dtype: DType

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return self.dtype.bits // 8

    def address(self, builder: Any, offset: Any) -> Any:
        """Pointer to the element at `offset` (an i64, in elements)."""
        return builder.gep(
            self.pointer, [offset], inbounds=True, source_etype=ir.IntType(self.dtype.bits)
        )


def flat_index(index: Sequence[Expr], strides: Shape) -> Expr:
    """The offset in elements as one expression."""
    flat: Expr = Int(0, DType.I64)
    for i, stride in zip(index, strides, strict=True):
        flat = flat + i * stride
    return flat


def slope(e: Expr, variable: Var) -> int | None:
    """How much `e` grows per step of `variable`; None where it is not linear in it."""
    if e is variable:
        return 1
    match e:
        case Int() | Var():
            return 0
        case Binary(kind="add" | "sub", a=a, b=b):
            p, q = slope(a, variable), slope(b, variable)
            if p is None or q is None:
                return None
            return p + q if e.kind == "add" else p - q
        case Binary(kind="mul", a=a, b=Int(value=factor)) | Binary(
            kind="mul", a=Int(value=factor), b=a
        ):
            p = slope(a, variable)
            return None if p is None else p * factor
    return None if variable in walk(e) else 0
