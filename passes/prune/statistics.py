"""What layers see while samples run: first and second moments of their input channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from irc.graph import Graph, evaluate
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const
from irc.ops.linear import Linear
from irc.passes.calibration.moments import Moments
from irc.types import Array
from irc.value import Value

Layer = Conv2d | ConvTranspose2d | Linear
"""What has weights: [O, ..., C], and reads channels on the last axis of x."""

POSITIONS = 2048
"""Positions of a sample whose moments are taken, spread evenly: enough, and it bounds the work."""
RIDGE = 1e-3
"""The share of the variances' mean that is added to them before a fit."""


def layers(graph: Graph) -> list[Layer]:
    """The layers with constant weights, in order."""
    return [v for v in graph.order if isinstance(v, Layer) and isinstance(v.w, Const)]


def moments(
    graph: Graph,
    samples: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None] | None = None,
) -> dict[Value, Moments]:
    """The moments of everything that a layer reads. `progress` is told the samples seen."""
    found = {v.x: Moments() for v in layers(graph)}

    def observe(v: Value, array: Array) -> None:
        if v in found:
            rows = array.reshape(-1, array.shape[-1])
            found[v].add(rows[:: max(1, len(rows) // POSITIONS)].astype(np.float64))

    for count, sample in enumerate(samples, 1):
        evaluate(graph, sample, observe=observe)
        if progress is not None:
            progress(count)
    return found
