"""Ranges by what layers make of values.

The range in which a value itself has the least squared error (`scales.mse_range`) may not be the
one that its readers want: they weigh channels unlike each other, and where two roundings follow
one another, as those of a function's operand and of its result do, many elements may together
come out on the wrong side of a step. So scales near the chosen one are tried on some samples, and
that is taken whose rounding makes least noise in what reads the value, each channel against its
own variance; what only moves the mean of a channel is left to biases (`bias_correction`).
(After Nahshan et al., Loss Aware Post-training Quantization, 2021, by layers.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from irc import fixedpoint
from irc.ops.core import Input
from irc.passes.calibration.calibrate import Progress
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.bias_correction import of_tokens
from irc.passes.quantize.coordinates import counted
from irc.passes.quantize.precision_search import power
from irc.passes.quantize.ranges import NATURAL
from irc.passes.quantize.scales import rounded, stretched
from irc.passes.quantize.sensitivity import Trials
from irc.passes.quantize.signals import LAYERS
from irc.passes.quantize.sites import Sites, is_float, to_float
from irc.progress import silent
from irc.summary import macs
from irc.types import Array, DType
from irc.value import Value

FACTORS = (0.8, 0.87, 0.93, 1.07, 1.15, 1.25)
"""Scales that are tried, as shares of the chosen one."""
GOOD = 25.0
"""A signal-to-noise ratio in dB that needs no better scale."""
WORTH = 1.0
"""A gain in dB for which a scale is changed."""
ELEMENTS = 4096
"""Elements of all samples; fewer tell too little."""
SAMPLES = 4
"""Samples that are looked at."""
MACS = 5 * 10**9
"""Multiplications of all samples together; one is looked at in any case."""
ROWS = 64
"""Rows of which a mean is not a matter of chance."""


def reconstructed(
    sites: Sites,
    scales: Scales,
    feeds: Sequence[Mapping[str, Array]],
    progress: Progress = silent,
) -> dict[Value, float]:
    """What the scales of values in 8 bits are to be multiplied by, where that is worth it, as some
    samples tell. `progress` is told how many values were looked at."""
    count = max(1, min(SAMPLES, MACS // max(sum(map(macs, sites.graph.order)), 1)))
    trials = Trials.of(sites.graph, feeds[:count])
    samples = [_Sample(arrays) for arrays in trials.samples]
    with np.errstate(all="ignore"):
        return _Search(sites, scales, samples).found(progress) if samples else {}


@dataclass(frozen=True)
class _Sample:
    """All values that float makes of a sample, and functions of such as were rounded since."""

    real: Mapping[Value, Array]
    rounded: dict[Value, Array] = field(default_factory=dict)

    def __getitem__(self, v: Value) -> Array:
        return self.rounded[v] if v in self.rounded else self.real[v]


@dataclass(frozen=True)
class _Reach:
    """A value, its functions and what they are moved to, in order; and what reads these, the
    caller among them."""

    inside: tuple[Value, ...]
    readers: tuple[Value, ...]

    @classmethod
    def of(cls, v: Value, sites: Sites) -> _Reach:
        """The reach of a value."""
        inside, readers, pending = {v: None}, dict[Value, None](), list(sites.graph.users[v])
        while pending:
            u = pending.pop(0)
            if not is_float(u) or u in inside:
                continue
            pointwise = sites.root[u] is not u or sites.moving(u)
            if pointwise and all(o in inside for o in u.operands if is_float(o)):
                inside[u] = None
                pending.extend(sites.graph.users[u])
            else:
                readers[u] = None
        given = [u for u in inside if u is not v and u in sites.graph.outputs]
        return cls(tuple(inside), (*(u for u in readers if u not in inside), *given))


@dataclass(frozen=True)
class _Search:
    sites: Sites
    scales: Scales
    samples: Sequence[_Sample]

    def found(self, progress: Progress) -> dict[Value, float]:
        """The factors, in the order of computation: what a function reads is rounded by then."""
        factors: dict[Value, float] = {}
        for done, v in enumerate(self.sites.own, 1):
            if self.takes(v) and (reach := _Reach.of(v, self.sites)).readers:
                factor = self.best(reach)
                if factor != 1.0:
                    factors[v] = factor
                for sample in self.samples:
                    self.follow(sample, reach, factor)
            progress(done)
        return factors

    def takes(self, v: Value) -> bool:
        """Whether a value has 8 bits, and a scale for itself by what was measured."""
        known = isinstance(v, Input) or v.op in NATURAL or to_float(v) or counted(self.sites, v)
        if known or v in self.scales.narrow or self.scales[v].dtype is not DType.U8:
            return False
        if v.type.size * len(self.samples) < ELEMENTS:
            return False
        return all(map(self._alone, self.moved(v)))

    def _alone(self, v: Value) -> bool:
        """Whether a value is read inside only, and holds a value's elements and zeros."""
        fills = any(self.sites.fills(v)) or self.sites.masks(v)
        outside = v in self.sites.graph.outputs
        return not (fills or outside) and len(self.sites.parts(v)) == 1

    def moved(self, v: Value) -> list[Value]:
        """A value, and what it is moved to, each once."""
        found = {v: None}
        pending = [v]
        while pending:
            for u in self.sites.graph.users[pending.pop()]:
                if u not in found and is_float(u) and self.sites.moving(u):
                    found[u] = None
                    pending.append(u)
        return list(found)

    def best(self, reach: _Reach) -> float:
        """The factor of least noise; 1 where none is much better."""
        least = self.noise(reach, 1.0)
        if least < power(GOOD):
            return 1.0
        tried = {factor: self.noise(reach, factor) for factor in FACTORS}
        factor = min(tried, key=tried.__getitem__)
        return factor if tried[factor] < least * power(WORTH) else 1.0

    def noise(self, reach: _Reach, factor: float) -> float:
        """Noise over signal in what reads a value of that scale."""
        totals = {u: _Channels(centred(u)) for u in reach.readers}
        for sample in self.samples:
            changed = self.inside(sample, reach, factor)
            for u, total in totals.items():
                made = changed[u] if u in changed else _computed(u, changed, sample)
                total.add(sample.real[u], made)
        return float(np.mean([total.noise for total in totals.values()]))

    def inside(self, sample: _Sample, reach: _Reach, factor: float) -> dict[Value, Array]:
        """A value and its functions, each as it is read."""
        v, *functions = reach.inside
        changed = {v: self.rounded(v, sample[v], factor)}
        for u in functions:
            changed[u] = self.rounded(u, _computed(u, changed, sample))
        return changed

    def follow(self, sample: _Sample, reach: _Reach, factor: float) -> None:
        """Let functions of a value begin at what it is rounded to."""
        v, *functions = reach.inside
        changed = {v: self.rounded(v, sample.rounded.pop(v, sample.real[v]), factor)}
        for u in functions:
            changed[u] = _computed(u, changed, sample)
        sample.rounded.update((u, changed[u]) for u in functions if u in self.own)

    def rounded(self, v: Value, array: Array, factor: float = 1.0) -> Array:
        """A value in 8 bits, if it has these, and a scale so many times as large."""
        if v not in self.own or self.scales[v].dtype is not DType.U8:
            return array
        quant = stretched(fixedpoint.quant_of(self.scales[v]), factor)
        return rounded(array, quant).astype(array.dtype)

    @cached_property
    def own(self) -> frozenset[Value]:
        """What is quantized where it is computed."""
        return frozenset(self.sites.own)


