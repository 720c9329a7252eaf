"""Normalizations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irc.frontends.patches import first, last
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from irc.ops.reduce import ReduceMean
from irc.ops.unary import Reciprocal, Sqrt
from irc.value import Value

TRAINING = "it is in training mode; call .eval() on the module first"


@handles("aten.batch_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm")
def batch_norm(node: Node) -> Results:
    """By running statistics, over the second axis; further results are for training alone."""
    node.ignore("momentum", "cudnn_enabled")
    if "training" in node.arguments and node.flag("training"):
        node.fail(TRAINING)
    y = _by_statistics(node)
    return (y, *(None,) * (node.count - 1)) if node.count > 1 else y


@handles("aten._native_batch_norm_legit")
def batch_norm_by_batch(node: Node) -> Results:
    """Refused: the statistics are those of the batch."""
    node.fail(TRAINING)


def _epsilon(node: Node) -> float:
    """Epsilon in float32, as ONNX stores it too: so both ways of a module give the same graph."""
    least = np.finfo(np.float32).eps  # what rms_norm means by None
    return float(np.float32(node.number("eps", float(least))))


def _by_statistics(node: Node) -> Value:
    x = node.x("input")
    channels = x.shape[1]

    def vector(name: str, absent: float) -> Value:
        given = node.optional(name)
        if given is not None:
            return given
        filled = np.full(channels, absent, x.type.dtype.numpy)
        return node.builder.const(filled, name=f"{node.builder.name}.{name}")

    scale, bias = vector("weight", 1.0), vector("bias", 0.0)
    if not node.has("running_mean") or not node.has("running_var"):
        node.fail("it has no running statistics (track_running_stats=False)")
    mean, var = node.x("running_mean"), node.x("running_var")
    return node.builder.add(BatchNorm(x, scale, bias, mean, var, _epsilon(node), 1))


@handles("aten.native_layer_norm", "aten.native_group_norm")
def native_norm(node: Node) -> Results:
    """What layer and group norms become where something decomposed them."""
    if node.op == "aten.native_layer_norm":
        return _normalized(node), *_statistics(node)
    node.ignore("N", "C", "HxW")  # x has them
    return _grouped(node, node.integer("group")), None, None


def _statistics(node: Node) -> tuple[Value, Value]:
    """Of a layer norm, which its gradient takes: the means, and one over the deviations."""
    build, x = node.builder, node.x("input")
    axes = tuple(range(x.type.rank))[-len(node.integers("normalized_shape")) :]
    mean = build.add(ReduceMean(x, axes, True))
    apart = build.add(Sub(x, mean))
    variance = build.add(ReduceMean(build.add(Mul(apart, apart)), axes, True))
    epsilon = build.const(np.asarray(_epsilon(node), np.float32), name=f"{build.name}.epsilon")
    return mean, build.add(Reciprocal(build.add(Sqrt(build.add(Add(variance, epsilon))))))


@handles("aten.layer_norm", "aten.rms_norm")
def layer_norm(node: Node) -> Results:
    """Over the last axes."""
    node.ignore("cudnn_enable")
    return _normalized(node)


def _normalized(node: Node) -> Value:
    x = node.x("input")
    axis = x.type.rank - len(node.integers("normalized_shape"))
    scale, epsilon = node.optional("weight"), _epsilon(node)
    if node.op == "aten.rms_norm":
        return node.builder.add(RMSNorm(x, scale, axis, epsilon))
    return node.builder.add(LayerNorm(x, scale, node.optional("bias"), axis, epsilon))


@handles("aten.group_norm")
def group_norm(node: Node) -> Results:
    """Over groups of channels of each image."""
    node.ignore("cudnn_enabled")
    return _grouped(node, node.integer("num_groups"))


def _grouped(node: Node, groups: int) -> Value:
    scale, bias, epsilon = node.optional("weight"), node.optional("bias"), _epsilon(node)
    return _on_last(node, lambda x: GroupNorm(x, scale, bias, groups, epsilon))


@handles("aten.instance_norm")
def instance_norm(node: Node) -> Results:
    """Over each channel of each image, or by running statistics where it tracks them."""
    node.ignore("momentum", "cudnn_enabled", "running_mean", "running_var")
    if not node.flag("use_input_stats"):
        return _by_statistics(node)
    scale, bias, epsilon = node.optional("weight"), node.optional("bias"), _epsilon(node)
    return _on_last(node, lambda x: InstanceNorm(x, scale, bias, epsilon))


def _on_last(node: Node, op: Callable[[Value], Value]) -> Value:
    """An op of [N, ..., C] applied to [N, C, ...]."""
    build = node.builder
    return first(build, build.add(op(last(build, node.x("input")))))


@handles("aten.dropout", "aten.native_dropout", "aten.feature_dropout", "aten.alpha_dropout")
def dropout(node: Node) -> Results:
    """Nothing at inference; refuses the training mode."""
    node.ignore("p")
    if node.any("train"):
        node.fail(f"{TRAINING}, and give F.dropout training=self.training")
    return node.x("input")
