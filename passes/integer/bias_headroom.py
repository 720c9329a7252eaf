"""Weights whose bias leaves no room for them in 32 bits.

A channel that training has all but switched off has weights, and so a scale, far smaller than its
bias, which then counts so many units of the accumulator that it does not fit. Such a channel counts
in units `2^k` times as large. Its weights lose k bits, of which the result shows nothing: where the
bias is 2^31 units and still within the result's range of 256 steps, a unit is 2^-23 steps.
"""

from __future__ import annotations

import numpy as np

from irc.ops.core import Const
from irc.ops.quantization import channel_scales, real_constant
from irc.proofs import ACCUMULATOR_LIMIT
from irc.types import Quant, TensorType
from irc.value import Value


def with_room(x: TensorType, w: Const, bias: Value | None) -> Const:
    """The weights, output channels on axis 0, of a layer over `x`: in coarser units where the
    bias, with what the zero point of x adds, would leave the products no room in 32 bits."""
    if not isinstance(bias, Const) or w.quant is None or w.quant.axis not in (None, 0):
        return w
    rows = w.array.reshape(len(w.array), -1).astype(np.int64)
    scales = channel_scales(w.type, len(rows))
    # Of values of 16 bits the products are summed in 64.
    products = np.abs(rows).sum(1) * (_reach(x) if x.dtype.bits == 8 else 0)
    units = np.abs(real_constant(bias, "bias").reshape(-1)) / (x.scale * scales)
    lacking = (units + products >= ACCUMULATOR_LIMIT) & (2 * products < ACCUMULATOR_LIMIT)
    if not lacking.any():
        return w
    # Products only shrink: a bias of a quarter of the limit leaves them room.
    excess = np.where(lacking, units / (ACCUMULATOR_LIMIT / 4), 1.0)
    units_as_large = 2.0 ** np.ceil(np.log2(excess))
    shown = units_as_large.reshape(-1, *[1] * (w.array.ndim - 1))
    array = np.rint(w.array / shown).astype(w.array.dtype)
    return Const(array, Quant(tuple(map(float, scales * units_as_large)), 0, 0), name=w.name)


def _reach(x: TensorType) -> int:
    """The largest |q| and |q - z| together: what a product adds, and what the zero point does."""
    largest = max(abs(x.dtype.min), x.dtype.max)
    return largest + max(abs(x.dtype.min - x.zero), abs(x.dtype.max - x.zero))
