"""8-bit activations that a model holds as i8, held as u8 instead: equation (3).

    %q = quantize(%x) : i8[…] q(0.5, 3)         %q = quantize(%x) : u8[…] q(0.5, 131)
    %y = dequantize(%q)                      -> %y = dequantize(%q)

No value changes, and the kernels that multiply by weights take u8. The interface stays: an input
that is quantized as i8 remains so and is converted behind, outputs remain i8.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    signed = {v for v in graph.order if isinstance(v, Quantize) and _inner(graph, v)}
    at_input = {v: _of_input(v.x) for v in signed}
    ends = {d for v in signed if at_input[v] for d in _chain(graph, v) if isinstance(d, Dequantize)}

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


def _inner(graph: Graph, q: Quantize) -> bool:
    """Whether the integers are i8 per tensor, computed, and only moved before they are read."""
    if q.dtype is not DType.I8 or q.quant.axis is not None or isinstance(q.x, Const):
        return False
    for v in _chain(graph, q):
        if isinstance(v, Dequantize):
            if _public(graph, v):
                return False
        elif v in graph.outputs or (v is not q and not (v.moves and len(v.operands) == 1)):
            return False
    return True


def _public(graph: Graph, v: Value) -> bool:
    """Whether a float is an output, or moved to one."""
    return v in graph.outputs or any(u.moves and _public(graph, u) for u in graph.users[v])


def _chain(graph: Graph, q: Quantize) -> Iterator[Value]:
    """The quantize node, what moves its integers, and the dequantize nodes that read them."""
    stack: list[Value] = [q]
    while stack:
        v = stack.pop()
        yield v
        if not isinstance(v, Dequantize):
            stack.extend(graph.users[v])


def _of_input(v: Value) -> bool:
    """Whether a float is an input of the graph, or moved from one."""
    while v.moves and len(v.operands) == 1:
        (v,) = v.operands
    return isinstance(v, Input)
