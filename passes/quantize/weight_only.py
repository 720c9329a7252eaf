"""Models that store integers and compute on reals: dynamically quantized ones, whose activations
have no scale until they run, and those that were only made small."""

from __future__ import annotations

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.quantization import Dequantize, Quantize
from irc.types import DType
from irc.value import Value


def with_real_weights(graph: Graph) -> Graph:
    """The float graph, where all that is quantized is stored: weights, and rows that are picked
    from them. A graph that states a scale for any activation stays as it is.

        dequantize(gather(%w, %i))   ->   gather(%real, %i)
    """
    if any(isinstance(v, Quantize) for v in graph.order):
        return graph
    stored = [v for v in graph.order if isinstance(v, Dequantize)]
    if not stored or not all(_is_stored(v.x) for v in stored):
        return graph
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for v in graph.order:
        if v not in new:
            made = _real(v.x, new) if isinstance(v, Dequantize) else v
            new[v] = made.map_operands(lambda o: new.get(o, o))
    return graph.with_outputs(tuple(new[v] for v in graph.outputs))


def _is_stored(x: Value) -> bool:
    """Whether integers are constants, or moved from such."""
    if isinstance(x, Const):
        return True
    parts = [o for o in x.operands if o.type.quant is not None]
    return x.moves and bool(parts) and all(map(_is_stored, parts))


def _real(x: Value, new: dict[Value, Value]) -> Value:
    """The same moves over the reals that the constants stand for."""
    if isinstance(x, Const):
        return Const(fixedpoint.dequantize(x.array, x.type, DType.F32), name=x.name)
    return x.map_operands(lambda o: new.get(o, o) if o.type.quant is None else _real(o, new))
