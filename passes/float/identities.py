"""Rules that take away nodes that change nothing, and merge neighbours that only move."""

from __future__ import annotations

import math

import numpy as np

from irc.ops.activation import Clip
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Pow, Sub
from irc.ops.logic import Equal
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.selection import Where
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.passes.float.constants import is_uniform, reshaped, transposed
from irc.value import Value


def same_shape(v: Value) -> Value | None:
    """A reshape, expand or cast to what is there already.

        (%x: f32[2,3])
        %y = reshape(%x) : f32[2,3]
        ->
        %x
    """
    match v:
        case Reshape(x=x) | Expand(x=x) if x.shape == v.shape:
            return x
        case Cast(x=x) if x.type == v.type:
            return x
    return None


def transpose_nothing(v: Value) -> Value | None:
    """A transpose that leaves every axis where it is, or exchanges axes of extent 1 alone.

        (%x: f32[2,3])
        %y = transpose(%x) {perm = [0, 1]} : f32[2,3]
        ->
        %x

        (%x: f32[1,4,1])
        %y = transpose(%x) {perm = [2, 1, 0]} : f32[1,4,1]
        ->
        %x
    """
    match v:
        case Transpose(x=x, perm=perm):
            moving = [i for i, p in enumerate(perm) if i != p]
            return x if all(v.shape[i] == 1 for i in moving) else None
    return None


def transpose_twice(v: Value) -> Value | None:
    """Two transposes are one.

        (%x: f32[2,3,4])
        %t = transpose(%x) {perm = [1, 2, 0]} : f32[3,4,2]
        %y = transpose(%t) {perm = [0, 2, 1]} : f32[3,2,4]
        ->
        %y = transpose(%x) {perm = [1, 0, 2]} : f32[3,2,4]
    """
    match v:
        case Transpose(x=Transpose(x=x, perm=first), perm=second):
            return Transpose(x, tuple(first[p] for p in second))
    return None


def reshape_twice(v: Value) -> Value | None:
    """The last of two reshapes says it all.

        (%x: f32[2,3,4])
        %r = reshape(%x) : f32[6,4]
        %y = reshape(%r) : f32[24]
        ->
        %y = reshape(%x) : f32[24]
    """
    match v:
        case Reshape(x=Reshape(x=x), dims=dims):
            return Reshape(x, dims)
    return None


def move_weights(v: Value) -> Value | None:
    """Quantized weights are moved where they are stored.

        ()
        %c = const [1, 2, 3, 4] : i8[2,2] q(0.5, 0)
        %d = dequantize(%c) : f32[2,2]
        %y = transpose(%d) {perm = [1, 0]} : f32[2,2]
        ->
        %c = const [1, 3, 2, 4] : i8[2,2] q(0.5, 0)
        %y = dequantize(%c) : f32[2,2]
    """
    match v:
        case Transpose(x=Dequantize(x=Const()) as x, perm=perm):
            moved = transposed(x, perm)
        case Reshape(x=Dequantize(x=Const()) as x, dims=dims):
            moved = reshaped(x, dims)
        case _:
            return None
    return None if moved is None else moved.replace(name=v.name)


def neutral_operand(v: Value) -> Value | None:
    """Adding 0, multiplying or dividing by 1, the first power.

        (%x: f32[2,3])
        %zero = const [0.0] : f32[1]
        %y = add(%x, %zero) : f32[2,3]
        ->
        %x
    """
    match v:
        case Add(a=x, b=c) | Add(b=x, a=c) | Sub(a=x, b=c) if is_uniform(c, 0.0):
            same = x
        case Mul(a=x, b=c) | Mul(b=x, a=c) | Div(a=x, b=c) | Pow(a=x, b=c) if is_uniform(c, 1.0):
            same = x
        case _:
            return None
    return same if same.type == v.type else None


def clip_nothing(v: Value) -> Value | None:
    """A clip without bounds.

        (%x: f32[2,3])
        %y = clip(%x) {lo = -inf, hi = inf} : f32[2,3]
        ->
        %x
    """
    match v:
        case Clip(x=x, lo=lo, hi=hi) if lo == -math.inf and hi == math.inf:
            return x
    return None


def slice_everything(v: Value) -> Value | None:
    """A slice of all elements in their order.

        (%x: f32[2,3])
        %y = slice(%x) {starts = [0, 0], stops = [2, 3], steps = [1, 1]} : f32[2,3]
        ->
        %x
    """
    match v:
        case Slice(x=x, starts=starts, steps=steps) if x.shape == v.shape:
            moved = any(a != 0 or s < 0 for a, s in zip(starts, steps, strict=True))
            return None if moved else x
    return None


def slice_twice(v: Value) -> Value | None:
    """A forward slice of a forward slice is one slice.

        (%x: f32[9])
        %s = slice(%x) {starts = [1], stops = [9], steps = [2]} : f32[4]
        %y = slice(%s) {starts = [1], stops = [3], steps = [1]} : f32[2]
        ->
        %y = slice(%x) {starts = [3], stops = [6], steps = [2]} : f32[2]
    """
    match v:
        case Slice(x=Slice(x=x) as inner) if min((*v.steps, *inner.steps), default=1) > 0:
            pass
        case _:
            return None
    if v.type.size == 0:
        return None
    outer = zip(inner.starts, inner.steps, v.starts, v.steps, v.shape, strict=True)
    entries = [(a + s * b, s * t, n) for a, s, b, t, n in outer]
    starts, steps = tuple(e[0] for e in entries), tuple(e[1] for e in entries)
    return Slice(x, starts, tuple(a + (n - 1) * s + 1 for a, s, n in entries), steps)


