"""A byte times 24 bits by an instruction that multiplies 16 (`vpdpwssd`).

A shuffle puts it into both ends of its lane, whose halves are then x and, one bit changed,
(x - 128) * 2^8:
    x*f = x*(f & 255) + ((x - 128) * 2^8)*(f >> 8) + 2^15*(f >> 8)
Of an i8 they are x + 128 and x * 2^8:
    x*f = (x + 128)*(f & 255) + (x * 2^8)*(f >> 8) - 2^7*(f & 255)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.kernels.vectors.dot import call
from irc.types import DType

I16 = ir.IntType(16)
_SHUFFLES = {16: "ssse3.pshuf.b.128", 32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}
_ZERO = -0x80
"""What a shuffle makes a byte 0 by."""


def both_ends(builder: Any, line: Any, places: Sequence[int], dtype: DType) -> Any:
    """The bytes for each lane, as its halves; `places` are theirs among the same 16 of a vector."""
    count = line.type.count // 4
    order = [x for place in places for x in (place, _ZERO, _ZERO, place)]
    name = f"llvm.x86.{_SHUFFLES[line.type.count]}"
    spread = call(builder, name, line.type, [line, constant(line.type, order)])
    changed = (0, 0, 0, -0x80) if dtype is DType.U8 else (-0x80, 0, 0, 0)
    spread = builder.xor(spread, constant(line.type, list(changed) * count))
    return builder.bitcast(spread, ir.VectorType(I16, 2 * count))


def factor_halves(builder: Any, factor: Any, dtype: DType) -> tuple[Any, Any]:
    """What the halves are multiplied with, in those of an i32 or of a vector's, and what their
    products lack."""

    number = partial(constant, factor.type)
    low, high = builder.and_(factor, number(255)), builder.ashr(factor, number(8))
    pair = builder.or_(builder.shl(high, number(16)), low)
    if dtype is DType.U8:
        return pair, builder.shl(high, number(15))
    return pair, builder.neg(builder.shl(low, number(7)))
