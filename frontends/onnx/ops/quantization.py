"""QuantizeLinear and DequantizeLinear, and what all quantized operators say with them: their
inputs as reals, their results as integers."""

from __future__ import annotations

import numpy as np

from irc.errors import ModelError
from irc.fixedpoint import along_axis
from irc.frontends.builder import Builder
from irc.frontends.onnx.file import element_type, limits
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.onnx.structure import key
from irc.ops.activation import Clip
from irc.ops.core import Const, Input
from irc.ops.elementwise import Maximum, Minimum
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

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
    return Quant(tuple(map(float, scales)), tuple(map(int, zero_points)), axis)


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
    if x.type.quant is None and (told := _told(x, quant)) is not None:
        return node.builder.add(Dequantize(told))
    if x.type.quant is None:
        kind = "a model input" if isinstance(x, Input) else "computed"
        node.fail(f"{x.name!r} is {kind} and carries no scale here; quantize it first")
    if x.type.quant != quant:
        node.fail(
            f"{x.name!r} was quantized as {x.type}, here it is read as"
            f" {TensorType(x.type.dtype, x.shape, quant)}; both must agree"
        )
    return node.builder.add(Dequantize(x))


def _told(x: Value, quant: Quant) -> Value | None:
    """Plain integers that are picked from stored ones, as rows of an embedding, with the scale that
    their reader states; None for others."""
    if isinstance(x, Const):
        return Const(x.array, quant, name=x.name)
    sources = [o for o in x.operands if o.type.dtype is x.type.dtype]
    if not x.moves or not sources or quant.axis is not None or x.type.quant is not None:
        return None
    made = {o: _told(o, quant) for o in sources}
    if None in made.values():
        return None
    return x.map_operands(lambda o: made.get(o) or o)


def integers(
    node: Node, y: Value, scale: int, zero: int, dtype: DType = DType.U8, axis: int | None = None
) -> Value:
    """A real result as integers of the zero point's type, `dtype` without one."""
    dtype = node.x(zero).type.dtype if node.has(zero) else dtype
    if dtype not in QUANTIZED:
        node.fail(f"quantizing to {dtype.value} is not supported")
    quant = stated(node, (0, scale, zero), y.shape, axis)
    if isinstance(y, Const) and y.type.dtype is DType.F32:
        y = _in_steps(node, y, quant)
    return node.builder.add(Quantize(_limited(node, y, zero, quant), dtype, quant, single=dtype))


def _in_steps(node: Node, c: Const, quant: Quant) -> Value:
    """Constant reals as the multiples of their scale that a division in single precision finds, as
    runtimes divide: weights that a symmetric range of 255 steps ends with are ties. What lies
    beyond every integer stays as it is."""
    scale, _ = along_axis(quant, c.type.rank)
    with np.errstate(all="ignore"):  # no number, or more than single precision holds
        steps = np.rint(c.array / np.asarray(scale, np.float32)).astype(np.float64)
        real = (steps * scale).astype(np.float32)
    real = np.where(np.isfinite(real), real, c.array)
    return node.builder.const(real, name=c.name)


def _limited(node: Node, y: Value, zero: int, quant: Quant) -> Value:
    """What integers of 4 and 2 bits can stand for: the reals are clamped before, to the same
    effect."""
    declared = node.given.get("output_dtype")
    found = limits(int(declared.i)) if declared is not None else None
    if found is None and node.has(zero):
        found = limits(node.builder.kinds.get(node.x(zero).name, 0))
    return y if found is None else held(node.builder, y, quant, found)


def held(build: Builder, y: Value, quant: Quant, ends: tuple[int, int]) -> Value:
    """Reals within what the integers between two ends stand for."""
    if quant.axis is None:
        low, high = ((end - quant.zero) * quant.tensor_scale for end in ends)
        return build.add(Clip(y, low, high))
    scale, point = along_axis(quant, y.type.rank)
    least, most = (
        build.const(np.asarray((end - point) * scale, y.type.dtype.numpy)) for end in ends
    )
    return build.add(Minimum(build.add(Maximum(y, least)), most))


