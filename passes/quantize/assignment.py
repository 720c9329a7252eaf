"""Which values share one scale, and the type of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from irc.ops.columns import Columns
from irc.ops.core import Input
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.coordinates import compared_inputs, counted
from irc.passes.quantize.feedback_loops import feedback
from irc.passes.quantize.logarithms import poor
from irc.passes.quantize.masks import INVISIBLE
from irc.passes.quantize.options import Options
from irc.passes.quantize.precision import TURNS, wide_values, widens
from irc.passes.quantize.scales import (
    HEADROOM,
    OUTPUT_HEADROOM,
    asymmetric,
    choose_input,
    choose_quant,
    choose_wide,
    stored_as,
    stretched,
    whole_steps,
)
from irc.passes.quantize.signals import reads_signal, signals
from irc.passes.quantize.sites import (
    EIGHT_BITS,
    Sites,
    brought,
    from_outside,
    is_float,
    to_float,
)
from irc.passes.quantize.states import PACKED, state_quant
from irc.passes.quantize.tree_columns import columns
from irc.types import DType, Quant, TensorType
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
SHARED_RANGE = 0.5
"""A value that others read too gives up its own scale to a concat only if its range is at least
this share of the concat's."""


@dataclass(frozen=True)
class Ranges:
    """The u8 quantizations of what values are made of, each chosen once; `factors` stretch those
    that values have for themselves (see `irc.passes.quantize.reconstruction`)."""

    factors: Mapping[Value, float] = field(default_factory=dict)
    chosen: dict[tuple[tuple[Value, ...], tuple[float, ...]], Quant] = field(default_factory=dict)

    def of(
        self, parts: Sequence[Value], fills: Sequence[float], choose: Callable[[], Quant]
    ) -> Quant:
        """That of these parts, and of constants among them."""
        key = tuple(parts), tuple(fills)
        if key not in self.chosen:
            self.chosen[key] = choose()
        factor = self.factors.get(parts[0], 1.0) if len(parts) == 1 else 1.0
        return self.chosen[key] if factor == 1.0 else stretched(self.chosen[key], factor)


@dataclass(frozen=True)
class Scales:
    """The type of each quantized value: u8, i8 where only outputs read it, i16 for states and where
    8 bits lose too much; `narrow` is the u8 type in which 8-bit kernels read such a value."""

    types: Mapping[Value, TensorType]
    narrow: Mapping[Value, TensorType] = field(default_factory=dict)
    signals: frozenset[Value] = frozenset()
    """Values of 16 bits that layers multiply as they are."""
    curved: frozenset[Value] = frozenset()
    """Those of which functions are followed in 16 bits."""

    def __getitem__(self, v: Value) -> TensorType:
        return self.types[v]

    def read_by(self, reader: Value, v: Value, sites: Sites) -> TensorType:
        """The type in which an op reads a value."""
        curve = v in self.curved and sites.root[reader] is v
        signal = curve or (v in self.signals and reads_signal(reader))
        wide = v not in self.narrow or signal or sites.reads_wide(reader, v)
        return self.types[v] if wide else self.narrow[v]


def assign(
    sites: Sites,
    statistics: Mapping[Value, Statistics],
    options: Options,
    fine: Collection[Value] = (),
    ranges: Ranges | None = None,
) -> Scales:
    """Group the values that share a scale, and choose each group's; `fine` ones have 16 bits that
    layers multiply as they are. `ranges` are those of 8 bits, as far as they are known."""
    made = _Types(sites, statistics, options, ranges or Ranges())
    wide = wide_values(sites, statistics, options)
    fed_back = feedback(sites)
    asked = frozenset(fine)
    told = compared_inputs(sites, statistics, options)
    fine = {*fine, *fed_back, *told}
    known = signals(sites, statistics, options, fine) | fed_back
    sounds, curved, followed = set[Value](), set[Value](), set[Value]()
    compared = columns(sites, options)
    for group in _groups(sites, statistics):
        if group[0] in compared:
            made.types.update((v, compared[v]) for v in group)
        elif not sites.states.packed.isdisjoint(group):
            made.give(group, PACKED)
        elif not known.isdisjoint(group):
            room = HEADROOM if asked.isdisjoint(group) else OUTPUT_HEADROOM
            made.stream(group, room if fed_back.isdisjoint(group) else None)
            sounds |= set(group)
            curved |= set(group) if not set(fine).isdisjoint(group) else set()
        elif not sites.states.roots.isdisjoint(group):
            made.stream(group)
        elif not wide.isdisjoint(group) and widens(sites, group):
            made.widened(group)
            followed |= {
                v for v in group if sites.follows(v) and poor(sites, v, statistics, options)
            }
        else:
            made.types.update(made.byte(group))
    curved = {
        v for v in curved
        if sites.follows(v) and (
            v in asked
            or sites.straight(v, made.types[v])
            or (v in told and (
                sites.jumps(v, made.types[v]) or poor(sites, v, statistics, options)
            ))
        )
    }  # fmt: skip
    for v in sites.graph.order:
        if isinstance(v, Columns):
            made.types[v.x] = v.outside(made.types[v])
    return Scales(made.types, made.narrow, frozenset(sounds), frozenset(curved | followed))


