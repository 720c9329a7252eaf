"""Ranges of 8 bits: by what an op makes, or by what calibration measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.coordinates import counted
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import (
    asymmetric,
    choose_input,
    choose_quant,
    stretched,
    whole_steps,
)
from irc.passes.quantize.sites import EIGHT_BITS, Sites, from_outside, to_float
from irc.types import DType, Quant
from irc.value import Value

NATURAL: Mapping[str, Quant] = {
    "softmax": Quant(1 / 256, 0),
    "sigmoid": Quant(1 / 256, 0),
    "hard_sigmoid": asymmetric(0.0, 1.0),
}
"""Ops whose range is known: [0, 1), or [0, 1] where 1 itself is common."""
FINEST = 8
"""Bits that a softmax's scale is finer than 1/256 at most."""
KEPT, KEPT_OUTSIDE = 1, 3
"""Bits above the largest probability that was measured: a classifier of a thousand classes may be
surer of data that calibration did not see."""
WIDE_PROBABILITIES = Quant(2.0**-15)
"""Their scale in 16 bits, up to 1: other data may be surer."""


@dataclass(frozen=True)
class Ranges:
    """The u8 quantizations of what values are made of, each chosen once; `factors` stretch those
    that values have for themselves (see `irc.passes.quantize.reconstruction`)."""

    factors: Mapping[Value, float] = field(default_factory=dict)
    chosen: dict[tuple[tuple[Value, ...], tuple[float, ...]], Quant] = field(default_factory=dict)

    def of(
        self, parts: Sequence[Value], fills: Sequence[float], choose: Callable[[], Quant]
    ) -> Quant:
        """The quantization of these parts and of constants among them; `choose` makes it once."""
        key = tuple(parts), tuple(fills)
        if key not in self.chosen:
            self.chosen[key] = choose()
        factor = self.factors.get(parts[0], 1.0) if len(parts) == 1 else 1.0
        return self.chosen[key] if factor == 1.0 else stretched(self.chosen[key], factor)


def byte_quant(
    sites: Sites,
    parts: list[Value],
    fills: list[float],
    statistics: Mapping[Value, Statistics],
    options: Options,
) -> Quant:
    """The u8 quantization of what `parts` hold, and of the constants `fills` among them."""
    natural = {_natural(sites, p, statistics) for p in parts}
    fixed = natural.pop() if len(natural) == 1 else None
    if fixed is not None and all(_holds(fixed, f) for f in fills):
        return fixed
    if any(from_outside(sites.graph, p) for p in parts):
        quant = choose_input([statistics[p] for p in parts], fills)
    else:
        seen = sites.seen(parts[0]) if len(parts) == 1 else ()
        quant = choose_quant([statistics[p] for p in parts], options, fills, seen)
    compared = any(counted(sites, p) for p in parts)
    whole = compared and all(statistics[p].whole for p in parts)
    return whole_quant(quant, [statistics[p] for p in parts], fills) if whole else quant


def whole_quant(quant: Quant, parts: list[Statistics], fills: list[float]) -> Quant:
    """Whole numbers as what they are: with room for others, or those alone that were measured."""
    if (roomy := whole_steps(quant)).tensor_scale <= 1:
        return roomy
    low, high = min(s.low for s in parts), max(s.high for s in parts)
    exact = whole_steps(asymmetric(min(low, *fills, 0.0), max(high, *fills, 0.0)))
    return exact if exact.tensor_scale <= 1 else roomy


def _natural(
    sites: Sites, v: Value, statistics: Mapping[Value, Statistics]
) -> Quant | None:
    if to_float(v):
        return _numbers(v, statistics)
    if v.op == "softmax":
        kept = KEPT if _computed_with(sites, v) else KEPT_OUTSIDE
        return probabilities(statistics[v].high, kept)
    return NATURAL.get(v.op)


def _numbers(v: Value, statistics: Mapping[Value, Statistics]) -> Quant | None:
    """Numbers of 8 bits are what they are; so are others, if 8 bits hold what was measured."""
    if v.operands[0].type.dtype in EIGHT_BITS:
        return Quant(1.0, -v.operands[0].type.dtype.min)
    fitting = (zero for zero in (0, -DType.I8.min) if _within(statistics[v], zero))
    return next((Quant(1.0, zero) for zero in fitting), None)


def _within(s: Statistics, zero: int) -> bool:
    return -zero <= s.low and s.high <= DType.U8.max - zero


def probabilities(largest: float, kept: int = KEPT) -> Quant:
    """The scale of a softmax of which no probability was measured above `largest`: 1/256, or
    finer by the bits that were never set, all but those `kept`. Over hundreds of keys the greatest
    weight may be 0.05, where 1/256 is no more than four bits."""
    spare = min(max(math.floor(-math.log2(max(largest, 1e-9))) - kept, 0), FINEST)
    return Quant(2.0 ** (-8 - spare))


def _holds(quant: Quant, real: float) -> bool:
    """Whether a real is within the range of a u8 quantization."""
    return 0 <= real / quant.tensor_scale + quant.zero <= DType.U8.max


def _computed_with(sites: Sites, v: Value) -> bool:
    """Whether an op computes with a value, or with what it is moved to: outputs alone do not."""
    users = sites.graph.users[v]
    return any(not sites.moving(u) or _computed_with(sites, u) for u in users)
