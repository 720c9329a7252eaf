"""Intervals of expressions: what index tests can be dropped and which shifts are known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import prod

from irc.loops import (
    Binary,
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    MulShift,
    Reduce,
    Select,
    Source,
    Var,
)
from irc.types import DType

Range = tuple[int, int]
"""Smallest and largest possible value, both included."""


class Ranges:
    """Interval analysis over expressions; `facts` gives the intervals of what is loaded."""

    def __init__(self, facts: Mapping[Source, Range] | None = None) -> None:
        self.facts = facts or {}
        self.memo: dict[Expr, Range] = {}

    def of(self, e: Expr) -> Range:
        """The interval of `e`, never wider than its dtype."""
        if e not in self.memo:
            low, high = self._compute(e)
            self.memo[e] = (max(low, e.dtype.min), min(high, e.dtype.max))
        return self.memo[e]

    def within(self, e: Expr, low: int, high: int) -> bool:
        """Whether every value of `e` is in [low, high]."""
        a, b = self.of(e)
        return low <= a and b <= high

    def _compute(self, e: Expr) -> Range:
        match e:
            case Int(value=value):
                return value, value
            case Var(extent=extent):
                return 0, max(extent - 1, 0)
            case Load():
                return self._load(e)
            case Binary():
                return _binary(e.kind, self.of(e.a), self.of(e.b), e.dtype)
            case Select():
                return _union(self.of(e.a), self.of(e.b))
            case Cast():
                return self.of(e.a)
            case Compare():
                return 0, 1
            case Reduce():
                return _reduce(e, self.of(e.body))
            case MulShift():
                return _mul_shift(self.of(e.a), self.of(e.m), self.of(e.s))
        return e.dtype.min, e.dtype.max

    def _load(self, e: Load) -> Range:
        found = self.facts.get(e.source, (e.dtype.min, e.dtype.max))
        return found if e.fill is None else _union(found, self.of(e.fill))


def _union(a: Range, b: Range) -> Range:
    return min(a[0], b[0]), max(a[1], b[1])


def _binary(kind: str, a: Range, b: Range, dtype: DType) -> Range:
    if kind in _MONOTONE:
        return _corners(a, b, _MONOTONE[kind])
    if kind in _GUARDED and _GUARDED[kind](a, b):
        return _ranged(kind, a, b)
    return dtype.min, dtype.max


_MONOTONE: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "min": min, "max": max,
}  # fmt: skip
"""Kinds whose extremes lie at the ends of their operands' intervals."""


def _natural(a: Range, b: Range) -> bool:
    return a[0] >= 0 and b[0] >= 0


_GUARDED: dict[str, Callable[[Range, Range], bool]] = {
    "floordiv": lambda a, b: b[0] > 0,
    "mod": lambda a, b: b[0] > 0,
    "shl": lambda a, b: b[0] >= 0 and b[1] < 64,
    "shr": lambda a, b: b[0] >= 0,
    "and": _natural,
    "or": _natural,
    "xor": _natural,
}
"""Kinds that say something only under a condition."""


def _ranged(kind: str, a: Range, b: Range) -> Range:
    match kind:
        case "floordiv":
            return _corners(a, b, operator.floordiv)
        case "mod":
            return a if a[0] >= 0 and a[1] < b[0] else (0, b[1] - 1)
        case "shl":
            return _corners(a, b, operator.lshift)
        case "shr":
            return _corners(a, b, operator.rshift)
        case "and":
            return 0, min(a[1], b[1])
    return 0, (1 << max(a[1].bit_length(), b[1].bit_length())) - 1


def _corners(a: Range, b: Range, f: Callable[[int, int], int]) -> Range:
    found = [f(x, y) for x in a for y in b]
    return min(found), max(found)


def _reduce(e: Reduce, body: Range) -> Range:
    if e.kind != "add":
        return body
    count = prod(v.extent for v in e.axes)
    return body[0] * count, body[1] * count


def _mul_shift(a: Range, m: Range, s: Range) -> Range:
    low, high = _corners(a, m, operator.mul)
    shift = max(s[0], 1)
    return min(low >> shift, 0), max((high >> shift) + 1, 0)
