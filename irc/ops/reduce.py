"""Reductions over axes; the integer sum serves mean and sum by equation (10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie
from irc.errors import TypeCheckError
from irc.loops import Expr, Load, Loops, Nest, Reduce, ReduceKind, Var, axes, load
from irc.ops.plain_integers import need_whole, sum_over, wrapped
from irc.ops.quantization import (
    Bounds,
    accumulator,
    averaged,
    check_bounds,
    check_product,
    full_range,
    magnitude,
    need_quantized,
    rescaled,
)
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

Axes = tuple[int, ...]


def reduced_shape(shape: Shape, over: Axes, keepdims: bool) -> Shape:
    """The shape without `over`; raises `TypeCheckError` unless these are axes, in order."""
    if any(not 0 <= a < len(shape) for a in over) or list(over) != sorted(set(over)):
        raise TypeCheckError(f"axes {list(over)} are not axes of {list(shape)} in rising order")
    if keepdims:
        return tuple(1 if i in over else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in over)


def reduced_element(x: Value, over: Axes, outer: tuple[Var, ...]) -> tuple[Load, tuple[Var, ...]]:
    """The element of x at the loop variables `outer` of the result, and the variables, one for
    each axis of `over`, that remain to be reduced over."""
    inner = tuple(Var(f"r{a}", x.shape[a]) for a in over)
    kept = [i for i in range(len(x.shape)) if i not in over]
    if len(outer) == len(x.shape):  # keepdims
        outer = tuple(outer[i] for i in kept)
    index: dict[int, Expr] = {**dict(zip(over, inner, strict=True))}
    index |= dict(zip(kept, outer, strict=True))
    return load(x, *(index[i] for i in range(len(x.shape)))), inner


@dataclass(frozen=True, eq=False)
class _Reduction(Value):
    """Base of the reductions over `axes`, rising and not negative; none leaves x as it is."""

    x: Value
    axes: Axes
    keepdims: bool

    @property
    def result_shape(self) -> Shape:
        """The result's shape."""
        return reduced_shape(self.x.shape, self.axes, self.keepdims)

    @property
    def count(self) -> int:
        """How many elements of x make one of the result."""
        return prod(self.x.shape[a] for a in self.axes)

    def ties(self) -> Iterable[Tie]:
        """The axes that are not reduced."""
        left = [a for a in range(len(self.x.shape)) if a not in self.axes]
        return (tie(self.x, a, self, a if self.keepdims else i) for i, a in enumerate(left))


@dataclass(frozen=True, eq=False)
class _Total(_Reduction):
    """Base of sum and mean."""

    def infer(self) -> TensorType:
        """Floats, or plain integers."""
        t = self.x.type
        if t.quant is not None or t.dtype is DType.BOOL:
            raise TypeCheckError(f"x must be float or plain integers, it is {t}")
        return TensorType(t.dtype, self.result_shape)

    def share(self) -> float:
        """What the sum is multiplied with."""
        return 1.0

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qreduce_sum`, with the share in its multiplier."""
        x = operands[0]
        m, s = fixedpoint.multiplier(x.type.scale * self.share() / result.scale)
        return QReduceSum(
            x, self.axes, self.keepdims, m, s,
            full_range(result), result.dtype, fixedpoint.quant_of(result), name=self.name,
        )  # fmt: skip


@op("reduce_sum")
class ReduceSum(_Total):
    """Sum over axes."""

    def evaluate(self, x: Array) -> Array:
        """NumPy's, in the operand's dtype."""
        return np.asarray(np.sum(x, self.axes, dtype=x.dtype, keepdims=self.keepdims))

    def loops(self) -> Loops:
        """A reduction over the axes, of plain integers."""
        if self.type.dtype.is_float:
            return super().loops()
        need_whole(self)
        outer = axes(self.shape)
        element, inner = reduced_element(self.x, self.axes, outer)
        total = sum_over(element.cast(DType.I64), inner)
        return Loops((Nest(outer, wrapped(total, self.type.dtype)),))


@op("reduce_mean")
class ReduceMean(_Total):
    """Mean over axes; with axes (1, 2) of NHWC the global average pool."""

    def infer(self) -> TensorType:
        """Floats, at least one per mean."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        shape = self.result_shape
        if self.count == 0:
            raise TypeCheckError("nothing has no mean")
        return TensorType(self.x.type.dtype, shape)

    def share(self) -> float:
        """1 / N."""
        return 1 / self.count

    def evaluate(self, x: Array) -> Array:
        """NumPy's, in the operand's dtype."""
        return np.asarray(np.mean(x, self.axes, dtype=x.dtype, keepdims=self.keepdims))


@dataclass(frozen=True, eq=False)
class _Extreme(_Reduction):
    """Base of maximum and minimum over axes, which select elements."""

    moves: ClassVar[bool] = True
    kind: ClassVar[ReduceKind]

    def infer(self) -> TensorType:
        """The element type of x, which may be quantized per tensor."""
        t = self.x.type
        if t.quant is not None:
            need_quantized("x", t)
        shape = self.result_shape
        if self.count == 0:
            raise TypeCheckError(f"nothing has no {self.kind}imum")
        return t.with_shape(shape)

    def loops(self) -> Loops:
        """A reduction over the axes."""
        if self.type.dtype.is_float:
            return super().loops()
        outer = axes(self.shape)
        element, inner = reduced_element(self.x, self.axes, outer)
        return Loops((Nest(outer, Reduce(self.kind, inner, element) if inner else element),))


@op("reduce_max")
class ReduceMax(_Extreme):
    """Maximum over axes; with axes (1, 2) of NHWC the global max pool."""

    kind: ClassVar[ReduceKind] = "max"

    def evaluate(self, x: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.max(x, self.axes, keepdims=self.keepdims))


@op("reduce_min")
class ReduceMin(_Extreme):
    """Minimum over axes."""

    kind: ClassVar[ReduceKind] = "min"

    def evaluate(self, x: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.min(x, self.axes, keepdims=self.keepdims))


@op("qreduce_sum")
class QReduceSum(_Reduction):
    """Equation (10): `sum(x) - count * zp_x`, then (6). The multiplier of a mean holds 1/N; is it
    a power of two, ties go to the even integer."""

    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def power(self) -> int:
        """k where the multiplier is 2^-k, else 0."""
        return fixedpoint.power_of(self.m, self.s)

    @property
    def bound(self) -> int:
        """The largest magnitude of the sum, with and without the zero point."""
        low, high = self.x.type.dtype.min, self.x.type.dtype.max
        return self.count * max(magnitude(self.x.type), -low, high)

    def infer(self) -> TensorType:
        """x quantized per tensor, and a sum that the multiplier can take."""
        need_quantized("x", self.x.type)
        check_bounds(self.clamp, self.dtype)
        shape = self.result_shape
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """The sum in i64, then (6)."""
        total = np.sum(x, self.axes, dtype=np.int64, keepdims=self.keepdims)
        acc, zero = total - self.count * self.x.type.zero, self.type.zero
        if self.power:
            return fixedpoint.averaged(acc, self.power, self.type, self.clamp)
        return fixedpoint.requantize(acc, self.m, self.s, zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A reduction over the axes, then (6)."""
        outer = axes(self.shape)
        element, inner = reduced_element(self.x, self.axes, outer)
        wide = element.cast(accumulator(self.bound + (1 << self.power)))
        total = Reduce("add", inner, wide) if inner else wide
        acc = total - self.count * self.x.type.zero
        if self.power:
            return Loops((Nest(outer, averaged(acc, self.power, self.clamp, self.type)),))
        value = rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)
        return Loops((Nest(outer, value),))