def _axis(node: Node) -> int | None:
    found = node.attribute("axis")
    return None if found is None else int(found.i)


def _block(node: Node) -> int:
    """How many elements along the axis share a scale; 0 if this is no matter of blocks."""
    found = node.attribute("block_size")
    size = 0 if found is None else int(found.i)
    if size < 0:
        node.fail(f"block_size = {size} is negative")
    return size


def _by_block(node: Node, i: int, block: int) -> Array:
    """The scale or zero point of each element."""
    x = node.x()
    axis = node.axis(1 if (found := _axis(node)) is None else found, x.type.rank)
    each = node.constant(i, "scale" if i == 1 else "zero point")
    wanted = (*x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :])
    if each.shape != wanted:
        node.fail(f"blocks of {block} of {x.type} need {list(wanted)} scales, not"
                  f" {list(each.shape)}")  # fmt: skip
    at = np.arange(x.shape[axis]) // block
    return np.take(each, at, axis)


def _blocks(node: Node, block: int) -> Value:
    """Weights whose scales differ from block to block become reals, which are quantized anew."""
    x = node.x()
    if not isinstance(x, Const):
        node.fail(f"block_size = {block}: only constants are quantized by blocks, %{x.name} is"
                  " computed")  # fmt: skip
    scale = _by_block(node, 1, block).astype(np.float64)
    zero = _by_block(node, 2, block).astype(np.int64) if node.has(2) else 0
    if node.op == "DequantizeLinear":
        real = (x.array.astype(np.int64) - zero) * scale
        return node.builder.const(real.astype(np.float32))
    dtype, ends = _target(node)
    with np.errstate(all="ignore"):
        q = np.clip(np.rint(x.array / scale) + zero, *ends)
    return node.builder.const(q.astype(dtype.numpy))


def _target(node: Node) -> tuple[DType, tuple[int, int]]:
    """What QuantizeLinear makes, by its zero point or its `output_dtype`."""
    declared = node.attribute("output_dtype")
    if declared is not None and declared.i:
        dtype = DType.of(element_type(declared.i, "output_dtype"))
        if dtype.is_float:
            node.fail("quantizing to floats of 8 bits is not supported")
        return dtype, limits(int(declared.i)) or (dtype.min, dtype.max)
    if not node.has(2):
        return DType.U8, (0, 255)
    zero = node.x(2)
    dtype = zero.type.dtype
    if dtype.is_float:
        node.fail("quantizing to floats of 8 bits is not supported")
    return dtype, limits(node.builder.kinds.get(zero.name, 0)) or (dtype.min, dtype.max)


@handles("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantize(node: Node) -> Results:
    """The zero point's type, u8 without one, is the result's."""
    node.ignore("saturate", "precision", "block_size", "axis")
    dtype, _ = _target(node)
    if block := _block(node):
        return _blocks(node, block)
    return integers(node, node.x(), 1, 2, dtype, _axis(node))


@handles("DequantizeLinear", "com.microsoft.DequantizeLinear")
def dequantize(node: Node) -> Results:
    """Of constants (weights), of quantized values, of integer inputs of the model."""
    node.ignore("output_dtype", "block_size", "axis")
    if block := _block(node):
        return _blocks(node, block)
    x = node.x()
    if isinstance(x, Const) and x.type.dtype.is_float:  # of 8 bits in the file
        return _small_floats(node, x)
    return reals(node, (0, 1, 2), _axis(node))


def _small_floats(node: Node, x: Const) -> Value:
    """Constants stored as floats of 8 bits, scaled."""
    scale = node.constant(1, "scale")
    if node.has(2) and node.constant(2, "zero point").any():
        node.fail("floats of 8 bits have a zero point other than 0")
    if scale.size > 1:
        axis = node.axis(1 if (found := _axis(node)) is None else found, x.type.rank)
        if scale.shape != (x.shape[axis],):
            node.fail(f"{scale.size} scales for axis {axis} of {x.type}")
        scale = scale.reshape([-1 if a == axis else 1 for a in range(x.type.rank)])
    return node.builder.const((x.array * scale).astype(np.float32))


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