@dataclass(frozen=True)
class _Types:
    """The types that groups have been given so far."""

    sites: Sites
    statistics: Mapping[Value, Statistics]
    options: Options
    ranges: Ranges
    types: dict[Value, TensorType] = field(default_factory=dict)
    narrow: dict[Value, TensorType] = field(default_factory=dict)

    def give(self, group: list[Value], like: TensorType) -> None:
        """All of a group get one dtype and scale."""
        self.types.update((v, TensorType(like.dtype, v.shape, like.quant)) for v in group)

    def byte(self, group: list[Value]) -> dict[Value, TensorType]:
        """A group in 8 bits."""
        fills, parts = _fills(self.sites, group, self.statistics), self.parts(group)
        if _whole_constants(self.sites, group) and not parts:
            return _numbered(group, fills, self.options)
        quant = self.ranges.of(
            parts, fills, lambda: _quant(self.sites, parts, fills, self.statistics, self.options)
        )
        dtype = DType.I8 if _only_outputs(self.sites, group) else DType.U8
        return {v: TensorType(dtype, v.shape, stored_as(quant, dtype)) for v in group}

    def widened(self, group: list[Value]) -> None:
        """A group has 16 bits, and 8 where kernels read no more."""
        fills = _fills(self.sites, group, self.statistics)
        exact = _only_outputs(self.sites, group) or _angles(self.sites, group)
        room = OUTPUT_HEADROOM if exact else HEADROOM
        quant = choose_wide([self.statistics[p] for p in self.parts(group)], fills, room)
        if all(p.op == "softmax" for p in self.parts(group)):
            quant = WIDE_PROBABILITIES
        self.give(group, TensorType(DType.I16, (), quant))
        self.narrow.update(self.byte(group))

    def stream(self, group: list[Value], room: float | None = None) -> None:
        """A group of states or signals has 16 bits, and 8, each value its own, where it is read
        so. What comes from outside, and goes round, has powers of two; other signals have as many
        steps as there are."""
        fills = _fills(self.sites, group, self.statistics)
        for v in filter(self.sites.read_narrow, group):
            measured = [self.statistics[p] for p in self.sites.parts(v)]
            quant = choose_quant(measured, self.options, fills, self.sites.seen(v))
            self.narrow[v] = TensorType(DType.U8, v.shape, quant)
        own = [self.statistics[v] for v in group if v in self.statistics]
        own = own or [self.statistics[p] for p in self.parts(group)]
        inside = not any(isinstance(v, Input | Columns) for v in group)
        if room is not None and inside and self.sites.states.roots.isdisjoint(group):
            quant = choose_wide(own, fills, room)
        else:
            quant = state_quant(group, own, fills)
        self.give(group, TensorType(DType.I16, (), quant))

    def parts(self, group: list[Value]) -> list[Value]:
        """What the values of a group are made of, each once."""
        return list(dict.fromkeys(p for v in group for p in self.sites.parts(v)))


def _fills(
    sites: Sites, group: list[Value], statistics: Mapping[Value, Statistics]
) -> list[float]:
    """The constants among the elements of a group. What masks lies below all others."""
    fills = [f for v in group for f in sites.fills(v)]
    if any(map(sites.masks, group)):
        lows = [statistics[p].low for v in group for p in sites.parts(v)]
        fills.append(min([*lows, *fills], default=0.0) - INVISIBLE)
    return fills


