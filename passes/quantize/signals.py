"""Signals: inputs that 8 bits are too few for, such as sound, and what the first layers make of
them.

Speech is quiet most of the time; in 8 bits that cover its peaks, the rest is noise. Such an input
is i16, as recorders give it, and keeps 16 bits through layers until values come that 8 bits hold.
So is an input of which a network amplifies the rounding: the logarithms of a spectrum, or columns
of a table that one scale must hold, ages beside incomes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from irc.ops.core import Input
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import choose_input, fitted, signal_to_noise
from irc.passes.quantize.sensitivity import sensitivities
from irc.passes.quantize.sites import Sites, from_outside, given, is_float
from irc.types import Array, DType, TensorType
from irc.value import Value

ENOUGH = 36.0
"""An SQNR in dB that is enough for a signal; pixels have 40, speech has 20."""
HARMLESS = 30.0
"""An SQNR in dB of the outputs that rounding an input alone may leave; where eight bits are enough,
it leaves 35 to 50."""
LONGEST = 1024
"""Products that a layer sums at most, so that the sum of both bytes is sure to fit."""
LAYERS = frozenset({"conv2d", "linear"})
"""Layers that multiply values of 16 bits by their bytes."""
ON_THE_WAY = LAYERS | {"magnitude", "add", "sub", "mul", "clip", "relu"}
"""Ops whose results may be signals still."""


def signals(
    sites: Sites,
    statistics: Mapping[Value, Statistics],
    options: Options,
    fine: Collection[Value] = (),
) -> frozenset[Value]:
    """The signals of a graph, those that are known to be so `fine` among them, and all that is
    moved of them."""
    if str(options.activations) == "8":
        return frozenset()
    found: set[Value] = set(fine)
    for v in sites.graph.order:
        if _is_signal(sites, v, found) and (
            sites.moving(v) or v in sites.fused or _too_fine(v, statistics, options)
        ):
            found.add(v)
    return frozenset(found)


def fine_inputs(
    sites: Sites,
    statistics: Mapping[Value, Statistics],
    options: Options,
    feeds: Iterable[Mapping[str, Array]],
) -> frozenset[Value]:
    """The inputs that cost the outputs too much in 8 bits, pictures aside."""
    if str(options.activations) == "8":
        return frozenset()
    rounded: dict[Value, TensorType] = {
        v: TensorType(DType.U8, v.shape, choose_input([statistics[v]]))
        for v in sites.graph.inputs
        if from_outside(sites.graph, v) and v in statistics and reaches_layer(sites, v)
    }
    found = sensitivities(sites.graph, feeds, rounded)
    return frozenset(v for v, decibels in found.items() if decibels < HARMLESS)


def _is_signal(sites: Sites, v: Value, found: set[Value]) -> bool:
    """Whether a value comes from signals, or is an input that layers read."""
    if not is_float(v):
        return False
    if isinstance(v, Input):
        return given(sites.graph, v) and reaches_layer(sites, v)
    sources = [o for o in v.operands if is_float(o)]
    if sites.moving(v):
        return bool(sources) and all(o in found for o in sources)
    return v.op in ON_THE_WAY and any(o in found for o in sources)


def reaches_layer(sites: Sites, v: Value) -> bool:
    """Whether a layer reads a value, or what it is moved to."""
    users = sites.graph.users[v]
    layer = any(u.op in LAYERS and reads_signal(u) for u in users)
    return layer or any(sites.moving(u) and reaches_layer(sites, u) for u in users)


def _too_fine(v: Value, statistics: Mapping[Value, Statistics], options: Options) -> bool:
    if v not in statistics:
        return False
    parts = [statistics[v]]
    return signal_to_noise(parts, fitted(parts, options)) < ENOUGH


def reads_signal(reader: Value) -> bool:
    """Whether an op takes a signal in 16 bits."""
    if reader.op not in LAYERS:
        return reader.op == "magnitude"
    w: Value = reader.operands[1]
    return w.type.size <= LONGEST * max(w.shape[0], 1)
