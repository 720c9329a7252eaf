"""Equation (8) on 16-bit values: a table of a function, and straight lines between its entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import Expr, clamp, load
from irc.types import Array, DType
from irc.value import Value

UNIT = 2.0**-15
"""The scale of what a curve gives."""
SPACING = 1 / 32
"""Entries of a table lie no further apart than this: the error of a line between two of them is
below `SPACING^2 / 8 * max |f''|`, 1e-4 for tanh and 1e-5 for the logistic function."""
REACH = 12.0
"""Beyond this the functions are flat: what lies further out is read at the end of the table."""


@dataclass(frozen=True)
class Curve:
    """How reals of a scale are looked up: `half` intervals of `2^bits` steps on each side of 0.

    `y = T[j] + (((T[j+1] - T[j]) * f + 2^(bits-1)) >> bits)` with `j` the upper and `f` the lower
    bits of `d + half * 2^bits`, d the difference to the zero point, held within the table.
    """

    bits: int
    half: int

    @classmethod
    def of(cls, scale: float) -> Curve:
        """For arguments of this scale."""
        bits = min(max(0, math.floor(math.log2(SPACING / scale))), 14)
        half = 1 + math.ceil(REACH / (scale * 2.0**bits))
        return cls(bits, min(half, 2 ** (16 - bits)))

    @property
    def entries(self) -> int:
        """How long the table is."""
        return 2 * self.half + 1

    def table(self, f: Callable[[Array], Array], scale: float) -> Array:
        """T, i16: the function, of absolute value at most 1, in units of 2^-15."""
        points = np.arange(-self.half, self.half + 1) * (scale * 2.0**self.bits)
        return np.asarray(np.clip(np.rint(f(points) / UNIT), -32768, 32767), np.int16)

    def check(self, table: Value) -> None:
        """Raise `TypeCheckError` unless `table` is one of this curve."""
        if table.type.dtype is not DType.I16 or table.shape != (self.entries,):
            raise TypeCheckError(f"a table of {self} is i16[{self.entries}], not {table.type}")

    def apply(self, d: Array, table: Array) -> Array:
        """The function of i64 differences to the zero point, i64 in units of 2^-15."""
        end = self.half << self.bits
        at = np.clip(d, -end, end - 1) + end
        low = table[at >> self.bits].astype(np.int64)
        rise = table[(at >> self.bits) + 1].astype(np.int64) - low
        fraction = at & ((1 << self.bits) - 1)
        return np.asarray(low + ((rise * fraction + self._round) >> self.bits))

    def expression(self, d: Expr, table: Value) -> Expr:
        """As `apply`, of one i32 difference as an expression, an i32."""
        end = self.half << self.bits
        at = clamp(d, -end, end - 1) + end
        index = (at >> self.bits).cast(DType.I64)
        low = load(table, index).cast(DType.I32)
        if self.bits == 0:
            return low
        rise = load(table, index + 1).cast(DType.I32) - low
        return low + ((rise * (at & ((1 << self.bits) - 1)) + self._round) >> self.bits)

    @property
    def _round(self) -> int:
        return (1 << self.bits) >> 1
