"""Integer twins that round as the arithmetic of a program's author does.

Layers without a bias, or with one that is quantized, as ONNX's QDQ and QOperator forms have it, are
run in single precision by onnxruntime: `rint(float32(sum) * float32(factor))`. A real bias, as
PyTorch's quantized programs have it, means what the reals give. Both are a staircase over the sum
(see `irc.passes.integer.staircase`), whose steps the exact product of equation (6) takes but for a
few in ten thousand; its constants have room to take most of the others, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from irc.errors import IRCError, TypeCheckError
from irc.ops.conv import QConv2d, QConvTranspose2d
from irc.ops.core import Const
from irc.ops.elementwise import Add, Sub
from irc.ops.linear import QLinear
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import (
    Folded,
    Lookup,
    Requantize,
    accumulator_units,
    channel_scales,
    constant,
    is_wide,
    magnitude,
)
from irc.ops.reduce import QReduceSum, ReduceMean
from irc.passes.integer.staircase import Line, Staircase, through_halves, through_sums
from irc.proofs import ACCUMULATOR_LIMIT, accumulator_bound
from irc.types import Array, DType
from irc.value import Value

Layer = QConv2d | QConvTranspose2d | QLinear
_F32 = np.float32
_NEVER = -(2**31)
"""A sum that no layer comes to."""
_SELDOM = 1 / 20
"""Elements of a layer, in each run, that may step wrongly."""
_MOST = 16
"""Exceptions of a channel: each costs two or three instructions for a vector of results."""
_TURNS = range(-3, 4)
_NUDGES = (0, *(sign << power for power in range(9) for sign in (-1, 1)))
"""What is added to the multipliers of a sum and to its half, to try."""
_CLOSE = 2.0**-10
"""Sums this close to a tie, in steps of the result, may fall to the other side by that."""


def with_author_rounding(
    made: Value, v: Value, operands: Sequence[Value], *, single: DType | None
) -> Value:
    """The twin `made` of the float op `v` over integer `operands` with constants that take its
    author's steps; `single` as a quantize has it. Others as they are."""
    if made.type.dtype.bits != 8:
        return made
    match made:
        case QConv2d() | QConvTranspose2d() | QLinear() if made.fraction:
            return _exact_layer(made, operands)
        case QConv2d() | QLinear() if single is not None:
            return _single_layer(made, operands)
        case QReduceSum() if single is not None and isinstance(v, ReduceMean) and not made.power:
            return _single_mean(made)
        case QAdd() if single is not None and isinstance(v, Add):
            return _single_sum(made, single)
        case QAdd() if single is not None and isinstance(v, Sub) and made.type.zero % 2 == 0:
            return _even_sum(made) or made  # no op of bytes: reals, rounded before the zero point
        case Requantize() if single is not None and made.x.type.dtype.bits == 8:
            return _single_change(made)
    return made


def _single_layer(made: QConv2d | QLinear, operands: Sequence[Value]) -> Value:
    """`sum * (s_x * s_w / s_y)`, all in single precision."""
    w = constant(operands[1], "weights")
    scales = channel_scales(w.type, made.shape[-1]).astype(_F32)
    factors = _F32(made.x.type.scale) * scales / _F32(made.type.scale)
    bound = accumulator_bound(w.array, _array(made.b), made.x.type.dtype)
    if power := _power(factors, bound):
        return made.replace(power=power)
    found = _single_line(made, factors, bound)
    if found is None:
        return made
    line, stairs = found
    return _with(made, w, made.b, line).replace(exception=_exceptions(made, line, stairs))


def _power(factors: Array, bound: Array) -> int:
    """k where all factors are 2^-k and a sum has room for what rounds it: ties are frequent then,
    and exact. Else 0."""
    fractions, exponents = np.frexp(factors)
    power = 1 - int(exponents[0])
    alike = np.all(fractions == 0.5) and np.all(exponents == exponents[0])
    return power if alike and power > 0 and bound.max() + 2**power < ACCUMULATOR_LIMIT else 0


