"""Numbers of a work that become operands: layers that differ by them alone share one function.

Zero points differ from layer to layer, multipliers too. In a sum, where a and b
are what was clamped before, or loaded, these and all else that is constant are loaded:

    (clamp(x + z, lo, hi) - za) * ma + (b - zb) * mb + half
        = (clamp(x, l, l + (hi - lo)) * ma + rest) + b * mb      with l = lo - z
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from irc.backends.llvm.code.ranges import Ranges
from irc.loops import (
    Binary,
    Cast,
    Expr,
    Int,
    Load,
    Loops,
    MulShift,
    Nest,
    Reduce,
    Temp,
    load,
    maximum,
    minimum,
    transform,
)
from irc.types import Array, DType

LABEL = "numbers"
LARGEST = 2**23
"""Multipliers of bytes stay below it: so their products fit an i32."""
LARGEST_OF_WORDS = 2**16 - 1
"""Those of what has 16 bits: so they are the sum of two of 16 bits."""
FARTHEST = 2**8
"""Zero points stay below it."""
SHIFTS = 33, 62
"""Within which all are done alike."""


@dataclass(frozen=True)
class Numbers:
    """What was lifted: the tensor that nests load it from, and its content, i32."""

    source: Temp
    values: Array


@dataclass(frozen=True)
class _Term:
    """`(e - zero) * factor`; or `e` clamped from `low` on, so many numbers wide."""

    e: Expr
    zero: int
    factor: int
    low: int | None = None
    width: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """What is loaded of it."""
        return (self.factor,) if self.low is None else (self.factor, self.low)

    @property
    def range(self) -> tuple[int, int]:
        """What the factor multiplies, without its zero point."""
        return Ranges().of(self.e) if self.low is None else (self.low, self.low + self.width)

    @property
    def small(self) -> bool:
        """Whether the factor and what it multiplies are so small that products fit an i32."""
        return is_small(self.range) and abs(self.factor) < LARGEST

    @property
    def ordinary(self) -> bool:
        """Whether the factor is as large as kernels expect of what it multiplies."""
        return self.small or (not is_small(self.range) and abs(self.factor) < LARGEST_OF_WORDS)

    @property
    def largest(self) -> int:
        """What the product can reach."""
        return max(map(abs, self.range)) * abs(self.factor)


def is_small(range_: tuple[int, int]) -> bool:
    """Whether what lies in a range is no more than a byte, or the difference of one from its zero
    point."""
    low, high = range_
    return low >= -256 and high <= 255


def lifted(loops: Loops) -> tuple[Loops, Numbers | None]:
    """The nests with their numbers loaded, and these; None where there are none."""
    count = len(_loaded(loops, Temp(LABEL, DType.I32, (0,)))[1])
    if count == 0:
        return loops, None
    source = Temp(LABEL, DType.I32, (count,))
    found, values = _loaded(loops, source)
    return found, Numbers(source, np.array(values, np.int32))


def _loaded(loops: Loops, source: Temp) -> tuple[Loops, list[int]]:
    """The nests that load their numbers from a tensor, and its content."""
    values = list[int]()

    def number(value: int) -> Expr:
        values.append(value)
        return load(source, len(values) - 1)

    nests = loops.nests
    for rule in (_lift_sum, _lift_zero, _lift_product):
        nests = tuple(Nest(n.axes, transform(n.value, partial(rule, number)), n.target)
                      for n in nests)  # fmt: skip
    return Loops(nests), values


def _lift_zero(number: Callable[[int], Expr], e: Expr) -> Expr | None:
    """A result past a loaded zero point, clamped; None for what is none."""
    match e:
        case Binary(
            kind="min",
            a=Binary(
                kind="max",
                a=Binary(kind="add", a=MulShift() | Binary(kind="shr") as x, b=Int(value=zero)),
                b=Int(value=low),
            ),
            b=Int(value=high),
        ) if e.dtype is DType.I32 and abs(zero) < FARTHEST:
            return minimum(maximum(x + number(zero), low), high)
    return None


def _lift_product(number: Callable[[int], Expr], e: Expr) -> Expr | None:
    """A product of differences from loaded zero points; or one, or the sum of such, rescaled by a
    loaded multiplier and shift. None for what is none."""
    match e:
        case Binary(kind="mul", a=a, b=b) if _is_side(a) and _is_side(b):
            found = [_lift_side(number, side) for side in (a, b)]
            return None if found == [a, b] else found[0] * found[1]
        case MulShift(
            a=(Reduce(body=Binary(kind="mul")) | Binary(kind="mul")) as total,
            m=Int(value=m), s=Int(value=s), half=True,
        ):
            if SHIFTS[0] <= s <= SHIFTS[1]:
                shift = minimum(maximum(number(s), SHIFTS[0]), SHIFTS[1])  # which tells its range
                return MulShift(total, number(m), shift)
    return None


def _is_side(e: Expr) -> bool:
    """Whether it is a loaded byte, or its difference from a zero point."""
    match e:
        case Binary(kind="sub", a=x, b=Int()):
            e = x
    match e:
        case Cast(a=Load(fill=None) as x):
            return x.dtype.bits == 8
    return False


def _lift_side(number: Callable[[int], Expr], e: Expr) -> Expr:
    match e:
        case Binary(kind="sub", a=x, b=Int(value=zero)) if zero and abs(zero) < FARTHEST:
            return x - number(zero) if x.dtype is DType.I32 else e
    return e


def is_number(e: Expr) -> bool:
    """Whether it is one that is loaded."""
    return isinstance(e, Load) and is_numbers(e.source)


def is_numbers(source: object) -> bool:
    """Whether it is what numbers are loaded from."""
    return isinstance(source, Temp) and source.label == LABEL


def _lift_sum(number: Callable[[int], Expr], e: Expr) -> Expr | None:
    """A sum over loaded numbers; None for what is none."""
    found = _constant_sum(e)
    if found is None:
        return None
    # What is clamped comes first: so the order of operands makes no other work.
    a, b = sorted(found.terms, key=lambda term: term.low is None)
    return (_product(number, a) + number(found.rest)) + _product(number, b)


def _product(number: Callable[[int], Expr], term: _Term) -> Expr:
    e = term.e
    if term.low is not None:
        low = number(term.low)
        e = minimum(maximum(e, low), low + term.width)
    return e * number(term.factor)


@dataclass(frozen=True)
class _Sum:
    """The terms of `QAdd`'s sum, and what is added to them without their zero points."""

    terms: tuple[_Term, _Term]
    rest: int

    def __len__(self) -> int:
        return 1 + sum(len(t.numbers) for t in self.terms)


