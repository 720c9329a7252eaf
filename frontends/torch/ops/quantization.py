"""Quantized graphs: PT2E's operators, torchao's, and the fake quantization of trained modules."""

from __future__ import annotations

from math import isfinite

import numpy as np

from irc import fixedpoint
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.activation import Clip
from irc.ops.core import Const
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value

DTYPES = (DType.I8, DType.U8, DType.I16, DType.I32)
KEPT = (
    "quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel",
    "torchao.dequantize_affine", "aten.fake_quantize_per_tensor_affine",
    "aten.fake_quantize_per_channel_affine",
)  # fmt: skip
"""Operators that are not folded over constants: quantized weights stay quantized."""


def _numbers(node: Node, name: str) -> Array:
    """A number, a list, or a constant tensor."""
    v = node.any(name)
    if isinstance(v, Value):
        return node.constant(name).reshape(-1)
    return np.asarray(v).reshape(-1)


def _quant(node: Node, shape: Shape, axis: int | None) -> Quant:
    """The scale and zero point of a tensor of `shape`: per tensor, or along an axis."""
    many = "scales" in node.arguments
    scales = _numbers(node, "scales" if many else "scale").astype(np.float64)
    zero = "zero_points" if "zero_points" in node.arguments else "zero_point"
    zeros = _numbers(node, zero) if node.has(zero) else np.zeros(1, np.int64)
    node.ignore(zero)
    if not all(isfinite(s) and s > 0 for s in scales):
        node.fail("its scale must be positive and finite")
    if axis is None:
        if scales.size != 1:
            node.fail(f"{scales.size} scales for a whole tensor")
        return Quant(float(scales[0]), int(zeros[0]))
    if scales.size != shape[axis]:
        node.fail(f"{scales.size} scales for axis {axis} of a tensor of shape {list(shape)}")
    points = np.broadcast_to(zeros, scales.shape)
    same = bool(np.all(points == points[0]))
    point = int(points[0]) if same else tuple(int(z) for z in points)
    return Quant(tuple(float(s) for s in scales), point, axis)


def _range(node: Node, fallback: DType) -> tuple[DType, int, int]:
    """The integers' type and bounds; without a type, the narrowest that holds the bounds."""
    low = int(node.number("quant_min", fallback.min))
    high = int(node.number("quant_max", fallback.max))
    for dtype in (fallback, *DTYPES):
        if dtype.min <= low and high <= dtype.max:
            return dtype, low, high
    node.fail(f"integers from {low} to {high} are not supported")


def _integers(node: Node, x: Value, quant: Quant, dtype: DType, low: int, high: int) -> Value:
    """x quantized; fewer integers than the type has are a clip before it."""
    build = node.builder
    if isinstance(x, Const):
        array = fixedpoint.quantize(x.array, TensorType(dtype, x.shape, quant))
        return build.const(np.clip(array, low, high).astype(dtype.numpy), quant, name=x.name)
    if (low, high) != (dtype.min, dtype.max):
        if quant.axis is not None:
            node.fail("activations quantized along an axis are not supported")
        scale, zero = quant.tensor_scale, quant.zero
        x = build.add(Clip(x, (low - zero) * scale, (high - zero) * scale))
    return build.add(Quantize(x, dtype, quant))


def _axis(node: Node, rank: int) -> int | None:
    """The axis that scales go along, by number or by blocks; None for the whole tensor."""
    if "axis" in node.arguments:
        return node.axis("axis", rank)
    if "block_size" not in node.arguments:
        return None
    blocks, x = node.integers("block_size"), node.x("input")
    split = [i for i, (b, d) in enumerate(zip(blocks, x.shape, strict=True)) if b != d]
    if not split:
        return None
    if len(split) > 1 or blocks[split[0]] != 1:
        node.fail(f"block_size {list(blocks)} of {x.type} is not supported: only per tensor or"
                  " per channel")  # fmt: skip
    return split[0]


def _named(node: Node, *names: str) -> DType:
    """A torch dtype argument as an element type."""
    for name in names:
        if node.has(name):
            text = str(node.any(name)).removeprefix("torch.")
            found = {d.numpy.name: d for d in DTYPES}.get(text)
            if found is None:
                node.fail(f"{name} = {text} is not supported")
            return found
    return node.dtype or DType.I8


@handles("quantized_decomposed.quantize_per_tensor", "quantized_decomposed.quantize_per_channel",
         "torchao.quantize_affine")  # fmt: skip
def quantize(node: Node) -> Results:
    """Reals to integers."""
    node.ignore("zero_point_domain")
    x = node.x("input")
    quant = _quant(node, x.shape, _axis(node, x.type.rank))
    dtype = _named(node, "dtype", "output_dtype")
    _, low, high = _range(node, dtype)
    return _integers(node, x, quant, dtype, low, high)


@handles(
    "quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel",
    "torchao.dequantize_affine",
)  # fmt: skip
def dequantize(node: Node) -> Results:
    """Integers to reals; what is computed must carry the scale that is stated here."""
    node.ignore("zero_point_domain", "dtype", "input_dtype", "quant_min", "quant_max", "out_dtype",
                "output_dtype")  # fmt: skip
    x = node.x("input")
    quant = _quant(node, x.shape, _axis(node, x.type.rank))
    if isinstance(x, Const):
        return node.builder.add(Dequantize(Const(x.array, quant, name=x.name)))
    if x.type.quant != quant:
        node.fail(f"{x.name!r} is {x.type}, here it is read with another scale")
    return node.builder.add(Dequantize(x))


@handles("aten.fake_quantize_per_tensor_affine", "aten.fake_quantize_per_channel_affine",
         "aten.fake_quantize_per_tensor_affine_cachemask",
         "aten.fake_quantize_per_channel_affine_cachemask")  # fmt: skip
def fake_quantize(node: Node) -> Results:
    """Quantized and dequantized at once, as modules trained for it do."""
    node.ignore("fake_quant_enabled")
    x = node.x()
    quant = _quant(node, x.shape, _axis(node, x.type.rank))
    low, high = node.integer("quant_min"), node.integer("quant_max")
    dtype, low, high = _range(node, DType.I8 if low < 0 else DType.U8)
    y = node.builder.add(Dequantize(_integers(node, x, quant, dtype, low, high)))
    return (y, None) if node.count > 1 else y


DYNAMIC = (
    "quantized_decomposed.choose_qparams", "torchao.choose_qparams_affine", "aten._int_mm",
)  # fmt: skip
"""What stands in programs that find scales in the data; `_int_mm` is torchao's product of bytes."""


@handles(*DYNAMIC)
def choose(node: Node) -> Results:
    """Refused: scales that are chosen at run time."""
    node.fail("scales are chosen at run time (dynamic quantization): give the float module, and"
              " its data to irc.quantize as calibration")  # fmt: skip
