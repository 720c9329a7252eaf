"""Which channels to remove where samples tell how they depend on each other.

The optimal brain surgeon (Hassibi, Stork, 1993) on the inputs of a layer: with second moments
G = E[x xᵀ] and weights W that are refitted after each removal, leaving out channel c costs
`|W_c|^2 / (G^-1)_cc` of the layer's mean square, and the other channels take its part over by
`W_k -= W_c (G^-1)_ck / (G^-1)_cc`. Only W Wᵀ over channels is needed for the costs, so a layer of
any number of taps and outputs is two [C, C] matrices. Channels go in blocks, between which costs
are computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.passes.calibration.moments import Moments, ridged
from irc.passes.prune.statistics import RIDGE
from irc.types import Array

BLOCKS = 16
"""How often costs are computed anew while a group loses its channels."""


@dataclass
class Reader:
    """A layer that reads channels: what is left of its inputs, and what each is worth."""

    classes: Array
    """The class of each channel [C]."""
    inverse: Array
    """(E[x xᵀ] + ridge)^-1 [C, C], of the channels that are left."""
    weights: Array
    """W Wᵀ over channels [C, C], refitted to the channels that are left."""
    left: Array
    """Which are left: b1 [C]."""
    total: float
    """Mean square of all that the layer computes."""

    @classmethod
    def of(cls, w: Array, seen: Moments, classes: Array) -> Reader:
        """A layer with weights [O, ..., C]; the mean is left to its bias."""
        covariance = seen.covariance
        size = len(covariance)
        flat = w.reshape(-1, size).astype(np.float64)
        gram = flat.T @ flat
        inverse = np.linalg.inv(ridged(covariance, RIDGE, seen.uncertainty))
        return cls(
            classes, inverse, gram,
            np.ones(size, np.bool_), max(float(np.sum(gram * covariance)), 1e-30),
        )  # fmt: skip

    def costs(self, count: int) -> Array:
        """What each class costs here, as a share of all that the layer computes."""
        found = np.zeros(count)
        own = np.diagonal(self.weights)[self.left] / np.diagonal(self.inverse)[self.left]
        np.add.at(found, self.classes[self.left], own / self.total)
        return found

    def remove(self, gone: Array) -> None:
        """Leave out classes; the other channels take over what they can."""
        block = self.left & np.isin(self.classes, gone)
        if not block.any():
            return
        rest = self.left & ~block
        k, b = np.flatnonzero(rest), np.flatnonzero(block)
        across = self.inverse[np.ix_(b, k)]
        share = np.linalg.solve(self.inverse[np.ix_(b, b)], across)
        self.inverse[np.ix_(k, k)] -= across.T @ share
        mixed = self.weights[np.ix_(k, b)] @ share
        own = share.T @ self.weights[np.ix_(b, b)] @ share
        self.weights[np.ix_(k, k)] += own - mixed - mixed.T
        self.left = rest


def cheapest(group: Array, wanted: int, readers: list[Reader], count: int) -> Array:
    """The `wanted` classes of a group that cost least; the readers are left without them."""
    gone: list[Array] = []
    left = group
    step = -(-wanted // BLOCKS)
    while wanted:
        costs = sum((r.costs(count) for r in readers), np.zeros(count))[left]
        block = left[np.argsort(costs, kind="stable")[: min(step, wanted)]]
        for r in readers:
            r.remove(block)
        left = np.setdiff1d(left, block)
        gone.append(block)
        wanted -= len(block)
    return np.concatenate(gone) if gone else np.zeros(0, np.int64)
