"""A graph as a table of layers: what each computes, stores and weighs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from irc.graph import Graph
from irc.ops.core import Const, Input, Kernel
from irc.types import TensorType
from irc.value import Value, operand_fields

EDGES = ("quantize", "dequantize")
VIEWS = ("transpose", "reshape")
RESCALING = ("m", "s", "table")
"""Operands that come of quantization: bytes, but no parameters of the model."""


@dataclass(frozen=True)
class Layer:
    """A node that computes: multiply-accumulates, parameters (weights and biases, in elements),
    and bytes of all its constants."""

    name: str
    op: str
    type: TensorType
    macs: int
    parameters: int
    nbytes: int


def layers(graph: Graph) -> list[Layer]:
    """The layers of any graph in order; constants, inputs, QDQ edges and
    mere views are none."""
    return [layer_of(v) for v in graph.order if not _hidden(v)]


@dataclass(frozen=True)
class LayerWidth:
    """How many channels a layer makes, before and after pruning."""

    name: str
    op: str
    before: int
    after: int


def widths(before: Graph, after: Graph) -> list[LayerWidth]:
    """The layers with weights of a float graph, beside those of its pruned form."""
    pairs = zip(*([r for r in layers(g) if r.macs and r.parameters] for g in (before, after)),
                strict=True)  # fmt: skip
    return [LayerWidth(a.name, a.op, a.type.shape[-1], b.type.shape[-1]) for a, b in pairs]


def _hidden(v: Value) -> bool:
    return isinstance(v, Const | Input) or v.op in EDGES or v.op in VIEWS


def layer_of(v: Value) -> Layer:
    """A node as a layer."""
    constants = list(_constants(v))
    parameters = sum(c.type.size for field, c in constants if field not in RESCALING)
    nbytes = sum({c: c.type.nbytes for _, c in constants}.values())
    return Layer(v.name or v.op, describe(v), v.type, macs(v), parameters, nbytes)


def describe(v: Value) -> str:
    """The op; for a kernel the ops that it fuses."""
    if not isinstance(v, Kernel):
        return v.op
    return " + ".join(o.op for o in v.body.order if not isinstance(o, Const | Input))


def _constants(v: Value) -> Iterator[tuple[str, Const]]:
    """The constants of a layer and the operand field that each stands in."""
    if not isinstance(v, Kernel):
        yield from _fields(v, {})
        return
    given = dict(zip(v.body.inputs, v.args, strict=True))
    for inner in v.body.order:
        yield from _fields(inner, given)


def _fields(v: Value, given: Mapping[Any, Value]) -> Iterator[tuple[str, Const]]:
    for field in operand_fields(type(v)):
        entry = getattr(v, field)
        several = () if entry is None else (entry,) if isinstance(entry, Value) else entry
        for operand in several:
            source = _source(given.get(operand, operand))
            if isinstance(source, Const):
                yield field, source


def _source(v: Value) -> Value:
    while v.op in EDGES:
        (v,) = v.operands
    return v


def macs(v: Value) -> int:
    """Multiply-accumulates of convolutions and matrix products; elementwise work is not counted."""
    if isinstance(v, Kernel):
        return sum(macs(inner) for inner in v.body.order)
    count = _MACS.get(v.op.removeprefix("q"))
    return 0 if count is None else count(v)


def _conv(v: Any) -> int:
    return int(v.type.size * prod(v.w.shape[1:]))


def _conv_transpose(v: Any) -> int:
    """Every input element meets every tap of its group's outputs."""
    return int(v.x.type.size * prod(v.w.shape[1:3]) * (v.w.shape[0] // v.groups))


def _linear(v: Any) -> int:
    return int(v.type.size * v.w.shape[-1])


def _matmul(v: Any) -> int:
    return int(v.type.size * v.a.shape[-1])


_MACS: Mapping[str, Callable[[Any], int]] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    "matmul": _matmul,
}
