"""Minimal filtering of Winograd in integers: m neighbouring outputs of a filter of three taps by
m + 2 products instead of 3m.

With three linear maps, outputs(products of inputs(x) and weights(w)) is the filter's result times
a number for each output. All three maps have small integer coefficients, so the whole is exact in
integers that wrap: sums may overflow on the way as long as the result times its number, here with
its odd factor divided out by multiplying with the inverse, fits.

The maps are written once, over anything that adds, subtracts and shifts left: NumPy integers and
vectors in LLVM alike. Applied to columns, then to rows, they filter images (`both_ways`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.types import Array

Map = Callable[[Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class Filter:
    """F(m, 3). Output i comes out `odd * 2**shifts[i]` times as large as it is."""

    m: int
    inputs: Map
    weights: Map
    outputs: Map
    odd: int
    shifts: tuple[int, ...]

    @property
    def size(self) -> int:
        """Inputs, and products, of m outputs."""
        return self.m + 2

    @property
    def inverse(self) -> int:
        """What divides exactly by `odd` squared, modulo 2^32."""
        return pow(self.odd**2, -1, 2**32)

    @property
    def limit(self) -> int:
        """Results of an image filter must lie in [-limit, limit)."""
        return int(2 ** (31 - 2 * max(self.shifts)))

    def input_range(self) -> tuple[int, int]:
        """Smallest and largest transformed input of an image of bytes."""
        rows = matrix(self.inputs, self.size)
        products = np.einsum("ik,jl->ijkl", rows, rows).reshape(self.size**2, -1)
        low = int(np.minimum(products, 0).sum(1).min())
        return 255 * low, 255 * int(np.maximum(products, 0).sum(1).max())

    def weight_bound(self, largest: int) -> int:
        """The largest magnitude of a transformed weight, of weights up to `largest`."""
        return largest * int(np.abs(matrix(self.weights, 3)).sum(1).max()) ** 2


def matrix(f: Map, size: int) -> Array:
    """The matrix of a map of `size` arguments."""
    return np.array(f(list(np.eye(size, dtype=np.int64))))


def both_ways(f: Map, tile: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """A map applied to every column, then to every row of what comes."""
    columns = [f([row[j] for row in tile]) for j in range(len(tile[0]))]
    return [f([column[i] for column in columns]) for i in range(len(columns[0]))]


def _inputs_2(x: Sequence[Any]) -> list[Any]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _weights_2(w: Sequence[Any]) -> list[Any]:
    ends = w[0] + w[2]
    return [w[0] << 1, ends + w[1], ends - w[1], w[2] << 1]


def _outputs_2(p: Sequence[Any]) -> list[Any]:
    return [p[0] + p[1] + p[2], p[1] - p[2] - p[3]]


def _inputs_4(x: Sequence[Any]) -> list[Any]:
    """Points 0, 1, -1, 2, -2 and infinity."""
    even, odd = x[4] - x[2], (x[3] - x[1]) << 1
    p, q = x[4] - (x[2] << 2), x[3] - (x[1] << 2)
    return [((x[0] - x[2]) << 2) + even, p + q, p - q, even + odd, even - odd,
            (x[5] - x[3]) - (odd << 1)]  # fmt: skip


def _weights_4(w: Sequence[Any]) -> list[Any]:
    near, far, middle = w[0] + w[2], w[0] + (w[2] << 2), w[1] << 1
    return [w[0], near + w[1], near - w[1], far + middle, far - middle, w[2]]


def _outputs_4(p: Sequence[Any]) -> list[Any]:
    a, b, c, d = p[1] + p[2], p[1] - p[2], p[3] + p[4], p[3] - p[4]
    first = (p[0] << 1) + p[0]
    last = (p[5] << 1) + p[5]
    return [((first - (a << 1)) << 1) + c, d - (b << 1), c - a, ((d + last) << 1) - b]


F2 = Filter(2, _inputs_2, _weights_2, _outputs_2, 1, (1, 1))
F4 = Filter(4, _inputs_4, _weights_4, _outputs_4, 3, (3, 2, 1, 1))
