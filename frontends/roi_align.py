"""Regions of an image that are computed, each sampled at so many points (RoiAlign).

The points are those of a grid: along each axis `start + length * t`, t known. So a region is
sampled as any image at computed coordinates (decision 030), and the means of its bins follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.errors import ModelError
from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder, check_size
from irc.ops.activation import Clip
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.grid import GridSample
from irc.ops.pool import AvgPool2d
from irc.ops.shape import Concat
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class Regions:
    """How regions are sampled: by a scale from their coordinates to the image's; `size` bins of
    `ratio` times as many points along each axis; `aligned`, with pixels around their centres."""

    scale: float
    size: tuple[int, int]
    ratio: int
    aligned: bool

    def __call__(self, b: Builder, image: Value, regions: Value) -> Value:
        """The means [R, *size, C] of regions [R, 4] (x1, y1, x2, y2) of an image [1, H, W, C].

        Raises `ModelError` where how many points there are depends on the regions.
        """
        if self.ratio < 1:
            raise ModelError("how many points of a computed region are looked at depends on data:"
                             " give a sampling_ratio, as 2")  # fmt: skip
        count, (rows, columns) = regions.shape[0], (n * self.ratio for n in self.size)
        check_size(8, (count, rows, columns, 2))
        across, down = (
            self._coordinates(b, regions, axis, image.shape[2 - axis]) for axis in (0, 1)
        )
        parts = (
            b.reshape(b.expand(b.reshape(at, shape), (count, rows, columns, 1)),
                      (1, count, rows * columns, 1))
            for at, shape in (
                (across, (count, 1, columns, 1)), (down, (count, rows, 1, 1)),
            )
        )  # fmt: skip
        grid = b.add(Concat(tuple(parts), 3))
        points = b.add(GridSample(image, grid, "linear", "region"))
        y = b.reshape(points, (count, rows, columns, image.shape[3]))
        pair = (self.ratio, self.ratio)
        return y if self.ratio == 1 else b.add(AvgPool2d(y, pair, pair))

    def _coordinates(self, b: Builder, regions: Value, axis: int, extent: int) -> Value:
        """Where the points of each region lie along an axis, 0 across and 1 down, of so many
        pixels: [R, points], from -1 to 1 as a grid has them."""
        unit = 2 / extent
        shift = (0.0 if not self.aligned else -0.5) * unit + unit / 2 - 1
        start, end = (forms.gather_axis(b, regions, [axis + side], 1) for side in (0, 2))
        length = b.add(Sub(end, start))
        if not self.aligned:
            length = b.add(Clip(length, 1 / self.scale, float("inf")))
        points = self.size[1 - axis] * self.ratio
        places = (np.arange(points) + 0.5) / points * self.scale * unit
        first = b.add(Add(b.add(Mul(start, _row(b, [self.scale * unit]))), _row(b, [shift])))
        return b.add(Add(first, b.add(Mul(length, _row(b, places)))))


def _row(b: Builder, numbers: Array | list[float]) -> Value:
    return b.const(np.asarray([numbers], np.float32))
