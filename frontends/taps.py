"""What interpolation takes from where: places and weights along one axis, as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from irc.frontends.builder import Builder
from irc.ops.core import Const
from irc.ops.resample import Resample
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class Taps:
    """For each element of the result, which elements it takes, and how much of each."""

    places: Array
    weights: Array

    @property
    def same(self) -> bool:
        """Whether every element is taken as it is."""
        numbers = np.arange(len(self.places))
        return bool(
            self.places.shape[1] == 1
            and np.array_equal(self.places[:, 0], numbers)
            and np.all(self.weights == 1)
        )


def cubic(distance: Array, a: float) -> Array:
    """The cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def linear(distance: Array) -> Array:
    """The triangular kernel."""
    return np.asarray(np.maximum(0.0, 1 - np.abs(distance)))


def interpolated(
    at: Array, extent: int, kernel: Callable[[Array], Array], reach: int, *,
    stretch: float = 1.0, exclude_outside: bool = False,
) -> Taps:  # fmt: skip
    """Taps of a kernel that is not 0 within `reach` of each coordinate, edges repeated.

    With `stretch` > 1 the kernel is as much wider, and its weights sum to 1 (antialiasing);
    `exclude_outside` gives what lies outside no weight.
    """
    wide = max(1.0, stretch)
    half = ceil(reach * wide)
    places = np.floor(at).astype(np.int64)[:, np.newaxis] + np.arange(1 - half, half + 1)
    weights = kernel((places - at[:, np.newaxis]) / wide)
    if exclude_outside:
        weights = np.where((places >= 0) & (places < extent), weights, 0.0)
    if exclude_outside or wide > 1:
        weights = weights / weights.sum(1, keepdims=True)
    return merged(np.clip(places, 0, extent - 1), weights)


def merged(places: Array, weights: Array) -> Taps:
    """Without taps that no element takes anything from."""
    used = np.any(weights != 0, axis=0)
    if not used.any():
        used[:1] = True
    return Taps(places[:, used], weights[:, used])


def resampled(b: Builder, x: Value, taps: dict[int, Taps]) -> Value:
    """x by taps along axes, two axes at a time."""
    axes = [axis for axis in sorted(taps) if not taps[axis].same]
    for i in range(0, len(axes), 2):
        pair = axes[i : i + 2]
        tables: list[Const | None] = []
        for axis in pair:
            places = np.ascontiguousarray(taps[axis].places, np.int32)
            weights = np.ascontiguousarray(taps[axis].weights, np.float32)
            tables.append(b.const(places, name=f"{b.name}.places{axis}"))
            tables.append(b.const(weights, name=f"{b.name}.weights{axis}"))
        rows, row_weights, columns, column_weights = [*tables, None, None][:4]
        assert rows is not None
        assert row_weights is not None
        x = b.add(Resample(x, rows, row_weights, columns, column_weights, tuple(pair)))
    return x
