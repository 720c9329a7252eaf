"""How an expression reads memory: how far apart the elements lie that its variables lead to."""

from __future__ import annotations

from dataclasses import dataclass

from irc.backends.llvm.address import flat_index, slope
from irc.backends.llvm.work import Work
from irc.loops import Binary, Cast, Expr, Int, Load, Var
from irc.plan import dense_strides
from irc.types import Shape


@dataclass(frozen=True)
class Centred:
    """An element of a tensor minus a zero point."""

    load: Load
    zero: int


def centred(e: Expr) -> Centred | None:
    """The element and zero point of `irc.ops.quantization.difference`; None if it is none."""
    match e:
        case Cast(a=Load(fill=None) as x):
            return Centred(x, 0)
        case Binary(kind="sub", a=Cast(a=Load(fill=None) as x), b=Int(value=zero)):
            return Centred(x, zero)
    return None


def strides_of(work: Work, e: Load) -> Shape:
    """Strides of what is loaded from, in elements."""
    for formal, strides in zip(work.body.inputs, work.strides, strict=True):
        if formal is e.source:
            return strides
    return dense_strides(e.source.shape)


def steps(work: Work, e: Load, variables: tuple[Var, ...]) -> tuple[int, ...] | None:
    """Elements from one position to the next for each variable; None where a load does not start
    at the tensor's first element, or not move evenly."""
    flat = flat_index(e.index, strides_of(work, e))
    found = [slope(flat, v) for v in variables]
    if any(step is None for step in found) or _start(flat) != 0:
        return None
    return tuple(step or 0 for step in found)


def _start(e: Expr) -> int | None:
    """The value of an expression with every variable 0; None where that is not plain to see."""
    match e:
        case Int(value=value):
            return value
        case Var():
            return 0
        case Binary(kind="add" | "sub" | "mul" as kind, a=a, b=b):
            x, y = _start(a), _start(b)
            if x is None or y is None:
                return None
            return {"add": x + y, "sub": x - y, "mul": x * y}[kind]
    return None
