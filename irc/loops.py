"""The loop and expression language that both code generators render.

An integer op's meaning is a list of loop nests; each fills one buffer, index by index, with an
integer expression. Nothing has a side effect, nothing is a float. Expressions never overflow
their dtype (the compile-time proofs of arithmetic.md hold that), so they mean exact integers.

    Int      a constant                  Binary   + - * // % << >> min max & | ^
    Var      a loop variable, i64        Compare  < <= ==, a b1
    Load     an element of a tensor      Select   condition ? a : b
    Cast     to another dtype            Reduce   sum, max or min over inner loops
    MulShift (a * m + 2^(s-1)) >> s: equation (6), one rounding of a 64-bit product
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from irc.errors import TypeCheckError
from irc.types import DType, Shape
from irc.value import Value

BinaryKind = Literal["add", "sub", "mul", "floordiv", "mod", "shl", "shr", "min", "max", "and",
                     "or", "xor", "wrap_add", "wrap_sub", "wrap_mul"]  # fmt: skip
WRAPPING = {"wrap_add": "add", "wrap_sub": "sub", "wrap_mul": "mul"}
"""Kinds that keep the low 64 bits of what does not fit; the others never overflow."""
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "mod": operator.mod, "shl": operator.lshift, "shr": operator.rshift, "min": min, "max": max,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip
"""What the kinds that never overflow mean for whole numbers."""
CompareKind = Literal["lt", "le", "eq"]
ReduceKind = Literal["add", "max", "min"]


@dataclass(frozen=True, eq=False)
class Expr:
    """Base of expressions; compared by identity. Python's operators build new ones."""

    dtype: DType = field(init=False, repr=False)

    def _typed(self, dtype: DType) -> None:
        object.__setattr__(self, "dtype", dtype)

    def __add__(self, other: Operand) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: int) -> Expr:
        return binary("add", lift(other, self.dtype), self)

    def __sub__(self, other: Operand) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: int) -> Expr:
        return binary("sub", lift(other, self.dtype), self)

    def __mul__(self, other: Operand) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: int) -> Expr:
        return binary("mul", lift(other, self.dtype), self)

    def __floordiv__(self, other: Operand) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: Operand) -> Expr:
        return binary("mod", self, other)

    def __lshift__(self, other: Operand) -> Expr:
        return binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Expr:
        return binary("shr", self, other)

    def __and__(self, other: Operand) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return binary("or", self, other)

    def __xor__(self, other: Operand) -> Expr:
        return binary("xor", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return compare("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return compare("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return compare("lt", lift(other, self.dtype), self)

    def __ge__(self, other: Operand) -> Expr:
        return compare("le", lift(other, self.dtype), self)

    def equals(self, other: Operand) -> Expr:
        """Comparison for equality (`==` stays identity)."""
        return compare("eq", self, other)

    def cast(self, dtype: DType) -> Expr:
        """The same integer in another dtype (narrowing must be proved to fit)."""
        return self if dtype is self.dtype else Cast(dtype, self)


Operand = Expr | int


@dataclass(frozen=True, eq=False)
class Int(Expr):
    """An integer constant of a dtype."""

    value: int
    of: DType

    def __post_init__(self) -> None:
        if not self.of.min <= self.value <= self.of.max:
            raise TypeCheckError(f"{self.value} is no {self.of.value}")
        self._typed(self.of)


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """A loop variable, from 0 to its extent - 1, i64."""

    label: str
    extent: int

    def __post_init__(self) -> None:
        self._typed(DType.I64)


@dataclass(frozen=True, eq=False)
class Temp:
    """A buffer between two nests of one op; it lives in the workspace."""

    label: str
    element: DType
    shape: Shape


Source = Value | Temp


@dataclass(frozen=True, eq=False)
class Load(Expr):
    """An element of an operand or temporary. With `fill`, an index outside of the tensor gives
    `fill` (how padding is said); without, indices must lie inside."""

    source: Source
    index: tuple[Expr, ...]
    fill: Expr | None = None

    def __post_init__(self) -> None:
        if len(self.index) != len(self.source.shape):
            raise TypeCheckError(f"{len(self.index)} indices into shape {self.source.shape}")
        self._typed(element(self.source))
        if self.fill is not None and self.fill.dtype is not self.dtype:
            raise TypeCheckError(f"fill {self.fill.dtype.value} for {self.dtype.value}")


@dataclass(frozen=True, eq=False)
class Binary(Expr):
    """Arithmetic of two equal dtypes. `shr` is arithmetic; `floordiv` and `mod` round down; what
    wraps around does so in i64 alone."""

    kind: BinaryKind
    a: Expr
    b: Expr

    def __post_init__(self) -> None:
        _agree(self.kind, self.a, self.b)
        if self.kind in WRAPPING and self.a.dtype is not DType.I64:
            raise TypeCheckError(f"{self.kind} of {self.a.dtype.value}: only i64 wraps around")
        self._typed(self.a.dtype)


@dataclass(frozen=True, eq=False)
class Compare(Expr):
    """Comparison of two equal dtypes."""

    kind: CompareKind
    a: Expr
    b: Expr

    def __post_init__(self) -> None:
        _agree(self.kind, self.a, self.b)
        self._typed(DType.BOOL)


@dataclass(frozen=True, eq=False)
class Select(Expr):
    """`condition ? a : b`; both sides may be computed, so both must be valid."""

    condition: Expr
    a: Expr
    b: Expr

    def __post_init__(self) -> None:
        _agree("select", self.a, self.b)
        self._typed(self.a.dtype)


@dataclass(frozen=True, eq=False)
class Cast(Expr):
    """The same integer in another dtype. From b1: 0 or 1."""

    to: DType
    a: Expr

    def __post_init__(self) -> None:
        self._typed(self.to)


@dataclass(frozen=True, eq=False)
class Reduce(Expr):
    """Sum, maximum or minimum of `body` over all values of `axes` (extents at least 1)."""

    kind: ReduceKind
    axes: tuple[Var, ...]
    body: Expr

    def __post_init__(self) -> None:
        self._typed(self.body.dtype)


@dataclass(frozen=True, eq=False)
class MulShift(Expr):
    """Equation (6) without zero point and clamp: `(a*m + 2^(s-1)) >> s`; a i32 or i64 and m i32,
    s any integer dtype in 1..62; the product is 64 bits wide, the result has a's dtype. Without
    `half`, `(a*m) >> s`: a holds what rounds it already."""

    a: Expr
    m: Expr
    s: Expr
    half: bool = True

    def __post_init__(self) -> None:
        self._typed(self.a.dtype)


@dataclass(frozen=True, eq=False)
class Nest:
    """Loops over `axes`, outermost first, that fill `target` (None: the op's result) at the
    index made of the axes, with `value`."""

    axes: tuple[Var, ...]
    value: Expr
    target: Temp | None = None


@dataclass(frozen=True, eq=False)
class Numbering:
    """What a nest is that says of each element of its one axis the last number that names it:
    `max over number of (place == element ? number : none)`. Code need not search: it goes through
    the numbers once, and writes each at its place, if there is such an element."""

    number: Var
    place: Expr
    none: Int

    @classmethod
    def of(cls, nest: Nest) -> Numbering | None:
        """The numbering that a nest is; None for nests of another form."""
        match nest.axes, nest.value:
            case (
                (axis,),
                Reduce("max", (u,), Select(Compare("eq", place, r), number, Int(value) as none)),
            ) if r is axis and number is u and value < 0 and axis not in walk(place):
                return cls(u, place, none)
        return None


@dataclass(frozen=True, eq=False)
class Loops:
    """The nests of one op, in order; exactly the last one fills the result."""

    nests: tuple[Nest, ...]

    def __post_init__(self) -> None:
        targets = [nest.target for nest in self.nests]
        if not targets or targets[-1] is not None or None in targets[:-1]:
            raise TypeCheckError("the last nest, and only the last, fills the result")

    @property
    def result(self) -> Nest:
        """The nest that fills the result."""
        return self.nests[-1]

    @property
    def temps(self) -> tuple[Temp, ...]:
        """The temporaries, in the order in which they are filled."""
        return tuple(nest.target for nest in self.nests if nest.target is not None)


def element(source: Source) -> DType:
    """Element type of what a load reads."""
    return source.element if isinstance(source, Temp) else source.type.dtype


def axes(shape: Shape, labels: str = "") -> tuple[Var, ...]:
    """Loop variables over a shape, named by the space-separated labels, or i0, i1, …"""
    names = labels.split() if labels else [f"i{n}" for n in range(len(shape))]
    return tuple(Var(n, extent) for n, extent in zip(names, shape, strict=True))


def elementwise(shape: Shape, value: Callable[..., Expr]) -> Loops:
    """One nest over `shape`; `value` takes its variables."""
    variables = axes(shape)
    return Loops((Nest(variables, value(*variables)),))


def load(source: Source, *index: Operand, fill: int | None = None) -> Load:
    """An element of `source`; with `fill`, indices may lie outside and give it."""
    exprs = tuple(lift(i, DType.I64) for i in index)
    return Load(source, exprs, None if fill is None else Int(fill, element(source)))


def load_broadcast(source: Source, index: Sequence[Expr]) -> Load:
    """The element that NumPy's broadcasting puts at `index` (of a shape at least as long)."""
    shape = source.shape
    tail = index[len(index) - len(shape) :]
    return load(source, *(0 if d == 1 else i for d, i in zip(shape, tail, strict=True)))


def lift(x: Operand, dtype: DType) -> Expr:
    """A number as an expression of that dtype; expressions stay what they are."""
    return x if isinstance(x, Expr) else Int(int(x), dtype)


def binary(kind: BinaryKind, a: Expr, b: Operand) -> Expr:
    """Arithmetic, with the constant cases folded."""
    b = lift(b, a.dtype)
    if isinstance(a, Int) and isinstance(b, Int) and a.dtype is b.dtype and kind not in WRAPPING:
        return Int(ARITHMETIC[kind](a.value, b.value), a.dtype)
    if isinstance(b, Int):
        if b.value == 0 and kind in ("add", "sub", "shl", "shr", "or", "xor"):
            return a
        if b.value == 1 and kind in ("mul", "floordiv"):
            return a
    if isinstance(a, Int) and a.value == 0 and kind == "add":
        return b
    if isinstance(a, Int) and a.value == 1 and kind == "mul":
        return b
    return Binary(kind, a, b)


def compare(kind: CompareKind, a: Expr, b: Operand) -> Expr:
    """Comparison; a number takes the other side's dtype."""
    return Compare(kind, a, lift(b, a.dtype))


def minimum(a: Expr, b: Operand) -> Expr:
    """The smaller of two."""
    return binary("min", a, b)


def maximum(a: Expr, b: Operand) -> Expr:
    """The larger of two."""
    return binary("max", a, b)


def clamp(a: Expr, lo: Operand, hi: Operand) -> Expr:
    """`a`, but at least `lo` and at most `hi`."""
    return minimum(maximum(a, lo), hi)


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions (a reduction's variables are no subexpressions)."""
    match e:
        case Load(index=index, fill=fill):
            return (*index, fill) if fill is not None else index
        case Binary(a=a, b=b) | Compare(a=a, b=b):
            return (a, b)
        case Select(condition=c, a=a, b=b):
            return (c, a, b)
        case Cast(a=a):
            return (a,)
        case Reduce(body=body):
            return (body,)
        case MulShift(a=a, m=m, s=s):
            return (a, m, s)
    return ()


def with_children(e: Expr, new: Sequence[Expr]) -> Expr:
    """The same node over other subexpressions, given in the order of `children`."""
    match e:
        case Load(source=source, index=index):
            fill = new[len(index)] if len(new) > len(index) else None
            return Load(source, tuple(new[: len(index)]), fill)
        case Binary(kind=kind):
            return binary(kind, new[0], new[1])
        case Compare(kind=kind):
            return Compare(kind, new[0], new[1])
        case Select():
            return Select(new[0], new[1], new[2])
        case Cast(to=to):
            return new[0].cast(to)
        case Reduce(kind=kind, axes=variables):
            return Reduce(kind, variables, new[0])
        case MulShift(half=half):
            return MulShift(new[0], new[1], new[2], half)
    return e


def transform(e: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuild bottom-up, each node once; where `f` of a rebuilt node is not None it replaces it."""
    memo: dict[Expr, Expr] = {}

    def visit(x: Expr) -> Expr:
        if x not in memo:
            old = children(x)
            new = [visit(c) for c in old]
            same = all(a is b for a, b in zip(old, new, strict=True))
            made = x if same else with_children(x, new)
            replaced = f(made)
            memo[x] = made if replaced is None else replaced
        return memo[x]

    return visit(e)


def substitute(e: Expr, new: Mapping[Expr, Expr]) -> Expr:
    """Replace nodes (by identity), for instance loop variables by index expressions."""
    return transform(e, lambda x: new.get(x))


def walk(e: Expr) -> list[Expr]:
    """Every node of the expression once, children first."""
    seen: dict[Expr, None] = {}

    def visit(x: Expr) -> None:
        if x not in seen:
            for c in children(x):
                visit(c)
            seen[x] = None

    visit(e)
    return list(seen)


def terms(e: Expr) -> Iterator[Expr]:
    """The terms of a sum, itself where it is none."""
    if isinstance(e, Binary) and e.kind == "add":
        yield from terms(e.a)
        yield from terms(e.b)
    else:
        yield e


def _agree(what: str, a: Expr, b: Expr) -> None:
    if a.dtype is not b.dtype:
        raise TypeCheckError(f"{what} of {a.dtype.value} and {b.dtype.value}: cast one of them")
