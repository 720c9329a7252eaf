"""Sampling images at any points: where a grid of coordinates looks, by ONNX's GridSample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie
from irc.errors import IRCError, TypeCheckError
from irc.loops import (
    Expr,
    Int,
    Loops,
    Nest,
    Reduce,
    Select,
    Var,
    axes,
    clamp,
    lift,
    load,
    minimum,
)
from irc.ops.core import Const
from irc.ops.moving import in_type
from irc.ops.quantization import (
    Bounds,
    accumulator,
    check_bounds,
    check_product,
    difference,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.ops.resample import fixed_weights, rescaling
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection", "region")
"""What lies outside: 0, the edge, the image mirrored; or as RoiAlign has it, the edge up to one
element outside and 0 beyond."""
CUBIC = -0.75
TAPS = {"nearest": (0, 1), "linear": (0, 2), "cubic": (-1, 3)}
"""The neighbours along each axis that a point looks at: from and up to, the last one excluded."""
FRACTION_BITS = {1: 10, 2: 8, 3: 6}
"""Bits of a coordinate below the element, by the number of axes: so many weights are known."""
WEIGHT_BITS = {1: 14, 2: 11, 3: 7}
"""Fractional bits of the weights along each axis."""


def grid_taps(
    grid: Array, sizes: tuple[int, ...], mode: str, padding: str, align_corners: bool
) -> tuple[Array, Array]:
    """For each point of `grid` [..., n] (coordinates from -1 to 1, the last axis of the image
    first): the places i64 [..., taps] that it takes from an image of `sizes`, seen as flat, and the
    weights."""
    found: list[tuple[Array, Array]] = []
    for axis, extent in enumerate(sizes):
        g = np.nan_to_num(grid[..., len(sizes) - 1 - axis].astype(np.float64))
        slope, start = _along(extent, align_corners)
        at = np.clip(g, -(2.0**30), 2.0**30) * slope + start
        within = np.clip(at, 0, extent - 1) if padding == "region" else at
        places, weights = _axis_taps(within, mode)
        if padding == "region":
            weights = np.where(((at < -1) | (at > extent))[..., np.newaxis], 0, weights)
        found.append((places, weights))
    return _combined(found, sizes, padding, align_corners)


def _along(extent: int, align_corners: bool) -> tuple[float, float]:
    """What a coordinate is multiplied with, and what is added, to count elements."""
    return (((extent - 1) if align_corners else extent) / 2, (extent - 1) / 2)


def _combined(
    found: Iterable[tuple[Array, Array]], sizes: tuple[int, ...], padding: str, align: bool
) -> tuple[Array, Array]:
    """Places and weights [..., taps] along each axis as those of the flat image."""
    flat, weight = np.zeros(1, np.int64), np.ones(1, np.int64)
    for (places, weights), extent in zip(found, sizes, strict=True):
        at = places
        if padding == "zeros":
            weights = np.where((at >= 0) & (at < extent), weights, 0)
        elif padding == "reflection":
            at = _reflected(at, extent, align)
        at = np.clip(at, 0, extent - 1)
        flat = _outer(flat * extent, at, np.add)
        weight = _outer(weight, weights, np.multiply)
    return flat, weight


def _outer(a: Array, b: Array, f: np.ufunc) -> Array:
    """`f` of every pair along the last axes, flat."""
    made = f(a[..., :, np.newaxis], b[..., np.newaxis, :])
    return np.asarray(made.reshape(*made.shape[:-2], prod(made.shape[-2:])))


def _axis_taps(at: Array, mode: str) -> tuple[Array, Array]:
    if mode == "nearest":
        return np.rint(at).astype(np.int64)[..., np.newaxis], np.ones((*at.shape, 1))
    low = np.floor(at)
    places = low.astype(np.int64)[..., np.newaxis] + np.arange(*TAPS[mode])
    return places, _kernel(np.abs(at[..., np.newaxis] - places), mode)


def _kernel(d: Array, mode: str) -> Array:
    """The weight of what lies `d` elements away."""
    if mode == "linear":
        return 1 - d
    a = CUBIC
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return np.where(d <= 1, near, far)


def _period(extent: int, align_corners: bool) -> int:
    """After how many elements a mirrored image repeats."""
    return max(1, 2 * (extent - 1) if align_corners else 2 * extent)


def _reflected(places: Array, extent: int, align_corners: bool) -> Array:
    """Mirrored at the centres of the outermost elements, or at their outer edges."""
    period = _period(extent, align_corners)
    turned = np.mod(places, period)
    back = period - turned if align_corners else period - 1 - turned
    return np.asarray(np.minimum(turned, back))


@dataclass(frozen=True, eq=False)
class _Sampling(Value):
    """Base of both forms: x [N, *sizes, C] at the points of grid [N, *out, n]."""

    x: Value
    grid: Value

    def check_shapes(self, mode: str, padding: str) -> None:
        """Raise `TypeCheckError` for shapes that don't fit, modes that don't exist."""
        x, grid = self.x.type, self.grid.type
        spatial = x.rank - 2
        fits = spatial >= 1 and grid.rank == x.rank and grid.shape[-1] == spatial
        if not fits or grid.shape[0] != x.shape[0] or 0 in x.shape[1:-1]:
            raise TypeCheckError(f"grid {grid} does not fit x {x}")
        if mode not in MODES or padding not in PADDINGS:
            raise TypeCheckError(f"mode {mode!r} with padding {padding!r} do not exist")

    def sampled(self, x: Array, at: Array, weights: Array) -> Array:
        """Weighted sums of elements of each image, in x's dtype."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        images = [
            np.einsum("...tc,...t->...c", image[places], w)
            for image, places, w in zip(flat, at, weights, strict=True)
        ]
        return np.asarray(images).reshape((*at.shape[:-1], x.shape[-1]))

    def ties(self) -> Iterable[Tie]:
        """The channels."""
        last = self.x.type.rank - 1
        return (tie(self.x, last, self, last),)


