"""Operands for an integer op that can't take those that a model states: scales that are too far
apart, or two values of 16 bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irc import fixedpoint
from irc.ops.core import Const
from irc.ops.quantization import upper_bits
from irc.passes.integer.conversions import converted
from irc.passes.quantize.intervals import real_range
from irc.passes.quantize.scales import symmetric
from irc.types import DType, TensorType
from irc.value import Value

Operands = tuple[Value, ...]


def legalized(v: Value, operands: Operands, target: TensorType) -> Iterator[tuple[Operands, bool]]:
    """Operands to try in the place of `operands`, and whether they say the same: constants held
    within what a sum can tell apart, then the upper 8 bits of values of 16, of as few as it takes.
    """
    if v.op in ("add", "sub"):
        held = tuple(_held(o, operands, target) for o in operands)
        if held != operands:
            yield held, True
    made = list(operands)
    for i in reversed(range(len(operands))):
        upper = upper_bits(made[i].type)
        if upper is not None:
            made[i] = converted(made[i], upper)
            yield tuple(made), False


def _held(o: Value, operands: Operands, target: TensorType) -> Value:
    """A constant term in 16 bits of its own. Where it lies further out than the result and the
    other terms together, the sum saturates whatever these are: a mask of -1e38."""
    if not isinstance(o, Const) or o.type.quant is None or not o.array.size:
        return o
    ranges = [target, *(p.type for p in operands if p is not o and p.type.quant is not None)]
    bound = sum(max(map(abs, real_range(t))) for t in ranges)
    real = np.clip(fixedpoint.dequantize(o.array, o.type, DType.F64), -bound, bound)
    type_ = TensorType(DType.I16, o.shape, symmetric(float(np.abs(real).max()) or bound))
    return Const(fixedpoint.quantize(real, type_), type_.quant, name=o.name)
