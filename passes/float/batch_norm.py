"""Scales and offsets per channel, batch norms among them, folded into weights and biases.

All arithmetic is float64, rounded once to the graph's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.activation import Clip
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.normalization import BatchNorm
from irc.ops.quantization import Dequantize
from irc.ops.selection import Gather
from irc.ops.shape import Concat, Reshape
from irc.passes.float import norm_patterns
from irc.passes.float.affine import Affine, affine, factors
from irc.passes.float.constants import real
from irc.passes.float.fold import RULES as FOLDING
from irc.passes.float.fold import share
from irc.passes.float.quantized_batch_norm import as_layer
from irc.pipeline import Pass
from irc.rewrite import Uses, rewrite
from irc.types import Array, Quant
from irc.value import Value

Weighted = Conv2d | ConvTranspose2d | Linear


@dataclass(frozen=True)
class FuseBatchNorm(Pass):
    """Batch norms, scales and offsets vanish into the convolutions and linear maps around them."""

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        """What can't be folded into weights stays as at most one mul and one add, goes into the
        norm before it, or is a layer of its own where it reads quantized values."""
        folded = rewrite(graph, FOLDING, USE_RULES)
        folded = rewrite(folded, (*FOLDING, *RULES), USE_RULES)
        folded = rewrite(folded, FOLDING, (*USE_RULES, *PART_RULES))
        folded = rewrite(folded, (*FOLDING, as_layer), USE_RULES)
        return share(rewrite(folded, FOLDING, norm_patterns.USE_RULES))


def after_weights(v: Value, uses: Uses) -> Value | None:
    """A scale and offset of what a convolution or linear map gives.

        (%x: f32[1,2,2,1])
        %w = const [1.0, 2.0] : f32[2,1,1,1]
        %b = const [1.0, 1.0] : f32[2]
        %s = const [0.5, 4.0] : f32[2]
        %c = conv2d(%x, %w, %b)
            {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1} : f32[1,2,2,2]
        %y = mul(%c, %s) : f32[1,2,2,2]
        ->
        %w = const [0.5, 8.0] : f32[2,1,1,1]
        %b = const [0.5, 4.0] : f32[2]
        %y = conv2d(%x, %w, %b)
            {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1} : f32[1,2,2,2]

        (%x: f32[2,1])
        %w = const [1.0, 2.0] : f32[2,1]
        %s = const [0.5, 4.0] : f32[2]
        %l = linear(%x, %w, -) : f32[2,2]
        %r = reshape(%l) : f32[1,2,2]
        %y = mul(%r, %s) : f32[1,2,2]
        ->
        %w = const [0.5, 8.0] : f32[2,1]
        %0 = linear(%x, %w, -) : f32[2,2]
        %y = reshape(%0) : f32[1,2,2]
    """
    found = affine(v)
    if found is None or found.x.shape != v.shape:
        return None
    match found.x:
        case Reshape(x=op) as seen if uses.single(seen) and op.shape[-1:] == seen.shape[-1:]:
            made = _into_weights(op, found, "", uses)
            return None if made is None else seen.replace(x=made, name=v.name)
    return _into_weights(found.x, found, v.name, uses)


def _into_weights(v: Value, a: Affine, name: str, uses: Uses) -> Value | None:
    """A layer whose channels are scaled and moved, under another name; None for other values."""
    match v:
        case Conv2d() | ConvTranspose2d() | Linear() as op if uses.single(op) and _constant(op):
            w = op.w.evaluate().astype(np.float64)
            w = w * a.scale.reshape(-1, *[1] * (w.ndim - 1))
            return _reweighted(op, w, _bias(op) * a.scale + a.offset, name)
        case Conv2d() | ConvTranspose2d() | Linear() as op if uses.single(op) and _quantized(op):
            return _rescaled(op, a, name)
    return None


def _rescaled(op: Weighted, a: Affine, name: str) -> Value | None:
    """A layer whose weights came quantized, followed by scales and offsets: the integers stay,
    the scales that they have take ours, if these are positive."""
    w, dtype = op.w, op.type.dtype
    assert isinstance(w, Dequantize)
    assert isinstance(w.x, Const)
    b = real(_bias(op) * a.scale + a.offset, dtype, f"{name}.b" if name else "")
    if np.all(a.scale == 1):
        return op.replace(b=b, name=name)
    quant = w.x.type.quant
    if quant is None or quant.axis not in (None, 0) or np.any(a.scale <= 0):
        return None
    scales = np.broadcast_to(np.asarray(quant.scales, np.float64), a.scale.shape) * a.scale
    made = Quant(tuple(scales.tolist()), quant.zero_point, 0)
    stored = Const(w.x.array, made, name=w.x.name)
    return op.replace(w=w.replace(x=stored), b=b, name=name)


def before_weights(v: Value, uses: Uses) -> Value | None:
    """A scale and offset of what a convolution or linear map takes; an offset only where no
    padding is.

        (%x: f32[1,2])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
        %t = const [1.0, 2.0] : f32[2]
        %a = add(%x, %t) : f32[1,2]
        %y = linear(%a, %w, -) : f32[1,2]
        ->
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
        %w.b = const [5.0, 11.0] : f32[2]
        %y = linear(%x, %w, %w.b) : f32[1,2]
    """
    if not isinstance(v, Conv2d | Linear) or not uses.single(v.x) or not _constant(v):
        return None
    found = affine(v.x)
    if found is None or found.x.shape != v.x.shape:
        return None
    if isinstance(v, Conv2d) and any(v.pads) and np.any(found.offset):
        return None
    scale, offset = _per_tap(v, found.scale), _per_tap(v, found.offset)
    w = v.w.evaluate().astype(np.float64)
    shift = (w * offset).reshape(len(w), -1).sum(1)
    return _reweighted(v.replace(x=found.x), w * scale, _bias(v) + shift, v.name)


def _per_tap(v: Conv2d | Linear, per_channel: Array) -> Array:
    """One number per input channel, shaped to multiply the weights with."""
    if isinstance(v, Linear):
        return per_channel
    outputs, depth = v.w.shape[0], v.w.shape[3]
    per_group = per_channel.reshape(v.groups, 1, depth)
    spread = np.broadcast_to(per_group, (v.groups, outputs // v.groups, depth))
    return spread.reshape(outputs, 1, 1, depth)


def _constant(v: Weighted) -> bool:
    """Whether weights and bias are plain constants."""
    return isinstance(v.w, Const) and (v.b is None or isinstance(v.b, Const))


def _quantized(v: Weighted) -> bool:
    """Whether the weights came quantized, and the bias (if any) as plain constants."""
    known = isinstance(v.w, Dequantize) and isinstance(v.w.x, Const)
    return known and (v.b is None or isinstance(v.b, Const))


def _bias(v: Weighted) -> Array:
    if v.b is None:
        return np.zeros(v.w.shape[0])
    return np.asarray(v.b.evaluate(), np.float64)


def _reweighted(v: Weighted, w: Array, b: Array, name: str) -> Value:
    dtype = v.type.dtype
    bias_name = v.b.name if v.b is not None else f"{v.w.name}.b" if v.w.name else ""
    bias = real(b, dtype, bias_name) if v.b is not None or np.any(b) else None
    return v.replace(w=real(w, dtype, v.w.name), b=bias, name=name)


def merge(v: Value, uses: Uses) -> Value | None:
    """A chain of scales and offsets is one scale and one offset.

        (%x: f32[1,2])
        %a = const [2.0, 4.0] : f32[2]
        %b = const [1.0, 1.0] : f32[2]
        %p = mul(%x, %a) : f32[1,2]
        %q = add(%p, %b) : f32[1,2]
        %y = mul(%q, %a) : f32[1,2]
        ->
        %y.scale = const [4.0, 16.0] : f32[2]
        %0 = mul(%x, %y.scale) : f32[1,2]
        %y.offset = const [2.0, 4.0] : f32[2]
        %y = add(%0, %y.offset) : f32[1,2]
    """
    total = affine(v)
    if total is None:
        return None
    nodes = 1
    while uses.single(total.x) and (inner := affine(total.x)) is not None:
        offset = inner.offset * total.scale + total.offset
        total, nodes = Affine(inner.x, inner.scale * total.scale, offset), nodes + 1
    needed = int(np.any(total.scale != 1)) + int(np.any(total.offset))
    return _as_nodes(total, v) if nodes > needed and total.x.shape == v.shape else None


def _as_nodes(a: Affine, v: Value) -> Value:
    """At most a mul and an add."""
    made, dtype = a.x, v.type.dtype
    if np.any(a.scale != 1):
        made = Mul(made, real(_narrow(a.scale), dtype, f"{v.name}.scale"))
    if np.any(a.offset):
        made = Add(made, real(_narrow(a.offset), dtype, f"{v.name}.offset"))
    return made


def _narrow(a: Array) -> Array:
    """One number where all are equal."""
    return a[:1].reshape(()) if np.all(a == a[0]) else a


def batch_norm_is_affine(v: Value) -> Value | None:
    """A batch norm that has no weights to go to.

        (%x: f32[1,2,3])
        %s = const [2.0, 4.0] : f32[2]
        %b = const [1.0, 2.0] : f32[2]
        %m = const [1.0, 0.5] : f32[2]
        %v = const [3.0, 15.0] : f32[2]
        %y = batch_norm(%x, %s, %b, %m, %v) {epsilon = 1.0, axis = 1} : f32[1,2,3]
        ->
        %y.scale = const [1.0, 1.0] : f32[2,1]
        %0 = mul(%x, %y.scale) : f32[1,2,3]
        %y.offset = const [0.0, 1.5] : f32[2,1]
        %y = add(%0, %y.offset) : f32[1,2,3]
    """
    if not isinstance(v, BatchNorm) or (found := factors(v)) is None:
        return None
    shape = (-1, *[1] * (v.type.rank - v.axis - 1))
    scale, offset = (real(f.reshape(shape), v.type.dtype) for f in found)
    scaled = Mul(v.x, scale.replace(name=f"{v.name}.scale"))
    return Add(scaled, offset.replace(name=f"{v.name}.offset"))


# ---------------------------------------------------------------- what was put together


def affine_of_parts(v: Value, uses: Uses) -> Value | None:
    """A scale and offset of channels that are put together: each part takes its own, and what
    makes it may absorb them. Parts that a norm makes alike have no scale in common before it.

        (%x: f32[1,1], %z: f32[1,2])
        %t = const [2.0, 3.0, 4.0] : f32[3]
        %c = concat([%x, %z]) {axis = 1} : f32[1,3]
        %y = mul(%c, %t) : f32[1,3]
        ->
        %x.scale = const [2.0] : f32[]
        %x#2 = mul(%x, %x.scale) : f32[1,1]
        %z.scale = const [3.0, 4.0] : f32[2]
        %z#2 = mul(%z, %z.scale) : f32[1,2]
        %y = concat([%x#2, %z#2]) {axis = 1} : f32[1,3]
    """
    found = affine(v)
    if found is None or found.x.shape != v.shape or not isinstance(c := found.x, Concat):
        return None
    if not _apart(c, uses):
        return None
    ends = np.cumsum([x.shape[-1] for x in c.xs])[:-1]
    each = zip(c.xs, np.split(found.scale, ends), np.split(found.offset, ends), strict=True)
    parts = [(_as_nodes(Affine(x, s, t), x), x) for x, s, t in each]
    named = (y if y is x else y.replace(name=x.name) for y, x in parts)
    return c.replace(xs=tuple(named), name=v.name)


def clip_of_parts(v: Value, uses: Uses) -> Value | None:
    """A clamp of channels that are put together, which what makes the parts does for nothing.

        (%x: f32[1,1], %z: f32[1,2])
        %a = tanh(%x) : f32[1,1]
        %b = tanh(%z) : f32[1,2]
        %c = concat([%a, %b]) {axis = 1} : f32[1,3]
        %y = clip(%c) {lo = 0.0, hi = inf} : f32[1,3]
        ->
        %a = tanh(%x) : f32[1,1]
        %a#2 = clip(%a) {lo = 0.0, hi = inf} : f32[1,1]
        %b = tanh(%z) : f32[1,2]
        %b#2 = clip(%b) {lo = 0.0, hi = inf} : f32[1,2]
        %y = concat([%a#2, %b#2]) {axis = 1} : f32[1,3]
    """
    if not isinstance(v, Clip) or not isinstance(c := v.x, Concat) or not _apart(c, uses):
        return None
    if any(isinstance(x, Input | Const) or not uses.single(x) for x in c.xs):
        return None
    return c.replace(xs=tuple(v.replace(x=x, name=x.name) for x in c.xs), name=v.name)


def _apart(c: Concat, uses: Uses) -> bool:
    """Whether channels are put together for one reader, and none of them came quantized."""
    along = c.axis == c.type.rank - 1 and uses.single(c)
    return along and not any(isinstance(x, Dequantize) for x in c.xs)


def affine_of_table(v: Value, uses: Uses) -> Value | None:
    """A scale and offset of rows of a table.

        (%i: i64[1])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
        %t = const [2.0, 3.0] : f32[2]
        %g = gather(%w, %i) {axis = 0} : f32[1,2]
        %y = mul(%g, %t) : f32[1,2]
        ->
        %w = const [2.0, 6.0, 6.0, 12.0] : f32[2,2]
        %y = gather(%w, %i) {axis = 0} : f32[1,2]
    """
    found = affine(v)
    if found is None or found.x.shape != v.shape or not isinstance(g := found.x, Gather):
        return None
    table = g.x
    if not isinstance(table, Const) or not uses.single(table) or not uses.single(g):
        return None
    if g.axis == table.type.rank - 1:
        return None
    made = table.evaluate().astype(np.float64) * found.scale + found.offset
    return g.replace(x=real(made, v.type.dtype, table.name), name=v.name)


RULES = (batch_norm_is_affine,)
USE_RULES = (after_weights, before_weights, merge)
PART_RULES = (affine_of_parts, clip_of_parts, affine_of_table)
