"""Functions of elements, quantization, matrix products, norms and reductions as ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.backends.onnx.writer import EITHER, Layout, Writer, element_type, exports
from irc.errors import GraphError
from irc.ops import activation as act
from irc.ops import elementwise, functions, logic, prelu, ranking, reduce, unary
from irc.ops.cast import Cast
from irc.ops.linear import Linear, MatMul
from irc.ops.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.selection import Where
from irc.ops.softmax import Softmax
from irc.types import Array, DType
from irc.value import Value

SAME: dict[type[Value], str] = {
    act.Relu: "Relu", act.LeakyRelu: "LeakyRelu", act.Sigmoid: "Sigmoid", act.Tanh: "Tanh",
    act.HardSigmoid: "HardSigmoid", act.HardSwish: "HardSwish", act.Gelu: "Gelu", act.Elu: "Elu",
    act.Softplus: "Softplus", act.Softsign: "Softsign", act.Mish: "Mish",
    unary.Exp: "Exp", unary.Log: "Log", unary.Sqrt: "Sqrt", unary.Neg: "Neg", unary.Abs: "Abs",
    unary.Sign: "Sign", unary.Erf: "Erf", unary.Reciprocal: "Reciprocal", unary.Floor: "Floor",
    unary.Ceil: "Ceil", unary.Round: "Round", unary.Sin: "Sin", unary.Cos: "Cos", logic.Not: "Not",
    prelu.PRelu: "PRelu",
    functions.Tan: "Tan", functions.Asin: "Asin", functions.Acos: "Acos", functions.Atan: "Atan",
    functions.Sinh: "Sinh", functions.Cosh: "Cosh", functions.Asinh: "Asinh",
    functions.Acosh: "Acosh", functions.Atanh: "Atanh",
    functions.ThresholdedRelu: "ThresholdedRelu",
    elementwise.Add: "Add", elementwise.Sub: "Sub", elementwise.Mul: "Mul", elementwise.Div: "Div",
    elementwise.Pow: "Pow", elementwise.Minimum: "Min", elementwise.Maximum: "Max",
    logic.Equal: "Equal", logic.Less: "Less", logic.LessOrEqual: "LessOrEqual", logic.And: "And",
    logic.Or: "Or",
    Where: "Where",
}  # fmt: skip
"""Ops that ONNX has with the same operands and the same attributes."""


@exports(*SAME, layouts=EITHER)
def _same(w: Writer, v: Value) -> str:
    operands = [w.read(o) for o in v.operands]
    return w.emit(SAME[type(v)], operands, name=v.name, **v.attributes)


@exports(act.Selu, layouts=EITHER)
def _selu(w: Writer, v: act.Selu) -> str:
    return w.emit("Selu", [w.read(v.x)], name=v.name, alpha=v.alpha, gamma=v.gamma)


@exports(act.Silu, layouts=EITHER)
def _silu(w: Writer, v: act.Silu) -> str:
    x = w.read(v.x)
    return w.emit("Mul", [x, w.emit("Sigmoid", [x])], name=v.name)


@exports(functions.Shrink, layouts=EITHER)
def _shrink(w: Writer, v: functions.Shrink) -> str:
    return w.emit("Shrink", [w.read(v.x)], name=v.name, lambd=v.threshold, bias=v.bias)


@exports(act.Clip, layouts=EITHER)
def _clip(w: Writer, v: act.Clip) -> str:
    if v.range == (0.0, np.inf):
        return w.emit("Relu", [w.read(v.x)], name=v.name)
    bounds = [
        w.constant(np.array(bound, v.type.dtype.numpy)) if np.isfinite(bound) else ""
        for bound in v.range
    ]
    return w.emit("Clip", [w.read(v.x), *bounds], name=v.name)


@exports(Cast, layouts=EITHER)
def _cast(w: Writer, v: Cast) -> str:
    return w.emit("Cast", [w.read(v.x)], name=v.name, to=element_type(v.dtype))


# ---------------------------------------------------------------- quantization


def _scale(w: Writer, integers: Value) -> tuple[list[str], int | None]:
    """Initializers of scale and zero point, and the axis that they lie along."""
    quant, dtype = integers.type.quant, integers.type.dtype
    assert quant is not None, "its type has been checked"
    scales = np.array(quant.scale, np.float32)
    points = (_points(integers) - _beyond(integers)).astype(dtype.numpy)
    axis = None if quant.axis is None else w.axis(quant.axis)
    if dtype is DType.I32:
        return [w.constant(scales)], axis  # ONNX allows no zero point but 0
    return [w.constant(scales), w.constant(points)], axis


def _points(integers: Value) -> Array:
    """The zero points, as many as scales, i64."""
    quant = integers.type.quant
    assert quant is not None, "its type has been checked"
    points: Array = np.broadcast_to(np.asarray(quant.zero_point, np.int64), np.shape(quant.scale))
    return points


def _beyond(integers: Value) -> Array:
    """What zero points lie beyond the dtype, in which ONNX has them."""
    points, dtype = _points(integers), integers.type.dtype
    return np.asarray(points - np.clip(points, dtype.min, dtype.max))


def _offset(w: Writer, integers: Value) -> str:
    """The reals that such zero points stand for, along the last axis; none where there are none."""
    beyond, quant = _beyond(integers), integers.type.quant
    if quant is None or not np.any(beyond):
        return ""
    if quant.axis not in (None, integers.type.rank - 1):
        raise GraphError(f"%{integers.name}: a zero point beyond {integers.type} has no ONNX form")
    return w.constant((-beyond * np.asarray(quant.scale)).astype(np.float32))


@exports(Quantize, layouts=EITHER)
def _quantize(w: Writer, v: Quantize) -> str:
    (parameters, axis), offset, x = _scale(w, v), _offset(w, v), w.read(v.x)
    x = w.emit("Sub", [x, offset]) if offset else x
    return w.emit("QuantizeLinear", [x, *parameters], name=v.name, axis=axis)


@exports(Dequantize, layouts=EITHER)
def _dequantize(w: Writer, v: Dequantize) -> str:
    (parameters, axis), offset, x = _scale(w, v.x), _offset(w, v.x), w.read(v.x)
    lacks = v.x.type.quant is not None and v.x.type.quant.missing is not None
    x = w.emit("DequantizeLinear", [x, *parameters], name="" if offset or lacks else v.name,
               axis=axis)  # fmt: skip
    x = w.emit("Add", [x, offset], name="" if lacks else v.name) if offset else x
    return _missing_as_it_was(w, v, x) if lacks else x


def _missing_as_it_was(w: Writer, v: Dequantize, x: str) -> str:
    """What is missing goes past the integers, of which ONNX has none for it."""
    if not isinstance(v.x, Quantize):
        raise GraphError(f"%{v.x.name}: integers that stand for what is missing have no ONNX form")
    real = w.read(v.x.x)
    return w.emit("Where", [w.emit("IsNaN", [real]), real, x], name=v.name)


# ---------------------------------------------------------------- matrix products


@exports(MatMul)
def _matmul(w: Writer, v: MatMul) -> str:
    return w.emit("MatMul", [w.read(v.a), w.read(v.b)], name=v.name)


@exports(Linear)
def _linear(w: Writer, v: Linear) -> str:
    bias = [] if v.b is None else [w.read(v.b)]
    if v.x.type.rank == 2:
        return w.emit("Gemm", [w.read(v.x), w.read(v.w), *bias], name=v.name, transB=1)
    columns = w.emit("Transpose", [w.read(v.w)], perm=[1, 0])
    product = w.emit("MatMul", [w.read(v.x), columns], name="" if bias else v.name)
    return w.emit("Add", [product, *bias], name=v.name) if bias else product


# ---------------------------------------------------------------- rows


@exports(Softmax, layouts=EITHER)
def _softmax(w: Writer, v: Softmax) -> str:
    return w.emit("Softmax", [w.read(v.x)], name=v.name, axis=w.axis(v.axis))


@exports(BatchNorm)
def _batch_norm(w: Writer, v: BatchNorm) -> str:
    """ONNX normalizes axis 1: any other is moved there and back."""
    rank = v.type.rank
    perm = [0, v.axis, *(a for a in range(1, rank) if a != v.axis)] if v.axis else list(range(rank))
    if not v.axis:
        raise GraphError(f"batch_norm %{v.name} along axis 0 has no ONNX form")
    x = w.emit("Transpose", [w.read(v.x)], perm=perm)
    vectors = [w.read(o) for o in (v.scale, v.bias, v.mean, v.var)]
    y = w.emit("BatchNormalization", [x, *vectors], epsilon=v.epsilon)
    return w.emit("Transpose", [y], name=v.name, perm=[int(i) for i in np.argsort(perm)])


def _vector(w: Writer, v: Value | None, fill: float, like: Value, size: int) -> str:
    """A norm's parameter, or its neutral element."""
    if v is not None:
        return w.read(v)
    return w.constant(np.full(size, fill, like.type.dtype.numpy))


