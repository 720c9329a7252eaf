"""Types for float values that a model leaves unquantized, outputs and others, from the interval
that they must lie in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.ops.core import Const
from irc.ops.qelementwise import WIDEST
from irc.ops.quantization import channel_scales, constant, real_constant
from irc.ops.shape import Pad
from irc.passes.float.pointwise import apply, is_clamp
from irc.passes.quantize.ranges import NATURAL
from irc.passes.quantize.scales import stored_as
from irc.passes.quantize.sites import brought, weighted
from irc.types import DType, Quant, Shape, TensorType
from irc.value import Value

Interval = tuple[float, float]
Forms = Callable[[Value], Value | None]
"""The integers that stand for a float value, or None."""

FINEST = 12
"""A value of 16 bits between two ops takes at most so many more than the result it goes into."""
FINEST_SUM = 20
"""So many more does a sum of products take that goes into another sum, in 32 bits."""
KEEPING = frozenset({"reduce_mean", "avg_pool2d", "resize_linear"})
"""Ops whose result lies between the extremes of their operand."""

MULTIPLYING = frozenset({"conv2d", "conv_transpose2d", "linear"})
"""Ops that sum products of an operand with weights."""


def output_type(v: Value, forms: Forms, root: Mapping[Value, Value]) -> TensorType:
    """The integer type of an unquantized float output (see `irc.passes.integer`); `root` says
    what each value is a function of.

    Raises `IRCError` where no interval is known.
    """
    made = core(v)
    if weighted(made) and not _scales_channels(made, forms):
        node: Any = made
        x, w = forms(node.x), forms(node.w)
        if x is None or w is None:
            raise IRCError(f"{made.op} %{made.name}: its operands are not quantized")
        scales = x.type.scale * channel_scales(constant(w, "weights").type, w.shape[0])
        return TensorType(DType.I32, v.shape, Quant(float(scales.max()), 0))
    if made.op in NATURAL:
        return TensorType(DType.I8, v.shape, stored_as(NATURAL[made.op], DType.I8))
    low, high = _interval(v, forms, root)
    low, high = min(low, 0.0), max(high, 0.0, low + 1e-6)
    scale = (high - low) / 65535
    zero = int(np.clip(np.rint(-low / scale), 0, 65535)) + DType.I16.min
    return TensorType(DType.I16, v.shape, Quant(scale, zero))


def _scales_channels(v: Value, forms: Forms) -> bool:
    """Whether a layer only scales channels, by weights of 1 and -1: its sums have no more steps
    than what it reads, and the coarsest channel's leave others none."""
    if not weighted(v):
        return False
    w = forms(v.w)  # type: ignore[attr-defined]
    return isinstance(w, Const) and w.type.size == len(w.array) and bool(np.all(abs(w.array) <= 1))


def kept_type(v: Value, known: Callable[[Value], TensorType | None]) -> TensorType | None:
    """The type in which the integers that stand for what `v` is made of stand for `v`, too: it
    moves them, or clamps them at integers of that type; None for others. `known` gives such types
    of operands."""
    reals = [o for o in v.operands if o.type.dtype.is_float and not isinstance(o, Const)]
    types = {o: known(o) for o in reals}
    parts = {(t.dtype, t.quant): t for t in types.values() if t is not None}
    if len(parts) != 1 or None in types.values():
        return None
    (t,) = parts.values()
    same = brings_integers(v, t) if v.moves else is_clamp(v) and _clamps_integers(v, t)
    return TensorType(t.dtype, v.shape, t.quant) if same else None


def brings_integers(v: Value, t: TensorType) -> bool:
    """Whether the constants that a moving op brings in lie in the range of a type."""
    reals = brought(v)
    if isinstance(v, Pad) and not any(map(np.any, reals)):  # all scales have a zero
        return True
    if not reals or t.quant is None or t.quant.axis is not None:
        return not reals
    integers = [np.rint(a.astype(np.float64) / t.scale) + t.zero for a in reals]
    return all(np.all((q >= t.dtype.min) & (q <= t.dtype.max)) for q in integers)


def _clamps_integers(v: Any, t: TensorType) -> bool:
    """Whether the ends of a clamp are integers of a type, or lie outside of its range where they
    clamp nothing; one that all of the range lies beyond would be none of its numbers."""
    if t.quant is None or t.quant.axis is not None:
        return False
    low, high = (float(end) / t.scale + t.zero for end in v.range)
    lower = low <= t.dtype.min or (low <= t.dtype.max and low == round(low))
    upper = high >= t.dtype.max or (high >= t.dtype.min and high == round(high))
    return lower and upper


def inner_type(
    user: Value, v: Value, target: TensorType, forms: Forms, root: Mapping[Value, Value],
    kept: Mapping[Value, TensorType],
) -> TensorType | None:  # fmt: skip
    """The type for an operand `v` that `user` reads unquantized, its result being computed in
    `target`; None where it would have to be measured.

    Floats that integers stand for once they are clamped or moved have their type in `kept`
    (`kept_type`). What else goes into a sum or mean gets 16 bits, sums of products 32. So do
    averages of whole images that a layer reads; others keep the type of what they average, as they
    do in the integer kernels of the tools that leave them so.
    """
    if v in kept:
        return kept[v]
    fine = None
    if user.op in ("add", "sub", *KEEPING):
        fine = _sum_type(user, v, target, forms, root)
        fine = fine or _fine_type(user, v, target, forms, root)
    return fine or _average_type(user, v, forms, kept)


