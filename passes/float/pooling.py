"""Pools, reductions and padding in their smallest form."""

from __future__ import annotations

import math
from dataclasses import replace
from math import prod

from irc.ops.activation import Clip
from irc.ops.conv import Conv2d
from irc.ops.elementwise import Mul
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.shape import Pad, Reshape
from irc.ops.windows import Pads
from irc.passes.float.constants import is_uniform
from irc.passes.float.grouping import grouped
from irc.value import Value


def global_pool(v: Value) -> Value | None:
    """A pool whose one window is the whole image is a reduction.

        (%x: f32[1,4,6,3])
        %y = avg_pool2d(%x)
            {kernel = [4, 6], strides = [1, 1], pads = [0, 0, 0, 0],
             count_include_pad = false, dilations = [1, 1]}
            : f32[1,1,1,3]
        ->
        %y = reduce_mean(%x) {axes = [1, 2], keepdims = true} : f32[1,1,1,3]
    """
    match v:
        case AvgPool2d(x=x) if _covers(v) and not (v.count_include_pad and any(v.pads)):
            return ReduceMean(x, (1, 2), True)
        case MaxPool2d(x=x) if _covers(v):
            return ReduceMax(x, (1, 2), True)
    return None


def _covers(v: AvgPool2d | MaxPool2d) -> bool:
    """Whether there is one window, and it sees every pixel once."""
    top, left, _, _ = v.pads
    rows, columns = v.x.shape[1], v.x.shape[2]
    reaches = v.kernel[0] - top >= rows and v.kernel[1] - left >= columns
    return v.shape[1:3] == (1, 1) and v.dilations == (1, 1) and reaches


def reduce_twice(v: Value) -> Value | None:
    """A reduction of a reduction of the same kind is one.

        (%x: f32[2,3,4])
        %a = reduce_mean(%x) {axes = [2], keepdims = false} : f32[2,3]
        %y = reduce_mean(%a) {axes = [1], keepdims = false} : f32[2]
        ->
        %y = reduce_mean(%x) {axes = [1, 2], keepdims = false} : f32[2]

        (%x: f32[2,3,4])
        %a = reduce_max(%x) {axes = [2], keepdims = true} : f32[2,3,1]
        %y = reduce_max(%a) {axes = [1], keepdims = false} : f32[2,1]
        ->
        %0 = reduce_max(%x) {axes = [1, 2], keepdims = false} : f32[2]
        %y = reshape(%0) : f32[2,1]
    """
    match v:
        case ReduceMean(x=ReduceMean() as inner) | ReduceSum(x=ReduceSum() as inner):
            pass
        case ReduceMax(x=ReduceMax() as inner) | ReduceMin(x=ReduceMin() as inner):
            pass
        case _:
            return None
    kept = [a for a in range(inner.x.type.rank) if inner.keepdims or a not in inner.axes]
    axes = tuple(sorted({*inner.axes, *(kept[a] for a in v.axes)}))
    if inner.keepdims == v.keepdims:
        return v.replace(x=inner.x, axes=axes)
    return Reshape(v.replace(x=inner.x, axes=axes, keepdims=False, name=""), v.shape)


def reduce_merged(v: Value) -> Value | None:
    """A reduction over an axis into which others were merged is one over those.

        (%x: f32[1,4,6,3])
        %r = reshape(%x) : f32[1,24,3]
        %y = reduce_mean(%r) {axes = [1], keepdims = false} : f32[1,3]
        ->
        %y = reduce_mean(%x) {axes = [1, 2], keepdims = false} : f32[1,3]
    """
    match v:
        case ReduceMean(x=Reshape(x=x)) | ReduceSum(x=Reshape(x=x)):
            groups = grouped(x.shape, v.x.shape)
        case ReduceMax(x=Reshape(x=x)) | ReduceMin(x=Reshape(x=x)):
            groups = grouped(x.shape, v.x.shape)
        case _:
            return None
    gone = [g for g in groups if set(g.after) & set(v.axes)]
    if not gone or any(not set(g.after) <= set(v.axes) for g in gone):
        return None
    axes = tuple(a for g in gone for a in g.before)
    made = v.replace(x=x, axes=axes, keepdims=False)
    return made if made.shape == v.shape else Reshape(made.replace(name=""), v.shape)


def sum_over_count(v: Value) -> Value | None:
    """A sum divided by its count is a mean.

        (%x: f32[1,2,2,3])
        %c = const [0.25] : f32[]
        %s = reduce_sum(%x) {axes = [1, 2], keepdims = true} : f32[1,1,1,3]
        %y = mul(%s, %c) : f32[1,1,1,3]
        ->
        %y = reduce_mean(%x) {axes = [1, 2], keepdims = true} : f32[1,1,1,3]
    """
    match v:
        case Mul(a=ReduceSum(x=x, axes=axes, keepdims=keepdims) as total, b=c):
            count = prod(x.shape[a] for a in axes)
        case _:
            return None
    fits = total.type == v.type and x.type.dtype.is_float and count > 0
    if not fits or not is_uniform(c, 1 / count, 1e-6):
        return None
    return ReduceMean(x, axes, keepdims)


def pad_into_window(v: Value) -> Value | None:
    """Padding that a convolution or pool can do itself: zeros, or what can't win a maximum.

        (%x: f32[1,4,4,1])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[1,2,2,1]
        %p = pad(%x)
            {pads = [[0, 0], [1, 0], [0, 1], [0, 0]], value = 0.0, mode = "constant"} : f32[1,5,5,1]
        %y = conv2d(%p, %w, -)
            {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1} : f32[1,4,4,1]
        ->
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[1,2,2,1]
        %y = conv2d(%x, %w, -)
            {strides = [1, 1], pads = [1, 0, 0, 1], dilations = [1, 1], groups = 1} : f32[1,4,4,1]
    """
    match v:
        case Conv2d(x=Pad(value=0.0) as pad):
            pass
        case AvgPool2d(x=Pad(value=0.0) as pad) if v.count_include_pad or not any(v.pads):
            pass
        case MaxPool2d(x=Pad() as pad) if pad.value == -math.inf or _harmless(pad):
            pass
        case _:
            return None
    if pad.mode != "constant" or pad.pads[0] != (0, 0) or pad.pads[3] != (0, 0):
        return None
    return _padded(v, pad)


def _padded(v: Conv2d | AvgPool2d | MaxPool2d, pad: Pad) -> Value | None:
    (top, bottom), (left, right) = pad.pads[1:3]
    extra: Pads = (top, left, bottom, right)
    a, b, c, d = (old + new for old, new in zip(v.pads, extra, strict=True))
    if isinstance(v, AvgPool2d | MaxPool2d) and not _sees((a, b, c, d), v, pad.x):
        return None
    if isinstance(v, AvgPool2d):
        return v.replace(x=pad.x, pads=(a, b, c, d), count_include_pad=True)
    return v.replace(x=pad.x, pads=(a, b, c, d))


def _sees(pads: Pads, v: AvgPool2d | MaxPool2d, x: Value) -> bool:
    """Whether each window of a pool that pads `x` so would see some of it."""
    return bool(replace(v.window, pads=pads).counts(*x.shape[1:3]).min() > 0)


def _harmless(pad: Pad) -> bool:
    """Whether zeros around x never win where a window sees some of it: x is not negative."""
    return pad.value == 0.0 and isinstance(pad.x, Clip) and pad.x.range[0] >= 0


RULES = (global_pool, reduce_twice, reduce_merged, sum_over_count, pad_into_window)