def _computed(v: Value, changed: Mapping[Value, Array], sample: _Sample) -> Array:
    return np.asarray(v.call(lambda o: changed[o] if o in changed else sample.real[o]))


@dataclass
class _Channels:
    """Sums over the rows of a value, channel by channel: of float's numbers, and of what they are
    off."""

    centred: bool
    rows: int = 0
    sums: Array = field(default_factory=lambda: np.zeros(4))
    """Of float's numbers, their squares, errors, their squares."""

    def add(self, real: Array, made: Array) -> None:
        """Take in one sample."""
        rows = real.reshape(-1, real.shape[-1] if real.ndim else 1).astype(np.float64)
        off = made.reshape(rows.shape) - rows
        self.sums = self.sums.reshape(4, -1) + np.stack(
            [rows.sum(0), np.square(rows).sum(0), off.sum(0), np.square(off).sum(0)]
        )
        self.rows += len(rows)

    @property
    def noise(self) -> float:
        """The mean over channels of noise over variance; infinite where rounding makes no numbers
        of what were some."""
        mean, square, off, noise = self.sums / self.rows
        variance = square - mean**2
        alive = variance > 1e-6 * variance.max(initial=0.0)
        if self.centred and self.rows >= ROWS:
            noise = noise - off**2
        if not alive.any():
            return 0.0
        found = float(np.mean(noise[alive] / variance[alive]))
        return found if math.isfinite(found) else math.inf


def centred(reader: Value) -> bool:
    """Whether a bias takes back what an op's channels are off in the mean."""
    return reader.op in LAYERS and not of_tokens(reader)
