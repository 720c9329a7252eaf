"""Which values 8 bits are too few for.

Sums that a norm reads carry a residual stream: each block adds to it, outliers stretch its range,
and every rounding of it stays. What a softmax reads is exponentiated, so that a step of its scale
is a relative error. Sums of which only the least is sought, distances, lie close together beside
what they have in common. Sums over trees are exact but for their last rounding. Probabilities of
many places are small, and together they count. Of many turns a sine reads where the last one ends,
of which a step of 8 bits is a large part. Kernels that write or read such values as i16 cost
little; what multiplies with weights keeps 8 bits, and reads an 8-bit copy. What passes from a layer
to the elementwise op behind it stays in registers, where 16 bits cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from irc.ops.core import Input
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Div, Mul
from irc.ops.normalization import RowNorm
from irc.ops.ranking import Ranking
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Reciprocal
from irc.passes.calibration.calibrate import SMALLEST, Statistics
from irc.passes.float.pointwise import is_clamp
from irc.passes.quantize.logarithms import poor
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import LEVELS, Histogram, fitted, rounded, signal_to_noise
from irc.passes.quantize.sites import Sites, given, is_float
from irc.value import Value

ENOUGH = 35.0
"""An SQNR in dB that is enough for what is normalized: a Gaussian in 8 bits has 40."""
SMALL = 4096
"""Elements that are written and read in no time."""
LOGIT_STEP = 1 / 32
"""A step that is small enough for what a softmax reads: 3 % of each probability."""
FEW_LEVELS = 16
"""Fewer steps of a joint scale than these are too few for a part of an output: of the boxes that
a detector gives in pixels a step is larger than the probabilities beside them."""
SUMS = frozenset({"add", "sub"})
TURNS = frozenset({"sin", "cos"})
TOTALS = frozenset({"reduce_sum", "reduce_mean"})
TAILS = SUMS | {"mul", "minimum", "maximum", "prelu"}
"""Elementwise ops that read 16 bits in the kernel of what they read."""
KERNELS = TAILS | {"conv2d", "linear"}
"""Ops whose kernels take in the elementwise op behind them."""


def widens(sites: Sites, group: Collection[Value]) -> bool:
    """Whether values that share a scale may have 16 bits: what the caller makes has 8."""
    return not any(given(sites.graph, v) for v in group)


def wide_values(
    sites: Sites, statistics: Mapping[Value, Statistics], options: Options
) -> frozenset[Value]:
    """The values to be stored in 16 bits."""
    if str(options.activations) == "8":
        return frozenset()
    walk = _Walk(sites, statistics, options)
    for v in sites.graph.order:
        if isinstance(v, RowNorm):
            if v.takes_wide:
                walk.norm(v.x)
        elif v.op == "softmax":
            walk.softmax(v)
        elif isinstance(v, Ranking):
            walk.ranked(v.x)
        elif isinstance(v, TreeEnsemble) or (walk.all and v.op in SUMS):
            walk.widen(v)
        elif sites.root[v] is v:
            walk.computed(v)
        else:
            walk.function(v)
    walk.shares()
    for v in sites.graph.outputs:
        walk.joined(v)
    return frozenset(walk.found) | frozenset(passing(sites))


def added_up(sites: Sites) -> Iterator[Value]:
    """Probabilities that are added up, weighted or not, and the weighted ones: most are less than
    half a step of 8 bits, and all of them together count."""

    def follows(v: Value) -> bool:
        return sites.moving(v) or (v.op == "mul" and sites.root[v] is v)

    added, shares = set[Value](), set[Value]()
    for v in reversed(sites.graph.order):
        if v.op in TOTALS or (v in added and follows(v)):
            added |= set(v.operands)
    for v in sites.graph.order:
        if v.op == "softmax" or (follows(v) and not shares.isdisjoint(v.operands)):
            shares.add(v)
            if v in added and not sites.moving(v):
                yield v


def passing(sites: Sites) -> Iterator[Value]:
    """Values that are never stored: only an elementwise op reads them, in the kernel that computes
    them (`irc.passes.schedule.fuse_kernels`), so that 8 bits would save nothing."""
    position = {v: i for i, v in enumerate(sites.graph.order)}
    for v in sites.graph.order:
        if v.op in TAILS and is_float(v) and sites.root[v] is v:
            hosts = [o for o in v.operands if _takes_in(sites, o, v)]
            yield from sorted(hosts, key=position.__getitem__)[-1:]


def _takes_in(sites: Sites, v: Value, reader: Value) -> bool:
    """Whether the kernel of an operand can take in what reads it."""
    computed = v
    while is_clamp(computed) and sites.absorbs(computed):
        (computed,) = computed.operands
    alone = sites.graph.uses(v) == 1 and v.shape == reader.shape
    return alone and is_float(v) and v not in sites.fused and computed.op in KERNELS


@dataclass
class _Walk:
    """Goes from what reads values to where they are computed."""

    sites: Sites
    statistics: Mapping[Value, Statistics]
    options: Options
    found: set[Value] = field(default_factory=set)

    @property
    def all(self) -> bool:
        """Whether everything is wide that may be."""
        return str(self.options.activations) == "16"

    def norm(self, x: Value) -> None:
        """Sums, what loses too much, and what is so small that 16 bits cost nothing."""
        for part in self.sites.parts(x):
            small = part.type.size <= SMALL
            if self.all or small or part.op in SUMS or self.noise(part) < ENOUGH:
                self.widen(part)

    def softmax(self, v: Value) -> None:
        """What goes in, where its steps are coarse."""
        for part in self.sites.parts(v.operands[0]):
            if self.all or self.step(part) > LOGIT_STEP:
                self.widen(part)

    def computed(self, v: Value) -> None:
        """Running sums and what they sum up, of which each rounding stays; dividends and divisors
        where 8 bits lose too much. A product with a reciprocal is a quotient."""
        match v:
            case CumSum(x=Mul(a=a, b=b) as x):
                self.widen_all(v, x, a, b)
            case CumSum(x=x):
                self.widen_all(v, x)
            case Div(a=a, b=b):
                self.widen_all(*(p for p in self.known(a) if self.loses(self.noise(p))))
                self.widen_all(*(p for p in self.known(b) if self.loses(self.relative_noise(p))))
            case Mul(a=a, b=Reciprocal() as b) | Mul(a=Reciprocal() as b, b=a):
                parts = self.known(a) + self.known(b)
                self.widen_all(*(p for p in parts if self.loses(self.noise(p))))

    def function(self, v: Value) -> None:
        """Angles of many turns, and what is so small that 16 bits cost nothing, where 8 bits leave
        little of the function: of a variance its root and the reciprocal of that."""
        root = self.sites.root[v]
        if v not in self.sites.own or not (v.op in TURNS or root.type.size <= SMALL):
            return
        if poor(self.sites, root, self.statistics, self.options):
            self.widen(root)

    def known(self, v: Value) -> list[Value]:
        """What a value is made of, as far as it is quantized."""
        return [p for p in self.sites.parts(v) if p in self.statistics]

    def loses(self, decibels: float) -> bool:
        """Whether 8 bits of such an SQNR are too few."""
        return self.all or decibels < ENOUGH

    def widen_all(self, *read: Value) -> None:
        """Mark values, whatever they are made of."""
        for part in (p for v in read for p in self.sites.parts(v)):
            self.widen(part)

    def shares(self) -> None:
        """Probabilities that are added up, where 8 bits lose too much."""
        for v in added_up(self.sites):
            if self.noise(v) < ENOUGH:
                self.widen(v)

    def ranked(self, x: Value) -> None:
        """Sums alone: what a layer computes has as many bits as its place in a row can tell."""
        for part in self.sites.parts(x):
            if self.all or part.op in SUMS:
                self.widen(part)

    def joined(self, v: Value) -> None:
        """An output made of parts, one of which would be lost in their joint range."""
        if is_float(v) and self.sites.moving(v):
            parts = [self.statistics[p] for p in self.sites.parts(v)]
            extents = [max(s.high, 0.0) - min(s.low, 0.0) for s in parts]
            step = max(extents, default=0.0) / LEVELS
            if any(0 < extent < FEW_LEVELS * step for extent in extents):
                self.found.add(v)

    def widen(self, v: Value) -> None:
        """Mark a value, and what it is the sum of."""
        stack = [v]
        while stack:
            top = stack.pop()
            if top in self.found or isinstance(top, Input) or top not in self.statistics:
                continue
            self.found.add(top)
            if top.op in SUMS:
                stack += [p for o in top.operands if is_float(o) for p in self.sites.parts(o)]

    def step(self, v: Value) -> float:
        """The step of a value in 8 bits."""
        s = self.statistics[v]
        return (max(s.high, 0.0) - min(s.low, 0.0)) / LEVELS

    def relative_noise(self, v: Value) -> float:
        """The SQNR in dB of 1 / v, if 8 bits are off by the same share everywhere."""
        h = Histogram.merged([self.statistics[v]])
        real = rounded(h.centres, fitted([self.statistics[v]], self.options))
        off = np.abs(real - h.centres) / np.maximum(np.abs(h.centres), SMALLEST)
        mean = np.average(np.minimum(off, 1.0) ** 2, weights=h.counts)
        return -10 * math.log10(mean) if mean > 0 else math.inf

    def noise(self, v: Value) -> float:
        """The SQNR in dB of a value in 8 bits."""
        parts = [self.statistics[v]]
        return signal_to_noise(parts, fitted(parts, self.options))