@exports(LayerNorm)
def _layer_norm(w: Writer, v: LayerNorm) -> str:
    row = v.x.shape[v.axis :]
    scale = w.read(v.scale) if v.scale is not None else w.constant(np.ones(row, v.type.dtype.numpy))
    bias = [] if v.bias is None else [w.read(v.bias)]
    x = w.read(v.x)
    return w.emit(
        "LayerNormalization", [x, scale, *bias], name=v.name, axis=v.axis, epsilon=v.epsilon
    )


@exports(RMSNorm)
def _rms_norm(w: Writer, v: RMSNorm) -> str:
    """ONNX has it from opset 23 on only; taken apart as exporters do."""
    x, real = w.read(v.x), v.type.dtype.numpy
    square = w.emit("Mul", [x, x])
    axes = w.integers(list(range(v.axis, v.type.rank)))
    mean = w.emit("ReduceMean", [square, axes], keepdims=1)
    root = w.emit("Sqrt", [w.emit("Add", [mean, w.constant(np.array(v.epsilon, real))])])
    made = w.emit("Div", [x, root])
    return made if v.scale is None else w.emit("Mul", [made, w.read(v.scale)], name=v.name)


@exports(InstanceNorm, GroupNorm)
def _group_norm(w: Writer, v: InstanceNorm | GroupNorm) -> str:
    rank, channels = v.type.rank, v.x.shape[-1]
    scale = _vector(w, v.scale, 1.0, v, channels)
    bias = _vector(w, v.bias, 0.0, v, channels)
    x = w.emit("Transpose", [w.read(v.x)], perm=[0, rank - 1, *range(1, rank - 1)])
    if isinstance(v, InstanceNorm):
        y = w.emit("InstanceNormalization", [x, scale, bias], epsilon=v.epsilon)
    else:
        y = w.emit("GroupNormalization", [x, scale, bias], num_groups=v.groups, epsilon=v.epsilon)
    return w.emit("Transpose", [y], name=v.name, perm=[0, *range(2, rank), 1])


