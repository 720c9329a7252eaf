"""Plain integers: indices, masks, token ids. Exact, and of 8 to 64 bits they keep the low ones of
what does not fit, as NumPy and every runtime does."""

from __future__ import annotations

from irc.errors import IRCError
from irc.loops import Binary, Expr, Int, Reduce, Select, Var
from irc.types import DType
from irc.value import Value

HALF = 32


def need_whole(v: Value) -> None:
    """Raise `IRCError` for integers that the loop language has no arithmetic for: of the 64-bit
    ones it takes i64."""
    for t in (v.type, *(o.type for o in v.operands)):
        if t.dtype is DType.U64:
            raise IRCError(f"{v.op} %{v.name}: no code for {t}; use int64")


def divisor(b: Expr) -> Expr:
    """A divisor that neither traps nor overflows: 1 in the place of 0, for which there is no
    result, and of -1, for which the caller needs none."""
    return Select(b.equals(0) | b.equals(-1), Int(1, DType.I64), b)


def wrapped(e: Expr, dtype: DType) -> Expr:
    """An i64 as an integer of `dtype`, its high bits dropped."""
    if dtype is DType.I64:
        return e
    if dtype is DType.BOOL or dtype.bits == 64:
        raise IRCError(f"no code to wrap around {dtype.value}")
    mask = Int((1 << dtype.bits) - 1, DType.I64)
    low = Binary("and", e, mask)
    if dtype.min == 0:
        return low.cast(dtype)
    half = 1 << (dtype.bits - 1)
    return ((low ^ half) - half).cast(dtype)


def sum_over(term: Expr, over: tuple[Var, ...]) -> Expr:
    """The sum of i64 terms, modulo 2^64: of their halves, which don't overflow."""
    if not over:
        return term
    low = Reduce("add", over, term & ((1 << HALF) - 1))
    high = Reduce("add", over, term >> HALF)
    return Binary("wrap_add", Binary("wrap_mul", high, Int(1 << HALF, DType.I64)), low)