def _exceptions(made: Layer, line: Line, stairs: Staircase) -> Const | None:
    """For each channel the sums that would step wrongly, those nearest to zero, and by how much
    each is to count more, in rows by turns: as many as it takes until the others occur in few runs
    only. None where there is none in any."""
    late, early = line.late(stairs), line.early(stairs)
    missed = late | early
    count = _worthwhile(missed, stairs, made.type.size // len(missed))
    if not count:
        return None
    order = np.where(missed, np.abs(stairs.results), np.inf).argsort(1, kind="stable")[:, :count]
    sums, by = np.where(late, stairs.least, stairs.least - 1), np.where(late, 1, -1)
    some = np.take_along_axis(missed, order, 1)
    sums = np.where(some, np.take_along_axis(sums, order, 1), _NEVER)
    by = np.where(some, np.take_along_axis(by, order, 1), 0)
    rows = np.stack([sums, by], 2).reshape(len(missed), -1).T
    return Const(np.ascontiguousarray(rows, np.int32), name=f"{made.name}.exception")


def _worthwhile(missed: Array, stairs: Staircase, elements: int) -> int:
    """How many exceptions each channel of so many elements is to have."""
    sums = elements * stairs.likelihood * missed
    left = sums.sum() - np.sort(sums, 1)[:, ::-1].cumsum(1).sum(0)
    enough = np.flatnonzero(np.concatenate([left, [0.0]]) < _SELDOM)[0] + 1
    return int(min(enough, missed.sum(1).max(), _MOST))


def _single_mean(made: QReduceSum) -> Value:
    factor = _F32(made.x.type.scale) / (_F32(made.type.scale) * _F32(made.count))
    found = _single_line(made, np.array([factor]), np.array([made.bound]))
    if found is None:
        return made
    line, _ = found
    return made.replace(m=int(line.m[0]), s=int(line.s[0]))


def _single_change(made: Requantize) -> Value:
    """`(q - z) * s_x / s_y`: reals in between, and a division. A table where no line has it."""
    source, t = made.x.type, made.type
    sx, sy = _F32(source.scale), _F32(t.scale)

    def rounded(sums: Array) -> Array:
        return np.asarray(np.rint(sums.astype(_F32) * sx / sy))

    each = np.arange(source.dtype.min, source.dtype.max + 1) - source.zero
    wanted = np.clip(rounded(each) + t.zero, *made.clamp).astype(t.dtype.numpy)
    units, bound = np.array([float(sy) / float(sx)]), np.array([2 * magnitude(source)])
    found = _line(made, units, rounded, bound)
    if found is not None:
        turned = made.replace(m=int(found[0].m[0]), s=int(found[0].s[0]))
        if np.array_equal(turned.evaluate(each + source.zero), wanted):
            return turned
    return Lookup(made.x, Const(wanted), made.quant, name=made.name)


def _single_line(made: Value, factors: Array, bound: Array) -> tuple[Line, Staircase] | None:
    """Equation (6) for factors f32[channels], and their steps; None where one is out of range."""
    units = 1 / factors.astype(np.float64)

    def rounded(sums: Array) -> Array:
        return np.asarray(np.rint(sums.astype(_F32) * factors[:, None]))

    return _line(made, units, rounded, bound)


def _line(
    made: Value, units: Array, rounded: Callable[[Array], Array], bound: Array
) -> tuple[Line, Staircase] | None:
    """The line that takes the steps of `rounded`, which is near `sums / units`."""
    if not np.all((units > 0) & np.isfinite(units)):
        return None
    stairs = Staircase.of(rounded, units, np.zeros(len(units)), bound, made.type)
    try:
        return through_halves(stairs, units), stairs
    except IRCError:
        return None


def _single_sum(made: QAdd, single: DType) -> Value:
    """`fma(a, r_a, fma(b, r_b, z))` with `r = s / s_y`, z of the three zero points: as onnxruntime
    does it on CPUs that multiply and add in one step. All pairs of bytes are tried. Between scales
    that are powers of two ties are exact and frequent, and go to the even integer."""
    if made.a.type.dtype.bits != 8 or made.b.type.dtype.bits != 8:
        return made
    (a, b), wanted = _near_ties(made, single)
    turns = np.array(sorted(itertools.product(_TURNS, _TURNS, _NUDGES), key=_distance))
    ma, mb, half = (turns + np.array([made.ma, made.mb, made.half])).T[..., None]
    total = ((a * ma + b * mb + half) >> made.shift) + made.type.zero
    missed = (np.clip(total, made.dtype.min, made.dtype.max) != wanted).sum(1)
    if missed.min() and (even := _even_sum(made)) is not None:
        zeros = np.array([[t.zero] for t in (made.a.type, made.b.type)])
        if np.array_equal(even.evaluate(*(np.stack([a, b]) + zeros)), wanted):
            return even
    ma, mb, nudge = (int(turn) for turn in turns[missed.argmin()])
    try:
        return made.replace(ma=made.ma + ma, mb=made.mb + mb, nudge=nudge)
    except TypeCheckError:
        return made


def _even_sum(made: QAdd) -> QAdd | None:
    """The sum whose ties go to the even integer, where its factors are powers of two."""
    fractions, exponents = np.frexp([t.scale / made.type.scale for t in (made.a.type, made.b.type)])
    if np.any(fractions != 0.5):
        return None
    shift = max(1, *(1 - exponents.astype(int)))
    ma, mb = (1 << int(shift + e - 1) for e in exponents)
    mb = mb if made.mb > 0 else -mb
    try:
        return made.replace(ma=ma, mb=mb, shift=int(shift), nudge=0, even=True)
    except TypeCheckError:
        return None


def _distance(turn: tuple[int, int, int]) -> float:
    ma, mb, nudge = turn
    return abs(ma) + abs(mb) + abs(nudge) / max(_NUDGES)


def _near_ties(made: QAdd, single: DType) -> tuple[Array, Array]:
    """Pairs whose sum lies next to where it is rounded the other way: their differences to the zero
    points, i64[2, n], and the results that they are to have, i64[n]."""
    types = made.a.type, made.b.type, made.type
    za, zb, zero = (t.zero + single.min - t.dtype.min for t in types)
    each = np.arange(single.min, single.max + 1, dtype=np.int64)
    a, b = (grid.reshape(-1) for grid in np.meshgrid(each, each))
    ra, rb = (_F32(t.scale) / _F32(made.type.scale) for t in types[:2])
    fixed = _F32(_F32(zero) - _fma(ra, za, _F32(rb * _F32(zb))))
    total = _fma(ra, a, _fma(rb, b, fixed))
    exact = (a - za) * made.ma + (b - zb) * made.mb
    tie = np.ldexp(exact.astype(np.float64), -made.shift) + 0.5
    close = np.abs(tie - np.rint(tie)) < _CLOSE
    wanted = np.clip(np.rint(total[close]), single.min, single.max).astype(np.int64)
    return np.stack([a - za, b - zb])[:, close], wanted + made.dtype.min - single.min


def _fma(x: np.float32, y: Array | int, z: Array | np.float32) -> Array:
    """`x * y + z`, f32; products of such numbers are exact in double."""
    return np.asarray(np.float64(x) * np.float64(y) + np.float64(z)).astype(_F32)


def _exact_layer(made: Layer, operands: Sequence[Value]) -> Value:
    """`sum * factor + bias` in reals, b holding what rounds it."""
    w, what = constant(operands[1], "weights"), f"%{made.name}"
    scales = made.x.type.scale * channel_scales(w.type, made.shape[-1])
    offset = accumulator_units(operands[2], scales, what)
    zero = made.x.type.zero * w.array.reshape(len(w.array), -1).sum(1, dtype=np.int64)
    units = made.type.scale / scales

    def rounded(sums: Array) -> Array:
        return np.asarray(np.rint((sums + offset[:, None]) / units[:, None]))

    bound = accumulator_bound(w.array, -zero, made.x.type.dtype)
    stairs = Staircase.of(rounded, units, offset, bound, made.type)
    before = Line(_array(made.m), _array(made.s), _array(made.b) + (zero << made.fraction),
                  made.fraction)  # fmt: skip
    after = through_sums(stairs, units, made.fraction)
    # A channel whose sums come to no step, as one of zeros, has a result all the same: by its bias.
    line = before.where(after.misses(stairs) < before.misses(stairs), after)
    b = Const((line.h - (zero << made.fraction)).astype(np.int32), name=made.b.name)
    return _with(made, w, b, line)


def _with(made: Layer, w: Const, b: Value, line: Line) -> Value:
    m = Const(line.m.astype(np.int32), name=made.m.name)
    s = Const(line.s.astype(np.int8), name=made.s.name)
    folded = Folded(constant(b, "a bias"), m, s, made.fraction)
    return made.replace(b=b, m=m, s=s, wide=is_wide(made.x, w.array, folded, made.type))


def _array(v: Value) -> Array:
    return constant(v, "a layer's constants").array.astype(np.int64)
