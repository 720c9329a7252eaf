"""What logarithms read, and the signals that it is made of: 16 bits.

Of a spectrum in decibels what is quiet counts as much as what is loud, so that the range of what
goes into the logarithm, not its energy, says how many bits it needs; and each rounding on the way
from the input lies beneath all that comes after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from irc.ops.core import Const, Input
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import Histogram, choose_quant, squared_error
from irc.passes.quantize.signals import ON_THE_WAY
from irc.passes.quantize.sites import Sites, is_float
from irc.types import Quant
from irc.value import Value

ENOUGH = 30.0
"""An SQNR in dB of what functions make of a value that is enough: what lies beyond its mean."""


def before_logarithms(
    sites: Sites, statistics: Mapping[Value, Statistics], options: Options
) -> tuple[Value, ...]:
    """The values that logarithms are functions of, where 8 bits are too few for these, and what
    they are computed from, if that begins at inputs."""
    if str(options.activations) == "8":
        return ()
    found: set[Value] = set()
    for v in sites.graph.order:
        root = sites.root[v]
        if v.op == "log" and root is not v and poor(sites, root, statistics, options):
            found |= _path(sites, root) or set()
    return tuple(v for v in sites.own if v in found)


def poor(
    sites: Sites, v: Value, statistics: Mapping[Value, Statistics], options: Options
) -> bool:
    """Whether 8 bits leave little of what functions make of a value, its only readers: of what was
    measured, and where that was little, of what others may hold."""
    seen = sites.seen(v)
    if not seen or v not in statistics:
        return False
    measured = [statistics[v]]
    quant = choose_quant(measured, options, (), seen)
    found = (Histogram.expected(measured, [f]) for f in seen)
    return any(_signal_to_noise(h, quant) < ENOUGH for h in found)


def _signal_to_noise(h: Histogram, quant: Quant) -> float:
    """The SQNR in dB of what a function makes of values, its mean aside."""
    (made,) = (np.nan_to_num(y, posinf=0.0, neginf=0.0) for y in h.images)
    mean = np.average(made, weights=h.counts)
    noise, signal = squared_error(h, quant), float(np.sum(h.counts * (made - mean) ** 2))
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def _path(sites: Sites, v: Value) -> set[Value] | None:
    """A value and all that it is computed from, None where that is no signal."""
    found: set[Value] = set()
    stack = [v]
    while stack:
        top = stack.pop()
        if top in found or isinstance(top, Const) or not is_float(top):
            continue
        found.add(top)
        if isinstance(top, Input):
            continue
        if not (top.op in ON_THE_WAY or sites.moving(top)):
            return None
        stack += top.operands
    return found