def _whole_constants(sites: Sites, group: list[Value]) -> bool:
    """Whether a group becomes whole numbers, or is compared, and all that moving ops bring into it
    are such."""
    constants = [a for v in group if sites.moving(v) for a in brought(v)]
    whole = all(np.array_equal(a, np.rint(a)) for a in constants)
    return bool(constants) and whole and any(counted(sites, v) for v in group)


def _numbered(group: list[Value], fills: list[float], options: Options) -> dict[Value, TensorType]:
    """Whole numbers as what they are, in 16 bits where 8 are too few."""
    quant = whole_steps(asymmetric(min(0.0, *fills), max(0.0, *fills)))
    dtype, fits = DType.U8, quant.tensor_scale <= 1
    if not fits and str(options.activations) != "8" and max(map(abs, fills)) <= DType.I16.max:
        dtype, quant = DType.I16, Quant(1.0)
    return {v: TensorType(dtype, v.shape, quant) for v in group}


def _quant(
    sites: Sites,
    parts: list[Value],
    fills: list[float],
    statistics: Mapping[Value, Statistics],
    options: Options,
) -> Quant:
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
    return _whole_quant(quant, [statistics[p] for p in parts], fills) if whole else quant


def _whole_quant(quant: Quant, parts: list[Statistics], fills: list[float]) -> Quant:
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


def _only_outputs(sites: Sites, group: list[Value]) -> bool:
    return all(
        not isinstance(v, Input) and all(map(sites.moving, sites.graph.users[v]))
        for v in group
    )


def _angles(sites: Sites, group: list[Value]) -> bool:
    """Whether sines are all that is computed of a group: of many turns they see the last alone."""
    users = [u for v in group for u in sites.graph.users[v] if not sites.moving(u)]
    return bool(users) and all(u.op in TURNS for u in users)


def _groups(sites: Sites, statistics: Mapping[Value, Statistics]) -> list[list[Value]]:
    """Union of each moving op with the operands that give it their scale."""
    parent: dict[Value, Value] = {v: v for v in sites.own}
    for v in sites.graph.order:
        if not (is_float(v) and sites.moving(v)):
            continue
        parent[v] = v
        for operand in filter(is_float, v.operands):
            apart = (operand in sites.states.packed) != (v in sites.states.packed)
            if not apart and _shares(sites, statistics, operand, v):
                parent[_find(parent, operand)] = _find(parent, v)
    carried = ((before, after) for before, after in sites.graph.links if is_float(before))
    for a, b in (*sites.states.edges(), *carried):
        if a in parent and b in parent:
            parent[_find(parent, a)] = _find(parent, b)
    groups: dict[Value, list[Value]] = {}
    for v in parent:
        groups.setdefault(_find(parent, v), []).append(v)
    return list(groups.values())


def _find(parent: dict[Value, Value], v: Value) -> Value:
    while parent[v] is not v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


def _shares(
    sites: Sites, statistics: Mapping[Value, Statistics], operand: Value, result: Value
) -> bool:
    """Whether an operand takes the scale of what it is moved into, or is requantized for it."""
    if sum(map(is_float, result.operands)) == 1 or _only_moved_to(sites, operand):
        return True
    whole = _extent(sites, statistics, result)
    return _extent(sites, statistics, operand) >= SHARED_RANGE * whole


def _only_moved_to(sites: Sites, v: Value) -> bool:
    """Whether nothing else reads the value, nor what its elements were moved from."""
    sources = filter(is_float, v.operands) if sites.moving(v) else ()
    return sites.graph.uses(v) == 1 and all(_only_moved_to(sites, o) for o in sources)


def _extent(sites: Sites, statistics: Mapping[Value, Statistics], v: Value) -> float:
    low, high = _ends(sites, statistics, v)
    return high - low


def _ends(
    sites: Sites, statistics: Mapping[Value, Statistics], v: Value
) -> tuple[float, float]:
    """The least and the largest real that a value holds; (inf, -inf) if it has no element."""
    if not sites.moving(v):
        return statistics[v].low, statistics[v].high
    ends = [_ends(sites, statistics, o) for o in v.operands if is_float(o)]
    ends += [(f, f) for f in sites.fills(v)]
    return min((e[0] for e in ends), default=np.inf), max((e[1] for e in ends), default=-np.inf)
