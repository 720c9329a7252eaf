"""Operators over integers that come with their scales: QLinearConv, QLinearMatMul, and those of
onnxruntime. Each is said in QDQ form: its float operator between dequantize and quantize."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import is_weight
from irc.frontends.onnx.ops.conv import conv_of, spatial_sizes
from irc.frontends.onnx.ops.linear import gemm_of
from irc.frontends.onnx.ops.pool import average_of
from irc.frontends.onnx.ops.quantization import STATED, Triple, integers, reals, stated
from irc.frontends.onnx.ops.table import Handler, Node, Results, handles
from irc.ops import activation as act
from irc.ops import elementwise as ew
from irc.ops.core import Const
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.reduce import ReduceMean
from irc.ops.selection import Where
from irc.ops.shape import Concat
from irc.types import DType, Quant
from irc.value import Value

X: Triple = (0, 1, 2)
B: Triple = (3, 4, 5)


def states(*triples: Triple, ops: tuple[str, ...]) -> Callable[[Handler], Handler]:
    """Register a handler, and which inputs come with their quantization."""

    def register(handler: Handler) -> Handler:
        STATED.update(dict.fromkeys(ops, triples))
        return handles(*ops)(handler)

    return register


def _microsoft(*names: str) -> tuple[str, ...]:
    return tuple(f"com.microsoft.{name}" for name in names)


# ---------------------------------------------------------------- multiply and accumulate


@states(X, B, ops=("QLinearConv", *_microsoft("QLinearConv")))
def qlinear_conv(node: Node) -> Results:
    """Weights per tensor or along their output channels; a bias in units of the accumulator."""
    _channels_first(node)
    x, w = reals(node, X), reals(node, B, axis=0)
    bias = _bias(node, 8, x, w, channels=node.x(3).shape[0])
    return integers(node, conv_of(node, x, w, bias), 6, 7)


def _channels_first(node: Node) -> None:
    found = node.attribute("channels_last")
    if found is not None and found.i:
        node.fail("channels_last = 1 is not supported; save the model before such optimization")


def _bias(
    node: Node, i: int, x: Value, w: Value, channels: int, factor: float = 1.0
) -> Value | None:
    """The i32 bias as reals: its scale is x's times w's (times `factor`), channel by channel."""
    if not node.has(i):
        return None
    array = node.constant(i, "bias")
    if array.dtype != np.int32 or array.size not in (1, channels):
        node.fail(f"its bias must be i32[{channels}], it is {node.x(i).type}")
    if not isinstance(x, Dequantize) or not isinstance(w, Dequantize):
        node.fail("its bias needs weights that are known")
    scales = np.broadcast_to(np.asarray(_scales(w)) * _scales(x)[0] * factor, (channels,))
    quant = Quant(tuple(float(s) for s in scales), 0, 0)
    units = np.broadcast_to(array.reshape(-1), (channels,))
    return node.builder.add(Dequantize(Const(units, quant, name=node.x(i).name)))


def _scales(v: Dequantize) -> tuple[float, ...]:
    quant = v.x.type.quant
    return (1.0,) if quant is None else quant.scales


@states(X, B, ops=("QLinearMatMul",))
def qlinear_matmul(node: Node) -> Results:
    """Of two activations, or weights per tensor or along their columns."""
    a, b = reals(node, X), reals(node, B, axis=-1)
    return integers(node, forms.matmul(node.builder, a, b, is_weight(b)), 6, 7)


@states(X, B, ops=_microsoft("QGemm"))
def qgemm(node: Node) -> Results:
    """A linear layer; reals where the result's scale is left out."""
    a = reals(node, X)
    b = reals(node, B, axis=0 if node.integer("transB") else 1)
    channels = b.shape[0 if node.integer("transB") else 1]
    alpha = node.real("alpha")
    bias = _bias(node, 6, a, b, channels)
    if alpha != 1.0 and isinstance(b, Dequantize) and isinstance(b.x, Const):
        node.fail(f"alpha = {alpha} is not supported")
    y = gemm_of(node, a, b, bias, 1.0)
    return integers(node, y, 7, 8) if node.has(7) else y


@states((0, None, 2), (1, None, 3), ops=("ConvInteger", "MatMulInteger"))
def integer_product(node: Node) -> Results:
    """The accumulator itself: i32 in units of the operands' scales, which are 1 if they have none.

    What onnxruntime's dynamic quantization makes of layers is recognised before (see
    `irc.frontends.onnx.dynamic`) and never comes here.
    """
    x, w = _units(node, 0, 2), _units(node, 1, 3)
    scale = _scales(x)[0] * _scales(w)[0]
    if node.op == "ConvInteger":
        y = conv_of(node, x, w, None)
    else:
        y = forms.matmul(node.builder, x, w, is_weight(w))
    return node.builder.add(Quantize(y, DType.I32, Quant(scale)))


def _units(node: Node, i: int, zero: int) -> Dequantize:
    """An operand as reals, in units of the scale that it carries."""
    x, quant = node.x(i), node.x(i).type.quant
    if isinstance(x, Const) or quant is None:
        made = reals(node, (i, None, zero), axis=0 if node.op == "ConvInteger" else -1)
        assert isinstance(made, Dequantize)
        return made
    point = stated(node, (i, None, zero), x.shape)
    if quant.axis is not None or quant.zero != point.zero_point:
        node.fail(f"{x.name!r} is {x.type}, here it is read with zero point {point.zero_point}")
    return Dequantize(x, name=node.builder.name)


