"""Tables that irc quantized, read back as `irc.backends.onnx` writes them.

ONNX's zero points have the type of their integers, and no integer stands for what is missing. So
columns that lie far from zero are moved before they are quantized, and back behind it, and what is
missing goes past the integers. All of this is a quantization again, of the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.graph import Graph
from irc.ops.columns import Columns
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Sub
from irc.ops.logic import Equal, Not
from irc.ops.quantization import Dequantize, Quantize, constant
from irc.ops.selection import Where
from irc.ops.shape import Concat
from irc.ops.tree_integers import integer_of_missing
from irc.ops.trees import TreeEnsemble
from irc.pipeline import Pass
from irc.rewrite import rebuild, rewrite
from irc.types import DType, Quant
from irc.value import Value

NEAR = 1e-3
"""Steps that an offset, which is stored in single precision, may be from a whole number of them."""


@dataclass(frozen=True)
class Tables(Pass):
    """Inputs quantized by columns have their zero points, their units and an integer for what is
    missing."""

    name: ClassVar[str] = "tables"

    def run(self, graph: Graph) -> Graph:
        """See the module. Runs before offsets and units are taken for anything else."""
        if not any(isinstance(v, Quantize) and v.quant.axis is not None for v in graph.order):
            return graph
        return _with_missing(rewrite(graph, RULES))


def zero_point_apart(v: Value) -> Value | None:
    """What was moved before it was quantized, and back behind, has zero points of 32 bits.

        (%x: f32[1,2])
        %c = const [0.0, 100.0] : f32[2]
        %m = sub(%x, %c) : f32[1,2]
        %q = quantize(%m) : i8[1,2] q([1.0, 0.5], 0, axis = 1)
        %d = dequantize(%q) : f32[1,2]
        %y = add(%d, %c) : f32[1,2]
        ->
        %q = quantize(%x) : i8[1,2] q([1.0, 0.5], [0, -200], axis = 1)
        %y = dequantize(%q) : f32[1,2]
    """
    match v:
        case Add(a=Dequantize(x=Quantize(x=Sub(a=Input() as x, b=Const() as c)) as q), b=Const(b)):
            pass
        case _:
            return None
    quant = q.quant
    if quant.axis != x.type.rank - 1 or quant.missing is not None or not np.array_equal(b, c.array):
        return None
    if c.shape != x.shape[-1:]:
        return None
    scale = np.asarray(quant.scale)
    steps = c.array.astype(np.float64) / scale
    moved = np.broadcast_to(np.asarray(quant.zero_point), scale.shape) - np.rint(steps)
    exact = np.abs(steps - np.rint(steps)) <= NEAR
    if not np.all(exact & (np.abs(moved) <= DType.I32.max)):
        return None
    made = Quant(quant.scale, tuple(map(int, moved)), quant.axis)
    return Dequantize(Quantize(x, q.dtype, made, name=q.name))


def units_of_columns(v: Value) -> Value | None:
    """Columns brought to one scale without another rounding.

        (%x: f32[1,2])
        %s = const [2.0, 4.0] : f32[2]
        %q = quantize(%x) : i8[1,2] q([1.0, 2.0], 0, axis = 1)
        %d = dequantize(%q) : f32[1,2]
        %e = div(%d, %s) : f32[1,2]
        %y = quantize(%e) : i8[1,2] q(0.5, 0)
        ->
        %q = quantize(%x) : i8[1,2] q([1.0, 2.0], 0, axis = 1)
        %d = dequantize(%q) : f32[1,2]
        %s = const [2.0, 4.0] : f32[2]
        %s.offset = const [0.0, 0.0] : f32[2]
        %e = columns(%d, %s, %s.offset) : f32[1,2]
        %y = quantize(%e) : i8[1,2] q(0.5, 0)
    """
    match v:
        case Quantize(x=Div(a=Sub(a=Dequantize() as d, b=Const() as offset), b=Const() as scale)):
            pass
        case Quantize(x=Div(a=Dequantize() as d, b=Const() as scale)):
            offset = Const(np.zeros(scale.shape, np.float32), name=f"{scale.name}.offset")
        case _:
            return None
    q, each = d.x, d.shape[-1:]
    if not isinstance(q, Quantize) or not isinstance(q.x, Input) or v.quant.axis is not None:
        return None
    if q.quant.axis is None or scale.shape != each or offset.shape != each:
        return None
    if not np.all(scale.array > 0):
        return None
    made = Columns(d, scale, offset, name=v.x.name)
    try:
        fits = made.outside(v.type) == q.type
    except IRCError:
        return None
    return v.replace(x=made) if fits else None


RULES = (zero_point_apart, units_of_columns)


def _with_missing(graph: Graph) -> Graph:
    """The graph in which integers stand for what went past them to trees."""

    def known(v: Value, made: Value) -> Value:
        past = _past(made)
        trees = _trees(graph, v) if past is not None else ()
        if past is None or not trees:
            return made
        quant = past.quant
        sent = [constant(t.missing, "trees").array for t in trees]
        lost = integer_of_missing(sent, past.dtype)
        lacking = Quant(quant.scale, quant.zero_point, quant.axis, lost)
        return Dequantize(past.replace(quant=lacking), name=made.name)

    return rebuild(graph, known)


def _past(v: Value) -> Quantize | None:
    """The quantization of an input that all but what is no number goes through."""
    match v:
        case Where(condition=Not(x=Equal(a=a, b=b)), a=x, b=Dequantize(x=Quantize(x=Input()) as q)):
            same = a is b is x is q.x and fixedpoint.quant_of(q.type).missing is None
            return q if same else None
    return None


def _trees(graph: Graph, v: Value) -> list[TreeEnsemble]:
    """The trees that read a value, perhaps beside others, if nothing else does; else none."""
    users = graph.users[v]
    if len(users) == 1 and isinstance(users[0], Concat):
        return _trees(graph, users[0])
    trees = [u for u in users if isinstance(u, TreeEnsemble)]
    return trees if len(trees) == len(users) and v not in graph.outputs else []
