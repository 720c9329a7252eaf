"""Integers that stand for the same reals in another way: in another quantization, within a clamp,
moved, as weights around zero. What is constant is converted here and now."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.ops.conv import Convolution
from irc.ops.core import Const
from irc.ops.linear import Linear
from irc.ops.moving import in_type
from irc.ops.quantization import Lookup, Requantize, constant
from irc.ops.shape import Concat, Reshape
from irc.passes.quantize.scales import asymmetric
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

EXACT = (2**30, 30)
"""The multiplier of 1: a requantize with it changes zero point and dtype alone."""


def converted(form: Value, target: TensorType) -> Value:
    """Integers in another quantization; constants are converted here and now."""
    if (form.type.dtype, form.type.quant) == (target.dtype, target.quant):
        return form
    if isinstance(form, Const):
        real = fixedpoint.dequantize(form.array, form.type, DType.F64)
        return Const(fixedpoint.quantize(real, target), target.quant, name=form.name)
    return in_type(form, target)


def clamped(made: Value, clip: Value, target: TensorType) -> Value:
    """A value with one more clamp, in its kernel where that has one."""
    lo, hi = fixedpoint.clamp_bounds(target, *clip.range)  # type: ignore[attr-defined]
    node: Any = made
    if isinstance(made, Lookup):
        table = np.clip(constant(made.table, "a table").array, lo, hi)
        return made.replace(table=Const(table), name=clip.name)
    if hasattr(made, "clamp"):
        bounds = tuple(int(np.clip(end, lo, hi)) for end in node.clamp)
        return made.replace(clamp=bounds, name=clip.name)
    quant = fixedpoint.quant_of(target)
    return Requantize(made, *EXACT, (lo, hi), target.dtype, quant, name=clip.name)


def as_tensor(v: Value) -> Value:
    """A float constant that is more than one number, quantized per tensor for its op."""
    if not isinstance(v, Const) or not v.type.dtype.is_float or v.type.size == 1:
        return v
    quant = asymmetric(float(v.array.min(initial=0)), float(v.array.max(initial=0)))
    type_ = TensorType(DType.U8, v.shape, quant)
    return Const(fixedpoint.quantize(v.array, type_), quant, name=v.name)


def moved_constant(v: Value, operands: list[Const]) -> Value | None:
    """A moving op over constants, done here; scales along an axis move along."""
    if any(o.quant is None for o in operands) or len(operands) != 1:
        return None
    (c,) = operands
    if c.quant is None or c.quant.axis is None:
        return Const(np.asarray(v.evaluate(c.array)), c.quant, name=v.name)
    # Tell where each channel goes by moving its number.
    shape = [1] * c.type.rank
    shape[c.quant.axis] = -1
    channel = np.arange(len(c.quant.scales)).reshape(shape)
    moved = np.asarray(v.evaluate(np.broadcast_to(channel, c.shape)))
    axis = _axis_of(moved)
    if axis is None:
        return None
    index = np.moveaxis(moved, axis, 0).reshape(moved.shape[axis], -1)[:, 0]
    return Const(np.asarray(v.evaluate(c.array)), _picked(c.quant, index, axis), name=v.name)


def _axis_of(channel: Array) -> int | None:
    """The one axis along which an array varies (0 if it doesn't), or None."""
    varying = [a for a in range(channel.ndim) if np.any(channel != channel.take([0], axis=a))]
    if len(varying) > 1 or not channel.ndim:
        return None
    return varying[0] if varying else 0


def _picked(quant: Quant, index: Array, axis: int) -> Quant:
    zero = quant.zero_point
    picked = zero if isinstance(zero, int) else tuple(zero[i] for i in index)
    return Quant(tuple(quant.scales[i] for i in index), picked, axis)


def centred(v: Value, x: Value, w: Const) -> tuple[Value, Const]:
    """Weights with zero point 0, and the x to go with them.

    Weights of 8 bits with a zero point may need nine: layers over 8 bits take them as i16 (the
    pass `lift_weights` then makes them i8), those over 16 as parts of i8. So does every layer take
    those that are stored in more bits, where they need them.
    """
    if w.quant is None:
        raise IRCError("its weights are not quantized")
    quant = Quant(w.quant.scale, 0, w.quant.axis)
    if w.type.dtype is DType.I8 and not np.any(np.asarray(w.quant.zero_point)):
        return x, w
    _, zero = fixedpoint.along_axis(w.quant, w.type.rank)
    wide = w.array.astype(np.int64) - np.asarray(zero, np.int64)
    if wide.min(initial=0) >= DType.I8.min and wide.max(initial=0) <= DType.I8.max:
        return x, Const(wide.astype(np.int8), quant, name=w.name)
    if w.type.dtype.bits == x.type.dtype.bits == 8 and isinstance(v, Convolution | Linear):
        return x, Const(wide.astype(np.int16), quant, name=w.name)
    x, array = in_parts(x, wide, getattr(v, "groups", 1))
    return x, Const(array, quant, name=w.name)


def in_parts(x: Value, wide: Array, groups: int) -> tuple[Value, Array]:
    """Weights as the sum of i8 tensors (of nine bits two, or three if one is 255), side by side
    over channels of x that are given as often. This is exact."""
    parts = []
    left = wide.astype(np.int64)
    while left.any():
        parts.append(np.clip(left, -DType.I8.max, DType.I8.max))
        left = left - parts[-1]
    array = np.concatenate(parts, axis=-1).astype(np.int8)
    return _repeated(x, len(parts), groups), array


def _repeated(x: Value, times: int, groups: int) -> Value:
    """Each group's channels (last axis) several times, side by side."""
    channels = x.shape[-1]
    if groups == 1:
        return Concat((x,) * times, axis=len(x.shape) - 1)
    apart = Reshape(x, (*x.shape[:-1], groups, channels // groups))
    joined = Concat((apart,) * times, axis=len(x.shape))
    return Reshape(joined, (*x.shape[:-1], times * channels))