def _constant_sum(e: Expr) -> _Sum | None:
    """A sum whose numbers can be loaded."""
    match e:
        case Binary(
            kind="add",
            a=Binary(
                kind="add",
                a=Binary(kind="mul", a=a, b=Int(value=ma)),
                b=Binary(kind="mul", a=b, b=Int(value=mb)),
            ),
            b=Int(value=half),
        ) if e.dtype is DType.I32:
            terms = _term(a, ma), _term(b, mb)
            rest = half - sum(t.zero * t.factor for t in terms)
            fits = abs(rest) + sum(t.largest for t in terms) <= DType.I32.max
            fits = fits and all(t.low is None and t.ordinary for t in terms)
            small = all(t.small for t in terms) and DType.I32.min <= rest <= DType.I32.max
            if small or fits:
                return _Sum(terms, rest)
    return None


def _term(e: Expr, factor: int) -> _Term:
    zero = 0
    match e:
        case Binary(kind="sub", a=x, b=Int(value=zero)):
            e = x
    inner = e
    while isinstance(inner, Cast):
        inner = inner.a
    match inner:
        case Binary(
            kind="min",
            a=Binary(
                kind="max",
                a=Binary(kind="add", a=x, b=Int(value=z)),
                b=Int(value=low),
            ),
            b=Int(value=high),
        ) if inner.dtype is DType.I32:
            return _Term(x, zero - z, factor, low - z, high - low)
    return _Term(e, zero, factor)
