"""Calibration: what range each float value takes, measured on data in one streaming pass.

Memory does not depend on the number of samples: per value a minimum, a maximum, a histogram
whose bins grow with the range, and moments per channel; per layer the moments of what its weights
multiply. A few samples are kept, to see on them what became of a graph.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from irc.blocks import BLOCK
from irc.errors import DataError
from irc.graph import Graph, evaluate
from irc.ops.core import Const
from irc.passes.calibration.moments import Columns, LayerMoments, channel_means
from irc.printer import print_graph
from irc.types import Array, DType
from irc.value import Value

BINS = 2048
SMALLEST = 1e-30
"""A magnitude that counts as nothing."""
UNLIKE = 0.35
"""How unlike samples are of which nothing is known, as a logarithm."""
KEPT, KEPT_SMALL, KEPT_BYTES = 16, 64, 1 << 18
"""Samples that a profile holds; so many more where these come to no more bytes."""
MEMORY = 1 << 28
"""Bytes of what the graph made of them that are kept, too; of one sample even if it is more."""
Visible = Callable[[Array], Array]
"""What the readers of an array can tell of it: another of its shape."""
Progress = Callable[[int], None]
"""Called after each sample with the number of samples seen so far."""


@dataclass
class Statistics:
    """What is known of one value. Bin i of `counts` covers `[i + first, i + first + 1) * width`.

    `width` is a power of two and bins are anchored at zero, so growing the range merges
    neighbours exactly, and the result does not depend on the order of the samples once the
    range is known. Moments are summed over all but the last axis. `sizes` tells how unlike samples
    are: their number, and the sums of the logarithm, and of its square, of each one's largest
    magnitude.
    """

    low: float = math.inf
    high: float = -math.inf
    width: float = 0.0
    first: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    rows: int = 0
    total: Array = field(default_factory=lambda: np.zeros(1))
    squares: Array = field(default_factory=lambda: np.zeros(1))
    sizes: Array = field(default_factory=lambda: np.zeros(3))

    def add(self, array: Array) -> None:
        """Take in one sample of the value; the array must be finite and not empty."""
        low, high = float(array.min()), float(array.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        size = math.log(max(-low, high, SMALLEST))
        self.sizes = np.add(self.sizes, (1.0, size, size * size))
        self._cover(self.low, self.high)
        flat = array.reshape(-1)
        for i in range(0, flat.size, BLOCK):
            bins = np.floor(flat[i : i + BLOCK] * (1 / self.width)).astype(np.int64) - self.first
            self.counts += np.bincount(bins, minlength=BINS)
        channels = array.reshape(-1, array.shape[-1] if array.ndim else 1)
        self.rows += len(channels)
        self.total = self.total + channels.sum(0, dtype=np.float64)
        self.squares = self.squares + np.einsum("nc,nc->c", channels, channels, dtype=np.float64)

    @property
    def whole(self) -> bool:
        """Whether all that was measured lies in bins that begin with a whole number."""
        starts = (np.flatnonzero(self.counts) + self.first) * self.width
        return 0 < self.width < 1 and bool(np.all(starts == np.rint(starts)))

    def _cover(self, low: float, high: float) -> None:
        if self.width == 0:
            largest = max(abs(low), abs(high), SMALLEST)
            self.width = 2.0 ** (math.ceil(math.log2(largest)) - int(math.log2(BINS)))
        while not self._fits(low, high):
            if self._span(low, high) < BINS:
                self._shift(self._place(low, high))
            else:
                self._double()

    def _span(self, low: float, high: float) -> int:
        return math.floor(high / self.width) - math.floor(low / self.width)

    def _fits(self, low: float, high: float) -> bool:
        begin, end = math.floor(low / self.width), math.floor(high / self.width)
        return self.first <= begin and end < self.first + BINS

    def _place(self, low: float, high: float) -> int:
        """The first bin that leaves equal room on both sides, or none below zero if positive."""
        begin, end = math.floor(low / self.width), math.floor(high / self.width)
        if low >= 0:
            return 0 if end < BINS else begin
        return (begin + end - BINS + 1) // 2

    def _shift(self, first: int) -> None:
        moved = np.zeros(BINS, np.int64)
        used = np.nonzero(self.counts)[0]
        moved[used + self.first - first] = self.counts[used]
        self.counts, self.first = moved, first

    def _double(self) -> None:
        """Bins of twice the width: bin j becomes j // 2."""
        first = self.first // 2
        merged = np.zeros(BINS, np.int64)
        np.add.at(merged, (np.arange(BINS) + self.first) // 2 - first, self.counts)
        self.counts, self.first, self.width = merged, first, self.width * 2

    @property
    def centres(self) -> Array:
        """The middle of each bin, within [low, high]; an exact 0 stands for the bin of zeros."""
        edges = np.arange(self.first, self.first + BINS)
        middle = (edges + 0.5) * self.width
        return np.clip(np.where(edges == 0, 0.0, middle), self.low, self.high)

    @property
    def mean(self) -> Array:
        """Mean per channel (last axis)."""
        return self.total / max(self.rows, 1)

    @property
    def mean_square(self) -> Array:
        """Mean of squares per channel (last axis)."""
        return self.squares / max(self.rows, 1)

    @property
    def unlikeness(self) -> float:
        """How far, as a logarithm, the sizes of samples deviate from each other, no more than
        UNLIKE: as measured, and as one sample more that does, since few tell little."""
        count, total, squares = (float(x) for x in self.sizes)
        if not count:
            return 0.0
        measured = max(squares - total**2 / count, 0.0)
        return min(math.sqrt((measured + UNLIKE**2) / count), UNLIKE)

    def largest(self, deviations: float) -> float:
        """The magnitude that lies so many standard deviations above the mean of the samples' sizes,
        of their logarithms; 0 where there is no sample."""
        count, total, squares = (float(x) for x in self.sizes)
        if not count:
            return 0.0
        mean = total / count
        return math.exp(mean + deviations * math.sqrt(max(squares / count - mean**2, 0.0)))

    def quantile(self, fraction: float) -> float:
        """The value below which that fraction of the elements lies, to a bin's width."""
        cumulative = np.cumsum(self.counts)
        bin_ = int(np.searchsorted(cumulative, fraction * cumulative[-1]))
        edge = (self.first + bin_ + (fraction > 0.5)) * self.width
        return min(max(edge, self.low), self.high)


@dataclass(frozen=True)
class Profile:
    """The statistics of a graph's values by their keys, the hash of that graph, and the keys of
    `fine` inputs, which 8 bits are known to be too few for."""

    graph_hash: str
    samples: int
    values: Mapping[str, Statistics]
    fine: tuple[str, ...] = ()
    layers: Mapping[str, LayerMoments] = field(default_factory=dict)
    """What the weights of layers multiply, by the layers' keys."""
    feeds: tuple[Mapping[str, Array], ...] = ()
    """The first samples."""
    outputs: tuple[Mapping[str, Array], ...] = ()
    """What the graph made of them, as far as it is known and real; it is not saved."""
    units: Mapping[str, Array] = field(default_factory=dict)
    """The scales and offsets of inputs' columns, f32 [2, C], by input."""

    @property
    def first(self) -> Sequence[Mapping[str, Array]]:
        """As many feeds as any graph's profile holds."""
        return self.feeds[:KEPT]

    def check(self, graph: Graph) -> None:
        """Raise `DataError` unless the profile was taken of exactly this graph."""
        if self.graph_hash != graph_hash(graph):
            raise _another(graph)

    def of_another(self, before: Graph, after: Graph, made: Mapping[Value, Value]) -> Profile:
        """What is known of a graph `before` as that of another one: `made` says what became of
        values, which compute the same."""
        old, new = keys(before), keys(after)
        names = {old[v]: new[m] for v, m in made.items() if v in old and m in new}
        return replace(
            self,
            graph_hash=graph_hash(after),
            values={names[k]: s for k, s in self.values.items() if k in names},
            layers={names[k]: m for k, m in self.layers.items() if k in names},
        )

    def units_of(self, graph: Graph) -> Mapping[str, Array]:
        """The units; raises `DataError` where the graph's inputs have other columns."""
        shapes = {v.name: v.shape for v in graph.inputs if v.type.dtype is DType.F32}
        for name, units in self.units.items():
            if units.shape != (2, *shapes.get(name, ())[-1:]):
                raise _another(graph)
        return self.units

    def save(self, path: str | Path) -> None:
        """Write the profile as an `.npz`, exactly at `path`."""
        arrays: dict[str, Array] = {
            "graph_hash": np.array(self.graph_hash),
            "samples": np.array(self.samples),
            "keys": np.array(list(self.values), dtype=np.str_),
            "fine": np.array(self.fine, dtype=np.str_),
            "layers": np.array(list(self.layers), dtype=np.str_),
            "feeds": np.array(len(self.feeds)),
        }
        for i, s in enumerate(self.values.values()):
            arrays[f"{i}.range"] = np.array([s.low, s.high, s.width])
            arrays[f"{i}.counts"] = np.array([s.first, s.rows, *s.counts])
            arrays[f"{i}.moments"] = np.stack([s.total, s.squares])
            arrays[f"{i}.sizes"] = s.sizes
        for i, layer in enumerate(self.layers.values()):
            arrays |= {f"layer{i}.{k}": a for k, a in layer.arrays().items()}
        for i, feed in enumerate(self.feeds):
            arrays |= {f"feed{i}.{k}": a for k, a in feed.items()}
        arrays |= {f"units.{k}": a for k, a in self.units.items()}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read what `save` wrote; raises `DataError` where it is something else."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                values = {str(k): _restore(archive, i) for i, k in enumerate(archive["keys"])}
                fine = tuple(map(str, archive["fine"]))
                layers = {
                    str(k): LayerMoments.restored(_part(archive, f"layer{i}."))
                    for i, k in enumerate(archive["layers"])
                }
                feeds = tuple(_part(archive, f"feed{i}.") for i in range(int(archive["feeds"])))
                samples, units = int(archive["samples"]), _part(archive, "units.")
                return cls(
                    str(archive["graph_hash"]), samples, values, fine, layers, feeds, units=units
                )
        except (OSError, ValueError, EOFError, LookupError, TypeError, BadZipFile) as error:
            raise DataError(f"{path} is no calibration profile: {error}") from None


def _another(graph: Graph) -> DataError:
    return DataError(
        f"the calibration profile was taken of another graph than {graph.name}: calibrate again"
    )


def _restore(archive: Mapping[str, Array], i: int) -> Statistics:
    low, high, width = (float(x) for x in archive[f"{i}.range"])
    counts, moments = archive[f"{i}.counts"], archive[f"{i}.moments"]
    return Statistics(
        low, high, width, int(counts[0]), counts[2:].copy(), int(counts[1]), moments[0], moments[1],
        archive[f"{i}.sizes"],
    )  # fmt: skip


def _part(archive: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): archive[k] for k in archive if k.startswith(prefix)}


