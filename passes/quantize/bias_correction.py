"""Biases that take back what quantization moves the means of channels by.

What is rounded off averages out; what a range cuts off does not, nor what a table makes of many
equal values, and all layers behind see it. Layer after layer, in the order of computation, a
channel's mean over some samples is compared with float's, and the difference goes into the bias
(empirical bias correction: Nagel et al., Data-Free Quantization Through Weight Equalization and
Bias Correction, 2019). From sample to sample the difference varies; of its mean d with the
variance s² of that mean, only what is certain is taken:

    d * max(0, 1 - 4 s² / d²)

(after James, Stein, 1961; four, since of many channels some differ by two deviations by chance).
Pixels of a channel are alike; tokens are not: what an outlier among them loses to its range would
be shared out to all others, so that layers of tokens keep their biases. Outputs that come out
further from float than without refute all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.quantization import Dequantize
from irc.passes.calibration.calibrate import Progress
from irc.passes.calibration.moments import channel_means
from irc.passes.quantize.sensitivity import Known, reals, worst
from irc.passes.quantize.weights import BIAS_LIMIT
from irc.progress import silent
from irc.types import Array
from irc.value import Value

CERTAIN = 4.0
"""Variances of a mean that may be chance."""
FEWEST = 4
"""Fewer samples tell nothing of how a difference varies."""
JUDGED = 4
"""Samples on which outputs are compared."""
MEMORY = 1 << 30
"""Bytes of values that are alive at one time, of all samples together."""

Feeds = Sequence[Mapping[str, Array]]


def nearer(
    real: Graph,
    made: Graph,
    means: Mapping[Value, Array],
    feeds: Feeds,
    progress: Progress = silent,
    run: Known | None = None,
) -> Graph:
    """The QDQ graph `recentred`, if its outputs are nearer to those of the float graph on the first
    feeds, else itself; `run` learns what was computed."""
    run = run or Known()
    told = {v: m for v, m in means.items() if _has_bias(v) and not of_tokens(v)}
    moved = recentred(made, told, feeds, progress, run)
    if moved is made:
        return made
    first = feeds[:JUDGED]
    wanted = [run(real, feed) for feed in first]
    return max((moved, made), key=lambda g: worst(wanted, (run(g, feed) for feed in first)))


def of_tokens(layer: Value) -> bool:
    """Whether rows of a layer's result are other things than samples or pixels."""
    return isinstance(layer, Linear) and math.prod(layer.shape[:-1]) > 1


def recentred(
    graph: Graph,
    means: Mapping[Value, Array],
    feeds: Feeds,
    progress: Progress = silent,
    run: Known | None = None,
) -> Graph:
    """The QDQ graph whose layers, all of constant biases, have the `means` [N, C] they should have,
    sample by sample of the `feeds`, as far as these tell; itself where there are too few.
    `progress` is told how many nodes were computed, `run` what the new graph makes of them, but for
    the rounding of floats."""
    count = min([len(feeds), MEMORY // max(_alive(graph), 1), *map(len, means.values())])
    if not means or count < FEWEST:
        return graph
    runs = _Runs.of(graph, feeds[:count])
    new: dict[Value, Value] = {}
    for done, v in enumerate(graph.order, 1):
        runs.compute(v)
        new[v] = v if isinstance(v, Input) else v.map_operands(new.__getitem__)
        if v in means:
            units, real = _units(v, means[v][:count], runs.of_each(v))
            new[v] = _moved(new[v], units)
            runs.add(v, real)
        runs.leave(v)
        progress(done)
    moved = graph.with_outputs(tuple(new[v] for v in graph.outputs))
    if run is not None:
        for feed, found in zip(feeds, runs.each, strict=False):
            run.add(moved, feed, reals(graph, found))
    return moved


@dataclass(frozen=True)
class _Runs:
    """A graph computed of several samples, node by node; what nothing reads any more is dropped."""

    each: Sequence[dict[Value, Array]]
    left: dict[Value, int]
    """How often each value will still be read."""

    @classmethod
    def of(cls, graph: Graph, feeds: Feeds) -> _Runs:
        """Where only the inputs are known."""
        each: list[dict[Value, Array]] = [
            {v: np.asarray(feed[v.name]) for v in graph.inputs} for feed in feeds
        ]
        return cls(each, {v: graph.uses(v) for v in graph.order})

    def compute(self, v: Value) -> None:
        """A node whose operands are there; once where these are the same in all samples."""
        first = self.each[0]
        once = all(run[o] is first[o] for run in self.each for o in v.operands)
        for run in self.each:
            if v not in run:
                run[v] = first[v] if once and v in first else np.asarray(v.call(run.__getitem__))

    def of_each(self, v: Value) -> list[Array]:
        """A value in each sample."""
        return [run[v] for run in self.each]

    def add(self, v: Value, real: Array) -> None:
        """Move a value."""
        for run in self.each:
            run[v] = run[v] + real

    def leave(self, v: Value) -> None:
        """Drop the operands that nothing else reads."""
        for o in v.operands:
            self.left[o] -= 1
            if not self.left[o]:
                for run in self.each:
                    del run[o]


def _alive(graph: Graph) -> int:
    """Bytes that are alive at the busiest moment, constants aside."""
    left = {v: graph.uses(v) for v in graph.order}
    size = {v: 0 if isinstance(v, Const) else v.type.nbytes for v in graph.order}
    now = most = 0
    for v in graph.order:
        now += size[v]
        most = max(most, now)
        for o in v.operands:
            left[o] -= 1
            now -= 0 if left[o] else size[o]
    return most


def _has_bias(layer: Value) -> bool:
    node: Any = layer
    return isinstance(node.b, Dequantize) and isinstance(node.b.x, Const)


def _units(layer: Any, wanted: Array, found: Sequence[Array]) -> tuple[Array, Array]:
    """What a layer's bias is off, in its units, and as reals of its type."""
    differences = wanted - np.stack([channel_means(y) for y in found])
    mean = differences.mean(0)
    noise = differences.var(0, ddof=1) / len(differences)
    certain = mean * np.maximum(0, 1 - CERTAIN * noise / np.maximum(mean**2, 1e-30))
    scales = np.asarray(layer.b.x.type.quant.scale)
    stored = layer.b.x.array.astype(np.float64)
    moved = np.clip(np.rint(certain / scales) + stored, -BIAS_LIMIT, BIAS_LIMIT) - stored
    return moved.astype(np.int32), (moved * scales).astype(layer.type.dtype.numpy)


def _moved(layer: Any, units: Array) -> Value:
    """A layer with another bias."""
    old = layer.b.x
    stored = Const(old.array + units, old.type.quant, name=old.name)
    moved: Value = layer.replace(b=layer.b.replace(x=stored))
    return moved
