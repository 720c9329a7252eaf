"""What onnxruntime's optimizer fuses in float models (domain com.microsoft), taken apart again."""

from __future__ import annotations

from collections.abc import Sequence

from irc.frontends import normal_forms as forms
from irc.frontends.builder import is_weight
from irc.frontends.onnx.ops.conv import conv_of
from irc.frontends.onnx.ops.linear import gemm_of
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops import activation as act
from irc.ops import elementwise as ew
from irc.value import Value


def _name(op: str) -> str:
    return f"com.microsoft.{op}"


@handles(_name("FusedConv"))
def fused_conv(node: Node) -> Results:
    """A convolution, a sum, an activation."""
    y = conv_of(node, node.x(0), node.x(1), node.optional(2))
    if node.has(3):
        y = node.builder.add(ew.Add(y, node.x(3)))
    return _activated(node, y, node.reals("activation_params") or ())


@handles(_name("FusedGemm"))
def fused_gemm(node: Node) -> Results:
    """A linear layer and an activation."""
    y = gemm_of(node, node.x(0), node.x(1), node.optional(2), node.real("beta"))
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return _activated(node, y, [node.real(name) for name in names])


def _activated(node: Node, y: Value, parameters: Sequence[float]) -> Value:
    """The activation that the attributes name; parameters in the order of its own attributes."""
    found = node.attribute("activation")
    name = "" if found is None else found.s.decode("utf-8", "replace")
    p = [*parameters, 0.0, 0.0]
    match name:
        case "":
            return y
        case "Relu":
            made: Value = act.Relu(y)
        case "Tanh":
            made = act.Tanh(y)
        case "Sigmoid":
            made = act.Sigmoid(y)
        case "LeakyRelu":
            made = act.LeakyRelu(y, p[0])
        case "Clip":
            made = act.Clip(y, p[0], p[1])
        case "HardSigmoid":
            made = act.HardSigmoid(y, p[0], p[1])
        case _:
            node.fail(f"activation = {name!r} is not supported")
    return node.builder.add(made)


@handles(_name("FusedMatMul"))
def fused_matmul(node: Node) -> Results:
    """`alpha * op(A) @ op(B)`, op a transposition of the last two axes, of the first axis behind
    the other batches, or both."""
    a, b = (
        _transposed(node, i, f"trans{name}", bool(node.integer(f"transBatch{name}")))
        for i, name in enumerate("AB")
    )
    product = forms.matmul(node.builder, a, b, is_weight(b))
    return forms.scaled(node.builder, product, node.real("alpha"))


def _transposed(node: Node, i: int, name: str, first_is_row: bool = False) -> Value:
    """Input `i` as it is multiplied; its rows are the first axis where that goes behind the
    batches."""
    x, swapped = node.x(i), bool(node.integer(name))
    rank = x.type.rank
    if not swapped and not first_is_row:
        return x
    if rank < 2 + first_is_row:
        node.fail(f"{x.type} can't be transposed")
    batches = range(1, rank - 1) if first_is_row else range(rank - 2)
    row = 0 if first_is_row else rank - 2
    last = (rank - 1, row) if swapped else (row, rank - 1)
    return node.builder.transpose(x, (*batches, *last))


@handles(_name("Gelu"), _name("BiasGelu"), _name("FastGelu"))
def gelu(node: Node) -> Results:
    """Exact, or by tanh; of a sum where there is a second input."""
    x = node.x()
    if node.has(1):
        x = node.builder.add(ew.Add(x, node.x(1)))
    return node.builder.add(act.Gelu(x, "tanh" if node.op == "FastGelu" else "none"))


@handles(_name("QuickGelu"))
def quick_gelu(node: Node) -> Results:
    """`x * sigmoid(alpha * x)`."""
    x, build = node.x(), node.builder
    gate = build.add(act.Sigmoid(forms.scaled(build, x, node.real("alpha"))))
    return build.add(ew.Mul(x, gate))
