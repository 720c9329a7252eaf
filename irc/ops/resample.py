"""Linear resampling with constant taps: every element of the result is a sum, with constant
weights, of elements at constant places along an axis or two. Cubic and antialiased resizing,
sampling on a constant grid and regions of interest are this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Nest, Reduce, Var, axes, load
from irc.ops.core import Const
from irc.ops.moving import in_type, need_axis
from irc.ops.quantization import (
    Bounds,
    accumulator,
    check_bounds,
    check_product,
    constant,
    difference,
    full_range,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

Axes = tuple[int, ...]
WEIGHT_BITS = {1: 14, 2: 11}
"""Fractional bits of the weights, by the number of axes; 11 as in equation (12)."""


def along(a: Array, rank: int, axis: int) -> Array:
    """Vectors `[..., size]` that broadcast along one axis of a tensor of `rank` axes."""
    shape = [1] * rank
    shape[axis] = -1
    return a.reshape(shape)


@dataclass(frozen=True, eq=False)
class _Taps(Value):
    """Base of both forms. For the first axis of `over`, `rows` i32 [size, taps] says from where,
    and `row_weights` how much, each of `size` elements takes; columns for the second one."""

    x: Value
    rows: Value
    row_weights: Value
    columns: Value | None
    column_weights: Value | None
    over: Axes

    @property
    def places(self) -> tuple[Value, ...]:
        """Rows, and columns if there are any."""
        return (self.rows,) if self.columns is None else (self.rows, self.columns)

    @property
    def weights(self) -> tuple[Value, ...]:
        """The weights of rows, and of columns if there are any."""
        columns = self.column_weights
        return (self.row_weights,) if columns is None else (self.row_weights, columns)

    def resampled_shape(self, weight: tuple[DType, ...]) -> Shape:
        """The result's shape; raises `TypeCheckError` for taps that don't fit."""
        if not 1 <= len(self.over) <= 2 or sorted(set(self.over)) != list(self.over):
            raise TypeCheckError(f"over {list(self.over)}: one or two axes in rising order")
        if not len(self.places) == len(self.weights) == len(self.over):
            raise TypeCheckError("places and weights for each axis are needed")
        dims = list(self.x.shape)
        for axis, p, w in zip(self.over, self.places, self.weights, strict=True):
            need_axis(axis, self.x.type.rank)
            if p.type.dtype is not DType.I32 or p.type.rank != 2 or p.shape != w.shape:
                raise TypeCheckError(f"places {p.type} and weights {w.type} don't fit")
            if w.type.dtype not in weight or not p.shape[1]:
                raise TypeCheckError(f"weights {w.type} must be {weight[0].value}, at least one")
            if isinstance(p, Const) and not _inside(p.array, dims[axis]):
                raise TypeCheckError(f"places leave the {dims[axis]} elements of axis {axis}")
            dims[axis] = p.shape[0]
        return tuple(dims)

    def blended(self, x: Array, *taps: Array | None) -> Array:
        """The weighted sums, axis after axis, tap after tap, in x's dtype."""
        for axis, at, w in zip(self.over, taps[::2], taps[1::2], strict=False):
            assert at is not None, "infer asks for places"
            assert w is not None, "infer asks for weights"
            total = np.zeros((), x.dtype)
            for tap in range(at.shape[1]):
                weight = along(w[:, tap].astype(x.dtype), x.ndim, axis)
                total = total + np.take(x, at[:, tap], axis) * weight
            x = np.asarray(total)
        return x


def _inside(places: Array, extent: int) -> bool:
    return not places.size or bool(0 <= places.min() <= places.max() < extent)


def reach(weights: Sequence[Array]) -> int:
    """By how much the weighted sums of all axes may exceed the largest element."""
    sums = (np.abs(w.astype(np.int64)).sum(1) for w in weights)
    return prod(max(1, int(s.max(initial=1))) for s in sums)


