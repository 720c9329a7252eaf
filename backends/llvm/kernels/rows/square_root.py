"""The integer square root of equation (11), once per row: by Newton's steps rather than bit by bit.

For E in [2^60, 2^62), let a = E / 2^62. Y ~ 2^30 / sqrt(a) starts from a table of the leading eight
bits of E, to one part in 2^8; each step `Y (3 - a Y^2) / 2` squares that, so that two leave it at
2^-28 or so. Then X = a Y 2^31 ~ sqrt(E) is off by some units, and `X + (E - X^2) Y / 2` by little
more than one: a comparison each way makes it `floor(sqrt(E))`, whatever was rounded before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from irc import fixedpoint
from irc.backends.llvm.code.division import divided
from irc.backends.llvm.code.loop import I32, I64, maximum
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.types import Array

FIRST = 64
"""The least value of the leading eight bits."""
STEPS = 2


def starts() -> Array:
    """Y, i32, by the leading eight bits of E less `FIRST`: in the middle of each interval."""
    middle = (np.arange(FIRST, 256) + 0.5) / 256
    return np.rint(2.0**30 / np.sqrt(middle)).astype(np.int32)


def square_root(builder: Any, table: Any, e: Any) -> Any:
    """`floor(sqrt(e))` of an i64 in [2^60, 2^62); `table` points to `starts()`."""

    def shifted(value: Any, bits: int) -> Any:
        return builder.lshr(value, ir.Constant(I64, bits))

    index = builder.sub(shifted(e, 54), ir.Constant(I64, FIRST))
    y = builder.load(at(builder, table, times(builder, index, 4)), typ=I32, align=4)
    y, a = builder.zext(y, I64), shifted(e, 30)
    for _ in range(STEPS):
        v = shifted(builder.mul(shifted(builder.mul(y, y), 30), a), 32)
        y = shifted(builder.mul(y, builder.sub(ir.Constant(I64, 3 << 30), v)), 31)
    x = shifted(builder.mul(a, y), 31)
    rest = builder.mul(builder.sub(e, builder.mul(x, x)), shifted(y, 12))
    x = builder.add(x, builder.ashr(rest, ir.Constant(I64, 50)))
    return _floored(builder, x, e)


def _floored(builder: Any, x: Any, e: Any) -> Any:
    """The root of what x is next to."""
    one = ir.Constant(I64, 1)
    less, more = builder.sub(x, one), builder.add(x, one)
    fits = builder.icmp_unsigned("<=", builder.mul(more, more), e)
    above = builder.icmp_unsigned(">", builder.mul(x, x), e)
    return builder.select(above, less, builder.select(fits, more, x))


def reciprocal_root(builder: Any, table: Any, d: Any) -> tuple[Any, Any]:
    """n and r of equation (11), both i64, of an i64 below 2^62; below 1 it counts as 1."""
    d = maximum(builder, d, 1)
    zeros = call(builder, "llvm.ctlz.i64", I64, [d, ir.Constant(ir.IntType(1), 1)])
    n = builder.lshr(builder.sub(zeros, ir.Constant(I64, 2)), ir.Constant(I64, 1))
    root = square_root(builder, table, builder.shl(d, builder.shl(n, ir.Constant(I64, 1))))
    one = ir.Constant(I64, (1 << fixedpoint.ROOT_BITS) - 1)
    return n, divided(builder, one, root)
