"""How an expression reads memory: how far apart the elements lie that its variables lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import flat_index, slope
from irc.backends.llvm.code.loop import I32
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.work import KernelFunction, Work
from irc.loops import Binary, Cast, Expr, Int, Load, Var
from irc.plan import dense_strides
from irc.types import Shape


@dataclass(frozen=True)
class Centred:
    """An element of a tensor minus a zero point, which may be one of the work's numbers."""

    load: Load
    zero: int
    number: Load | None = None


def centred(work: Work, e: Expr) -> Centred | None:
    """The element and zero point of `irc.ops.quantization.difference`; None if it is none."""
    match e:
        case Binary(kind="sub", a=Cast(a=Load(fill=None) as x), b=Load(index=(at,)) as number) if (
            work.numbers is not None and number.source is work.numbers.source
        ):
            assert isinstance(at, Int), "numbers are loaded one by one"
            return Centred(x, int(work.numbers.values[at.value]), number)
        case Cast(a=Load(fill=None) as x):
            return Centred(x, 0)
        case Binary(kind="sub", a=Cast(a=Load(fill=None) as x), b=Int(value=zero)):
            return Centred(x, zero)
    return None


def zero_point(f: KernelFunction, side: Centred) -> Any:
    """The zero point as code has it, i32."""
    if side.number is None:
        return ir.Constant(I32, side.zero)
    return Renderer(f.builder, f.places, {}).render(side.number)


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
