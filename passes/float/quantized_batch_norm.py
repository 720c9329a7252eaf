"""Scales and offsets per channel of what is quantized already: batch norms that training for
quantization left beside their layers. What is before them is rounded, so no layer takes them."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.ops.conv import Conv2d
from irc.ops.core import Const
from irc.ops.quantization import Dequantize
from irc.ops.shape import Reshape, Transpose
from irc.passes.float.affine import Affine, affine
from irc.passes.float.constants import real
from irc.passes.float.pointwise import is_clamp
from irc.types import Array, Quant
from irc.value import Value

LEAST = 2.0**-16
"""Channels with scales below this part of the largest one are their offsets: what they add is a
hundredth of a step, and those would leave the offsets no room in a sum."""


def as_layer(v: Value) -> Value | None:
    """A layer of one weight for each channel, 1 or -1, that has the channel's scale: the sum of
    equation (4) is `x - zp` itself, and nothing is rounded but where the program says. An offset
    that follows becomes its bias, as of any layer.

        (%x: u8[1,2,2,2] q(0.5, 3))
        %d = dequantize(%x) : f32[1,2,2,2]
        %s = const [0.5, -4.0] : f32[2]
        %y = mul(%d, %s) : f32[1,2,2,2]
        ->
        %d = dequantize(%x) : f32[1,2,2,2]
        %y.scale = const [1, -1] : i8[2,1,1,1] q([0.5, 4.0], 0, axis = 0)
        %2 = dequantize(%y.scale) : f32[2,1,1,1]
        %y = conv2d(%d, %2, -)
            {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 2} : f32[1,2,2,2]
    """
    found = affine(v)
    if found is None or found.x.shape != v.shape or not _bytes(found.x):
        return None
    one = np.all(found.scale == found.scale[0]) and np.all(found.offset == found.offset[0])
    if one or not np.any(found.scale):
        return None  # a table has those, a constant these
    return _layer(found, v)


def _bytes(v: Value) -> bool:
    """Whether a value is read from 8 bits with one scale that were computed, moved or without a
    sign."""
    while isinstance(v, Reshape | Transpose) or _unsigned(v):
        (v,) = v.operands
    if not isinstance(v, Dequantize) or isinstance(v.x, Const):
        return False
    t = v.x.type
    return t.dtype.bits == 8 and t.quant is not None and t.quant.axis is None


def _unsigned(v: Value) -> bool:
    return is_clamp(v) and v.range == (0, np.inf)  # type: ignore[attr-defined]


def _layer(a: Affine, v: Value) -> Value:
    """Over images; others are pixels of one."""
    count, dtype = len(a.scale), v.type.dtype
    w = Dequantize(_signs(a.scale, f"{v.name}.scale"))
    b = real(a.offset, dtype, f"{v.name}.offset") if np.any(a.offset) else None
    if v.type.rank == 4:
        return Conv2d(a.x, w, b, groups=count)
    pixels = Reshape(a.x, (1, 1, prod(v.shape[:-1]), count))
    return Reshape(Conv2d(pixels, w, b, groups=count), v.shape)


def _signs(scale: Array, name: str) -> Const:
    """Weights of 1, -1 and 0 that have the scales of their channels."""
    least = LEAST * float(np.abs(scale).max())
    signs = np.where(np.abs(scale) < least, 0, np.sign(scale)).astype(np.int8)
    scales = np.maximum(np.abs(scale), least)
    return Const(signs.reshape(-1, 1, 1, 1), Quant(tuple(scales.tolist()), 0, 0), name=name)
