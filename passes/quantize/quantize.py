"""Float graph in, QDQ graph out: calibrate, choose scales, write quantize/dequantize pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any

from irc.errors import DataError
from irc.graph import Graph
from irc.history import chosen as noted
from irc.names import by_keyword
from irc.ops.linear import Linear
from irc.passes.calibration.calibrate import Profile, Progress, Statistics, calibrate, keys
from irc.passes.calibration.data import Batch, Source, batches
from irc.passes.calibration.missing import known, may_lack
from irc.passes.calibration.moments import LayerMoments
from irc.passes.quantize.assignment import Scales, assign
from irc.passes.quantize.calibration_warnings import doubts, pixels
from irc.passes.quantize.column_units import Units, ahead, candidates, in_units, unlike_columns
from irc.passes.quantize.coordinates import coordinates
from irc.passes.quantize.equalize import equalized
from irc.passes.quantize.logarithms import before_logarithms
from irc.passes.quantize.masks import ranked
from irc.passes.quantize.options import Options
from irc.passes.quantize.precision_search import Refinement
from irc.passes.quantize.quotients import by_reciprocals, measured_too, settled
from irc.passes.quantize.ranges import Ranges
from irc.passes.quantize.reconstruction import reconstructed
from irc.passes.quantize.rescue import Rescue
from irc.passes.quantize.sensitivity import Known
from irc.passes.quantize.signals import fine_inputs
from irc.passes.quantize.sites import Sites, weighted
from irc.passes.quantize.writer import Rounded, Writer
from irc.pipeline import Pass
from irc.progress import bar
from irc.types import DType
from irc.value import Value

FIRST = 4
"""Samples on which it is measured what an input's rounding costs."""
APART, MEASURED = 4, 8
"""Of so many samples one is kept from calibration, to measure accuracy on, until enough are."""