def slice_of_part(v: Value) -> Value | None:
    """A forward slice of a concat that lies within one of its operands.

        (%x: f32[2], %y: f32[3])
        %c = concat([%x, %y]) {axis = 0} : f32[5]
        %s = slice(%c) {starts = [3], stops = [5], steps = [1]} : f32[2]
        ->
        %s = slice(%y) {starts = [1], stops = [3], steps = [1]} : f32[2]
    """
    match v:
        case Slice(x=Concat(xs=xs, axis=axis)) if v.type.size and v.steps[axis] > 0:
            first, begin = v.starts[axis], 0
        case _:
            return None
    last = first + (v.shape[axis] - 1) * v.steps[axis]
    for x in xs:
        if begin <= first and last < begin + x.shape[axis]:
            starts = (*v.starts[:axis], first - begin, *v.starts[axis + 1 :])
            stops = (*v.stops[:axis], last - begin + 1, *v.stops[axis + 1 :])
            return Slice(x, starts, stops, v.steps)
        begin += x.shape[axis]
    return None


def concat_one(v: Value) -> Value | None:
    """A concat of a single operand.

        (%x: f32[2,3])
        %y = concat([%x]) {axis = 0} : f32[2,3]
        ->
        %x
    """
    match v:
        case Concat(xs=(x,)):
            return x
    return None


def concat_of_concat(v: Value) -> Value | None:
    """A concat inside of a concat along the same axis.

        (%x: f32[1], %y: f32[2], %z: f32[3])
        %c = concat([%x, %y]) {axis = 0} : f32[3]
        %d = concat([%c, %z]) {axis = 0} : f32[6]
        ->
        %d = concat([%x, %y, %z]) {axis = 0} : f32[6]
    """
    if not isinstance(v, Concat):
        return None

    def parts(x: Value) -> tuple[Value, ...]:
        return x.xs if isinstance(x, Concat) and x.axis == v.axis else (x,)

    flat = tuple(p for x in v.xs for p in parts(x))
    return None if len(flat) == len(v.xs) else Concat(flat, v.axis)


def pad_nothing(v: Value) -> Value | None:
    """A pad of no elements.

        (%x: f32[2,3])
        %y = pad(%x) {pads = [[0, 0], [0, 0]], value = 0.0, mode = "constant"} : f32[2,3]
        ->
        %x
    """
    match v:
        case Pad(x=x) if x.shape == v.shape:
            return x
    return None


def quantize_back(v: Value) -> Value | None:
    """Quantizing what was just dequantized from the same scale, exact up to 16 bits.

        (%x: u8[2,3] q(0.5, 3))
        %d = dequantize(%x) : f32[2,3]
        %y = quantize(%d) : u8[2,3] q(0.5, 3)
        ->
        %x
    """
    match v:
        case Quantize(x=Dequantize(x=x)) if x.type == v.type and x.type.dtype.bits <= 16:
            return x
    return None


def equals_itself(v: Value) -> Value | None:
    """All but NaN equals itself, and nothing here is NaN: no integer is.

        (%x: f32[2])
        %y = equal(%x, %x) : b1[2]
        ->
        %y = const [true, true] : b1[2]
    """
    match v:
        case Equal(a=a, b=b) if a is b and not isinstance(a, Const):
            return Const(np.ones(v.shape, np.bool_), name=v.name)
    return None


def times_nothing(v: Value) -> Value | None:
    """What is multiplied by zero is zero: nothing here is infinite or NaN.

        (%x: f32[2])
        %c = const [0.0] : f32[1]
        %y = mul(%x, %c) : f32[2]
        ->
        %y = const [0.0, 0.0] : f32[2]
    """
    match v:
        case Mul(a=_, b=Const(array=c, quant=None)) | Mul(a=Const(array=c, quant=None)) if (
            c.size and not c.any()
        ):
            return Const(np.zeros(v.shape, v.type.dtype.numpy), name=v.name)
    return None


def one_choice(v: Value) -> Value | None:
    """A choice that is the same everywhere.

        (%x: f32[2], %y: f32[2])
        %c = const [true] : b1[1]
        %z = where(%c, %x, %y) : f32[2]
        ->
        %x
    """
    match v:
        case Where(condition=Const(array=chosen), a=a, b=b) if chosen.size:
            found = a if chosen.all() else b if not chosen.any() else None
            return found if found is not None and found.type == v.type else None
    return None


RULES = (
    same_shape, transpose_nothing, transpose_twice, reshape_twice, move_weights, neutral_operand,
    clip_nothing, slice_everything, slice_twice, slice_of_part, concat_one, concat_of_concat,
    pad_nothing, quantize_back, one_choice,
)  # fmt: skip
