"""The type of each quantized value: dtype, scale and zero point."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from irc.ops.columns import Columns
from irc.ops.core import Input
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.coordinates import compared_inputs, counted
from irc.passes.quantize.feedback_loops import feedback
from irc.passes.quantize.groups import groups
from irc.passes.quantize.logarithms import before_logarithms, poor
from irc.passes.quantize.masks import INVISIBLE
from irc.passes.quantize.options import Options
from irc.passes.quantize.precision import TURNS, wide_values, widens
from irc.passes.quantize.ranges import WIDE_PROBABILITIES, Ranges, byte_quant
from irc.passes.quantize.scales import (
    HEADROOM,
    MOST_HEADROOM,
    OUTPUT_HEADROOM,
    asymmetric,
    choose_quant,
    choose_wide,
    stored_as,
    whole_steps,
)
from irc.passes.quantize.signals import reads_signal, signals
from irc.passes.quantize.sites import Sites, brought
from irc.passes.quantize.states import PACKED, state_quant
from irc.passes.quantize.tree_columns import columns
from irc.types import DType, Quant, TensorType
from irc.value import Value


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
    heard = frozenset(before_logarithms(sites, statistics, options))
    told = compared_inputs(sites, statistics, options)
    fine = {*fine, *fed_back, *told}
    known = signals(sites, statistics, options, fine) | fed_back
    sounds, curved, followed = set[Value](), set[Value](), set[Value]()
    compared = columns(sites, options)
    for group in groups(sites, statistics):
        if group[0] in compared:
            made.types.update((v, compared[v]) for v in group)
        elif not sites.states.packed.isdisjoint(group):
            made.give(group, PACKED)
        elif not known.isdisjoint(group):
            room = HEADROOM if asked.isdisjoint(group) else OUTPUT_HEADROOM
            most = MOST_HEADROOM if heard.isdisjoint(group) else room
            made.stream(group, room if fed_back.isdisjoint(group) else None, most)
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
        choose = partial(byte_quant, self.sites, parts, fills, self.statistics, self.options)
        quant = self.ranges.of(parts, fills, choose)
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

    def stream(
        self, group: list[Value], room: float | None = None, most: float = MOST_HEADROOM
    ) -> None:
        """A group of states or signals has 16 bits, and 8, each value its own, where it is read
        so. What comes from outside, and goes round, has powers of two; other signals have as many
        steps as there are, with the headroom `room`, up to `most` where samples are unlike."""
        fills = _fills(self.sites, group, self.statistics)
        for v in filter(self.sites.read_narrow, group):
            measured = [self.statistics[p] for p in self.sites.parts(v)]
            quant = choose_quant(measured, self.options, fills, self.sites.seen(v))
            self.narrow[v] = TensorType(DType.U8, v.shape, quant)
        own = [self.statistics[v] for v in group if v in self.statistics]
        own = own or [self.statistics[p] for p in self.parts(group)]
        inside = not any(isinstance(v, Input | Columns) for v in group)
        if room is not None and inside and self.sites.states.roots.isdisjoint(group):
            quant = choose_wide(own, fills, room, most)
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


def _only_outputs(sites: Sites, group: list[Value]) -> bool:
    return all(
        not isinstance(v, Input) and all(map(sites.moving, sites.graph.users[v]))
        for v in group
    )


def _angles(sites: Sites, group: list[Value]) -> bool:
    """Whether sines are all that is computed of a group: of many turns they see the last alone."""
    users = [u for v in group for u in sites.graph.users[v] if not sites.moving(u)]
    return bool(users) and all(u.op in TURNS for u in users)
