"""Parameters that a graph computes, of layers that keep constants: they stand beside the layer."""

from __future__ import annotations

import numpy as np

from irc.ops.activation import Clip
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.normalization import BatchNorm, RowNorm
from irc.ops.prelu import PRelu
from irc.ops.shape import with_shape
from irc.ops.unary import Neg, Sqrt
from irc.passes.float.constants import real, weights
from irc.types import Shape
from irc.value import Value


def out_of_norm(v: Value) -> Value | None:
    """A scale that is computed, and the offset with it, stands behind the norm.

        (%x: f32[2,4], %s: f32[4])
        %b = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %y = layer_norm(%x, %s, %b) {axis = 1, epsilon = 0.5} : f32[2,4]
        ->
        %b = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %0 = layer_norm(%x, -, -) {axis = 1, epsilon = 0.5} : f32[2,4]
        %1 = mul(%0, %s) : f32[2,4]
        %y = add(%1, %b) : f32[2,4]
    """
    if not isinstance(v, RowNorm) or not any(map(_computed, v.parameters)):
        return None
    fields = [n for n in ("scale", "bias") if n in v.__dataclass_fields__]
    shape = v.affine if v.view == v.shape else v.shape[-1:]
    return _scaled(v.replace(**dict.fromkeys(fields), name=""), *v.parameters, shape)


def out_of_batch_norm(v: Value) -> Value | None:
    """A computed scale and offset stand behind a batch norm; where its statistics are computed,
    nothing is left of it.

        (%x: f32[1,2,3], %s: f32[2], %b: f32[2])
        %m = const [1.0, 0.5] : f32[2]
        %v = const [3.0, 15.0] : f32[2]
        %y = batch_norm(%x, %s, %b, %m, %v) {epsilon = 1.0, axis = 1} : f32[1,2,3]
        ->
        %0 = const [1.0, 1.0] : f32[2]
        %1 = const [0.0, 0.0] : f32[2]
        %m = const [1.0, 0.5] : f32[2]
        %v = const [3.0, 15.0] : f32[2]
        %2 = batch_norm(%x, %0, %1, %m, %v) {epsilon = 1.0, axis = 1} : f32[1,2,3]
        %3 = reshape(%s) : f32[2,1]
        %4 = mul(%2, %3) : f32[1,2,3]
        %5 = reshape(%b) : f32[2,1]
        %y = add(%4, %5) : f32[1,2,3]

        (%x: f32[2,2], %m: f32[2], %v: f32[2])
        %s = const [2.0, 4.0] : f32[2]
        %b = const [1.0, 2.0] : f32[2]
        %y = batch_norm(%x, %s, %b, %m, %v) {epsilon = 1.0, axis = 1} : f32[2,2]
        ->
        %0 = sub(%x, %m) : f32[2,2]
        %s = const [2.0, 4.0] : f32[2]
        %1 = const [1.0] : f32[]
        %2 = add(%v, %1) : f32[2]
        %3 = sqrt(%2) : f32[2]
        %4 = div(%s, %3) : f32[2]
        %5 = mul(%0, %4) : f32[2,2]
        %b = const [1.0, 2.0] : f32[2]
        %y = add(%5, %b) : f32[2,2]
    """
    if not isinstance(v, BatchNorm) or not any(map(_computed, v.operands[1:])):
        return None
    shape, dtype = (-1, *[1] * (v.type.rank - v.axis - 1)), v.type.dtype
    shape = (v.shape[v.axis], *shape[1:])
    if not _computed(v.mean) and not _computed(v.var):
        one, zero = (real(np.full(shape[0], number), dtype) for number in (1.0, 0.0))
        return _scaled(v.replace(scale=one, bias=zero, name=""), v.scale, v.bias, shape)
    deviation = Sqrt(Add(v.var, real(v.epsilon, dtype)))
    apart = Sub(v.x, with_shape(v.mean, shape))
    return _scaled(apart, Div(v.scale, deviation), v.bias, shape)


def out_of_layer(v: Value) -> Value | None:
    """A bias that is computed is added to what the layer gives.

        (%x: f32[1,2], %b: f32[1])
        %w = const [1.0, 2.0] : f32[1,2]
        %y = linear(%x, %w, %b) : f32[1,1]
        ->
        %w = const [1.0, 2.0] : f32[1,2]
        %0 = linear(%x, %w, -) : f32[1,1]
        %y = add(%0, %b) : f32[1,1]
    """
    if not isinstance(v, Conv2d | ConvTranspose2d | Linear) or v.b is None or not _computed(v.b):
        return None
    return Add(v.replace(b=None, name=""), v.b) if v.type.dtype.is_float else None


def slope_of_prelu(v: Value) -> Value | None:
    """A slope that is computed is a factor of what is below zero.

        (%x: f32[1,2], %s: f32[2])
        %y = prelu(%x, %s) : f32[1,2]
        ->
        %0 = clip(%x) {lo = 0.0, hi = inf} : f32[1,2]
        %1 = neg(%x) : f32[1,2]
        %2 = clip(%1) {lo = 0.0, hi = inf} : f32[1,2]
        %3 = mul(%2, %s) : f32[1,2]
        %y = sub(%0, %3) : f32[1,2]
    """
    if not isinstance(v, PRelu) or not _computed(v.slope):
        return None
    below = Clip(Neg(v.x), 0.0, np.inf)
    return Sub(Clip(v.x, 0.0, np.inf), Mul(below, v.slope))


def _computed(v: Value | None) -> bool:
    return v is not None and weights(v) is None


def _scaled(y: Value, scale: Value | None, bias: Value | None, shape: Shape) -> Value:
    for op, given in ((Mul, scale), (Add, bias)):
        y = y if given is None else op(y, with_shape(given, shape))
    return y


RULES = (out_of_norm, out_of_batch_norm, out_of_layer, slope_of_prelu)
