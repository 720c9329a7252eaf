"""Numbers of a work that become operands: layers that differ by them alone share one function.

The multipliers of equation (7) and zero points differ from sum to sum. Where a and b are what was
clamped before, or loaded, these and all else that is constant are loaded:

    (clamp(x + z, lo, hi) - za) * ma + (b - zb) * mb + half
        = (clamp(x, l, l + (hi - lo)) * ma + rest) + b * mb      with l = lo - z
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from irc.backends.llvm.ranges import Ranges
from irc.loops import (
    Binary,
    Cast,
    Expr,
    Int,
    Load,
    Loops,
    Nest,
    Temp,
    load,
    maximum,
    minimum,
    transform,
    walk,
)
from irc.types import Array, DType

LABEL = "numbers"
LARGEST = 2**23
"""Multipliers stay below it: times a byte they fit an i32, and their upper 16 bits an i16."""


@dataclass(frozen=True)
class Numbers:
    """What was lifted: the tensor that nests load it from, and its content, i32."""

    source: Temp
    values: Array


@dataclass(frozen=True)
class Weighted:
    """A sum `a * ma + b * mb + rest`, of i32: a and b within -256 to 255."""

    a: Expr
    ma: Expr
    b: Expr
    mb: Expr
    rest: Expr


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
    def small(self) -> bool:
        """Whether the factor and what it multiplies are so small that products fit an i32."""
        low, high = Ranges().of(self.e) if self.low is None else (self.low, self.low + self.width)
        return low >= -256 and high <= 255 and abs(self.factor) < LARGEST


def lifted(loops: Loops) -> tuple[Loops, Numbers | None]:
    """The nests with the numbers of their sums loaded, and these; None where there are none."""
    found = (_constant_sum(e) for nest in loops.nests for e in walk(nest.value))
    size = sum(len(numbers) for numbers in found if numbers is not None)
    if size == 0:
        return loops, None
    source, values = Temp(LABEL, DType.I32, (size,)), list[int]()

    def number(value: int) -> Expr:
        values.append(value)
        return load(source, len(values) - 1)

    nests = tuple(Nest(n.axes, transform(n.value, partial(_lift, number)), n.target)
                  for n in loops.nests)  # fmt: skip
    return Loops(nests), Numbers(source, np.array(values, np.int32))


def _lift(number: Callable[[int], Expr], e: Expr) -> Expr | None:
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


def weighted(e: Expr) -> Weighted | None:
    """The parts of a sum whose numbers were lifted."""
    match e:
        case Binary(
            kind="add",
            a=Binary(kind="add", a=Binary(kind="mul", a=a, b=ma), b=rest),
            b=Binary(kind="mul", a=b, b=mb),
        ) if all(isinstance(x, Load) and _is_numbers(x.source) for x in (ma, mb, rest)):
            return Weighted(a, ma, b, mb, rest)
    return None


def _is_numbers(source: object) -> bool:
    return isinstance(source, Temp) and source.label == LABEL


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
            if all(t.small for t in terms) and DType.I32.min <= rest <= DType.I32.max:
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
