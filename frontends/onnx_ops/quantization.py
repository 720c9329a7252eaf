"""QuantizeLinear and DequantizeLinear, and what all quantized operators say with them: their
inputs as reals, their results as integers."""

from __future__ import annotations

import numpy as np

from irc.errors import ModelError
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

from ..onnx_file import element_type
from ..onnx_structure import key
from .table import Node, Results, handles

QUANTIZED = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32)

Triple = tuple[int, int | None, int]
"""Which inputs are the integers, their scale (None: 1) and their zero point."""

STATED: dict[str, tuple[Triple, ...]] = {
    "DequantizeLinear": ((0, 1, 2),),
    "com.microsoft.DequantizeLinear": ((0, 1, 2),),
}
"""The inputs of an operator that come with their quantization, by key."""


def stated(node: Node, t: Triple, shape: tuple[int, ...], axis: int | None = None) -> Quant:
    """The quantization that inputs state for a tensor of `shape`: per tensor, or along `axis`.

    Fails for scales that are not positive and finite, or as many as fit no axis.
    """
    _, scale, zero = t
    scales: Array = np.ones((), np.float32) if scale is None else node.constant(scale, "scale")
    zeros: Array = node.constant(zero, "zero point") if node.has(zero) else np.zeros((), int)
    if not (scales.dtype.kind == "f" and np.all(scales > 0) and np.all(np.isfinite(scales))):
        at = "" if scale is None else f" ({node.x(scale).name!r})"
        node.fail(f"its scale{at} must be positive and finite")
    if scale is None:
        scales = np.broadcast_to(scales, zeros.shape)
    if zeros.size not in (1, scales.size):
        node.fail(f"{scales.size} scales, but {zeros.size} zero points")
    if scales.size == 1 and (scales.ndim == 0 or not _is_one(node, t, shape, axis)):
        return Quant(float(scales.reshape(())), int(zeros.reshape(())))
    axis = node.axis(1 if axis is None else axis, len(shape))
    if scales.ndim != 1 or scales.size != shape[axis]:
        node.fail(f"{scales.size} scales for axis {axis} of a tensor of shape {list(shape)}")
    zero_points = np.broadcast_to(zeros.reshape(-1), scales.shape)
    same = bool(np.all(zero_points == zero_points[0]))
    point = int(zero_points[0]) if same else tuple(int(z) for z in zero_points)
    return Quant(tuple(float(s) for s in scales), point, axis)


def _is_one(node: Node, t: Triple, shape: tuple[int, ...], axis: int | None) -> bool:
    """Whether a single scale goes along an axis of extent 1, in weights of one channel."""
    if axis is None or not isinstance(node.x(t[0]), Const):
        return False
    return -len(shape) <= axis < len(shape) and shape[axis] == 1


def reals(node: Node, t: Triple, axis: int | None = None) -> Value:
    """The reals that an input's integers stand for.

    A constant takes the quantization that is stated; what is computed must carry it already.
    """
    x = node.x(t[0])
    if x.type.dtype not in QUANTIZED:
        node.fail(f"dequantizing {x.type} is not supported")
    quant = stated(node, t, x.shape, axis)
    if isinstance(x, Const):
        return node.builder.add(Dequantize(Const(x.array, quant, name=x.name)))
    if x.type.quant is None:
        kind = "a model input" if isinstance(x, Input) else "computed"
        node.fail(f"{x.name!r} is {kind} and carries no scale here; quantize it first")
    if x.type.quant != quant:
        node.fail(
            f"{x.name!r} was quantized as {x.type}, here it is read as"
            f" {TensorType(x.type.dtype, x.shape, quant)}; both must agree"
        )
    return node.builder.add(Dequantize(x))


def integers(
    node: Node, y: Value, scale: int, zero: int, dtype: DType = DType.U8, axis: int | None = None
) -> Value:
    """A real result as integers of the zero point's type, `dtype` without one."""
    dtype = node.x(zero).type.dtype if node.has(zero) else dtype
    if dtype not in QUANTIZED:
        node.fail(f"quantizing to {dtype.value} is not supported")
    quant = stated(node, (0, scale, zero), y.shape, axis)
    return node.builder.add(Quantize(y, dtype, quant))


def _axis(node: Node) -> int | None:
    block, found = node.attribute("block_size"), node.attribute("axis")
    if block is not None and block.i:
        node.fail(f"block_size = {block.i}: blocked quantization is not supported")
    return None if found is None else int(found.i)


@handles("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantize(node: Node) -> Results:
    """The zero point's type, u8 without one, is the result's."""
    node.ignore("saturate", "precision")
    dtype, declared = DType.U8, node.attribute("output_dtype")
    if declared is not None and declared.i:
        dtype = DType.of(element_type(declared.i, "output_dtype"))
    return integers(node, node.x(), 1, 2, dtype, _axis(node))


@handles("DequantizeLinear", "com.microsoft.DequantizeLinear")
def dequantize(node: Node) -> Results:
    """Of constants (weights), of quantized values, of integer inputs of the model."""
    node.ignore("output_dtype")
    return reals(node, (0, 1, 2), _axis(node))


def input_quant(node: Node, x: Input) -> Quant | None:
    """The quantization that a node states for an integer input of the model, None if it states
    none that can be read."""
    for t in STATED.get(key(node.proto), ()):
        if t[0] < len(node.inputs) and node.inputs[t[0]] is x and x.type.dtype in QUANTIZED:
            try:
                return stated(node, t, x.shape)
            except ModelError:
                return None
    return None
