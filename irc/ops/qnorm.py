"""The integer form of all norms by a row's own statistics, equation (11)."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import (
    Expr,
    Int,
    Loops,
    MulShift,
    Nest,
    Reduce,
    Select,
    Temp,
    Var,
    axes,
    clamp,
    load,
    load_broadcast,
    maximum,
)
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    accumulator,
    check_bounds,
    difference,
    magnitude,
    need_quantized,
)
from irc.ops.reduce import reduced_element, reduced_shape
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
from irc.value import Value, op

OFFSET_BOUND = 2**62


@op("qnorm")
class QNorm(Value):
    """Equation (11): `clamp(zp + ((p*m + b) >> s))`, p the elements of a row in units of its
    deviation (`centred`) or its RMS (see `fixedpoint.Norm`, which `lift`, `epsilon` and `shift`
    belong to).

    A row is what `axes` of x span. m i32 and b i64 broadcast to x, and hold scale, bias and the
    half that rounds.
    """

    x: Value
    m: Value
    b: Value
    axes: tuple[int, ...]
    centred: bool
    lift: int
    epsilon: int
    shift: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def norm(self) -> fixedpoint.Norm:
        """The numbers of equation (11)."""
        count = prod(self.x.shape[a] for a in self.axes)
        return fixedpoint.Norm(count, self.centred, self.lift, self.epsilon, self.shift)

    def infer(self) -> TensorType:
        """x quantized per tensor; sums and products that are proved to fit their dtypes."""
        t = self.x.type
        need_quantized("x", t)
        check_bounds(self.clamp, self.dtype)
        reduced_shape(t.shape, self.axes, True)
        for what, v, dtype in (("m", self.m, DType.I32), ("b", self.b, DType.I64)):
            if v.type.dtype is not dtype or broadcast_shapes(v.shape, t.shape) != t.shape:
                raise TypeCheckError(f"{what} must be {dtype.value} that broadcasts to {t}, it is"
                                     f" {v.type}")  # fmt: skip
        try:
            self.norm.check(t)
        except IRCError as error:
            raise TypeCheckError(str(error)) from None
        self._check_affine()
        return TensorType(self.dtype, t.shape, self.quant)

    def _check_affine(self) -> None:
        if not 1 <= self.s <= fixedpoint.MAX_SHIFT:
            raise TypeCheckError(f"s = {self.s} is no shift")
        if isinstance(self.b, Const) and np.any(np.abs(self.b.array) > OFFSET_BOUND):
            raise TypeCheckError("b may leave 64 bits together with products")

    def evaluate(self, x: Array, m: Array, b: Array) -> Array:
        """Equation (11)."""
        p = self.norm.apply(x.astype(np.int64) - self.x.type.zero, self.axes)
        y = (p * m.astype(np.int64) + b) >> self.s
        return np.asarray(np.clip(y + self.type.zero, *self.clamp), self.dtype.numpy)

    def loops(self) -> Loops:
        """Sums, then a root and a reciprocal per row, then two products per element."""
        rows = tuple(d for a, d in enumerate(self.shape) if a not in self.axes)
        total = Temp("sum", accumulator(self._count * magnitude(self.x.type)), rows)
        size, n, r = (Temp(label, DType.I64, rows) for label in ("size", "n", "reciprocal"))
        sums = (Nest(i := axes(rows), self._sum(i), total),) if self.centred else ()
        return Loops((
            *sums,
            Nest(i := axes(rows), self._size(i, total), size),
            Nest(i := axes(rows), half_shift(load(size, *i)), n),
            Nest(i := axes(rows), reciprocal(load(size, *i) << (load(n, *i) << 1)), r),
            Nest(i := axes(self.shape), self._element(i, total, n, r)),
        ))  # fmt: skip

    @property
    def _count(self) -> int:
        return self.norm.count

    def _sum(self, row: tuple[Var, ...]) -> Expr:
        """The sum of a row's differences to the zero point."""
        element, inner = reduced_element(self.x, self.axes, row)
        wide = accumulator(self._count * magnitude(self.x.type))
        return Reduce("add", inner, difference(element, self.x.type, wide))

    def _size(self, row: tuple[Var, ...], total: Temp) -> Expr:
        """D: the sum of a row's squares around its mean, with epsilon, at least 1."""
        element, inner = reduced_element(self.x, self.axes, row)
        wide = accumulator(self._count * magnitude(self.x.type) ** 2)
        d = difference(element, self.x.type, wide)
        v = Reduce("add", inner, d * d).cast(DType.I64)
        if self.centred:
            mean = load(total, *row).cast(DType.I64)
            v = v * self._count - mean * mean
        v = v << self.lift if self.lift >= 0 else v >> -self.lift
        return maximum(v + self.epsilon, 1)

    def _element(self, index: tuple[Var, ...], total: Temp, n: Temp, r: Temp) -> Expr:
        """One element of the result."""
        row = tuple(v for a, v in enumerate(index) if a not in self.axes)
        wide = accumulator(self.norm.spread(self.x.type))
        u = difference(load(self.x, *index), self.x.type, wide)
        if self.centred:
            u = u * self._count - load(total, *row).cast(wide)
        p = MulShift(u, load(r, *row).cast(DType.I32), self.shift - load(n, *row))
        product = p.cast(DType.I64) * load_broadcast(self.m, index).cast(DType.I64)
        y = (product + load_broadcast(self.b, index)) >> self.s
        return clamp(y + self.type.zero, *self.clamp).cast(self.dtype)


def half_shift(d: Expr) -> Expr:
    """n of equation (11), see `fixedpoint.half_shift`."""
    n: Expr = Int(0, DType.I64)
    for step in (16, 8, 4, 2, 1):
        small = d < (1 << (62 - 2 * step))
        n = n + Select(small, Int(step, DType.I64), Int(0, DType.I64))
        d = Select(small, d << (2 * step), d)
    return n


def reciprocal(d: Expr) -> Expr:
    """r of equation (11), of `d` in [2^60, 2^62)."""
    root: Expr = Int(1 << 30, DType.I64)
    for bit in range(29, -1, -1):
        more = root + (1 << bit)
        root = Select(more * more <= d, more, root)
    return Int((1 << fixedpoint.ROOT_BITS) - 1, DType.I64) // root
