"""Resizing NHWC images: nearest and linear, by ONNX's coordinates.

A result pixel i of an axis looks at the source coordinate `(a*i + b) / d`, with whole numbers a, b,
d: everything below is exact, on both sides of quantization, and needs no tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, lcm
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_axes
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Nest, axes, clamp, load, minimum
from irc.ops.moving import Moving, in_type, moved
from irc.ops.quantization import (
    Bounds,
    accumulator,
    check_bounds,
    check_product,
    difference,
    full_range,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.ops.windows import Pair, need_nhwc
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

COORDINATES = (
    "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
WEIGHT_BITS = 11
"""Equation (12)."""

Scales = tuple[float, float]
"""Result pixels per source pixel of the two spatial axes."""


@dataclass(frozen=True)
class Sampling:
    """Along one axis of `extent` pixels, result pixel i looks at `(a*i + b) / d`."""

    a: int
    b: int
    d: int
    extent: int

    def nearest(self, i: Array, rounding: str) -> Array:
        """The pixel nearest to each coordinate, indices i64."""
        a, b, d = self.rounded(rounding)
        return np.asarray(np.clip((i * a + b) // d, 0, self.extent - 1))

    def nearest_of(self, i: Expr, rounding: str) -> Expr:
        """`nearest`, as an expression."""
        a, b, d = self.rounded(rounding)
        return clamp((i * a + b) // d, 0, self.extent - 1)

    def rounded(self, rounding: str) -> tuple[int, int, int]:
        """a, b, d such that `(a*i + b) // d` is the coordinate, rounded; ties are exact."""
        match rounding:
            case "floor":
                return self.a, self.b, self.d
            case "ceil":
                return self.a, self.b + self.d - 1, self.d
            case "round_prefer_floor":
                return 2 * self.a, 2 * self.b + self.d - 1, 2 * self.d
        return 2 * self.a, 2 * self.b + self.d, 2 * self.d

    def between(self, i: Array) -> tuple[Array, Array, Array]:
        """The pixels below and above each coordinate, and how far above the lower it lies, in
        units of 1/d."""
        n = np.clip(i * self.a + self.b, 0, (self.extent - 1) * self.d)
        low = n // self.d
        return low, np.minimum(low + 1, self.extent - 1), n - low * self.d

    def between_of(self, i: Expr) -> tuple[Expr, Expr, Expr]:
        """`between` with the 11-bit weight of the upper pixel, as expressions."""
        n = clamp(i * self.a + self.b, 0, (self.extent - 1) * self.d)
        low = n // self.d
        weight = ((n - low * self.d) * (2 << WEIGHT_BITS) + self.d) // (2 * self.d)
        return low, minimum(low + 1, self.extent - 1), weight

    def weight(self, part: Array) -> Array:
        """`part / d` as an 11-bit weight, rounded half up."""
        return (part * (2 << WEIGHT_BITS) + self.d) // (2 * self.d)


def sampling(extent: int, size: int, coordinates: str, scale: float | None) -> Sampling:
    """The source coordinates of ONNX's Resize (its `coordinate_transformation_mode`), as an exact
    fraction. `scale` is None where it is `size / extent`."""
    ratio = _ratio(extent, size, scale)
    half = ratio / 2 - Fraction(1, 2)
    if coordinates == "align_corners":
        step, offset = Fraction(extent - 1, max(1, size - 1)), Fraction(0)
    elif coordinates == "asymmetric":
        step, offset = ratio, Fraction(0)
    elif coordinates == "pytorch_half_pixel" and size == 1:
        step, offset = Fraction(0), Fraction(0)
    elif coordinates == "half_pixel_symmetric":
        step, offset = ratio, (extent - size * ratio) / 2 + half
    else:
        step, offset = ratio, half
    d = lcm(step.denominator, offset.denominator)
    return Sampling(int(step * d), int(offset * d), d, extent)


def _ratio(extent: int, size: int, scale: float | None) -> Fraction:
    """Source pixels per result pixel. Scales are 32-bit floats in ONNX: one that means size/extent,
    or a short fraction, but for its rounding, is taken for that."""
    if scale is None or abs(extent * scale - size) <= size * 2.0**-22:
        return Fraction(extent, size)
    exact = Fraction(float(np.float32(scale)))
    short = exact.limit_denominator(1 << 12)
    close = abs(short - exact) <= exact * Fraction(1, 1 << 23)
    return 1 / (short if close and short else exact)


def resize_shape(x: TensorType, size: Pair, coordinates: str, scales: Scales | None) -> Shape:
    """Result shape of a resize; raises `TypeCheckError` for what can't be one."""
    need_nhwc("x", x.shape)
    if len(size) != 2 or min(*size, *x.shape[1:3]) < 1:
        raise TypeCheckError(f"x {x} can't be resized to {list(size)}: two positive sizes needed")
    if coordinates not in COORDINATES:
        raise TypeCheckError(f"coordinates {coordinates!r} are none of {', '.join(COORDINATES)}")
    if scales is not None and not all(isfinite(s) and 2**-16 <= s <= 2**16 for s in scales):
        raise TypeCheckError(f"scales {list(scales)} are out of bounds")
    return (x.shape[0], *size, x.shape[3])


def samplings(
    x: TensorType, size: Pair, coordinates: str, scales: Scales | None
) -> tuple[Sampling, Sampling]:
    """The sampling of rows and of columns."""
    row, column = scales or (None, None)
    return (
        sampling(x.shape[1], size[0], coordinates, row),
        sampling(x.shape[2], size[1], coordinates, column),
    )


