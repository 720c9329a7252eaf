"""Integers as rows of bits: and, or, exclusive or, shifts. Plain integers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irc.errors import IRCError, TypeCheckError
from irc.loops import (
    BinaryKind,
    Expr,
    Int,
    Loops,
    Select,
    binary,
    clamp,
    elementwise,
    load_broadcast,
)
from irc.ops.plain_integers import need_whole, wrapped
from irc.types import Array, DType, TensorType, broadcast_shapes
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class _Bits(Value):
    """Base of the functions of two rows of bits, broadcast."""

    a: Value
    b: Value

    def infer(self) -> TensorType:
        """Plain integers of one dtype."""
        a, b = self.a.type, self.b.type
        if a.dtype is not b.dtype or not a.dtype.is_integer or a.quant or b.quant:
            raise TypeCheckError(f"a {a} and b {b} must be plain integers of one dtype")
        return TensorType(a.dtype, broadcast_shapes(a.shape, b.shape))


@dataclass(frozen=True, eq=False)
class _Bitwise(_Bits):
    """Base of what is done bit by bit."""

    kind: ClassVar[BinaryKind]
    numpy: ClassVar[Callable[..., Any]]

    def evaluate(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.asarray(type(self).numpy(a, b))

    def loops(self) -> Loops:
        """Two loads."""
        return elementwise(
            self.shape,
            lambda *i: binary(self.kind, load_broadcast(self.a, i), load_broadcast(self.b, i)),
        )


@op("bit_and")
class BitAnd(_Bitwise):
    """Bits that both have."""

    kind: ClassVar[BinaryKind] = "and"
    numpy: ClassVar[Callable[..., Any]] = np.bitwise_and


@op("bit_or")
class BitOr(_Bitwise):
    """Bits that one or both have."""

    kind: ClassVar[BinaryKind] = "or"
    numpy: ClassVar[Callable[..., Any]] = np.bitwise_or


@op("bit_xor")
class BitXor(_Bitwise):
    """Bits that one of both has."""

    kind: ClassVar[BinaryKind] = "xor"
    numpy: ClassVar[Callable[..., Any]] = np.bitwise_xor


@op("shift")
class Shift(_Bits):
    """a moved by b bits, to the left if `left`. What leaves is gone; to the right a sign stays.
    A shift that is negative, or of all bits and more, takes all bits out."""

    left: bool

    def evaluate(self, a: Array, b: Array) -> Array:
        """NumPy's, where the shift is within bounds."""
        bits = a.dtype.itemsize * 8
        gone = (b < 0) | (b >= bits)
        few = np.where(gone, 0, b).astype(a.dtype)
        if self.left:
            return np.where(gone, 0, np.left_shift(a, few)).astype(a.dtype)
        empty = np.right_shift(a, bits - 1) if a.dtype.kind == "i" else np.zeros_like(a)
        return np.where(gone, empty, np.right_shift(a, few)).astype(a.dtype)

    def loops(self) -> Loops:
        """In 64 bits; raises `IRCError` for 64-bit integers."""
        dtype = self.type.dtype
        need_whole(self)
        if dtype.bits == 64:
            raise IRCError(f"shift %{self.name}: no code for shifts of {dtype.value}; use int32")
        all_out = dtype.bits if self.left or dtype.min == 0 else dtype.bits - 1

        def value(*i: Expr) -> Expr:
            a, b = (load_broadcast(v, i).cast(DType.I64) for v in (self.a, self.b))
            by = Select(b < 0, Int(all_out, DType.I64), clamp(b, 0, all_out))
            if not self.left:
                return wrapped(a >> by, dtype)
            natural = a & ((1 << dtype.bits) - 1)
            kept = Select(by < dtype.bits, natural, Int(0, DType.I64))
            return wrapped(kept << clamp(by, 0, 31), dtype)

        return elementwise(self.shape, value)
