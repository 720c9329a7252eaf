"""What is done unasked where calibration shows a poor result: some values get 16 bits.

As `irc.passes.quantize.precision_search` does where an accuracy is asked for, but within bounds: on
few samples, in few rounds, and only as far as it adds half of the network's work at run time. What
does not help enough is not done. Of a small network, a model of a table as a rule, more is asked:
16 bits wherever they may be cost it microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.logic import Relation
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.column_units import WIDEST
from irc.passes.quantize.precision import TOTALS
from irc.passes.quantize.precision_search import Feeds, Refinement, Write, power
from irc.passes.quantize.sensitivity import Known
from irc.passes.quantize.signals import LAYERS, reads_signal
from irc.passes.quantize.sites import Sites, from_reals, is_float
from irc.progress import Advance, bar, silent
from irc.summary import macs
from irc.value import Value

POOR = 15.0
"""An SQNR in dB of an output below which something is done: of samples that calibration saw, which
flatter it by some 2 dB."""
GOOD = 22.0
"""An SQNR in dB that is enough then."""
WORTH = 3.0
"""A gain in dB for which something is changed: half of the noise. Of samples that calibration saw:
of 2.1 that EfficientNet-B0 of random weights gained on four of them, others showed 0.4."""
HOPE = 1.0
"""A gain in dB that must be foreseen for anything to be tried: less comes of it as a rule. Once
something was, what is left shows anew what others cost."""
ROUNDS = 3
"""How often weights are quantized anew."""
AMPLE = 30.0
"""An SQNR in dB below which a small network gets 16 bits wherever these help."""
SMALL = 10**7
"""The multiplications of a small network, some 0.1 ms: tables, and what is made of them."""
LIGHT = 1 << 18
"""The multiplications of layers, for a row, above which 16 bits cost more than that, and weights as
much memory again. Such networks have them everywhere only if they compare what layers made."""
SURE = 25.0
"""An SQNR in dB on few samples that more won't bring below POOR."""
FEW, MANY = 4, 8
"""Samples on which values are tried and good results are seen to be so; on which others are."""
MACS = 5 * 10**9
"""Multiplications that these may take; one sample is seen in any case."""
TRIALS = 16
"""Values that are tried by themselves, beside groups of all."""
LEAST = 1 / 20
"""The share of the noise of a good result that a value makes alone, or it keeps 8 bits."""
SHARE = 0.5
"""The share of a network's work that 16 bits may add."""
ELEMENT = 50
"""Multiplications that take as long as an element that is written and read again."""