@op("grid_sample")
class GridSample(_Sampling):
    """Over reals, at coordinates that are computed."""

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self) -> TensorType:
        """Floats of fitting shapes, modes that exist."""
        self.check_shapes(self.mode, self.padding)
        x, grid = self.x.type, self.grid.type
        if not x.dtype.is_float or not grid.dtype.is_float:
            raise TypeCheckError(f"x {x} and grid {grid} must be float")
        return TensorType(x.dtype, (*grid.shape[:-1], x.shape[-1]))

    def evaluate(self, x: Array, grid: Array) -> Array:
        """Image by image, in float64."""
        how = (self.mode, self.padding, self.align_corners)
        taps = grid_taps(grid, x.shape[1:-1], *how)
        return self.sampled(x.astype(np.float64), *taps).astype(x.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qgrid_sample`; wide integers are requantized on their own."""
        x, grid = operands
        n = x.type.rank - 2
        if n not in WEIGHT_BITS:
            raise IRCError(f"grid_sample over {n} axes has no integer form")
        nearest = self.mode == "nearest"
        fraction, bits = (0, 0) if nearest else (FRACTION_BITS[n], WEIGHT_BITS[n])
        slopes = (_along(e, self.align_corners) for e in x.shape[1:-1])
        slope, start = (np.ldexp(np.array(a), fraction) for a in zip(*slopes, strict=True))
        m, b, s = fixedpoint.affine_multipliers(slope * grid.type.scale, start)
        target, scaled, bounds = rescaling(x.type, result, self.shape, bits * n)
        weights = _table(self.mode, fraction, bits)
        made = QGridSample(
            x, grid, weights, tuple(map(int, m)), tuple(map(int, b)), s, self.mode, self.padding,
            self.align_corners, gain(weights.array, n), *scaled, bounds, target.dtype,
            fixedpoint.quant_of(target), name=self.name,
        )  # fmt: skip
        return in_type(made, result)


def _table(mode: str, fraction: int, bits: int) -> Const:
    """The weights of the neighbours for every fraction of an element."""
    if mode == "nearest":
        return Const(np.ones((1, 1), np.int16))
    at = np.arange(1 << fraction) / (1 << fraction)
    weights = _kernel(np.abs(at[:, np.newaxis] - np.arange(*TAPS[mode])), mode)
    return Const(fixed_weights(weights, bits))


def gain(weights: Array, axes: int) -> int:
    """By how much the weighted sums over so many axes may exceed the largest element."""
    return int(max(1, np.abs(weights.astype(np.int64)).sum(1).max()) ** axes)


@op("qgrid_sample")
class QGridSample(_Sampling):
    """Along each axis the element of a point and what lies past it, in units of 2^-f of one:

        p = ((g - zp_g) * at[axis] + start[axis]) >> over

    Then the sum of the neighbours' `x - zp_x`, each times its weight, and equation (6), whose m and
    s divide by the weights too: one rounding. weights i16 [2^f, taps]: for every fraction of an
    element, of each neighbour; `gain` bounds what they make of 1.
    """

    weights: Value
    at: tuple[int, ...]
    start: tuple[int, ...]
    over: int
    mode: str
    padding: str
    align_corners: bool
    gain: int
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def bound(self) -> int:
        """What a sum can reach."""
        return magnitude(self.x.type) * self.gain

    def infer(self) -> TensorType:
        """Both quantized per tensor, sums that the multiplier can take."""
        self.check_shapes(self.mode, self.padding)
        x, grid, weights = self.x.type, self.grid.type, self.weights.type
        need_quantized("x", x)
        need_quantized("grid", grid)
        check_bounds(self.clamp, self.dtype)
        first, end = TAPS[self.mode]
        rows = weights.shape[0] if weights.rank == 2 else 0
        if weights.dtype is not DType.I16 or weights.shape != (rows, end - first) or rows < 1:
            raise TypeCheckError(f"weights {weights} must be i16 [2^f, {end - first}]")
        n = x.rank - 2
        if rows & (rows - 1) or not len(self.at) == len(self.start) == n:
            raise TypeCheckError(f"{rows} fractions over {len(self.at)} axes do not fit x {x}")
        both = zip(self.at, self.start, strict=True)
        if isinstance(self.weights, Const) and gain(self.weights.array, n) > self.gain:
            raise TypeCheckError(f"gain = {self.gain}, the weights make more of 1")
        far = max(abs(a) * magnitude(grid) + abs(b) for a, b in both)
        if grid.dtype.bits > 16 or far >= 2**63 or not 0 <= self.over < 63:
            raise TypeCheckError(f"coordinates of {grid} may leave 64 bits")
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, (*grid.shape[:-1], x.shape[-1]), self.quant)

    def evaluate(self, x: Array, grid: Array, weights: Array) -> Array:
        """The sums in i64, then (6)."""
        d = x.astype(np.int64) - self.x.type.zero
        sizes = x.shape[1:-1]
        found: list[tuple[Array, Array]] = []
        for at, start, axis in zip(self.at, self.start, reversed(range(len(sizes))), strict=True):
            g = grid[..., axis].astype(np.int64) - self.grid.type.zero
            p = (g * at + start) >> self.over
            rows, extent = len(weights), sizes[len(found)]
            far = np.zeros(p.shape, bool)
            if self.padding == "region":
                far = (p < -rows) | (p > extent * rows)
                p = np.clip(p, 0, (extent - 1) * rows)
            low, part = p // rows, p % rows
            places = low[..., np.newaxis] + np.arange(*TAPS[self.mode])
            along = weights[part].astype(np.int64)
            found.append((places, np.where(far[..., np.newaxis], 0, along)))
        acc = self.sampled(d, *_combined(found, sizes, self.padding, self.align_corners))
        return fixedpoint.requantize(acc, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A sum over the neighbours along all axes, then (6)."""
        outer, wide = axes(self.shape), accumulator(self.bound)
        index: list[Expr] = [outer[0]]
        taps: list[Var] = []
        weight: Expr = Int(1, wide)
        for n, extent in enumerate(self.x.shape[1:-1]):
            tap = Var(f"t{n}", self.weights.shape[1])
            taps.append(tap)
            p = at = self._coordinate(n, outer)
            rows = self.weights.shape[0]
            if self.padding == "region":
                p = clamp(at, 0, (extent - 1) * rows)
            index.append(self._place((p // rows) + tap + TAPS[self.mode][0], extent))
            along = load(self.weights, p % rows, tap).cast(wide)
            if self.padding == "region":
                none = lift(0, wide)
                along = Select(at < -rows, none, Select(at > extent * rows, none, along))
            weight = weight * along
        fill = self.x.type.zero if self.padding == "zeros" else None
        d = difference(load(self.x, *index, outer[-1], fill=fill), self.x.type, wide)
        acc = Reduce("add", tuple(taps), d * weight)
        value = rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)
        return Loops((Nest(outer, value),))

    def _coordinate(self, n: int, outer: tuple[Var, ...]) -> Expr:
        """p along an axis of the image."""
        last = len(self.at) - 1 - n
        g = difference(load(self.grid, *outer[:-1], last), self.grid.type, DType.I64)
        return (g * self.at[n] + self.start[n]) >> self.over

    def _place(self, at: Expr, extent: int) -> Expr:
        """Which element of an axis stands at a place, padding aside."""
        if self.padding == "zeros":
            return at
        if self.padding == "reflection":
            period = _period(extent, self.align_corners)
            turned = at % period
            back = period - turned if self.align_corners else period - 1 - turned
            at = minimum(turned, back)
        return clamp(at, 0, extent - 1)
