"""The node of a kernel that does the work: one multiply-accumulate op, its tail elementwise."""

from __future__ import annotations

from dataclasses import dataclass

from irc.backends.llvm.work import Work
from irc.loops import Expr, Reduce, children
from irc.ops.conv import QConv2d
from irc.ops.linear import QLinear
from irc.types import Array, DType, Shape


@dataclass(frozen=True)
class Anchor:
    """A convolution or linear layer over u8 with constant weights."""

    node: QConv2d | QLinear
    weights: Array
    strides: Shape
    """Of its activations, in elements, which are bytes."""
    reduce: Reduce
    """What a micro-kernel computes in place of the expression."""


def find_anchor(work: Work) -> Anchor | None:
    """The anchor of a work; None where there is none, or more than its tail around it."""
    nodes = [v for v in work.body.order if isinstance(v, QConv2d | QLinear)]
    reduces = _reductions(work.loops.result.value)
    if len(nodes) != 1 or len(reduces) != 1 or len(work.loops.nests) != 1:
        return None
    node, inputs = nodes[0], work.body.inputs
    weights = work.constant(node.w)
    known = weights is not None and node.w in inputs and node.x in inputs
    if not known or node.x.type.dtype is not DType.U8 or work.kernel.shape != node.shape:
        return None
    strides = work.strides[[i is node.x for i in inputs].index(True)]
    if strides[-1] != 1 or work.result_strides[-1] != 1 or 0 in work.kernel.shape:
        return None
    assert weights is not None, "checked above"
    return Anchor(node, weights, strides, reduces[0])


def _reductions(e: Expr) -> list[Reduce]:
    """The outermost reductions of an expression, each once."""
    found: dict[Reduce, None] = {}
    seen: set[Expr] = set()
    stack = [e]
    while stack:
        x = stack.pop()
        if isinstance(x, Reduce):
            found[x] = None
        elif x not in seen:
            seen.add(x)
            stack.extend(children(x))
    return list(found)
