"""Constant folding, common subexpressions, and nodes that change nothing."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Maximum, Minimum, Mul, Pow, Sub
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.shape import Expand
from irc.ops.unary import Unary
from irc.passes.float import identities
from irc.passes.float.concats import chained
from irc.pipeline import Pass
from irc.rewrite import rebuild, rewrite
from irc.types import Quant
from irc.value import Value, attribute_fields, operand_fields

MAX_BYTES = 64 << 20
"""A folded constant may be this large, or as large as what it is computed from."""


@dataclass(frozen=True)
class Fold(Pass):
    """Compute what depends on constants alone, once what occurs twice, and nothing for nothing;
    chain concatenations that begin alike."""

    name: ClassVar[str] = "fold"

    def run(self, graph: Graph) -> Graph:
        """To a fixed point of the rules, which flatten concatenations, then what is of the whole
        graph."""
        return chained(share(rewrite(graph, RULES)))


def expanded_operand(v: Value) -> Value | None:
    """Elementwise ops broadcast by themselves.

        (%x: f32[2,3], %s: f32[1,3])
        %e = expand(%s) : f32[2,3]
        %y = mul(%x, %e) : f32[2,3]
        ->
        %y = mul(%x, %s) : f32[2,3]
    """
    if not isinstance(v, Add | Sub | Mul | Div | Minimum | Maximum | Pow):
        return None
    for a, b in ((_unexpanded(v.a), v.b), (v.a, _unexpanded(v.b))):
        if (a is not v.a or b is not v.b) and np.broadcast_shapes(a.shape, b.shape) == v.shape:
            return v.replace(a=a, b=b)
    return None


def _unexpanded(v: Value) -> Value:
    return v.x if isinstance(v, Expand) else v


def expand_last(v: Value) -> Value | None:
    """Functions of one element are computed before their results are repeated.

        (%x: f32[2,1])
        %e = expand(%x) : f32[2,3]
        %y = tanh(%e) : f32[2,3]
        ->
        %y = tanh(%x) : f32[2,1]
        %y#2 = expand(%y) : f32[2,3]
    """
    match v:
        case Quantize(x=Expand(x=x), quant=Quant(axis=int())):
            return None
        case Unary(x=Expand(x=x)) | Quantize(x=Expand(x=x)) | Dequantize(x=Expand(x=x)):
            return Expand(v.replace(x=x), v.shape)
    return None


def of_nothing(v: Value) -> Value | None:
    """What has no elements is known: sums of no products are biases.

        (%x: f32[2,0])
        %w = const [] : f32[3,0]
        %b = const [1.0, 2.0, 3.0] : f32[3]
        %y = linear(%x, %w, %b) : f32[2,3]
        ->
        %x.none = const [] : f32[2,0]
        %w = const [] : f32[3,0]
        %b = const [1.0, 2.0, 3.0] : f32[3]
        %y = linear(%x.none, %w, %b) : f32[2,3]
    """
    empty = [o for o in v.operands if o.type.size == 0 and not isinstance(o, Const)]
    if not empty or v.op == "kernel":
        return None
    made = {
        o: Const(np.zeros(o.shape, o.type.dtype.numpy), o.type.quant, name=f"{o.name}.none")
        for o in empty
    }
    return v.map_operands(lambda o: made.get(o, o))


def constant(v: Value) -> Value | None:
    """A node over constants is a constant; quantized weights stay `dequantize` of integers.

        ()
        %a = const [1.0, 2.0] : f32[2]
        %b = const [3.0] : f32[1]
        %y = add(%a, %b) : f32[2]
        ->
        %y = const [4.0, 5.0] : f32[2]
    """
    operands = v.operands
    if not operands or isinstance(v, Dequantize) or v.op == "kernel":
        return None
    if not all(isinstance(o, Const) for o in operands):
        return None
    if v.type.nbytes > max(MAX_BYTES, *(o.type.nbytes for o in operands)):
        return None
    with np.errstate(all="ignore"):
        array = np.asarray(v.call(lambda o: o.evaluate()))
    return Const(np.ascontiguousarray(array).reshape(v.shape), v.type.quant, name=v.name)


RULES = (expanded_operand, expand_last, *identities.RULES, of_nothing, constant)


def share(graph: Graph) -> Graph:
    """Common subexpressions: of nodes with equal ops, operands and attributes, only the first
    stays. Constants are equal by their bits."""
    known: dict[Hashable, Value] = {}
    return rebuild(graph, lambda _, made: known.setdefault(_key(made), made))


def _key(v: Value) -> Hashable:
    if isinstance(v, Const):
        return ("const", v.digest, v.quant)
    operands = tuple(_identity(getattr(v, f)) for f in operand_fields(type(v)))
    attributes = tuple(_attribute(getattr(v, f)) for f in attribute_fields(type(v)))
    return (v.op, operands, attributes)


def _identity(entry: Value | tuple[Value, ...] | None) -> Hashable:
    return tuple(map(id, entry)) if isinstance(entry, tuple) else id(entry)


def _attribute(a: object) -> Hashable:
    return (type(a), a) if isinstance(a, Hashable) else id(a)