def _sum_type(
    user: Value, v: Value, target: TensorType, forms: Forms, root: Mapping[Value, Value]
) -> TensorType | None:
    """32 bits for a sum of products that is added to something: so fine that it makes no
    difference that it is rounded before. As many bits below a step of `target` as leave all that
    v can be in 32, and what the result can tell apart in what a sum takes. None for others, and
    where that is no finer than 16 bits are."""
    own, useful = _known(v, forms, root), _useful(user, v, target, forms, root)
    sums = user.op in ("add", "sub") and core(v).op in MULTIPLYING
    if not sums or target.dtype.bits != 8 or own is None or useful is None:
        return None
    room = max(1.0, *(abs(end) / target.scale for end in (*own, *useful)))
    bits = min(FINEST_SUM, math.floor(math.log2(WIDEST / room)))
    if bits <= FINEST:
        return None
    return TensorType(DType.I32, v.shape, Quant(target.scale / 2**bits))


def _fine_type(
    user: Value, v: Value, target: TensorType, forms: Forms, root: Mapping[Value, Value]
) -> TensorType | None:
    """16 bits of which a step is a power of two finer than that of `target`, so that a sum scales
    by a shift; as fine as a target that is such a value itself, the sum that a mean reads. They
    hold every value that v can have, saving those which make a sum saturate whatever its other
    terms are. None where no interval is known, or 16 bits are not so fine."""
    interval = _useful(user, v, target, forms, root)
    if interval is None:
        return None
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    steps = (high - low) / target.scale
    finest, least = (FINEST, 1) if target.dtype.bits == 8 else (0, 0)
    bits = min(finest, math.floor(math.log2(65534 / max(steps, 1.0))))
    if bits < least:
        return None
    scale = target.scale / 2**bits
    middle = round((low + high) / 2 / scale)
    return TensorType(DType.I16, v.shape, Quant(scale, -middle))


def _average_type(
    user: Value, v: Value, forms: Forms, kept: Mapping[Value, TensorType]
) -> TensorType | None:
    """The type of what is averaged, or all that 16 bits have of its range."""
    core = v
    while core.moves and len(core.operands) == 1:
        (core,) = core.operands
    if core.op not in KEEPING:
        return None
    averaged = core.operands[0]
    form = forms(averaged)
    type_ = kept.get(averaged) if form is None else form.type
    if type_ is None:
        return None
    whole = user.op in ("conv2d", "linear") and all(d == 1 for d in v.shape[1:-1])
    return _in_words(type_, v.shape) if whole else type_.with_shape(v.shape)


def _in_words(t: TensorType, shape: Shape) -> TensorType:
    """16 bits for the range that 8 have, steps a power of two finer; others as they are."""
    if t.dtype.bits != 8 or t.quant is None or t.quant.axis is not None:
        return t.with_shape(shape)
    finer = 2**8
    middle = t.dtype.min - DType.I8.min
    return TensorType(DType.I16, shape, Quant(t.scale / finer, (t.zero - middle) * finer))


def _useful(
    user: Value, v: Value, target: TensorType, forms: Forms, root: Mapping[Value, Value]
) -> Interval | None:
    """The values of an operand that a result of type `target` can tell apart."""
    own = _known(v, forms, root)
    others = [o for o in user.operands if o is not v]
    if user.op in KEEPING or len(others) != 1:
        return own
    rest = _known(others[0], forms, root)
    if rest is None:
        return own
    low, high = real_range(target)
    match user.op, user.operands[0] is v:
        case "add", _:
            needed = low - rest[1], high - rest[0]
        case _, True:
            needed = low + rest[0], high + rest[1]
        case _:
            needed = rest[0] - high, rest[1] - low
    return needed if own is None else (max(needed[0], own[0]), min(needed[1], own[1]))


def _known(v: Value, forms: Forms, root: Mapping[Value, Value]) -> Interval | None:
    try:
        return _interval(v, forms, root)
    except IRCError:
        return None


def core(v: Value) -> Value:
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
        return (float(v.array.min()), float(v.array.max())) if v.array.size else (0.0, 0.0)
    if (known := _table_range(v, forms, root[v])) is not None:
        return known
    if v.op in MULTIPLYING:
        return _weighted_range(v, forms, root)
    parts = [_interval(o, forms, root) for o in v.operands if o.type.dtype.is_float]
    if v.moves or v.op in KEEPING:
        parts += [(float(a.min()), float(a.max())) for a in brought(v) if a.size]
        return min(p[0] for p in parts), max(p[1] for p in parts)
    if is_clamp(v):
        low, high = (float(np.clip(end, *v.range)) for end in parts[0])  # type: ignore[attr-defined]
        return low, high
    return _arithmetic(v, parts)


def _arithmetic(v: Value, parts: list[Interval]) -> Interval:
    """Of sums, differences and products of what lies in `parts`."""
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


def _weighted_range(v: Any, forms: Forms, root: Mapping[Value, Value]) -> Interval:
    """What sums of products can be at most, with the weights that there are; padding is 0."""
    low, high = _interval(v.x, forms, root)
    w = real_constant(forms(v.w) or v.w, "weights").reshape(v.w.shape[0], -1)
    b = 0.0 if v.b is None else real_constant(forms(v.b) or v.b, "bias").reshape(-1)
    low, high = min(low, 0.0), max(high, 0.0)
    positive, negative = np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)
    least, most = positive * low + negative * high + b, positive * high + negative * low + b
    return float(least.min()), float(most.max())


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
