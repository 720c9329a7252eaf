"""Any function of one 16-bit value: results for every 64th or 16th, and straight lines between; or,
where these are too far off, a result for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Loops, clamp, elementwise, load
from irc.ops.core import Const
from irc.ops.quantization import Bounds, check_bounds, constant, full_range, need_quantized
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

VALUES = 1 << 16
INTERVALS = (6, 4)
"""An entry stands for every 2^6 steps of the value, or for every 2^4."""
ENTRIES = tuple((VALUES >> k) + 1 for k in INTERVALS)
LARGEST = 1 << 22
"""Entries are held within this, far beyond any result, so that 32 bits hold all on the way."""
NEAR = 0.25
"""So many steps, of 8 bits over the result's range, the lines may be off, rounding aside."""


@op("interpolate")
class Interpolate(Value):
    """Equation (8) for 16 bits. With `d = x - min`, `j = d >> k` and `f = d & (2^k - 1)`:

        y = clamp((2^k * T[j] + (T[j+1] - T[j]) * f + 2^(k-1+bits)) >> (k + bits))

    T i32[1025], for k = 6, or i32[4097], for k = 4, holds results in units of `2^-bits`, the zero
    point among them.
    """

    x: Value
    table: Value
    bits: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The operand's shape; entries that leave the sums within 32 bits."""
        need_quantized("x", self.x.type)
        if self.x.type.dtype is not DType.I16:
            raise TypeCheckError(f"x must be i16, it is {self.x.type}")
        if self.table.type not in [TensorType(DType.I32, (n,)) for n in ENTRIES]:
            known = " or ".join(f"i32[{n}]" for n in ENTRIES)
            raise TypeCheckError(f"the table must be {known}, it is {self.table.type}")
        if isinstance(self.table, Const) and np.abs(self.table.array).max() > LARGEST:
            raise TypeCheckError(f"entries of the table exceed {LARGEST}")
        if not 0 <= self.bits <= 16:
            raise TypeCheckError(f"bits = {self.bits} is not in 0 to 16")
        check_bounds(self.clamp, self.dtype)
        return TensorType(self.dtype, self.x.shape, self.quant)

    @property
    def interval(self) -> int:
        """k."""
        return INTERVALS[ENTRIES.index(self.table.shape[0])]

    def evaluate(self, x: Array, table: Array) -> Array:
        """The formula."""
        k, d = self.interval, x.astype(np.int64) - DType.I16.min
        wide = table.astype(np.int64)
        low, rise = wide[d >> k], np.diff(wide)[d >> k]
        total = (low << k) + rise * (d & (1 << k) - 1) + (1 << k - 1 + self.bits)
        y = np.clip(total >> (k + self.bits), *self.clamp)
        return np.asarray(y, self.dtype.numpy)

    def loops(self) -> Loops:
        """Two loads and a multiplication per element."""

        k = self.interval

        def value(*i: Expr) -> Expr:
            d = load(self.x, *i).cast(DType.I32) - DType.I16.min
            at = (d >> k).cast(DType.I64)
            low, high = load(self.table, at), load(self.table, at + 1)
            total = low * (1 << k) + (high - low) * (d & (1 << k) - 1) + (1 << k - 1 + self.bits)
            return clamp(total >> (k + self.bits), *self.clamp).cast(self.dtype)

        return elementwise(self.shape, value)


def interpolated(
    x: Value, f: Callable[[Array], Array], result: TensorType, what: str, near: float = NEAR
) -> Interpolate:
    """`f`, reals to reals, of the 16-bit `x`, by the fewest results that are near enough; raises
    `IRCError` where straight lines miss it by more than so many steps of 8 bits."""
    every = np.arange(VALUES)
    exact = np.clip(_at(f, x.type, every) / result.scale + result.zero, *full_range(result))
    off = np.inf
    for k in INTERVALS:
        made = _lines(x, f, result, k)
        found = made.evaluate(every + DType.I16.min, constant(made.table, "table").array)
        off = (float(np.abs(found - exact).max()) - 0.5) * 2.0 ** (8 - result.dtype.bits)
        if off <= near:
            return made
    raise IRCError(f"{what}: straight lines between the results for {ENTRIES[-1]} of the values of"
                   f" %{x.name} miss it by {off:.1f} steps of 8 bits")  # fmt: skip


def _lines(x: Value, f: Callable[[Array], Array], result: TensorType, k: int) -> Interpolate:
    """The lines between every 2^k-th result."""
    bits = 8 if result.dtype.bits == 8 else 4
    units = _at(f, x.type, np.arange((VALUES >> k) + 1) << k) / result.scale + result.zero
    table = Const(np.clip(np.rint(units * 2.0**bits), -LARGEST, LARGEST).astype(np.int32))
    quant = fixedpoint.quant_of(result)
    return Interpolate(x, table, bits, full_range(result), result.dtype, quant)


@op("lookup_wide")
class WideLookup(Value):
    """Equation (8) by a result for each value of 16 bits: `table[x - min]`."""

    x: Value
    table: Value
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("quant",)

    def infer(self) -> TensorType:
        """The operand's shape, the table's dtype; the table has 65,536 entries."""
        if self.x.type.dtype is not DType.I16:
            raise TypeCheckError(f"x must be i16, it is {self.x.type}")
        if self.table.shape != (VALUES,):
            raise TypeCheckError(f"the table must have {VALUES} entries, it is {self.table.type}")
        return TensorType(self.table.type.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array, table: Array) -> Array:
        """Indexing."""
        return table[x.astype(np.int64) - DType.I16.min]

    def loops(self) -> Loops:
        """One load per element."""
        return elementwise(
            self.shape,
            lambda *i: load(self.table, load(self.x, *i).cast(DType.I64) - DType.I16.min),
        )


def followed(
    x: Value, f: Callable[[Array], Array], result: TensorType, what: str
) -> Interpolate | WideLookup:
    """`f`, reals to reals, of the 16-bit `x`: by straight lines, or where these miss it, as a
    logarithm near zero, by a table of all results."""
    try:
        return interpolated(x, f, result, what)
    except IRCError:
        reals = _at(f, x.type, np.arange(VALUES))
        table = Const(fixedpoint.quantize(np.clip(reals, -1e30, 1e30), result))
        return WideLookup(x, table, fixedpoint.quant_of(result))


def straightness(f: Callable[[Array], Array], x: TensorType) -> float:
    """How far straight lines are off anywhere, as a share of the function's range; infinite where
    it has none."""
    k, every = INTERVALS[0], np.arange(VALUES)
    at = np.arange(ENTRIES[0]) << k
    exact = _at(f, x, every)
    span = float(np.ptp(exact))
    lines = np.interp(every, at, _at(f, x, at))
    return float(np.abs(lines - exact).max()) / span if 0 < span < np.inf else np.inf


def jump(f: Callable[[Array], Array], x: TensorType) -> float:
    """How far results of neighbours are apart at most, as a share of the function's range; 0 where
    it has none."""
    exact = _at(f, x, np.arange(VALUES))
    span = float(np.ptp(exact))
    return float(np.abs(np.diff(exact)).max()) / span if 0 < span < np.inf else 0.0


def _at(f: Callable[[Array], Array], x: TensorType, d: Array) -> Array:
    """The function of the reals that `min + d` stand for; 0 where it is none."""
    with np.errstate(all="ignore"):
        real = f((d + DType.I16.min - x.zero) * x.scale)
    return np.asarray(np.where(np.isnan(real), 0.0, real), np.float64)
