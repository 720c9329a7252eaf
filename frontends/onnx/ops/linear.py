"""Gemm and MatMul."""

from __future__ import annotations

from irc.frontends import normal_forms as forms
from irc.frontends.builder import is_weight
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.linear import Linear
from irc.value import Value


@handles("MatMul")
def matmul(node: Node) -> Results:
    """NumPy's matmul."""
    a, b = node.x(0), node.x(1)
    if 0 in (a.type.rank, b.type.rank):
        node.fail(f"{a.type} times {b.type}: scalars are not allowed")
    return forms.matmul(node.builder, a, b, is_weight(b))


@handles("Gemm")
def gemm(node: Node) -> Results:
    """`alpha * op(A) @ op(B) + beta * C`; one linear layer where B and C are known."""
    node.ignore("broadcast")  # of C, before opset 7: it always may
    return gemm_of(node, node.x(0), node.x(1), node.optional(2), node.real("beta"))


def gemm_of(node: Node, a: Value, b: Value, c: Value | None, beta: float) -> Value:
    """The general product of any operands of the node, with its attributes."""
    build, alpha = node.builder, node.real("alpha")
    if (a.type.rank, b.type.rank) != (2, 2):
        node.fail(f"{a.type} times {b.type}: matrices are needed")
    if node.integer("transA"):
        a = build.transpose(a, (1, 0))
    weights = b if node.integer("transB") else build.transpose(b, (1, 0))
    if isinstance(weights, Const):
        weights, alpha = forms.scaled(build, weights, alpha), 1.0
    if c is not None and isinstance(c, Const):
        c, beta = forms.scaled(build, c, beta), 1.0
    bias = _vector(node, c, weights.shape[0]) if alpha == beta == 1.0 else None
    y: Value
    if is_weight(weights):
        y = build.add(Linear(a, weights, bias))
    else:
        y, bias = forms.matmul(build, a, build.transpose(weights, (1, 0)), False), None
    y = forms.scaled(build, y, alpha)
    if c is None or bias is not None or beta == 0:
        return y
    return build.add(Add(y, forms.scaled(build, c, beta)))


def _vector(node: Node, c: Value | None, channels: int) -> Value | None:
    """C as a bias `[channels]`, None where it is none."""
    if c is None or not is_weight(c) or c.type.size not in (1, channels):
        return None
    if c.type.rank > 1 and c.type.size != c.shape[-1]:
        return None
    if c.type.size == channels:
        return node.builder.reshape(c, (channels,))
    if isinstance(c, Const):
        return node.builder.const(c.array.reshape(-1).repeat(channels), name=c.name)
    return None