def graph_hash(graph: Graph) -> str:
    """Identifies a graph by its text, which names constants by their content."""
    return hashlib.sha256(print_graph(graph).encode()).hexdigest()[:16]


def keys(graph: Graph) -> dict[Value, str]:
    """A unique key per value: its name, numbered where it is missing or taken."""
    found: dict[Value, str] = {}
    taken: set[str] = set()
    for i, v in enumerate(graph.order):
        key = v.name or f"#{i}"
        found[v] = key if key not in taken else f"{key}#{i}"
        taken.add(found[v])
    return found


def calibrate(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]],
    values: Collection[Value] | None = None,
    progress: Progress | None = None,
    visible: Mapping[Value, Visible] | None = None,
    layers: Collection[Value] = (),
) -> Profile:
    """Run the float graph over all batches and measure `values` (default: every float result), and
    what the weights of `layers` multiply.

    `visible` says of some of them what their readers see, which is measured instead. Each batch is
    one feed of the graph's inputs, already checked (see `irc.passes.calibration.data`). Raises
    `DataError` where there is no batch, or where a value becomes NaN or infinite.
    """
    wanted = _floats(graph) if values is None else set(values)
    seen = _Measurements(
        {v: Statistics() for v in graph.order if v in wanted},
        {v: LayerMoments.of(c) for v in layers if (c := Columns.of(v)) is not None},
        visible or {},
    )
    feeds: list[Mapping[str, Array]] = []
    outputs: list[Mapping[str, Array]] = []
    kept = 0
    for feed in batches:
        if len(feeds) < KEPT or (len(feeds) < KEPT_SMALL and kept <= KEPT_BYTES):
            feeds.append(feed)
            kept += _nbytes(feed)
        found = evaluate(graph, feed, observe=seen.take)
        if len(outputs) < len(feeds) and len(outputs) * _nbytes(found) < MEMORY:
            outputs.append({k: a for k, a in found.items() if a.dtype.kind == "f"})
        seen.samples += 1
        if progress is not None:
            progress(seen.samples)
    if not seen.samples:
        raise DataError(f"calibration data for {graph.name} holds no sample")
    names = keys(graph)
    return Profile(
        graph_hash(graph),
        seen.samples,
        {names[v]: s for v, s in seen.statistics.items()},
        layers={names[v]: m for v, m in seen.layers.items()},
        feeds=tuple(feeds),
        outputs=tuple(outputs),
    )


