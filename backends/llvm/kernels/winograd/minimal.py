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

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.types import Array

Outcomes = Iterator[tuple[int, Any]]
Map = Callable[[Sequence[Any]], Outcomes]
"""A linear map: (index, value) of each of its results, in an order that lets operands go early."""


@dataclass(frozen=True)
class Filter:
    """F(m, 3). Output i comes out `odd * 2**shifts[i]` times as large as it is."""

    m: int
    inputs: Map
    weights: Map
    outputs: Map
    odd: int
    shifts: tuple[int, ...]
    one: int
    """By how much the image's product (1, 1), that of the point 1 both ways, must be larger for
    every result to be larger by one."""

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
    return np.array([row for _, row in sorted(f(list(np.eye(size, dtype=np.int64))), key=_index)])


def _index(outcome: tuple[int, Any]) -> int:
    return outcome[0]


def both_ways(
    f: Map, tile: Sequence[Sequence[Any]], *, by_rows: bool = False
) -> Iterator[tuple[int, int, Any]]:
    """A map applied to every column, then to every row of what comes: (row, column, value). Either
    a column after the other; or `by_rows`, all columns in step and each row as soon as it is known,
    so that few values wait where columns are short."""
    columns: list[Iterable[tuple[int, Any]]] = [f(column) for column in zip(*tile, strict=True)]
    if not by_rows:
        columns = [list(column) for column in columns]
    for along in zip(*columns, strict=True):
        for j, value in f([value for _, value in along]):
            yield along[0][0], j, value


def transformed(f: Map, tile: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """`both_ways` in the order of rows and columns."""
    found = {(i, j): value for i, j, value in both_ways(f, tile)}
    side = range(math.isqrt(len(found)))
    return [[found[i, j] for j in side] for i in side]


def _inputs_2(x: Sequence[Any]) -> Outcomes:
    yield 0, x[0] - x[2]
    yield 1, x[1] + x[2]
    yield 2, x[2] - x[1]
    yield 3, x[1] - x[3]


def _weights_2(w: Sequence[Any]) -> Outcomes:
    yield 0, w[0] << 1
    yield 3, w[2] << 1
    ends = w[0] + w[2]
    yield 1, ends + w[1]
    yield 2, ends - w[1]


def _outputs_2(p: Sequence[Any]) -> Outcomes:
    yield 0, p[0] + p[1] + p[2]
    yield 1, p[1] - p[2] - p[3]


def _inputs_4(x: Sequence[Any]) -> Outcomes:
    """Points 0, 1, -1, 2, -2 and infinity."""
    even, odd = x[4] - x[2], (x[3] - x[1]) << 1
    yield 3, even + odd
    yield 4, even - odd
    yield 0, ((x[0] - x[2]) << 2) + even
    yield 5, (x[5] - x[3]) - (odd << 1)
    even, odd = x[4] - (x[2] << 2), x[3] - (x[1] << 2)
    yield 1, even + odd
    yield 2, even - odd


def _weights_4(w: Sequence[Any]) -> Outcomes:
    """Six times the first and the last, which makes them no larger than the others."""
    yield 0, (w[0] << 1) + (w[0] << 2)
    yield 5, (w[2] << 1) + (w[2] << 2)
    near, far = w[0] + w[2], w[0] + (w[2] << 2)
    yield 1, near + w[1]
    yield 2, near - w[1]
    middle = w[1] << 1
    yield 3, far + middle
    yield 4, far - middle


def _outputs_4(p: Sequence[Any]) -> Outcomes:
    near, far = p[1] + p[2], p[3] + p[4]
    yield 0, (p[0] - (near << 2)) + far
    yield 2, far - near
    near, far = p[1] - p[2], p[3] - p[4]
    yield 1, far - (near << 1)
    yield 3, (p[5] + (far << 1)) - near


F2 = Filter(2, _inputs_2, _weights_2, _outputs_2, 1, (1, 1), 4)
F4 = Filter(4, _inputs_4, _weights_4, _outputs_4, 3, (3, 2, 1, 1), 36)


def proved(f: Filter, weights: Array) -> bool:
    """Whether transformed inputs and weights fit i16, sums of two products i32, and results what
    the division leaves."""
    inputs = max(abs(v) for v in f.input_range())
    products = f.weight_bound(int(np.abs(weights.astype(np.int16)).max(initial=0)))
    in_words = inputs < 2**15 and products < 2**15 and 2 * inputs * products < 2**31
    return in_words and result_bound(weights) < f.limit


def result_bound(weights: Array) -> int:
    """The largest magnitude of a sum of bytes times the weights of one channel."""
    w = weights.reshape(len(weights), -1).astype(np.int64)
    return 255 * int(max(np.maximum(w, 0).sum(1).max(), np.maximum(-w, 0).sum(1).max()))


def proof(f: Filter, weights: Array) -> str:
    """What `proved` found, in words."""
    low, high = f.input_range()
    return (
        f"transformed inputs lie in [{low}, {high}], weights likewise in 16 bits; results are at"
        f" most {result_bound(weights)} < {f.limit}, so that their multiples are exact modulo 2^32"
    )
