"""Products with masks that choose, as where sequences end: what is chosen keeps its scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul
from irc.ops.logic import Not
from irc.ops.recurrent import GruState, LstmCell, LstmHidden, TanhState
from irc.ops.reduce import ReduceMax, ReduceMin
from irc.ops.selection import Where
from irc.passes.float.constants import uniform
from irc.types import DType
from irc.value import Value

ENDLESS = 1e8
"""Numbers as large as this stand for infinity: in single precision they stay what they are, or all
but, whatever is added."""
STATES = (LstmCell, LstmHidden, GruState, TanhState)


def choice(v: Value) -> Value | None:
    """Sums of products with a mask and with its opposite choose, as where sequences end.

        (%m: b1[1,1], %x: f32[1,2], %y: f32[1,2])
        %n = not(%m) : b1[1,1]
        %one = cast(%m) : f32[1,1]
        %other = cast(%n) : f32[1,1]
        %a = mul(%one, %x) : f32[1,2]
        %b = mul(%other, %y) : f32[1,2]
        %z = add(%a, %b) : f32[1,2]
        ->
        %z = where(%m, %x, %y) : f32[1,2]
    """
    if not isinstance(v, Add):
        return None
    for one, other in ((v.a, v.b), (v.b, v.a)):
        kept, left = _masked(one), _masked(other)
        if kept and left and isinstance(left.mask, Not) and left.mask.x is kept.mask:
            made = Where(kept.mask, kept.x, left.x)
            return made if made.shape == v.shape else None
    return None


def masked_state(v: Value) -> Value | None:
    """A cell's state times a mask is chosen, or zero.

        (%m: b1[1,1], %g: f32[1,8], %c: f32[1,2])
        %one = cast(%m) : f32[1,1]
        %n = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,2]
        %y = mul(%one, %n) : f32[1,2]
        ->
        %n = lstm_cell(%g, %c) {order = "ifgo"} : f32[1,2]
        %4 = const [0.0] : f32[]
        %y = where(%m, %n, %4) : f32[1,2]
    """
    found = _masked(v) if isinstance(v, Mul) else None
    if found is None or not isinstance(found.x, STATES):
        return None
    return Where(found.mask, found.x, Const(np.zeros((), found.x.type.dtype.numpy)))


def extreme_of_sum(v: Value) -> Value | None:
    """Of what is chosen, or as far off as nothing else is, and then added to, the extreme is one of
    the sums that were chosen.

        (%m: b1[1,3], %x: f32[1,3], %y: f32[1,3])
        %none = const [-1e+09] : f32[]
        %a = where(%m, %x, %none) : f32[1,3]
        %s = add(%a, %y) : f32[1,3]
        %z = reduce_max(%s) {axes = [1], keepdims = true} : f32[1,1]
        ->
        %s = add(%x, %y) : f32[1,3]
        %none = const [-1e+09] : f32[]
        %3 = where(%m, %s, %none) : f32[1,3]
        %z = reduce_max(%3) {axes = [1], keepdims = true} : f32[1,1]
    """
    if not isinstance(v, ReduceMax | ReduceMin) or not isinstance(v.x, Add):
        return None
    total = v.x
    for chosen, y in ((total.a, total.b), (total.b, total.a)):
        match chosen:
            case Where(condition=mask, a=x, b=Const() as none):
                made = Add(x, y, name=total.name)
                other = Where(mask, made, none)
            case Where(condition=mask, a=Const() as none, b=x):
                made = Add(x, y, name=total.name)
                other = Where(mask, none, made)
            case _:
                continue
        far = uniform(none)
        if far is None or abs(far) < ENDLESS or (far > 0) == isinstance(v, ReduceMax):
            continue
        if other.shape == total.shape:
            return v.replace(x=other)
    return None


@dataclass(frozen=True)
class _Masked:
    """A value times a mask of booleans."""

    mask: Value
    x: Value


def _masked(v: Value) -> _Masked | None:
    match v:
        case Where(condition=mask, a=x, b=zero) if uniform(zero) == 0:
            return _Masked(mask, x) if x.shape == v.shape else None
        case Mul():
            for one, x in ((v.a, v.b), (v.b, v.a)):
                if isinstance(one, Cast) and one.x.type.dtype is DType.BOOL and x.shape == v.shape:
                    return _Masked(one.x, x)
    return None


RULES = (choice, masked_state, extreme_of_sum)
