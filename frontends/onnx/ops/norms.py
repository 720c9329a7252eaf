"""Normalizations by statistics of the tensor itself."""

from __future__ import annotations

import numpy as np

from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Maximum, Mul, Pow, Sub
from irc.ops.linear import Linear
from irc.ops.normalization import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from irc.ops.reduce import ReduceMean, ReduceSum
from irc.ops.shape import Expand
from irc.ops.unary import Abs, Reciprocal, Sqrt
from irc.types import Shape, broadcast_shapes
from irc.value import Value

MICROSOFT = "com.microsoft."


def _parameter(node: Node, i: int, shape: Shape) -> Value | None:
    """A scale or bias as it broadcasts to a row."""
    v = node.optional(i)
    if v is None or v.shape == shape:
        return v
    if broadcast_shapes(v.shape, shape) != shape:
        node.fail(f"input {i} is {v.type}, it must broadcast to {list(shape)}")
    if isinstance(v, Const):
        return node.builder.const(np.broadcast_to(v.array, shape), name=v.name)
    return node.builder.add(Expand(v, shape))


@handles("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(node: Node) -> Results:
    """Over the last axes, from `axis` on."""
    node.ignore("stash_type")
    x, epsilon = node.x(), node.real("epsilon")
    axis = node.axis(node.integer("axis"), x.type.rank)
    scale = _parameter(node, 1, x.shape[axis:])
    if node.op != "LayerNormalization":
        return node.builder.add(RMSNorm(x, scale, axis, epsilon))
    bias = _parameter(node, 2, x.shape[axis:])
    y = node.builder.add(LayerNorm(x, scale, bias, axis, epsilon))
    return (y, *_statistics(node, x, axis, epsilon)) if len(node.proto.output) > 1 else y


def _statistics(node: Node, x: Value, axis: int, epsilon: float) -> tuple[Value, Value]:
    """Mean and inverse deviation of each row, as a second and third output."""
    build, axes = node.builder, tuple(range(axis, x.type.rank))
    mean = build.add(ReduceMean(x, axes, True))
    centred = build.add(Sub(x, mean))
    variance = build.add(ReduceMean(build.add(Mul(centred, centred)), axes, True))
    added = build.add(Add(variance, build.const(np.asarray(epsilon, x.type.dtype.numpy))))
    return mean, build.add(Reciprocal(build.add(Sqrt(added))))


@handles(MICROSOFT + "SkipLayerNormalization", MICROSOFT + "SkipSimplifiedLayerNormalization")
def skip_layer_norm(node: Node) -> Results:
    """Of a sum of two or three tensors; the sum is the fourth output."""
    build, simple = node.builder, node.op != "SkipLayerNormalization"
    total = build.add(Add(node.x(0), node.x(1)))
    last = 3 if simple else 4
    if node.has(last):
        total = build.add(Add(total, node.x(last)))
    axis, epsilon = total.type.rank - 1, node.real("epsilon")
    row = total.shape[axis:]
    scale = _parameter(node, 2, row)
    if simple:
        y: Value = RMSNorm(total, scale, axis, epsilon)
    else:
        y = LayerNorm(total, scale, _parameter(node, 3, row), axis, epsilon)
    y = build.add(y)
    if len(node.proto.output) < 4:
        return y
    if any(list(node.proto.output)[1:3]):
        node.fail("its outputs mean and inv_std_var are not supported")
    return y, y, y, total


def _last(node: Node, x: Value) -> Value:
    """Channels last, whatever the number of spatial axes."""
    if x.type.rank < 2:
        node.fail(f"{x.type} has no channel axis")
    return node.builder.transpose(x, (0, *range(2, x.type.rank), 1))


def _first(node: Node, y: Value) -> Value:
    rank = y.type.rank
    return node.builder.transpose(y, (0, rank - 1, *range(1, rank - 1)))


@handles("InstanceNormalization")
def instance_norm(node: Node) -> Results:
    """Each channel of each image by itself."""
    x = _last(node, node.x())
    row = x.shape[-1:]
    scale, bias = _parameter(node, 1, row), _parameter(node, 2, row)
    return _first(node, node.builder.add(InstanceNorm(x, scale, bias, node.real("epsilon"))))


@handles("GroupNormalization")
def group_norm(node: Node) -> Results:
    """Groups of channels; before opset 21 a scale and bias for each group."""
    node.ignore("stash_type")
    x, groups = _last(node, node.x()), node.integer("num_groups")
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        node.fail(f"num_groups = {groups} does not divide {channels} channels")
    scale, bias = (_by_channel(node, i, groups, channels) for i in (1, 2))
    y = GroupNorm(x, scale, bias, groups, node.real("epsilon"))
    return _first(node, node.builder.add(y))


def _by_channel(node: Node, i: int, groups: int, channels: int) -> Value | None:
    """A parameter for each channel, where the model has one for each group."""
    if node.opset >= 21 or node.x(i).shape != (groups,):
        return _parameter(node, i, (channels,))
    each = node.builder.reshape(node.x(i), (groups, 1))
    wide = node.builder.add(Expand(each, (groups, channels // groups)))
    return node.builder.reshape(wide, (channels,))


@handles("LpNormalization")
def lp_normalization(node: Node) -> Results:
    """Divided by the sum of magnitudes (p = 1) or the root of the sum of squares (p = 2)."""
    x, p = node.x(), node.integer("p")
    axis = node.axis(node.integer("axis"), x.type.rank)
    if p not in (1, 2):
        node.fail(f"p = {p} is not supported, only 1 and 2")
    return normalized(node, x, axis, p)


def normalized(node: Node, x: Value, axis: int, p: int) -> Value:
    """x divided by its norm along an axis: the sum of magnitudes, or the root of that of squares.
    """
    build = node.builder
    total = build.add(ReduceSum(build.add(Abs(x) if p == 1 else Mul(x, x)), (axis,), True))
    norm = total if p == 1 else build.add(Sqrt(total))
    # What is 0 everywhere stays so.
    least = build.const(np.asarray(np.finfo(np.float32).tiny, x.type.dtype.numpy))
    return build.add(Div(x, build.add(Maximum(norm, least))))


@handles("LRN")
def local_response(node: Node) -> Results:
    """`x / (bias + alpha / size * sum of squares over nearby channels) ^ beta`."""
    x, build, size = node.x(), node.builder, node.integer("size")
    if x.type.rank < 2 or size < 1:
        node.fail(f"size = {size} of {x.type} is not supported")
    channels = x.shape[1]
    # A banded matrix sums the channels from c - (size - 1) / 2 to c + size / 2.
    distance = np.arange(channels) - np.arange(channels)[:, np.newaxis]
    band = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    weights = band.astype(x.type.dtype.numpy) * (node.real("alpha") / size)
    last = (0, *range(2, x.type.rank), 1)
    squares = build.transpose(build.add(Mul(x, x)), last)
    w = build.const(weights.astype(x.type.dtype.numpy), name=f"{build.name}.band")
    b = build.const(np.full(channels, node.real("bias"), x.type.dtype.numpy))
    total = build.add(Linear(squares, w, b))
    back = (0, x.type.rank - 1, *range(1, x.type.rank - 1))
    beta = build.const(np.asarray(-node.real("beta"), x.type.dtype.numpy))
    return build.add(Mul(x, build.transpose(build.add(Pow(total, beta)), back)))
