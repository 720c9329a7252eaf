"""As many values of 16 bits as the accuracy takes that is asked for.

A candidate's cost is the noise of the worst output where it alone has 8 bits. Those that cost most
get 16, which layers multiply by their bytes, until samples that calibration did not see come out as
near to float as they must. Noise adds up: groups of candidates are rounded at once, and only those
taken apart that cost more than any candidate that is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from typing import Protocol

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.unary import Unary
from irc.passes.calibration.calibrate import Progress
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.precision import TAILS, TOTALS
from irc.passes.quantize.sensitivity import Trials, real_outputs, worst
from irc.passes.quantize.signals import LAYERS, reads_signal
from irc.passes.quantize.sites import EIGHT_BITS, Sites, is_float
from irc.types import Array, TensorType
from irc.value import Value

GROUP = 8
"""Candidates that are tried at once."""
WIDENED = LAYERS | TAILS | TOTALS | {
    "clip", "relu", "magnitude", "layer_norm", "rms_norm", "cumsum", "div", "softmax"
}
"""Ops whose results may have 16 bits, besides inputs and functions of one value."""

Feeds = Sequence[Mapping[str, Array]]
Run = Callable[[Graph, Mapping[str, Array]], Mapping[str, Array]]


class Write(Protocol):
    """Writes the QDQ graph in which some values have 16 bits, and weights if it is `precise`."""

    def __call__(self, fine: Iterable[Value], precise: bool = False, /) -> tuple[Scales, Graph]:
        """The graph, and the scales of its values."""
        ...


@dataclass(frozen=True)
class Refinement:
    """What is refined: a float graph, samples of it that calibration did not see, and the SQNR in
    dB that each of its outputs must have on them. `progress` is told how much was tried; `trials`
    bounds how many values are tried by themselves, and none is where all of these can't make a
    noise of `worth`. `run` makes a graph's outputs of a sample."""

    sites: Sites
    feeds: Feeds
    wanted: float
    write: Write
    progress: Progress
    trials: int = sys.maxsize
    worth: float = 0.0
    run: Run = real_outputs

    def graph(self, fine: Iterable[Value]) -> Graph:
        """The QDQ graph that has the accuracy, beginning with the values `fine`.

        Raises `CompileError` where no choice of values has it.
        """
        chosen = list(fine)
        scales, made = self.write(chosen)
        ranked = self.ranked(scales)
        reached = self.reached(made)
        while reached < self.wanted:
            more = list(_most(ranked, power(reached) - power(self.wanted)))
            if not more:
                raise CompileError(self.refusal(reached, len(chosen)))
            chosen += more
            scales, made = self.write(chosen)
            reached = self.reached(made)
        return made

    @cached_property
    def real(self) -> Sequence[Mapping[str, Array]]:
        """The outputs of the float graph that are reals."""
        return [self.run(self.sites.graph, feed) for feed in self.feeds]

    def reached(self, made: Graph) -> float:
        """The SQNR in dB of a QDQ graph's worst output."""
        return worst(self.real, (self.run(made, feed) for feed in self.feeds))

    def ranked(self, scales: Scales) -> Iterator[tuple[Value, float]]:
        """The candidates and what they cost in 8 bits, as noise over signal, those that cost most
        first. What is never asked for is never tried."""
        trials = Trials.of(self.sites.graph, self.feeds)
        tried = count(1)

        def cost(group: Sequence[Value]) -> float:
            self.progress(next(tried))
            return power(trials.worst({v: narrow[v] for v in group}))

        known = list(self.candidates(scales))
        narrow = {v: self.coarsest(v, v, scales) for v in known}
        starts = range(0, len(known), GROUP)
        heap = [(-cost(known[i : i + GROUP]), i, known[i : i + GROUP]) for i in starts]
        heapify(heap)
        if sum(-entry[0] for entry in nsmallest(-(-self.trials // GROUP), heap)) < self.worth:
            return
        left = self.trials
        while heap:
            negative, first, group = heappop(heap)
            if len(group) == 1:
                yield group[0], -negative
                continue
            left -= len(group)
            if left < 0:
                return
            for i, v in enumerate(group, first):
                heappush(heap, (-cost([v]), i, [v]))

    def candidates(self, scales: Scales) -> Iterator[Value]:
        """Values that could have 16 bits, are read in 8, and by what would see it."""
        for v in self.sites.own:
            kind = isinstance(v, Input | Unary) or v.op in WIDENED or self.sites.root[v] is not v
            if kind and self.shows(v) and self.coarsest(v, v, scales).dtype in EIGHT_BITS:
                yield v

    def coarsest(self, v: Value, part: Value, scales: Scales) -> TensorType:
        """The type in which a value is read, the narrow one if any op takes that of it or of a
        `part` of what it was moved to."""
        if v not in scales.narrow:
            return scales[v]
        for u in self.sites.graph.users[part]:
            if self.sites.moving(u):
                found = self.coarsest(v, u, scales)
            else:
                found = scales.read_by(u, part, self.sites)
            if found.dtype in EIGHT_BITS:
                return scales.narrow[v]
        return scales[v]

    def shows(self, v: Value) -> bool:
        """Whether any op reads a value in 16 bits, moved or not."""
        return any(self.reads(u, v) for u in self.sites.graph.users[v])

    def reads(self, reader: Value, v: Value) -> bool:
        """Whether an op reads a value in 16 bits, or what reads it moved."""
        if not is_float(reader):
            return self.sites.reads_wide(reader, v)
        if self.sites.moving(reader):
            return self.shows(reader)
        function = self.sites.root[reader] is v
        layer = reader.op in LAYERS and reads_signal(reader)
        return function or layer or self.sites.reads_wide(reader, v)

    def refusal(self, reached: float, count: int) -> str:
        """Why there is no such graph."""
        return (
            f"{self.sites.graph.name}: an output has {reached:.1f} dB, {self.wanted:g} are asked"
            f" for: {count} values have 16 bits already, and what is left is the rounding of"
            " weights, of outputs and of what only 8-bit operations read. irc compare shows where"
            " it arises; ask for less"
        )


def _most(ranked: Iterator[tuple[Value, float]], excess: float) -> Iterator[Value]:
    """The next values, together as much as is too much, at least one."""
    for v, cost in ranked:
        if cost <= 0:
            return
        yield v
        excess -= cost
        if excess <= 0:
            return


def power(decibels: float) -> float:
    """Noise over signal."""
    return float(10 ** (-decibels / 10))