@handles("DynamicQuantizeLinear")
def dynamic_quantize(node: Node) -> Results:
    """Refused: its scale is known at run time only."""
    node.fail(
        "its scale is computed from each input; it is understood where a layer follows and its"
        " result is scaled back (as onnxruntime's quantize_dynamic writes it), not by itself"
    )


# ---------------------------------------------------------------- element by element

BINARY: dict[str, Callable[[Value, Value], Value]] = {"QLinearAdd": ew.Add, "QLinearMul": ew.Mul}


@states(X, B, ops=_microsoft(*BINARY))
def qlinear_binary(node: Node) -> Results:
    """Two tensors with broadcasting."""
    y = node.builder.add(BINARY[node.op](reals(node, X), reals(node, B)))
    return integers(node, y, 6, 7, node.x(0).type.dtype)


@states(X, ops=_microsoft("QLinearSigmoid", "QLinearLeakyRelu"))
def qlinear_unary(node: Node) -> Results:
    """Functions of one element."""
    x = reals(node, X)
    sigmoid = node.op == "QLinearSigmoid"
    y = act.Sigmoid(x) if sigmoid else act.LeakyRelu(x, node.real("alpha"))
    return integers(node, node.builder.add(y), 3, 4, node.x(0).type.dtype)


@states((1, 2, 3), (4, 5, 6), ops=_microsoft("QLinearWhere"))
def qlinear_where(node: Node) -> Results:
    """A choice, element by element."""
    a, b = reals(node, (1, 2, 3)), reals(node, (4, 5, 6))
    return integers(node, node.builder.add(Where(node.x(0), a, b)), 7, 8)


# ---------------------------------------------------------------- others


@states(*((2 + 3 * i, 3 + 3 * i, 4 + 3 * i) for i in range(64)), ops=_microsoft("QLinearConcat"))
def qlinear_concat(node: Node) -> Results:
    """Inputs of different scales, one after another."""
    count = (len(node.inputs) - 2) // 3
    parts = tuple(reals(node, (2 + 3 * i, 3 + 3 * i, 4 + 3 * i)) for i in range(count))
    if not parts or len(node.inputs) != 2 + 3 * count:
        node.fail(f"{len(node.inputs)} inputs: a tensor, a scale and a zero point for each part")
    axis = node.axis(node.integer("axis"), parts[0].type.rank)
    y = parts[0] if count == 1 else node.builder.add(Concat(parts, axis))
    return integers(node, y, 0, 1)


@states(X, ops=_microsoft("QLinearSoftmax"))
def qlinear_softmax(node: Node) -> Results:
    """Before opset 13 over all axes from `axis` on, since then along `axis`."""
    x = reals(node, X)
    axis = node.axis(node.integer("axis"), x.type.rank)
    y = forms.softmax(node.builder, x, axis, flatten=node.integer("opset") < 13)
    return integers(node, y, 3, 4, node.x(0).type.dtype)


@states(X, ops=_microsoft("QLinearAveragePool", "QLinearGlobalAveragePool"))
def qlinear_pool(node: Node) -> Results:
    """Over windows, or over all spatial axes."""
    _channels_first(node)
    x = reals(node, X)
    if node.op == "QLinearAveragePool":
        y = average_of(node, x)
    else:
        spatial_sizes(node)
        y = forms.global_pool(node.builder, x, ReduceMean)
    return integers(node, y, 3, 4, node.x(0).type.dtype)


@states(X, ops=_microsoft("QLinearReduceMean"))
def qlinear_mean(node: Node) -> Results:
    """Over axes, all if left out."""
    x, named = reals(node, X), node.integers("axes")
    axes = node.axes(range(x.type.rank) if named is None else named, x.type.rank)
    y = ReduceMean(x, tuple(sorted(axes)), bool(node.integer("keepdims")))
    return integers(node, node.builder.add(y), 3, 4, node.x(0).type.dtype)


# ---------------------------------------------------------------- integers beside reals


@handles(*_microsoft("DynamicQuantizeMatMul"))
def dynamic_matmul(node: Node) -> Results:
    """Quantized weights, reals that are quantized by their own range: that is left out."""
    w = reals(node, (1, 2, 3), axis=-1)
    return _with_bias(node, forms.matmul(node.builder, node.x(), w, is_weight(w)), 4)


@handles(*_microsoft("MatMulIntegerToFloat"))
def matmul_to_float(node: Node) -> Results:
    """Integers in, reals out."""
    a, b = reals(node, (0, 2, 4)), reals(node, (1, 3, 5), axis=-1)
    return _with_bias(node, forms.matmul(node.builder, a, b, is_weight(b)), 6)


STATED[_microsoft("MatMulIntegerToFloat")[0]] = ((0, 2, 4), (1, 3, 5))


def _with_bias(node: Node, y: Value, i: int) -> Value:
    return node.builder.add(ew.Add(y, node.x(i))) if node.has(i) else y
