"""Sampling images at any points: where a grid of coordinates looks, by ONNX's GridSample."""

from __future__ import annotations

import numpy as np

from irc.errors import TypeCheckError
from irc.types import Array, TensorType
from irc.value import Value, op

MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75


def grid_taps(
    grid: Array, sizes: tuple[int, ...], mode: str, padding: str, align_corners: bool
) -> tuple[Array, Array]:
    """For each point of `grid` [..., n] (coordinates from -1 to 1, the last axis of the image
    first): the places i64 [..., taps] that it takes from an image of `sizes`, seen as flat, and the
    weights."""
    flat = np.zeros((*grid.shape[:-1], 1), np.int64)
    weight = np.ones((*grid.shape[:-1], 1))
    for axis, extent in enumerate(sizes):
        g = np.nan_to_num(grid[..., len(sizes) - 1 - axis].astype(np.float64))
        g = np.clip(g, -(2.0**30), 2.0**30)
        at = (g + 1) / 2 * (extent - 1) if align_corners else ((g + 1) * extent - 1) / 2
        places, weights = _axis_taps(at, mode)
        inside = (places >= 0) & (places < extent)
        if padding == "zeros":
            weights = np.where(inside, weights, 0.0)
        elif padding == "reflection":
            places = _reflected(places, extent, align_corners)
        places = np.clip(places, 0, extent - 1)
        flat = (flat[..., :, np.newaxis] * extent + places[..., np.newaxis, :]).reshape(
            (*flat.shape[:-1], -1)
        )
        weight = (weight[..., :, np.newaxis] * weights[..., np.newaxis, :]).reshape(flat.shape)
    return flat, weight


def _axis_taps(at: Array, mode: str) -> tuple[Array, Array]:
    if mode == "nearest":
        return np.rint(at).astype(np.int64)[..., np.newaxis], np.ones((*at.shape, 1))
    low = np.floor(at)
    steps = np.arange(2) if mode == "linear" else np.arange(-1, 3)
    places = low.astype(np.int64)[..., np.newaxis] + steps
    distance = np.abs(at[..., np.newaxis] - places)
    if mode == "linear":
        return places, 1 - distance
    d, a = distance, CUBIC
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return places, np.where(d <= 1, near, far)


def _reflected(places: Array, extent: int, align_corners: bool) -> Array:
    """Mirrored at the centres of the outermost elements, or at their outer edges."""
    period = max(1, 2 * (extent - 1) if align_corners else 2 * extent)
    turned = np.mod(places, period)
    back = period - turned if align_corners else period - 1 - turned
    return np.asarray(np.minimum(turned, back))


@op("grid_sample")
class GridSample(Value):
    """x [N, *sizes, C] at the points of grid [N, *out, n]: [N, *out, C]. Floats; a grid that is
    computed has no integer form, since 8 bits are too few for coordinates."""

    x: Value
    grid: Value
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self) -> TensorType:
        """Floats of fitting shapes, modes that exist."""
        x, grid = self.x.type, self.grid.type
        spatial = x.rank - 2
        fits = spatial >= 1 and grid.rank == x.rank and grid.shape[-1] == spatial
        if not fits or grid.shape[0] != x.shape[0] or 0 in x.shape[1:-1]:
            raise TypeCheckError(f"grid {grid} does not fit x {x}")
        if not x.dtype.is_float or not grid.dtype.is_float:
            raise TypeCheckError(f"x {x} and grid {grid} must be float")
        if self.mode not in MODES or self.padding not in PADDINGS:
            raise TypeCheckError(f"mode {self.mode!r} with padding {self.padding!r} do not exist")
        return TensorType(x.dtype, (*grid.shape[:-1], x.shape[-1]))

    def evaluate(self, x: Array, grid: Array) -> Array:
        """Image by image, in float64."""
        sizes = x.shape[1:-1]
        at, weights = grid_taps(grid, sizes, self.mode, self.padding, self.align_corners)
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(np.float64)
        images = [
            np.einsum("...tc,...t->...c", image[places], w)
            for image, places, w in zip(flat, at, weights, strict=True)
        ]
        return np.asarray(images).reshape(self.shape).astype(x.dtype)