def quantize(
    graph: Graph,
    data: Source | Profile,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Graph:
    """The float graph in QDQ form, every activation between kernels in 8 bits, or 16 where asked.

    `data` is whatever `irc.passes.calibration.data.batches` reads, or what `profile` measured
    before. Options are the fields of `Options`. Raises `CompileError` listing all nodes without an
    integer form, or where `min_sqnr` can't be reached, `DataError` for data that does not fit.
    """
    chosen = by_keyword(Options, "quantize", options)
    noise = isinstance(data, str) and data.startswith("random:")
    samples = Samples(graph, () if isinstance(data, Profile) else data, bool(chosen.min_sqnr))
    units = data.units_of(graph) if isinstance(data, Profile) else samples.units(chosen)
    graph = _prepared(graph, chosen, units)
    sites = Sites(graph)
    sites.check()
    if not isinstance(data, Profile):
        data = replace(measured(sites, samples, chosen, progress), units=units)
    elif chosen.min_sqnr:
        raise DataError("min_sqnr is measured on samples: a calibration profile has none")
    data.check(graph)
    graph, data = settled(graph, data, chosen)
    write = Writing(Sites(graph), data, chosen)
    made, done = _made(write, samples, rescues=not noise)
    doubtful = [] if noise else doubts(graph, data.samples, data.feeds)
    noted(made, [*pixels(graph, data.feeds), *doubtful, *done])
    return made


def _made(write: Writing, samples: Samples, *, rescues: bool) -> tuple[Graph, list[str]]:
    """The QDQ graph of the accuracy that is asked for, or one that is not poor where that costs
    little; and what was done for it unasked."""
    sites, options, fine = write.sites, write.options, write.fine
    if options.min_sqnr:
        unseen = samples.unseen or samples.first
        with bar("refine") as tried:
            return Refinement(sites, unseen, options.min_sqnr, write, tried).graph(fine), []
    scales, made = write(fine)
    if options.min_sqnr == 0 or str(options.activations) == "8" or not rescues:
        return made, []
    return Rescue(sites, write.profile.feeds, write, write.run).graph(fine, scales, made)


@dataclass(frozen=True)
class Writing:
    """Writes the QDQ graph by what was measured, with any values in 16 bits; weights that do not
    depend on these are rounded once."""

    sites: Sites
    profile: Profile
    options: Options
    known: dict[Value, Rounded] = field(default_factory=dict)
    run: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        profile = self.profile
        for feed, outputs in zip(profile.feeds, profile.outputs, strict=False):
            self.run.add(self.sites.graph, feed, outputs)

    @cached_property
    def names(self) -> Mapping[Value, str]:
        """What the profile calls values."""
        return keys(self.sites.graph)

    @cached_property
    def statistics(self) -> Mapping[Value, Statistics]:
        """What is known of values."""
        return {v: self.profile.values[self.names[v]] for v in self.sites.observed}

    @cached_property
    def moments(self) -> Mapping[Value, LayerMoments]:
        """What is known of layers."""
        known, order = self.profile.layers, self.sites.graph.order
        return {v: known[self.names[v]] for v in order if self.names[v] in known}

    @property
    def fine(self) -> list[Value]:
        """What has 16 bits in any case."""
        found: list[Value] = [
            v for v in self.sites.graph.inputs if self.names[v] in self.profile.fine
        ]
        found += coordinates(self.sites, self.options)
        found += before_logarithms(self.sites, self.statistics, self.options)
        return list(dict.fromkeys(found))

    def __call__(self, fine: Iterable[Value], precise: bool = False) -> tuple[Scales, Graph]:
        """The graph, and the scales of its values; `precise`: with 16 bits for the weights of all
        linear layers between values of 16 bits."""
        scales = assign(self.sites, self.statistics, self.options, frozenset(fine), self.ranges)
        layers = (v for v in self.sites.own if precise and isinstance(v, Linear))
        twice = (v for v in layers if self.wide(v, scales))
        with bar("weights", len(self.moments)) as rounded:
            writer = Writer(
                self.sites, self.statistics, scales, self.options, self.moments, rounded,
                precise=frozenset(twice), known=self.known,
            )  # fmt: skip
            made = writer.graph()
        return scales, writer.recentred(made, self.profile.first, self.run)

    @cached_property
    def ranges(self) -> Ranges:
        """The ranges of 8 bits, as what reads values wants them."""
        plain, options = Ranges(), self.options
        if not (options.reconstruct and options.method == "mse" and self.profile.feeds):
            return plain
        scales = assign(self.sites, self.statistics, options, frozenset(self.fine), plain)
        with bar("ranges", len(self.sites.own)) as tried:
            found = reconstructed(self.sites, scales, self.profile.feeds, tried)
        return replace(plain, factors=found)

    def wide(self, layer: Linear, scales: Scales) -> bool:
        """Whether a layer reads 16 bits and makes them."""
        read = scales.read_by(layer, layer.x, self.sites)
        return read.dtype is scales[layer].dtype is DType.I16


@dataclass
class Samples:
    """Feeds of a graph, of which some are remembered: the first ones, and, if wanted, every fourth
    one, which calibration then does not see."""

    graph: Graph
    source: Source
    apart: bool = False
    first: list[Batch] = field(default_factory=list)
    unseen: list[Batch] = field(default_factory=list)
    ahead: Iterator[Batch] | None = None

    def units(self, options: Options) -> Units:
        """The units of inputs whose columns are unlike, by the first samples."""
        if not candidates(self.graph, options):
            return {}
        feeds = batches(self.graph, self.source)
        seen = ahead(feeds)
        self.ahead = chain(seen, feeds)
        return unlike_columns(self.graph, seen, options)

    def __iter__(self) -> Iterator[Batch]:
        feeds = batches(self.graph, self.source) if self.ahead is None else self.ahead
        for i, feed in enumerate(feeds):
            if i < FIRST:
                self.first.append(feed)
            if self.apart and i % APART == APART - 1 and len(self.unseen) < MEASURED:
                self.unseen.append(feed)
            else:
                yield feed


def measured(
    sites: Sites, samples: Samples, options: Options, progress: Progress | None = None
) -> Profile:
    """What samples tell of a graph's values."""
    graph, names = sites.graph, keys(sites.graph)
    more = measured_too(sites)
    seen = {**more, **ranked(graph), **sites.visible}
    seen |= {v: known for v in graph.inputs if may_lack(graph, v)}
    with bar("calibrate") as shown:
        found = calibrate(
            graph, samples, sites.observed | more.keys(), progress or shown, seen,
            layers=list(filter(weighted, graph.order)) if options.measures_layers else (),
        )  # fmt: skip
    statistics = {v: found.values[names[v]] for v in sites.observed}
    fine = fine_inputs(sites, statistics, options, samples.first)
    return replace(found, fine=tuple(names[v] for v in graph.inputs if v in fine))


def profile(
    graph: Graph, data: Source, progress: Progress | None = None, **options: Any
) -> Profile:
    """What `quantize` needs to know of the data, to be saved and replayed with options that may
    differ in all but `equalize` and `activations`."""
    chosen = by_keyword(Options, "quantize", options)
    samples = Samples(graph, data)
    units = samples.units(chosen)
    sites = Sites(_prepared(graph, chosen, units))
    sites.check()
    return replace(measured(sites, samples, chosen, progress), units=units)


def _prepared(graph: Graph, options: Options, units: Units) -> Graph:
    """The float graph that is calibrated."""
    graph = by_reciprocals(in_units(graph, units))
    if not options.equalize:
        return graph
    return equalized(graph, multiply=str(options.activations) != "8")


@dataclass(frozen=True)
class Quantize(Options, Pass):
    """The pass: float to QDQ, calibrated on `calibration` (a path of an `.npz` or `random:N`) or
    replayed from `profile` (a path that `Profile.save` wrote)."""

    calibration: str = "random:16"
    profile: str = ""
    name = "quantize"
    requires = ("float",)
    ensures = ("qdq",)

    def run(self, graph: Graph) -> Graph:
        """See `quantize`."""
        options = {f.name: getattr(self, f.name) for f in fields(Options)}
        if self.profile:
            return quantize(graph, Profile.load(self.profile), **options)
        return quantize(graph, self.calibration, **options)
