"""What layers see while samples run: first and second moments of their input channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from irc.graph import Graph, evaluate
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const
from irc.ops.linear import Linear
from irc.types import Array
from irc.value import Value

Layer = Conv2d | ConvTranspose2d | Linear
"""What has weights: [O, ..., C], and reads channels on the last axis of x."""

POSITIONS = 2048
"""Positions of a sample whose moments are taken, spread evenly: enough, and it bounds the work."""

RIDGE = 1e-3
"""Added to the variances, as a share of their mean: keeps a fit from chasing noise."""


def layers(graph: Graph) -> list[Layer]:
    """The layers with constant weights, in order."""
    return [v for v in graph.order if isinstance(v, Layer) and isinstance(v.w, Const)]


@dataclass
class Moments:
    """Sums over positions: count, x [C], x xᵀ [C, C], in float64."""

    count: int = 0
    first: Array = field(default_factory=lambda: np.zeros(()))
    second: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, x: Array) -> None:
        """Take in a tensor [..., C]."""
        rows = x.reshape(-1, x.shape[-1])
        rows = rows[:: max(1, len(rows) // POSITIONS)].astype(np.float64)
        self.count += len(rows)
        self.first = self.first + rows.sum(0)
        self.second = self.second + rows.T @ rows

    @property
    def energy(self) -> Array:
        """Mean square of each channel [C]."""
        return np.asarray(np.diagonal(self.second) / self.count)

    @property
    def mean(self) -> Array:
        """Mean of each channel [C]."""
        return np.asarray(self.first / self.count)

    @property
    def covariance(self) -> Array:
        """Of the channels [C, C]."""
        return np.asarray(self.second / self.count - np.outer(self.mean, self.mean))


def ridged(covariance: Array) -> Array:
    """A covariance [C, C] that can be inverted: with the ridge on its diagonal."""
    size = len(covariance)
    ridge = RIDGE * max(float(np.trace(covariance)) / size, 1e-12)
    return np.asarray(covariance + ridge * np.eye(size))


def moments(
    graph: Graph,
    samples: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None] | None = None,
) -> dict[Value, Moments]:
    """The moments of everything that a layer reads. `progress` is told the samples seen."""
    found = {v.x: Moments() for v in layers(graph)}

    def observe(v: Value, array: Array) -> None:
        if v in found:
            found[v].add(array)

    for count, sample in enumerate(samples, 1):
        evaluate(graph, sample, observe=observe)
        if progress is not None:
            progress(count)
    return found
