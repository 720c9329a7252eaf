"""Logits: what is read of them does not change where all of a row change alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.activation import Clip
from irc.ops.core import Const
from irc.ops.elementwise import Add, Sub
from irc.ops.linear import Linear
from irc.ops.ranking import Ranking
from irc.ops.reduce import ReduceMax, ReduceSum
from irc.ops.shape import bare, with_shape
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp, Log
from irc.passes.float.constants import real
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.value import Value

COMMON = 0.5
"""The share of the weights' energy from which on it is worth taking off what they have in
common."""


def log_softmax(v: Value) -> Value | None:
    """Logits less the logarithm of the sum of their exponentials: the largest is taken off first,
    or what is added to it again leaves the differences few bits.

        (%x: f32[2,4])
        %m = reduce_max(%x) {axes = [1], keepdims = true} : f32[2,1]
        %d = sub(%x, %m) : f32[2,4]
        %e = exp(%d) : f32[2,4]
        %s = reduce_sum(%e) {axes = [1], keepdims = false} : f32[2]
        %l = log(%s) : f32[2]
        %k = reshape(%m) : f32[2]
        %a = add(%l, %k) : f32[2]
        %r = reshape(%a) : f32[2,1]
        %y = sub(%x, %r) : f32[2,4]
        ->
        %m = reduce_max(%x) {axes = [1], keepdims = true} : f32[2,1]
        %d = sub(%x, %m) : f32[2,4]
        %e = exp(%d) : f32[2,4]
        %s = reduce_sum(%e) {axes = [1], keepdims = false} : f32[2]
        %l = log(%s) : f32[2]
        %0 = reshape(%l) : f32[2,1]
        %y = sub(%d, %0) : f32[2,4]
    """
    match v:
        case Sub(a=x, b=b):
            total = bare(b)
        case _:
            return None
    match total:
        case Add(a=Log() as log, b=shift) | Add(a=shift, b=Log() as log):
            pass
        case _:
            return None
    d = _exponents(log)
    if d is None or d.type != v.type or not isinstance(d, Sub) or d.a is not x:
        return None
    if bare(shift) is not bare(d.b) or b.shape != d.b.shape or log.type.size != b.type.size:
        return None
    return Sub(d, with_shape(log, b.shape))


def softmax_of_logarithms(v: Value) -> Value | None:
    """Exponentials of logits less the logarithm of the sum of their exponentials.

        (%x: f32[2,4])
        %m = reduce_max(%x) {axes = [1], keepdims = true} : f32[2,1]
        %d = sub(%x, %m) : f32[2,4]
        %e = exp(%d) : f32[2,4]
        %s = reduce_sum(%e) {axes = [1], keepdims = true} : f32[2,1]
        %l = log(%s) : f32[2,1]
        %z = sub(%d, %l) : f32[2,4]
        %y = exp(%z) : f32[2,4]
        ->
        %y = softmax(%x) {axis = 1} : f32[2,4]
    """
    match v:
        case Exp(x=Sub(a=x, b=b)):
            log = bare(b)
        case _:
            return None
    if not isinstance(log, Log) or _exponents(log) is not x or x.type != v.type:
        return None
    (axis,) = bare(log.x).axes  # type: ignore[attr-defined]
    if b.shape != tuple(1 if i == axis else n for i, n in enumerate(x.shape)):
        return None
    match x:
        case Sub(a=logits, b=m) if logits.type == x.type and _is_largest(m, logits, axis):
            x = logits
    return Softmax(x, axis) if v.shape[axis] else None


def _exponents(log: Log) -> Value | None:
    """Of what the logarithm is the sum of exponentials, along one axis."""
    match bare(log.x):
        case ReduceSum(x=Exp(x=d), axes=(_,)):
            return d
    return None


def _is_largest(v: Value, x: Value, axis: int) -> bool:
    """Whether a value is x's maximum along an axis that stays; infinities aside."""
    inner = v.x if isinstance(v, Clip) else v
    if isinstance(v, Clip) and not (v.lo < -1e38 and v.hi > 1e38):
        return False
    match inner:
        case ReduceMax(x=of, axes=axes, keepdims=True):
            return of is x and axes == (axis,)
    return False


RULES = (log_softmax, softmax_of_logarithms)


@dataclass(frozen=True)
class CentreLogits(Pass):
    """Layers of which only differences between results are read lose what all their rows have in
    common: naive Bayes over a table has logarithms of -10,000 that differ by 10.

        %x = linear(%a, %w, %b)      ->    %x = linear(%a, %w - mean(%w), %b - mean(%b))
        %y = softmax(%x)                   %y = softmax(%x)
    """

    name: ClassVar[str] = "centre_logits"

    def run(self, graph: Graph) -> Graph:
        """Such layers, where much is in common; others stay."""

        def centred(v: Value, made: Value) -> Value:
            if isinstance(made, Linear) and _differs_only(graph, v):
                return _centred(made)
            return made

        return rebuild(graph, centred)


def _differs_only(graph: Graph, v: Value) -> bool:
    """Whether all that reads a row of logits is the same for another of the same differences."""
    users, last = graph.users[v], v.type.rank - 1
    read = bool(users) and v not in graph.outputs
    return read and all(_ignores_shift(graph, u, v, last) for u in users)


def _ignores_shift(graph: Graph, reader: Value, v: Value, axis: int) -> bool:
    """Whether a reader makes the same of a row and of one that is moved as a whole."""
    match reader:
        case Softmax(axis=along):
            return along == axis
        case Ranking():
            return getattr(reader, "axis", None) == axis
        case Sub():
            return _takes_off(graph, reader, v, axis)
        case ReduceMax():
            taken_off = all(_takes_off(graph, u, v, axis) for u in graph.users[reader])
            return reader not in graph.outputs and taken_off
    return False


def _takes_off(graph: Graph, reader: Value, v: Value, axis: int) -> bool:
    """Whether what reads the maximum of a row takes it off that row."""
    match reader:
        case Sub(a=a, b=m):
            return a is v and _is_largest(m, v, axis)
        case Clip():
            below = graph.users[reader]
            return reader not in graph.outputs and all(_takes_off(graph, u, v, axis) for u in below)
    return False


def _centred(v: Linear) -> Value:
    """A layer without what its rows have in common, if that is much."""
    if not (isinstance(v.w, Const) and isinstance(v.b, None | Const)):
        return v
    w = v.w.array.astype(np.float64)
    common = w.mean(0, keepdims=True)
    if not len(w) * np.square(common).sum() > COMMON * np.square(w).sum():
        return v
    bias = None
    if isinstance(v.b, Const):
        b = v.b.array.astype(np.float64)
        bias = real(b - b.mean(), v.type.dtype, v.b.name)
    return v.replace(w=real(w - common, v.type.dtype, v.w.name), b=bias)