def rescaling(
    x: TensorType, result: TensorType, shape: Shape, shift: int
) -> tuple[TensorType, tuple[int, int], Bounds]:
    """For weighted sums of elements of x, weights in units of `2^-shift`: the type that is made at
    once (that of wide integers is x's own), what takes the sums to it by (6), and its bounds."""
    narrow = x.dtype.bits == 8 and result.dtype.bits == 8
    target = result if narrow else x.with_shape(shape)
    scaled = fixedpoint.multiplier(x.scale / target.scale / (1 << shift))
    if x.scale == target.scale:
        scaled = (1, shift) if shift else (2, 1)
    return target, scaled, full_range(target)


@op("resample")
class Resample(_Taps):
    """Over reals, with real weights."""

    def infer(self) -> TensorType:
        """Floats; taps that fit."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        shape = self.resampled_shape((DType.F32, DType.F64))
        return TensorType(self.x.type.dtype, shape)

    def evaluate(
        self, x: Array, rows: Array, row_weights: Array,
        columns: Array | None, column_weights: Array | None,
    ) -> Array:  # fmt: skip
        """In float64."""
        taps = (rows, row_weights, columns, column_weights)
        return self.blended(x.astype(np.float64), *taps).astype(x.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qresample`; wide integers are requantized on their own."""
        x = operands[0]
        bits = WEIGHT_BITS[len(self.over)]
        shift = bits * len(self.over)
        target, scaled, bounds = rescaling(x.type, result, self.shape, shift)
        first, *second = (
            Const(fixed_weights(constant(w, "weights").array, bits), name=w.name)
            for w in self.weights
        )
        made = QResample(
            x, self.rows, first, self.columns, second[0] if second else None, self.over,
            reach([c.array for c in (first, *second)]), *scaled, bounds, target.dtype,
            fixedpoint.quant_of(target), name=self.name,
        )  # fmt: skip
        return in_type(made, result)


@op("qresample")
class QResample(_Taps):
    """Over `x - zp_x`, with i16 weights of a fixed number of fractional bits, then equation (6),
    whose m and s divide by them too: one rounding. `gain` bounds what the weights make of 1."""

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
        """x quantized per tensor, sums that the multiplier can take."""
        known = [w.array for w in self.weights if isinstance(w, Const)]
        if reach(known) > self.gain:
            raise TypeCheckError(f"gain = {self.gain}, the weights make up to {reach(known)} of 1")
        need_quantized("x", self.x.type)
        check_bounds(self.clamp, self.dtype)
        shape = self.resampled_shape((DType.I16,))
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(
        self, x: Array, rows: Array, row_weights: Array,
        columns: Array | None, column_weights: Array | None,
    ) -> Array:  # fmt: skip
        """The sums in i64, then (6)."""
        taps = (rows, row_weights, columns, column_weights)
        acc = self.blended(x.astype(np.int64) - self.x.type.zero, *taps)
        return fixedpoint.requantize(acc, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A sum over the taps of all axes, then (6)."""
        outer, wide = axes(self.shape), accumulator(self.bound)
        index: list[Expr] = list(outer)
        taps: list[Var] = []
        weight: Expr | None = None
        for n, (axis, at, w) in enumerate(zip(self.over, self.places, self.weights, strict=True)):
            tap = Var(f"t{n}", at.shape[1])
            taps.append(tap)
            index[axis] = load(at, outer[axis], tap).cast(DType.I64)
            own = load(w, outer[axis], tap).cast(wide)
            weight = own if weight is None else weight * own
        assert weight is not None, "infer asks for an axis"
        d = difference(load(self.x, *index), self.x.type, wide)
        acc = Reduce("add", tuple(taps), d * weight)
        value = rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)
        return Loops((Nest(outer, value),))


def fixed_weights(weights: Array, bits: int) -> Array:
    """Weights of each row in units of `2^-bits`, i16, their sum exact: what rounding leaves over
    goes to the largest one. Raises `TypeCheckError` for weights of 2 and more."""
    units = weights.astype(np.float64) * (1 << bits)
    if np.abs(units).max(initial=0) >= DType.I16.max - weights.shape[1]:
        raise TypeCheckError("a weight is too large for 16 bits")
    rounded = np.rint(units).astype(np.int64)
    wanted = np.rint(units.sum(1)).astype(np.int64)
    rows = np.arange(len(weights))
    rounded[rows, np.abs(units).argmax(1)] += wanted - rounded.sum(1)
    return rounded.astype(np.int16)
