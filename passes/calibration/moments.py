"""What layers multiply their weights with and what they make of it, measured while samples run.

One channel's error beside another's is known by the covariance of what they multiply: pruning lets
channels that stay take over from those that go, and rounding lets weights make up for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, starmap

import numpy as np

from irc.ops.conv import Conv2d
from irc.ops.core import Const
from irc.ops.linear import Linear
from irc.ops.recurrent import Recurrent
from irc.proofs import seconds
from irc.types import Array
from irc.value import Value

POSITIONS = 512
"""Windows of a sample that are taken, spread evenly: enough, and it bounds the work."""
COLUMNS = 512
"""Columns whose covariance is measured together; it grows by their square."""


@dataclass
class Moments:
    """Sums over positions: count, x [..., C], x xᵀ [..., C, C], in the type of what is added."""

    count: int = 0
    first: Array = field(default_factory=lambda: np.zeros((), np.float32))
    second: Array = field(default_factory=lambda: np.zeros((), np.float32))

    def add(self, rows: Array) -> None:
        """Take in [N, ..., C]."""
        self.count += len(rows)
        self.first = self.first + rows.sum(0)
        each = np.moveaxis(rows, 0, -2)
        self.second = self.second + each.swapaxes(-1, -2) @ each

    def __add__(self, other: Moments) -> Moments:
        """Of what both took in."""
        count = self.count + other.count
        return Moments(count, self.first + other.first, self.second + other.second)

    @property
    def energy(self) -> Array:
        """Mean square of each channel [..., C]."""
        return np.asarray(np.diagonal(self.second, axis1=-2, axis2=-1) / self.count)

    @property
    def mean(self) -> Array:
        """Mean of each channel [..., C]."""
        return np.asarray(self.first / self.count)

    @property
    def covariance(self) -> Array:
        """Of the channels [..., C, C]."""
        mean = self.mean.astype(np.float64)
        return np.asarray(self.second / self.count - mean[..., :, None] * mean[..., None, :])


    @property
    def uncertainty(self) -> Array:
        """What sums in floats may be wrong by in each variance [...]: much, where channels vary
        little about a large mean."""
        return np.asarray(self.energy.sum(-1) * np.finfo(self.second.dtype).eps)


def ridged(covariance: Array, share: float, least: Array | float = 0.0) -> Array:
    """A covariance [..., C, C] that can be inverted: on its diagonal, a share of the variances'
    mean, and at `least` so much [...]. It also keeps a fit from chasing noise."""
    size = covariance.shape[-1]
    mean = np.trace(covariance, axis1=-2, axis2=-1) / size
    ridge = np.maximum(share * np.maximum(mean, 1e-12), least)
    return np.asarray(covariance + ridge[..., None, None] * np.eye(size))


@dataclass(frozen=True)
class Columns:
    """The weights [O, ..., C/groups] of a layer as a matrix [O/groups, K] for each of its groups:
    a row for each output, a column for each tap and channel."""

    groups: int
    seconds: Array
    """b1[K]: which columns are the second of a pair that kernels multiply at once."""

    @classmethod
    def of(cls, layer: Value) -> Columns | None:
        """Of a convolution, a linear layer or a step of a recurrent one with constant weights."""
        if not isinstance(layer, Conv2d | Linear | Recurrent) or not isinstance(layer.w, Const):
            return None
        return cls(getattr(layer, "groups", 1), seconds(layer.w.array))

    def matrix(self, w: Array) -> Array:
        """[groups, O/groups, K]."""
        return w.reshape(self.groups, len(w) // self.groups, -1)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """Columns that are measured together; no pair is taken apart."""
        count = len(self.seconds)
        parts = -(-count // COLUMNS)
        cuts = [count * i // parts for i in range(parts + 1)]
        cuts = [c - int(c < count and self.seconds[c]) for c in cuts]
        return tuple(starmap(slice, pairwise(cuts)))

    def windows(self, layer: Value, x: Array) -> Array:
        """What the columns multiply at some positions: [P, groups, K]."""
        if isinstance(layer, Conv2d):
            return self._windows(layer, x)
        rows = x.reshape(-1, 1, x.shape[-1])
        return rows[:: -(-len(rows) // POSITIONS)]

    def _windows(self, layer: Conv2d, x: Array) -> Array:
        window = layer.window
        height, width = window.output(x.shape[1], x.shape[2])
        padded = window.pad(x, 0)
        total = len(x) * height * width
        at = np.arange(0, total, -(-total // POSITIONS))
        images, rows, columns = np.unravel_index(at, (len(x), height, width))
        ys = _steps(rows, window.strides[0], window.dilations[0], window.kernel[0])
        xs = _steps(columns, window.strides[1], window.dilations[1], window.kernel[1])
        found = padded[images[:, None, None], ys[:, :, None], xs[:, None, :]]
        split = found.reshape(len(at), window.kernel[0] * window.kernel[1], self.groups, -1)
        return split.swapaxes(1, 2).reshape(len(at), self.groups, -1)


def _steps(at: Array, stride: int, dilation: int, taps: int) -> Array:
    return np.asarray(at[:, None] * stride + np.arange(taps) * dilation)


@dataclass
class LayerMoments:
    """The moments of all that a layer's columns multiply, block by block, and the mean of each
    channel of its result in each of the first samples."""

    columns: Columns
    blocks: Sequence[Moments]
    means: list[Array] = field(default_factory=list)

    @classmethod
    def of(cls, columns: Columns) -> LayerMoments:
        """Of nothing yet."""
        return cls(columns, [Moments() for _ in columns.blocks])

    def add(self, layer: Value, x: Array) -> None:
        """Take in one sample of what the layer reads."""
        windows = self.columns.windows(layer, x)
        for moments, part in zip(self.blocks, self.columns.blocks, strict=True):
            moments.add(windows[:, :, part])

    def __add__(self, other: LayerMoments) -> LayerMoments:
        """Of what both read, of the same columns."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return LayerMoments(self.columns, [a + b for a, b in pairs])

    def arrays(self) -> dict[str, Array]:
        """What is stored of it."""
        made = {"groups": np.array(self.columns.groups), "seconds": self.columns.seconds}
        for i, m in enumerate(self.blocks):
            stored = {"count": np.array(m.count), "first": m.first, "second": m.second}
            made |= {f"{i}.{k}": a for k, a in stored.items()}
        return made | {"means": np.array(self.means)}

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> LayerMoments:
        """What was stored."""
        columns = Columns(int(arrays["groups"]), arrays["seconds"])
        blocks = [
            Moments(int(arrays[f"{i}.count"]), arrays[f"{i}.first"], arrays[f"{i}.second"])
            for i in range(len(columns.blocks))
        ]
        return cls(columns, blocks, list(arrays["means"]))


def channel_means(x: Array) -> Array:
    """The mean of each channel (last axis), f64[C]."""
    return np.asarray(x.reshape(-1, x.shape[-1]).mean(0, dtype=np.float64))
