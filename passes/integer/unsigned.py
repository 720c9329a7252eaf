"""8-bit activations that a model holds as i8, held as u8 instead: equation (3).

    %q = quantize(%x) : i8[…] q(0.5, 3)         %q = quantize(%x) : u8[…] q(0.5, 131)
    %y = dequantize(%q)                      -> %y = dequantize(%q)

No value changes, and the kernels that multiply by weights take u8. The interface stays: an input
that is quantized as i8 remains so and is converted behind, outputs remain i8.
"""

from __future__ import annotations

from dataclasses import dataclass

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize, Quantize
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.types import DType, Quant
from irc.value import Value

SHIFT = 128
"""What lies between the two."""


@dataclass(frozen=True)
class Unsigned(Pass):
    """The pass."""

    name = "unsigned"
    requires = ("qdq",)
    ensures = ("qdq",)

    def run(self, graph: Graph) -> Graph:
        """See the module."""
        return unsigned(graph)


def unsigned(graph: Graph) -> Graph:
    """The QDQ graph with its inner i8 activations as u8."""
    at_input: dict[Value, bool] = {}
    ends: set[Value] = set()
    for v in graph.order:
        if isinstance(v, Quantize) and v not in at_input:
            found = _together(graph, v)
            sources = [m for m in found if isinstance(m, Quantize)]
            if all(_inner(graph, m) for m in found):
                outside = any(_of_input(m.x) for m in sources)
                at_input |= dict.fromkeys(sources, outside)
                ends |= {m for m in found if outside and isinstance(m, Dequantize)}

    def shifted(v: Value, made: Value) -> Value:
        if isinstance(made, Quantize) and isinstance(v, Quantize) and not at_input.get(v, True):
            return made.replace(dtype=DType.U8, quant=_shifted(made.quant))
        if isinstance(made, Dequantize) and v in ends and made.x.type.quant is not None:
            again = Quantize(made, DType.U8, _shifted(made.x.type.quant), name=made.name)
            return Dequantize(again, name=made.name)
        return made

    return rebuild(graph, shifted)


def _shifted(quant: Quant) -> Quant:
    return Quant(quant.tensor_scale, quant.zero + SHIFT)


def _inner(graph: Graph, v: Value) -> bool:
    """Whether a node quantizes what is computed as i8 per tensor, or moves such integers, or reads
    them to go on with."""
    if v in graph.outputs:
        return False
    match v:
        case Quantize(dtype=dtype, quant=quant, x=x):
            return dtype is DType.I8 and quant.axis is None and not isinstance(x, Const)
        case Dequantize():
            return not _public(graph, v)
    return v.moves


def _public(graph: Graph, v: Value) -> bool:
    """Whether a float is an output, or moved to one."""
    return v in graph.outputs or any(u.moves and _public(graph, u) for u in graph.users[v])


def _together(graph: Graph, q: Quantize) -> dict[Value, None]:
    """A quantize node, what moves its integers, those that these are put together with, and the
    dequantize nodes that read them."""
    found: dict[Value, None] = {}
    stack: list[Value] = [q]
    while stack:
        v = stack.pop()
        if v in found:
            continue
        found[v] = None
        if isinstance(v, Dequantize):
            continue
        stack.extend(graph.users[v])
        if v.moves:
            stack.extend(o for o in v.operands if o.type.quant is not None)
    return found


def _of_input(v: Value) -> bool:
    """Whether a float is an input of the graph, or moved from one."""
    while v.moves and len(v.operands) == 1:
        (v,) = v.operands
    return isinstance(v, Input)