def _nbytes(arrays: Mapping[str, Array]) -> int:
    return sum(a.nbytes for a in arrays.values())


def _floats(graph: Graph) -> set[Value]:
    return {v for v in graph.order if v.type.dtype.is_float and not isinstance(v, Const)}


@dataclass
class _Measurements:
    """What is known after some samples."""

    statistics: Mapping[Value, Statistics]
    layers: Mapping[Value, LayerMoments]
    visible: Mapping[Value, Visible]
    samples: int = 0

    @cached_property
    def readers(self) -> Mapping[Value, list[Value]]:
        """The layers that read a value."""
        found: dict[Value, list[Value]] = {}
        for v in self.layers:
            found.setdefault(v.operands[0], []).append(v)
        return found

    def take(self, v: Value, array: Array) -> None:
        """Measure what was computed of one more sample."""
        if array.size == 0:
            return
        if v in self.statistics:
            visible = self.visible.get(v)
            self.statistics[v].add(self.checked(v, visible(array) if visible else array))
        for layer in self.readers.get(v, ()):
            self.layers[layer].add(layer, array)
        if v in self.layers and self.samples < KEPT:
            self.layers[v].means.append(channel_means(array))

    def checked(self, v: Value, array: Array) -> Array:
        """The array; raises `DataError` where it isn't finite."""
        # One pass tells the common case: the sum is finite only if every element is.
        if not np.isfinite(array.sum(dtype=np.float64)) and not np.all(np.isfinite(array)):
            raise DataError(
                f"{v.op} %{v.name} becomes NaN or infinite in sample {self.samples}: the float"
                " model itself overflows there"
            )
        return array
