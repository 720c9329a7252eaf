"""Weights of nine bits as eight, and a number that they have in common.

A file whose weights are u8 around a zero point that is not 128 has differences from -255 to 255.
They are i8 and what all of a layer, or of a channel, have besides: `w = w' + d`. Then

    sum(x * w) = sum(x * w') + d * sum(x)

and the second sum is the same for all output channels: one number per pixel, which costs as much as
one channel of many. The integers of the results stay what they were. Depthwise layers multiply 16
bits anyway; of a layer of several groups each has another sum, so that its weights become the sum
of i8 tensors, side by side over channels that are given as often. So do weights of more than nine
bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const
from irc.ops.linear import QLinear
from irc.ops.quantization import full_range
from irc.passes.integer.conversions import in_parts
from irc.pipeline import Pass
from irc.proofs import ACCUMULATOR_LIMIT
from irc.rewrite import rewrite
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, operand_fields

Layer = QConv2d | QLinear
_PLAIN = TensorType(DType.I32, (), Quant(1.0))


@dataclass(frozen=True)
class LiftWeights(Pass):
    """Each layer of i16 weights, which come of u8 ones, as one of i8; bit by bit the same."""

    name: ClassVar[str] = "lift_weights"

    def run(self, graph: Graph) -> Graph:
        """One rule."""
        return rewrite(graph, (lifted,))


def lifted(v: Value) -> Value | None:
    """A layer over 8 bits, its weights as i8.

        (%x: u8[1,2] q(0.1, 3))
        %w = const [200, -7, 9, 0] : i16[2,2]
        %b = const [-579, -27] : i32[2]
        %m = const [1073741824, 1073741824] : i32[2]
        %s = const [38, 38] : i8[2]
        %y = qlinear(%x, %w, %b, %m, %s)
            {clamp = [0, 255], wide = false, fraction = 0} : u8[1,2] q(0.2, 0)
        ->
        %w = const [127, -80, -64, -73] : i8[2,2]
        %b = const [-579, -27] : i32[2]
        %m = const [1073741824, 1073741824] : i32[2]
        %s = const [38, 38] : i8[2]
        %5 = const [73, 73] : i8[1,2]
        %6 = const [0] : i32[1]
        %7 = const [1073741824] : i32[1]
        %8 = const [30] : i8[1]
        %y.sum = qlinear(%x, %5, %6, %7, %8)
            {clamp = [-2147483648, 2147483647], wide = false, fraction = 0} : i32[1,1] q(1.0, 0)
        %y = qlinear(%x, %w, %b, %m, %s, -, %y.sum)
            {clamp = [0, 255], wide = false, fraction = 0, lift = 73} : u8[1,2] q(0.2, 0)
    """
    match v:
        case QConv2d(w=Const() as w) | QLinear(w=Const() as w) if w.type.dtype is DType.I16:
            pass
        case _:
            return None
    if v.x.type.dtype.bits != 8 or _depthwise(v) or _is_sum(v, w):
        return None
    if _within(w, DType.I8.min, DType.I8.max):
        return v.replace(w=Const(w.array.astype(np.int8), name=w.name))
    groups = v.groups if isinstance(v, QConv2d) else 1
    rows = w.array.reshape(len(w.array), -1).astype(np.int64)
    if groups > 1 or v.common is not None or not (_nine_bits(w, rows) and _fits(w)):
        x, parts = in_parts(v.x, w.array, groups)
        return v.replace(x=x, w=Const(parts, name=w.name))
    lifts = lifts_of(rows.min(1), rows.max(1))
    less = (rows - lifts[:, None]).astype(np.int8).reshape(w.shape)
    narrow = v.replace(w=Const(less, name=w.name))
    if lifts.min() == lifts.max():
        return narrow.replace(common=_sums(v, int(lifts[0])), lift=int(lifts[0]))
    share = Const(lifts.astype(np.int32), name=f"{v.name}.share")
    return narrow.replace(common=_sums(v, 1), share=share)


def lifts_of(low: Array, high: Array) -> Array:
    """What is taken off each channel's weights, from `low` to `high`, so that they are i8: one
    number for all where there is one; the least, and -128 is avoided where it can be."""
    if high.max() - low.min() <= DType.U8.max:
        low, high = (np.full_like(low, end) for end in (low.min(), high.max()))
    least = high - DType.I8.max
    most = np.maximum(low + DType.I8.max, least)
    return np.asarray(np.clip(0, least, most))


def _depthwise(v: Layer) -> bool:
    return isinstance(v, QConv2d) and v.groups == v.x.shape[3] == v.shape[3]


def _is_sum(v: Layer, w: Const) -> bool:
    """Whether that is what `_sums` makes: no other layer has to be left as it is."""
    if len(w.array) != 1 or not w.array.size or w.array.min() != w.array.max():
        return False
    made = _sums(v, int(w.array.flat[0]))
    names = (*operand_fields(type(v)), *v.attributes)
    return all(_alike(getattr(v, name), getattr(made, name)) for name in names)


def _alike(a: Any, b: Any) -> bool:
    """Whether two fields of nodes are the same; constants, by their content."""
    if isinstance(a, Const) and isinstance(b, Const):
        return a.type == b.type and np.array_equal(a.array, b.array)
    return bool(a == b)


def _within(w: Const, low: int, high: int) -> bool:
    return bool(low <= w.array.min(initial=0) and w.array.max(initial=0) <= high)


def _nine_bits(w: Const, rows: Array) -> bool:
    """Whether weights [channels, ...], in `rows` too, are differences of u8, and each channel's of
    one zero point."""
    spans = rows.max(1) - rows.min(1)
    return _within(w, -DType.U8.max, DType.U8.max) and int(spans.max()) <= DType.U8.max


def _fits(w: Const) -> bool:
    """Whether both terms stay in 32 bits, whatever the weights."""
    return prod(w.shape[1:]) * DType.U8.max * -DType.I8.min < ACCUMULATOR_LIMIT


def _sums(v: Layer, times: int) -> Value:
    """That many times the sum of what a result reads, by a layer of one channel."""
    dtype = np.int8 if DType.I8.min <= times <= DType.I8.max else np.int16
    array = np.full((1, *v.w.shape[1:]), times, dtype)
    arguments: dict[str, Any] = {
        "b": Const(np.zeros(1, np.int32)), "m": Const(np.full(1, 2**30, np.int32)),
        "s": Const(np.full(1, 30, np.int8)), "w": Const(array), "clamp": full_range(_PLAIN),
        "dtype": _PLAIN.dtype, "quant": _PLAIN.quant, "wide": False, "fraction": 0, "power": 0,
        "exception": None, "common": None, "share": None, "lift": 0, "name": f"{v.name}.sum",
    }  # fmt: skip
    return v.replace(**arguments)
