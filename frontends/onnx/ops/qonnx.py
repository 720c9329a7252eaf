"""Quantization as QONNX and Brevitas write it: one node that rounds, in any number of bits."""

from __future__ import annotations

import numpy as np

from irc.frontends.onnx.ops.contrib import declare
from irc.frontends.onnx.ops.quantization import held
from irc.frontends.onnx.ops.table import SCHEMAS, Node, Results, handles
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant, Shape

OPERATORS = tuple(
    f"{domain}.{op}"
    for domain in ("qonnx.custom_op.general", "onnx.brevitas")
    for op in ("Quant", "IntQuant")
)
SCHEMAS.update(
    {op: declare(op, (4, 4), signed=1, narrow=0, rounding_mode="ROUND") for op in OPERATORS}
)
NEAREST = ("ROUND", "HALF_EVEN")
DTYPES = {(True, 8): DType.I8, (False, 8): DType.U8, (True, 16): DType.I16, (False, 16): DType.U16}
"""What holds the integers, by sign and bits."""


@handles(*OPERATORS)
def quant(node: Node) -> Results:
    """`(clamp(round(x / scale + zero)) - zero) * scale` of inputs x, scale, zero, bits."""
    signed, narrow = bool(node.integer("signed")), bool(node.integer("narrow"))
    if (mode := node.text("rounding_mode").upper()) not in NEAREST:
        node.fail(f"rounding_mode = {mode!r} is not supported, only {NEAREST[0]!r}")
    bits = node.scalar(3, "bit width")
    if bits not in range(1 + (signed and narrow), 17):
        node.fail(f"{bits:g} bits are not supported, only whole numbers up to 16")
    dtype = DTYPES[signed, 8 if bits <= 8 else 16]
    ends = _ends(int(bits), signed, narrow)
    x = node.x(0)
    found = _quant(node, x.shape, ends)
    if ends != (dtype.min, dtype.max):
        x = held(node.builder, x, found, ends)
    return node.builder.add(Dequantize(node.builder.add(Quantize(x, dtype, found))))


def _ends(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The least and the largest integer; a narrow range lacks one."""
    if signed:
        return narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def _quant(node: Node, shape: Shape, ends: tuple[int, int]) -> Quant:
    """The scales and zero points, which broadcast to the tensor along one axis at most."""
    scale, zero = node.constant(1, "scale"), node.constant(2, "zero point")
    if not (scale.dtype.kind == "f" and np.all(scale > 0) and np.all(np.isfinite(scale))):
        node.fail(f"its scale ({node.x(1).name!r}) must be positive and finite")
    if np.any(zero != np.rint(zero)) or zero.min() < ends[0] or zero.max() > ends[1]:
        node.fail(f"its zero points must be whole numbers from {ends[0]} to {ends[1]}")
    axes = {a for array in (scale, zero) for a in _axes(node, array, shape)}
    if not axes:
        return Quant(float(scale.reshape(())), int(zero.reshape(())))
    if len(axes) > 1:
        node.fail(f"scales of shape {list(scale.shape)} differ along more than one axis")
    (axis,) = axes
    scales, zeros = (np.broadcast_to(a.reshape(-1), (shape[axis],)) for a in (scale, zero))
    points = tuple(int(z) for z in zeros)
    return Quant(
        tuple(float(s) for s in scales), points if len(set(points)) > 1 else points[0], axis
    )


def _axes(node: Node, array: Array, shape: Shape) -> list[int]:
    """The axes of a tensor of `shape` along which a smaller array differs."""
    before = len(shape) - array.ndim
    found = [before + i for i, d in enumerate(array.shape) if d > 1]
    if any(a < 0 or array.shape[a - before] != shape[a] for a in found) or not array.size:
        node.fail(f"scales of shape {list(array.shape)} do not fit a tensor of {list(shape)}")
    return found
