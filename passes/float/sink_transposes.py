"""Rules that move a transpose from the operands of a node to its result.

`transpose(x, perm)` has x's axis `perm[i]` as its axis i, so what a node says of axis i of the
transposed tensor it says of axis `perm[i]` of x. Rules never raise the number of transposes
around a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from irc.ops.cast import Cast
from irc.ops.elementwise import Binary
from irc.ops.linear import Linear
from irc.ops.logic import Not, Relation
from irc.ops.normalization import BatchNorm, LayerNorm, RMSNorm
from irc.ops.prelu import PRelu
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.ranking import Position
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose, with_shape
from irc.ops.softmax import Softmax
from irc.ops.unary import Unary
from irc.passes.float.constants import reshaped, transposed, weights
from irc.passes.float.grouping import grouped
from irc.types import Quant, Shape
from irc.value import Value

T = TypeVar("T")
Perm = tuple[int, ...]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(int(i) for i in np.argsort(perm))


def is_free(shape: Shape, perm: Perm) -> bool:
    """Whether a transpose of `shape` keeps the order in memory: only axes of extent 1 move."""
    order = [p for p in perm if shape[p] != 1]
    return order == sorted(order)


def sink_pointwise(v: Value) -> Value | None:
    """Functions of one element.

        (%x: f32[1,2,3,4])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,4,2,3]
        %y = tanh(%t) : f32[1,4,2,3]
        ->
        %y = tanh(%x) : f32[1,2,3,4]
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : f32[1,4,2,3]

        (%x: f32[1,2,3,4])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,4,2,3]
        %y = quantize(%t) : u8[1,4,2,3] q(0.5, 3)
        ->
        %y = quantize(%x) : u8[1,2,3,4] q(0.5, 3)
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : u8[1,4,2,3] q(0.5, 3)
    """
    match v:
        case Quantize(x=Transpose(x=x, perm=perm), quant=Quant(axis=int(axis)) as quant):
            quant = Quant(quant.scale, quant.zero_point, perm[axis])
            return Transpose(v.replace(x=x, quant=quant), perm)
        case Unary() | Not() | Cast() | Quantize() | Dequantize():
            if isinstance(v.x, Transpose):
                return Transpose(v.replace(x=v.x.x), v.x.perm)
    return None


def sink_axes(v: Value) -> Value | None:
    """Ops that name axes, and keep them all.

        (%x: f32[1,2,2,3])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %y = softmax(%t) {axis = 1} : f32[1,3,2,2]
        ->
        %y = softmax(%x) {axis = 3} : f32[1,2,2,3]
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]

        (%x: f32[1,2,2,3])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %y = slice(%t)
            {starts = [0, 1, 0, 0], stops = [1, 3, 2, 2], steps = [1, 1, 1, 1]} : f32[1,2,2,2]
        ->
        %y = slice(%x)
            {starts = [0, 0, 0, 1], stops = [1, 2, 2, 3], steps = [1, 1, 1, 1]} : f32[1,2,2,2]
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : f32[1,2,2,2]
    """
    match v:
        case Softmax(x=Transpose(x=x, perm=perm)) | BatchNorm(x=Transpose(x=x, perm=perm)):
            return Transpose(v.replace(x=x, axis=perm[v.axis]), perm)
        case Pad(x=Transpose(x=x, perm=perm)):
            return Transpose(v.replace(x=x, pads=_by_axis(v.pads, perm)), perm)
        case Slice(x=Transpose(x=x, perm=perm)):
            starts, stops = _by_axis(v.starts, perm), _by_axis(v.stops, perm)
            steps = _by_axis(v.steps, perm)
            return Transpose(v.replace(x=x, starts=starts, stops=stops, steps=steps), perm)
    return None


def _by_axis(entries: tuple[T, ...], perm: Perm) -> tuple[T, ...]:
    return tuple(entries[i] for i in inverse(perm))


def sink_expand(v: Value) -> Value | None:
    """Broadcasting to a shape, new axes in front stay in front.

        (%x: f32[1,1,3])
        %t = transpose(%x) {perm = [2, 0, 1]} : f32[3,1,1]
        %y = expand(%t) : f32[2,3,4,5]
        ->
        %y = expand(%x) : f32[2,4,5,3]
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : f32[2,3,4,5]
    """
    match v:
        case Expand(x=Transpose(x=x, perm=perm), dims=dims):
            new = len(dims) - len(perm)
            full = (*range(new), *(new + p for p in perm))
            return Transpose(v.replace(x=x, dims=_by_axis(dims, full)), full)
    return None


def sink_reduction(v: Value) -> Value | None:
    """Reductions; axes that go away leave the permutation.

        (%x: f32[1,2,2,3])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %y = reduce_mean(%t) {axes = [2], keepdims = false} : f32[1,3,2]
        ->
        %y = reduce_mean(%x) {axes = [1], keepdims = false} : f32[1,2,3]
        %y#2 = transpose(%y) {perm = [0, 2, 1]} : f32[1,3,2]

        (%x: f32[1,2,2,3])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %y = argmax(%t) {axis = 1, keepdims = true, select_last = false} : i64[1,1,2,2]
        ->
        %y = argmax(%x) {axis = 3, keepdims = true, select_last = false} : i64[1,2,2,1]
        %y#2 = transpose(%y) {perm = [0, 3, 1, 2]} : i64[1,1,2,2]
    """
    match v:
        case ReduceMean() | ReduceSum() | ReduceMax() | ReduceMin():
            if not isinstance(v.x, Transpose):
                return None
            x, perm = v.x.x, v.x.perm
            made = v.replace(x=x, axes=tuple(sorted(perm[a] for a in v.axes)))
            kept = [p for a, p in enumerate(perm) if v.keepdims or a not in v.axes]
            return Transpose(made, tuple(sorted(kept).index(p) for p in kept))
        case Position(x=Transpose(x=x, perm=perm), axis=axis):
            kept = [p for a, p in enumerate(perm) if v.keepdims or a != axis]
            order = tuple(sorted(kept).index(p) for p in kept)
            return Transpose(v.replace(x=x, axis=perm[axis]), order)
    return None


def sink_gather(v: Value) -> Value | None:
    """Selections along an axis, by a list or by one index.

        (%x: f32[1,2,2,3])
        %i = const [1] : i64[]
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %y = gather(%t, %i) {axis = 2} : f32[1,3,2]
        ->
        %i = const [1] : i64[]
        %y = gather(%x, %i) {axis = 1} : f32[1,2,3]
        %y#2 = transpose(%y) {perm = [0, 2, 1]} : f32[1,3,2]
    """
    match v:
        case Gather(x=Transpose(x=x, perm=perm), indices=indices) if indices.type.rank <= 1:
            made = v.replace(x=x, axis=perm[v.axis])
            kept = [p for a, p in enumerate(perm) if indices.type.rank or a != v.axis]
            return Transpose(made, tuple(sorted(kept).index(p) for p in kept))
    return None


def sink_linear(v: Value) -> Value | None:
    """Linear maps of the axis that stays last.

        (%x: f32[2,3,1], %w: f32[2,1])
        %t = transpose(%x) {perm = [1, 0, 2]} : f32[3,2,1]
        %y = linear(%t, %w, -) : f32[3,2,2]
        ->
        %y = linear(%x, %w, -) : f32[2,3,2]
        %y#2 = transpose(%y) {perm = [1, 0, 2]} : f32[3,2,2]
    """
    match v:
        case Linear(x=Transpose(x=x, perm=perm)) if perm[-1] == len(perm) - 1:
            return Transpose(v.replace(x=x), perm)
    return None


def sink_norm(v: Value) -> Value | None:
    """Norms over last axes that stay last; without parameters, in any order.

        (%x: f32[2,3,4])
        %t = transpose(%x) {perm = [1, 0, 2]} : f32[3,2,4]
        %y = layer_norm(%t, -, -) {axis = 2, epsilon = 0.5} : f32[3,2,4]
        ->
        %y = layer_norm(%x, -, -) {axis = 2, epsilon = 0.5} : f32[2,3,4]
        %y#2 = transpose(%y) {perm = [1, 0, 2]} : f32[3,2,4]
    """
    match v:
        case LayerNorm(x=Transpose(x=x, perm=perm)) | RMSNorm(x=Transpose(x=x, perm=perm)):
            row, last = perm[v.axis :], tuple(range(v.axis, len(perm)))
            plain = all(p is None for p in v.parameters) and sorted(row) == list(last)
            return Transpose(v.replace(x=x), perm) if plain or row == last else None
    return None


@dataclass(frozen=True)
class Moved:
    """An operand with its axes permuted, and how many transposes that takes (0 or 1)."""

    value: Value
    cost: int


def moved(y: Value, perm: Perm) -> Moved:
    """What broadcasts like `transpose(y, perm)`, y seen with as many axes as perm has."""
    if y.type.size == 1 and y.type.rank <= len(perm):
        return Moved(y, 0)
    dims = (*[1] * (len(perm) - y.type.rank), *y.shape)
    if weights(y) is not None:
        full = reshaped(y, dims)
        turned = None if full is None else transposed(full, perm)
        if turned is not None:
            return Moved(turned, 0)
    y = with_shape(y, dims, y.name)
    if isinstance(y, Transpose) and tuple(y.perm[p] for p in perm) == tuple(range(len(perm))):
        return Moved(y.x, 0)
    if is_free(dims, perm):
        return Moved(Reshape(y, tuple(dims[p] for p in perm), name=y.name), 0)
    return Moved(Transpose(y, perm, name=y.name), 1)


def sink_operands(v: Value) -> Value | None:
    """Ops of several operands: what comes through the same transpose goes straight in, the
    others are transposed back. Done where that takes no more transposes than there were.

        (%x: f32[1,2,2,3], %y: f32[1,2,2,3])
        %s = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %t = transpose(%y) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %z = add(%s, %t) : f32[1,3,2,2]
        ->
        %z = add(%x, %y) : f32[1,2,2,3]
        %z#2 = transpose(%z) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]

        (%x: f32[1,2,2,3])
        %c = const [1.0, 2.0, 3.0] : f32[3,1,1]
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %z = mul(%t, %c) : f32[1,3,2,2]
        ->
        %c = const [1.0, 2.0, 3.0] : f32[1,1,1,3]
        %z = mul(%x, %c) : f32[1,2,2,3]
        %z#2 = transpose(%z) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]

        (%x: f32[1,2,2,3], %y: f32[1,2,2,1])
        %s = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %t = transpose(%y) {perm = [0, 3, 1, 2]} : f32[1,1,2,2]
        %z = concat([%s, %t]) {axis = 1} : f32[1,4,2,2]
        ->
        %z = concat([%x, %y]) {axis = 3} : f32[1,2,2,4]
        %z#2 = transpose(%z) {perm = [0, 3, 1, 2]} : f32[1,4,2,2]
    """
    if not isinstance(v, Binary | Relation | Where | PRelu | Concat):
        return None
    through = _common_perm(v)
    if through is None:
        return None
    perm, saved = through
    turned = {o: moved(o, inverse(perm)) for o in v.operands}
    if 1 + sum(m.cost for m in turned.values()) > saved:
        return None
    return Transpose(over(v, lambda o: turned[o].value, perm), perm)


def _common_perm(v: Value) -> tuple[Perm, int] | None:
    """The most frequent permutation among the operands with all axes, and its number."""
    operands = dict.fromkeys(v.operands)
    found = Counter(
        o.perm for o in operands if isinstance(o, Transpose) and o.type.rank == v.type.rank
    )
    return found.most_common(1)[0] if found else None


def over(v: Value, operand: Callable[[Value], Value], perm: Perm) -> Value:
    """The node over permuted operands; its result transposed by `perm` is what it was."""
    made = v.map_operands(operand) if not isinstance(v, Concat) else v
    if isinstance(v, Concat):
        made = v.replace(xs=tuple(map(operand, v.xs)), axis=perm[v.axis])
    return made


def sink_reshape(v: Value) -> Value | None:
    """Reshapes that regroup axes which stay neighbours; a channel shuffle keeps its inner part.

        (%x: f32[2,3,4,6])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[2,6,3,4]
        %y = reshape(%t) : f32[2,2,3,3,4]
        ->
        %x#2 = reshape(%x) : f32[2,3,4,2,3]
        %y = transpose(%x#2) {perm = [0, 3, 4, 1, 2]} : f32[2,2,3,3,4]

        (%x: f32[1,1,1,6])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,6,1,1]
        %y = reshape(%t) : f32[1,6]
        ->
        %y = reshape(%x) : f32[1,6]

        (%x: f32[2,3,4,2,3])
        %t = transpose(%x) {perm = [0, 4, 3, 1, 2]} : f32[2,3,2,3,4]
        %y = reshape(%t) : f32[2,6,3,4]
        ->
        %1 = transpose(%x) {perm = [0, 1, 2, 4, 3]} : f32[2,3,4,3,2]
        %x#2 = reshape(%1) : f32[2,3,4,6]
        %y = transpose(%x#2) {perm = [0, 3, 1, 2]} : f32[2,6,3,4]
    """
    match v:
        case Reshape(x=Transpose(x=x, perm=perm), dims=dims):
            if is_free(x.shape, perm):
                return Reshape(x, dims)
            return _regrouped(x, perm, dims)
    return None


def _regrouped(x: Value, perm: Perm, dims: Shape) -> Value | None:
    groups = grouped(tuple(x.shape[p] for p in perm), dims)
    if not groups:
        return None
    # Groups in the order in which x has them: by their first axis that is more than one index.
    sources = [[perm[a] for a in g.before] for g in groups]
    firsts = [min((a for a in s if x.shape[a] != 1), default=min(s)) for s in sources]
    order = sorted(range(len(groups)), key=lambda g: firsts[g])
    inner = tuple(a for g in order for a in sources[g])
    axes = [a for g in order for a in groups[g].after]
    outer = tuple(axes.index(a) for a in range(len(dims)))
    shape = tuple(dims[a] for a in axes)
    if is_free(shape, outer):
        return None
    if is_free(x.shape, inner):
        return Transpose(Reshape(x, shape, name=x.name), outer)
    if len(dims) < 4 or outer != (0, len(dims) - 1, *range(1, len(dims) - 1)):
        return None  # two transposes for one pay only where the outer one meets an image op
    return Transpose(Reshape(Transpose(x, inner), shape, name=x.name), outer)


RULES = (
    sink_pointwise, sink_axes, sink_expand, sink_reduction, sink_gather, sink_linear,
    sink_norm, sink_operands, sink_reshape,
)  # fmt: skip