@dataclass(frozen=True)
class Rescue:
    """A float graph, samples of it, what writes its QDQ form, and what is known of both."""

    sites: Sites
    feeds: Feeds
    write: Write
    run: Known = field(default_factory=Known)

    def graph(self, fine: Iterable[Value], scales: Scales, made: Graph) -> tuple[Graph, list[str]]:
        """The QDQ graph that was `made` with the values `fine` in 16 bits, or a better one; and
        what was done to it, if anything."""
        if not self.feeds:
            return made, []
        if self.small:
            wide = self.widest(fine, scales, made)
            if wide is not None:
                return wide
        if self.judge(FEW).reached(made) >= SURE:
            return made, []
        judge = self.judge(MANY)
        before = Found(made, judge.reached(made))
        if not before.reached < POOR:
            return made, []
        with bar("refine") as tried:
            least = power(before.reached) - power(before.reached + HOPE)
            ranked = _telling(self.judge(FEW, tried, least).ranked(scales))
            found = self.bettered(judge, ranked, fine, before)
        if found is before or found.reached < before.reached + WORTH:
            return made, []
        return found.graph, [found.told(before.reached)]

    @property
    def small(self) -> bool:
        """Whether this is a network of no account that reads tables alone."""
        graph = self.sites.graph
        reals = [v for v in graph.inputs if is_float(v)]
        tables = all(v.type.rank == 2 and v.shape[1] <= WIDEST for v in reals)
        tables &= all(v.type.rank <= 2 for v in graph.inputs)  # pixels may be whole numbers
        return tables and not graph.states and Purse(self.sites).left <= SHARE * SMALL

    @property
    def products(self) -> float:
        """The multiplications of layers, for a row."""
        graph = self.sites.graph
        rows = max((v.shape[0] for v in graph.inputs if v.type.rank), default=1)
        return sum(map(macs, graph.order)) / max(rows, 1)

    def judge(self, count: int, progress: Advance = silent, worth: float = 0.0) -> Refinement:
        """What measures results on so many samples, spread over all, or on as many as take no
        longer than they may; and ranks values that together make a noise of `worth`."""
        work = sum(map(macs, self.sites.graph.order))
        count = max(1, min(count, MACS // max(work, 1)))
        feeds = self.feeds[:: max(1, len(self.feeds) // count)][:count]
        return Refinement(self.sites, feeds, GOOD, self.write, progress, TRIALS, worth, self.run)

    def widest(
        self, fine: Iterable[Value], scales: Scales, made: Graph
    ) -> tuple[Graph, list[str]] | None:
        """All values in 16 bits that may have them, where that is worth it: what reads these may
        have them then, too. None where it is not."""
        judge, chosen = self.judge(len(self.feeds)), list(fine)
        before = Found(made, judge.reached(made))
        decides = any(map(self.decides, self.sites.graph.order))
        if not decides and (before.reached >= AMPLE or self.products > LIGHT):
            return None
        found = before
        for _ in range(ROUNDS):
            more = [v for v in judge.candidates(scales) if v not in chosen]
            if not more:
                break
            chosen += more
            scales, made = self.write(chosen)
            found = Found(made, judge.reached(made), found.count + len(more))
        if found.reached < AMPLE or decides:  # twice the weights, and layers
            precise = self.write(chosen, True)[1]
            found = max(found, Found(precise, judge.reached(precise), found.count), key=_reached)
        better = found.reached > before.reached + WORTH or (
            decides and found is not before and found.reached >= before.reached
        )
        return (found.graph, [found.told(before.reached)]) if better else None

    def decides(self, v: Value) -> bool:
        """Whether a node compares what layers made of inputs: of a vote that is close calibration
        shows nothing, until it changes sides."""
        if not isinstance(v, Relation) or not from_reals(v):
            return False
        return any(self.sites.root[o].op in LAYERS | TOTALS for o in v.operands)

    def bettered(
        self, judge: Refinement, ranked: Iterator[tuple[Value, float]], fine: Iterable[Value],
        before: Found,
    ) -> Found:  # fmt: skip
        """The best that a few rounds found; `before` where none is better."""
        purse, chosen = Purse(self.sites), list(fine)
        best = found = before
        for _ in range(ROUNDS):
            if found.reached >= GOOD:
                break
            more = dict(purse.affordable(ranked, power(found.reached) - power(GOOD)))
            hoped = power(before.reached) - power(before.reached + HOPE)
            if not more or (found is before and sum(more.values()) < hoped):
                break
            chosen += more
            made = self.write(chosen)[1]
            found = Found(made, judge.reached(made), found.count + len(more))
            best = max(best, found, key=lambda f: f.reached)
        return best


def _reached(found: Found) -> float:
    return found.reached


def _telling(ranked: Iterable[tuple[Value, float]]) -> Iterator[tuple[Value, float]]:
    """The candidates that make a noise of any account, of all, the noisiest first."""
    return takewhile(lambda found: found[1] > LEAST * power(GOOD), ranked)


@dataclass(frozen=True)
class Found:
    """A QDQ graph, the SQNR in dB of its worst output, and how many values got 16 bits."""

    graph: Graph
    reached: float
    count: int = 0

    def told(self, before: float) -> str:
        """What was done, in a line."""
        values = "1 value has" if self.count == 1 else f"{self.count} values have"
        return (
            f"{values} 16 bits, since an output had {before:.1f} dB of signal to noise against"
            f" float on calibration data and has {self.reached:.1f} now; --min-sqnr 0 leaves that"
        )


@dataclass
class Purse:
    """What 16 bits may still cost at run time, in multiplications."""

    sites: Sites
    left: float = field(init=False)

    def __post_init__(self) -> None:
        order = [v for v in self.sites.graph.order if not isinstance(v, Const)]
        elements = sum(v.type.size for v in self.sites.own)
        self.left = SHARE * (sum(map(macs, order)) + ELEMENT * elements)

    def affordable(
        self, ranked: Iterable[tuple[Value, float]], excess: float
    ) -> Iterator[tuple[Value, float]]:
        """The next values, and their noise, whose noise comes to as much as is too much, of those
        that can be had."""
        for v, cost in ranked:
            price = self.price(v)
            if price > self.left:
                continue
            self.left -= price
            yield v, cost
            excess -= cost
            if excess <= 0:
                return

    def price(self, v: Value) -> float:
        """What is added where a value has 16 bits: layers multiply twice and store two sums of 32
        bits for each of their elements, all others read twice the bytes. By measurement
        MobileNetV3-large took 1.50 times as long where this says 1.42."""
        total = 0.0
        for u in self.sites.graph.users[v]:
            if self.sites.moving(u):
                total += ELEMENT / 2 * u.type.size + self.price(u)
            elif u.op in LAYERS and reads_signal(u):
                total += macs(u) + 8 * ELEMENT * u.type.size
            else:
                total += ELEMENT / 2 * u.type.size
        return total + ELEMENT / 2 * v.type.size
