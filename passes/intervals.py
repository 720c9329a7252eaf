"""Types for float outputs that a model leaves unquantized, from the interval they must lie in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.ops.core import Const
from irc.ops.quantization import channel_scales, constant
from irc.passes.pointwise import apply, is_clamp
from irc.passes.quantize.scales import stored_as
from irc.passes.quantize.sites import NATURAL, weighted
from irc.types import DType, Quant, TensorType
from irc.value import Value

Interval = tuple[float, float]
Forms = Callable[[Value], Value | None]
"""The integers that stand for a float value, or None."""

KEEPING = frozenset({"reduce_mean", "avg_pool2d", "resize_linear"})
"""Ops whose result lies between the extremes of their operand."""


def output_type(v: Value, forms: Forms, root: Mapping[Value, Value]) -> TensorType:
    """The integer type of an unquantized float output (see `irc.passes.integerize`); `root` says
    what each value is a function of.

    Raises `IRCError` where no interval is known.
    """
    core = _core(v)
    if weighted(core):
        node: Any = core
        x, w = forms(node.x), forms(node.w)
        if x is None or w is None:
            raise IRCError(f"{core.op} %{core.name}: its operands are not quantized")
        scales = x.type.scale * channel_scales(constant(w, "weights").type, w.shape[0])
        return TensorType(DType.I32, v.shape, Quant(float(scales.max()), 0))
    if core.op in NATURAL:
        return TensorType(DType.I8, v.shape, stored_as(NATURAL[core.op], DType.I8))
    low, high = _interval(v, forms, root)
    low, high = min(low, 0.0), max(high, 0.0, low + 1e-6)
    scale = (high - low) / 65535
    zero = int(np.clip(np.rint(-low / scale), 0, 65535)) + DType.I16.min
    return TensorType(DType.I16, v.shape, Quant(scale, zero))


def _core(v: Value) -> Value:
    """The op that computes the numbers: clamps and moves aside."""
    while v.operands and (is_clamp(v) or (v.moves and len(v.operands) == 1)):
        v = v.operands[0]
    return v


def real_range(t: TensorType) -> Interval:
    """The least and largest real that a tensor's integers can stand for."""
    ends = np.array([t.dtype.min, t.dtype.max])
    low, high = fixedpoint.dequantize(ends, t.with_shape((2,)), DType.F64)
    return float(low), float(high)


def _interval(v: Value, forms: Forms, root: Mapping[Value, Value]) -> Interval:
    form = forms(v)
    if form is not None:
        return real_range(form.type)
    if isinstance(v, Const):
        return float(v.array.min()), float(v.array.max())
    if (known := _table_range(v, forms, root[v])) is not None:
        return known
    parts = [_interval(o, forms, root) for o in v.operands if o.type.dtype.is_float]
    if v.moves or v.op in KEEPING:
        return min(p[0] for p in parts), max(p[1] for p in parts)
    if is_clamp(v):
        low, high = (float(np.clip(end, *v.range)) for end in parts[0])  # type: ignore[attr-defined]
        return low, high
    match v.op, parts:
        case "add", [a, b]:
            return a[0] + b[0], a[1] + b[1]
        case "sub", [a, b]:
            return a[0] - b[1], a[1] - b[0]
        case "mul", [a, b]:
            corners = [p * q for p in a for q in b]
            return min(corners), max(corners)
        case "reduce_sum", [a]:
            count = int(v.count)  # type: ignore[attr-defined]
            return a[0] * count, a[1] * count
    raise IRCError(f"{v.op} %{v.name}: the output is not quantized, and its range is not known")


def _table_range(v: Value, forms: Forms, root: Value) -> Interval | None:
    """The exact range of a function of one 8-bit value."""
    form = forms(root)
    if root is v or form is None or form.type.dtype.bits != 8:
        return None
    q = np.arange(form.type.dtype.min, form.type.dtype.max + 1)
    real = fixedpoint.dequantize(q, form.type.with_shape(q.shape), DType.F64)
    results = apply(v, root, real)
    if not np.all(np.isfinite(results)):
        raise IRCError(f"{v.op} %{v.name}: the output is not quantized, and may be infinite")
    return float(results.min()), float(results.max())
