"""Batch normalization, softmax, and what exporters leave in of training."""

from __future__ import annotations

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.core import Const
from irc.ops.normalization import BatchNorm


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


@handles("Identity")
def identity(node: Node) -> Results:
    """Nothing."""
    return node.entry(0)


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
