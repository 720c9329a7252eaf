"""What the tests of integer twins share: quantized operands of known reals, and the distance of a
result from the reals in steps of its scale."""

from __future__ import annotations

import numpy as np

from irc import fixedpoint
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value


def fitted(real: Array, dtype: DType) -> TensorType:
    """The asymmetric 8-bit type that covers these reals and 0."""
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
    scale = max(high - low, 1e-6) / 255
    zero = round(dtype.min - low / scale)
    return TensorType(dtype, real.shape, Quant(scale, min(max(zero, dtype.min), dtype.max)))


def quantized_input(name: str, real: Array, dtype: DType) -> tuple[Input, Array, Array]:
    """An input fitted to `real`: the value, its integers, and the reals that these stand for."""
    t = fitted(real, dtype)
    q = fixedpoint.quantize(real, t)
    return Input.of(t, name), q, fixedpoint.dequantize(q, t, DType.F64)


def quantized_weights(real: Array) -> tuple[Const, Array]:
    """Weights i8 per output channel (axis 0), and the reals that they stand for."""
    scales = np.maximum(np.abs(real).reshape(len(real), -1).max(1), 1e-6) / 127
    quant = Quant(tuple(float(s) for s in scales), 0, 0)
    t = TensorType(DType.I8, real.shape, quant)
    q = np.maximum(fixedpoint.quantize(real, t), np.int8(-127))
    return Const(q, quant, name="w"), fixedpoint.dequantize(q, t, DType.F64)


def steps_off(node: Value, feeds: dict[Input, Array], real: Array) -> Array:
    """By how many steps of its scale the node's result differs from the reals, rounded by (2)."""
    graph = Graph("twin", tuple(feeds), (node,), ("y",))
    found = evaluate(graph, {v.name: a for v, a in feeds.items()})["y"]
    return np.abs(found.astype(np.int64) - fixedpoint.quantize(real, node.type))