@op("resize_nearest")
class ResizeNearest(Moving):
    """Each result pixel copies one of x [N,H,W,C]. `coordinates` and `rounding` are ONNX's
    coordinate_transformation_mode and nearest_mode; `scales` where they aren't size / extent."""

    x: Value
    size: Pair
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    scales: Scales | None = None

    def infer(self) -> TensorType:
        """An image, and modes that exist."""
        if self.rounding not in ROUNDINGS:
            raise TypeCheckError(f"rounding {self.rounding!r} is none of {', '.join(ROUNDINGS)}")
        t = self.x.type
        return moved(t, resize_shape(t, self.size, self.coordinates, self.scales))

    @property
    def samplings(self) -> tuple[Sampling, Sampling]:
        """The sampling of rows and of columns."""
        return samplings(self.x.type, self.size, self.coordinates, self.scales)

    def evaluate(self, x: Array) -> Array:
        """Indexing by rows and columns."""
        rows, columns = (
            s.nearest(np.arange(n), self.rounding)
            for s, n in zip(self.samplings, self.size, strict=True)
        )
        return np.ascontiguousarray(x[:, rows[:, None], columns[None, :]])

    def ties(self) -> Iterable[Tie]:
        """Images and channels."""
        return tie_axes(self.x, self, (0, 3))

    def loops(self) -> Loops:
        """One load."""
        n, y, x, c = axes(self.shape, "n y x c")
        rows, columns = self.samplings
        row, column = rows.nearest_of(y, self.rounding), columns.nearest_of(x, self.rounding)
        return Loops((Nest((n, y, x, c), load(self.x, n, row, column, c)),))


@op("resize_linear")
class ResizeLinear(Value):
    """Bilinear interpolation of a float x [N,H,W,C] with exact weights, edges repeated."""

    x: Value
    size: Pair
    coordinates: str = "half_pixel"
    scales: Scales | None = None

    def infer(self) -> TensorType:
        """A float image, and coordinates that exist."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        shape = resize_shape(self.x.type, self.size, self.coordinates, self.scales)
        return TensorType(self.x.type.dtype, shape)

    def evaluate(self, x: Array) -> Array:
        """Rows first, then columns."""
        result = x.astype(np.float64)
        both = samplings(self.x.type, self.size, self.coordinates, self.scales)
        for axis, s, n in zip((1, 2), both, self.size, strict=True):
            low, high, part = s.between(np.arange(n))
            weight = along(part / s.d, axis)
            below, above = np.take(result, low, axis), np.take(result, high, axis)
            result = below + (above - below) * weight
        return result.astype(x.dtype)

    def ties(self) -> Iterable[Tie]:
        """Images and channels."""
        return tie_axes(self.x, self, (0, 3))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qresize_linear`; wide integers are requantized on their own."""
        x = operands[0]
        narrow = x.type.dtype.bits == 8 and result.dtype.bits == 8
        target = result if narrow else x.type.with_shape(self.shape)
        m, s = fixedpoint.multiplier(x.type.scale / target.scale / (1 << 2 * WEIGHT_BITS))
        if x.type.scale == target.scale:
            m, s = 1, 2 * WEIGHT_BITS
        made = QResizeLinear(
            x, self.size, self.coordinates, self.scales, m, s, clamp=full_range(target),
            dtype=target.dtype, quant=fixedpoint.quant_of(target), name=self.name,
        )  # fmt: skip
        return in_type(made, result)


@op("qresize_linear")
class QResizeLinear(Value):
    """Integer bilinear interpolation, equation (12): `x - zp_x` of four pixels weighted by products
    of two 11-bit weights, then equation (6), whose m and s divide by 2^22 too."""

    x: Value
    size: Pair
    coordinates: str
    scales: Scales | None
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """x and the result quantized per tensor."""
        need_quantized("x", self.x.type)
        check_bounds(self.clamp, self.dtype)
        check_product(self.bound, self.m, self.s)
        shape = resize_shape(self.x.type, self.size, self.coordinates, self.scales)
        return TensorType(self.dtype, shape, self.quant)

    @property
    def samplings(self) -> tuple[Sampling, Sampling]:
        """The sampling of rows and of columns."""
        return samplings(self.x.type, self.size, self.coordinates, self.scales)

    @property
    def bound(self) -> int:
        """What the weighted sum of four pixels can reach."""
        return magnitude(self.x.type) << 2 * WEIGHT_BITS

    def evaluate(self, x: Array) -> Array:
        """Rows first, then columns, in whole numbers."""
        acc = x.astype(np.int64) - self.x.type.zero
        for axis, s, n in zip((1, 2), self.samplings, self.size, strict=True):
            low, high, part = s.between(np.arange(n))
            weight = along(s.weight(part), axis)
            below, above = np.take(acc, low, axis), np.take(acc, high, axis)
            acc = (below << WEIGHT_BITS) + (above - below) * weight
        return fixedpoint.requantize(acc, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """Four loads; in i32 where x has 8 bits, whose weighted sum stays below 2^30."""
        n, y, x, c = axes(self.shape, "n y x c")
        wide = accumulator(self.bound)
        rows, columns = self.samplings
        top, bottom, down = rows.between_of(y)
        left, right, across = columns.between_of(x)

        def pixel(row: Expr, column: Expr) -> Expr:
            return difference(load(self.x, n, row, column, c), self.x.type, wide)

        def blend(below: Expr, above: Expr, weight: Expr) -> Expr:
            return below * (1 << WEIGHT_BITS) + (above - below) * weight.cast(wide)

        upper = blend(pixel(top, left), pixel(top, right), across)
        lower = blend(pixel(bottom, left), pixel(bottom, right), across)
        acc = blend(upper, lower, down)
        value = rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)
        return Loops((Nest((n, y, x, c), value),))


def along(weights: Iterable[float] | Array, axis: int) -> Array:
    """A vector that broadcasts along an axis of [N,H,W,C]."""
    return np.asarray(weights).reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