REDUCTIONS: dict[type[Value], str] = {
    reduce.ReduceSum: "ReduceSum", reduce.ReduceMean: "ReduceMean",
    reduce.ReduceMax: "ReduceMax", reduce.ReduceMin: "ReduceMin",
}  # fmt: skip


@exports(*REDUCTIONS, layouts=EITHER)
def _reduction(w: Writer, v: Any) -> str:
    if v.axes == (1, 2) and not v.keepdims and w.has(v.x, Layout.PLANAR):
        x, axes = w.read(v.x, Layout.PLANAR), [2, 3]  # [N, C] either way
    else:
        x, axes = w.read(v.x), sorted(w.axis(a) for a in v.axes)
    return w.emit(
        REDUCTIONS[type(v)], [x, w.integers(axes)], name=v.name,
        keepdims=int(v.keepdims), noop_with_empty_axes=1,
    )  # fmt: skip


@exports(ranking.ArgMax, ranking.ArgMin)
def _position(w: Writer, v: ranking.Position) -> str:
    op = "ArgMax" if isinstance(v, ranking.ArgMax) else "ArgMin"
    return w.emit(
        op, [w.read(v.x)], name=v.name, axis=v.axis, keepdims=int(v.keepdims),
        select_last_index=int(v.select_last),
    )  # fmt: skip
