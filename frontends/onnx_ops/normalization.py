"""Batch normalization, softmax, and what exporters leave in of training."""

from __future__ import annotations

import numpy as np

from irc.ops.activation import Abs, Sqrt
from irc.ops.core import Const
from irc.ops.elementwise import Div, Maximum, Mul, Pow
from irc.ops.linear import Linear
from irc.ops.normalization import BatchNorm
from irc.ops.reduce import ReduceSum

from .. import normal_forms as forms
from .table import Node, Results, handles


@handles("BatchNormalization")
def batch_norm(node: Node) -> Results:
    """Inference form: the statistics are inputs."""
    node.ignore("momentum", "spatial")
    for name, wanted in (("training_mode", 0), ("spatial", 1), ("is_test", 1)):
        found = node.attribute(name)
        if found is not None and found.i != wanted:
            node.fail(f"{name} = {found.i} is not supported")
    x = node.x()
    if x.type.rank < 2:
        node.fail(f"its input {x.type} has no channel axis")
    scale, bias, mean, var = (node.x(i) for i in range(1, 5))
    return node.builder.add(BatchNorm(x, scale, bias, mean, var, node.real("epsilon"), 1))


@handles("Softmax", "LogSoftmax")
def softmax(node: Node) -> Results:
    """Before opset 13 over all axes from `axis` on, since then along `axis`."""
    x = node.x()
    axis = node.axis(node.integer("axis"), x.type.rank)
    form = forms.softmax if node.op == "Softmax" else forms.log_softmax
    return form(node.builder, x, axis, flatten=node.opset < 13)


@handles("LpNormalization")
def lp_normalization(node: Node) -> Results:
    """Divided by the sum of magnitudes (p = 1) or the root of the sum of squares (p = 2)."""
    x, build, p = node.x(), node.builder, node.integer("p")
    axis = node.axis(node.integer("axis"), x.type.rank)
    if p not in (1, 2):
        node.fail(f"p = {p} is not supported, only 1 and 2")
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


@handles("Identity")
def identity(node: Node) -> Results:
    """Nothing."""
    return node.x()


@handles("Dropout")
def dropout(node: Node) -> Results:
    """Nothing at inference, and a mask that keeps all; refuses the training mode."""
    node.ignore("ratio", "seed")
    mode, test = node.optional(2), node.attribute("is_test")
    trains = mode is not None and (not isinstance(mode, Const) or mode.array.any())
    if trains or (test is not None and not test.i):
        node.fail("training_mode is not supported; export the model for inference")
    x = node.x()
    if len(node.proto.output) == 1:
        return x
    dtype = x.type.dtype.numpy if node.opset < 10 else np.dtype(np.bool_)
    return x, node.builder.const(np.ones(x.shape, dtype))
