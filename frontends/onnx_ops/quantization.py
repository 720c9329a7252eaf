"""QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np

from irc.errors import ModelError
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant, TensorType

from ..onnx_file import element_type
from .table import Node, Results, handles

QUANTIZED = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32)


def _parameters(node: Node, shape: tuple[int, ...]) -> Quant:
    """Scale and zero point, per tensor or along `axis`, for a tensor of `shape`."""
    scales = node.constant(1, "scale")
    zeros: Array = node.constant(2, "zero point") if node.has(2) else np.zeros(scales.shape, int)
    block = node.attribute("block_size")
    if block is not None and block.i:
        node.fail(f"block_size = {block.i}: blocked quantization is not supported")
    if not (scales.dtype.kind == "f" and np.all(scales > 0) and np.all(np.isfinite(scales))):
        node.fail(f"its scale ({node.x(1).name!r}) must be positive and finite")
    if zeros.size not in (1, scales.size):
        node.fail(f"{scales.size} scales, but {zeros.size} zero points")
    found = node.attribute("axis")
    if scales.size == 1 and (scales.ndim == 0 or found is None or not _is_one(node, shape)):
        return Quant(float(scales.reshape(())), int(zeros.reshape(())))
    axis = node.axis(1 if found is None else int(found.i), len(shape))
    if scales.ndim != 1 or scales.size != shape[axis]:
        node.fail(f"{scales.size} scales for axis {axis} of a tensor of shape {list(shape)}")
    zero = np.broadcast_to(zeros.reshape(-1), scales.shape)
    same = bool(np.all(zero == zero[0]))
    zero_point = int(zero[0]) if same else tuple(int(z) for z in zero)
    return Quant(tuple(float(s) for s in scales), zero_point, axis)


def _is_one(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether a single scale goes along an axis of extent 1, in weights of one channel."""
    found = node.attribute("axis")
    axis = 1 if found is None else int(found.i)
    return isinstance(node.x(), Const) and -len(shape) <= axis < len(shape) and shape[axis] == 1


@handles("QuantizeLinear")
def quantize(node: Node) -> Results:
    """The zero point's type, u8 without one, is the result's."""
    node.ignore("saturate", "precision")
    dtype = DType.U8
    declared = node.attribute("output_dtype")
    if node.has(2):
        dtype = node.x(2).type.dtype
    elif declared is not None and declared.i:
        dtype = DType.of(element_type(declared.i, "output_dtype"))
    if dtype not in QUANTIZED:
        node.fail(f"quantizing to {dtype.value} is not supported")
    return node.builder.add(Quantize(node.x(), dtype, _parameters(node, node.x().shape)))


@handles("DequantizeLinear")
def dequantize(node: Node) -> Results:
    """Of constants (weights), of quantized values, of integer inputs of the model."""
    node.ignore("output_dtype")
    x = node.x()
    quant = _parameters(node, x.shape)
    if x.type.dtype not in QUANTIZED:
        node.fail(f"dequantizing {x.type} is not supported")
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


def input_quant(node: Node) -> Quant | None:
    """The quantization that a DequantizeLinear states for its input, None if it can't be read."""
    try:
        return _parameters(node, node.x().shape)
    except ModelError:
        return None
