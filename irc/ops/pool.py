"""Pooling over NHWC images: maximum and average."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_axes
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Loops, Nest, Reduce, Var, axes, load
from irc.ops.core import Const
from irc.ops.moving import Moving, moved
from irc.ops.quantization import (
    Bounds,
    averaged,
    check_bounds,
    full_range,
    magnitude,
    need_quantized,
    requantized,
)
from irc.ops.windows import Pads, Pair, Window, need_nhwc
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

LARGEST_POWER = 30
"""Of a factor that is a power of two: sums stay below 2^31 with what rounds them."""


def pool_shape(x: TensorType, window: Window) -> Shape:
    """Result shape of a pool; raises `TypeCheckError` where a window would see no pixel."""
    need_nhwc("x", x.shape)
    out = window.output(x.shape[1], x.shape[2])
    if window.counts(x.shape[1], x.shape[2]).min() == 0:
        raise TypeCheckError(f"pads {window.pads} leave windows that lie wholly outside of {x}")
    return (x.shape[0], *out, x.shape[3])


@op("max_pool2d")
class MaxPool2d(Moving):
    """Largest element of each window; padding never wins. x [N,H,W,C]; result [N,Ho,Wo,C]."""

    x: Value
    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    @property
    def window(self) -> Window:
        """The sliding window."""
        return Window(self.kernel, self.strides, self.pads, self.dilations)

    def infer(self) -> TensorType:
        """An image of numbers."""
        if self.x.type.dtype is DType.BOOL:
            raise TypeCheckError(f"x must hold numbers, it is {self.x.type}")
        return moved(self.x.type, pool_shape(self.x.type, self.window))

    def evaluate(self, x: Array) -> Array:
        """Tap by tap."""
        dtype = self.x.type.dtype
        padded = self.window.pad(x, -np.inf if dtype.is_float else dtype.min)
        out = self.shape[1], self.shape[2]
        views = (view for _, _, view in self.window.taps(padded, out))
        result = np.array(next(views))
        for view in views:
            np.maximum(result, view, out=result)
        return result

    def ties(self) -> Iterable[Tie]:
        """Images and channels."""
        return tie_axes(self.x, self, (0, 3))

    def loops(self) -> Loops:
        """A maximum over the taps."""
        n, y, x, c = axes(self.shape, "n y x c")
        ky, kx = Var("ky", self.kernel[0]), Var("kx", self.kernel[1])
        fill = self.x.type.dtype.min if self.window.padded else None
        pixel = load(self.x, n, *self.window.source(y, x, ky, kx), c, fill=fill)
        return Loops((Nest((n, y, x, c), Reduce("max", (ky, kx), pixel)),))


@op("avg_pool2d")
class AvgPool2d(Value):
    """Mean of each window, over all taps (`count_include_pad`; padding is 0) or over those inside.
    x float [N,H,W,C]; result [N,Ho,Wo,C]."""

    x: Value
    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    count_include_pad: bool = False
    dilations: Pair = (1, 1)

    @property
    def window(self) -> Window:
        """The sliding window."""
        return Window(self.kernel, self.strides, self.pads, self.dilations)

    def infer(self) -> TensorType:
        """A float image."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        return TensorType(self.x.type.dtype, pool_shape(self.x.type, self.window))

    def evaluate(self, x: Array) -> Array:
        """Sum, then divide by the counts."""
        total = window_sum(x, self.window, self.shape, 0)
        if self.count_include_pad:
            return np.asarray(total / x.dtype.type(self.kernel[0] * self.kernel[1]))
        counts = self.window.counts(x.shape[1], x.shape[2])
        return np.asarray(total / counts[:, :, None].astype(x.dtype))

    def ties(self) -> Iterable[Tie]:
        """Images and channels."""
        return tie_axes(self.x, self, (0, 3))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qavg_pool2d`, one multiplier per count."""
        x, taps = operands[0], self.kernel[0] * self.kernel[1]
        by_count = self.window.padded and not self.count_include_pad
        counts = np.arange(1, taps + 1) if by_count else np.array([taps])
        ratio = x.type.scale / result.scale
        if magnitude(x.type) * ratio >= 2**30:
            raise IRCError(
                f"{self.op} %{self.name}: the scales of {x.type} and {result} are too far apart"
            )
        m, s = fixedpoint.multipliers(ratio / counts)
        power = fixedpoint.power_of(int(m[0]), int(s[0])) if len(counts) == 1 else 0
        return QAvgPool2d(
            x, Const(m, name=f"{self.name}.m"), Const(s, name=f"{self.name}.s"),
            kernel=self.kernel, strides=self.strides, pads=self.pads, dilations=self.dilations,
            clamp=full_range(result), dtype=result.dtype, quant=fixedpoint.quant_of(result),
            power=power, name=self.name,
        )  # fmt: skip


@op("qavg_pool2d")
class QAvgPool2d(Value):
    """Integer average pool, equations (10) and (6), on `sum(x) - taps * zp_x`; padding is zp_x.

    m i32 and s i8 have one entry, or one per count of taps inside of the image: entry `count - 1`.
    Is there one, of 2^-power, ties go to the even integer.
    """

    x: Value
    m: Value
    s: Value
    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair
    clamp: Bounds
    dtype: DType
    quant: Quant
    power: int = 0
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def window(self) -> Window:
        """The sliding window."""
        return Window(self.kernel, self.strides, self.pads, self.dilations)

    @property
    def taps(self) -> int:
        """Taps of the window."""
        return self.kernel[0] * self.kernel[1]

    def infer(self) -> TensorType:
        """x and the result quantized per tensor; one multiplier, or one per count."""
        need_quantized("x", self.x.type)
        check_bounds(self.clamp, self.dtype)
        for what, v, dtype in (("m", self.m, DType.I32), ("s", self.s, DType.I8)):
            if v.type.dtype is not dtype or v.shape not in ((1,), (self.taps,)):
                raise TypeCheckError(f"{what} must have 1 or {self.taps} entries, it is {v.type}")
        if self.m.shape != self.s.shape:
            raise TypeCheckError(f"m {self.m.type} and s {self.s.type} differ in length")
        if self.power and (not 1 <= self.power <= LARGEST_POWER or self.m.shape != (1,)):
            raise TypeCheckError(f"power {self.power} of {self.m.shape[0]} factors is not one of"
                                 f" 1 to {LARGEST_POWER}")  # fmt: skip
        return TensorType(self.dtype, pool_shape(self.x.type, self.window), self.quant)

    def evaluate(self, x: Array, m: Array, s: Array) -> Array:
        """Sum in 64 bits, then equation (6)."""
        zero = self.x.type.zero
        acc = window_sum(x.astype(np.int64), self.window, self.shape, zero) - self.taps * zero
        if self.power:
            mean = fixedpoint.halved(acc, self.power) + self.type.zero
            return np.asarray(np.clip(mean, *self.clamp), self.dtype.numpy)
        at = np.zeros((1, 1, 1), np.int64)
        if len(m) > 1:
            at = self.window.counts(x.shape[1], x.shape[2])[:, :, None] - 1
        return fixedpoint.requantize(acc, m[at], s[at], self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A sum over the taps, then equation (6) with the multiplier of the count."""
        variables = n, y, x, c = axes(self.shape, "n y x c")
        ky, kx = Var("ky", self.kernel[0]), Var("kx", self.kernel[1])
        zero = self.x.type.zero
        fill = zero if self.window.padded else None
        pixel = load(self.x, n, *self.window.source(y, x, ky, kx), c, fill=fill)
        acc = Reduce("add", (ky, kx), pixel.cast(DType.I32)) - self.taps * zero
        if self.power:
            return Loops((Nest(variables, averaged(acc, self.power, self.clamp, self.type)),))
        at: Expr | int = 0
        if self.m.shape[0] > 1:
            _, height, width, _ = self.x.shape
            at = self.window.count(y, 0, height) * self.window.count(x, 1, width) - 1
        value = requantized(acc, load(self.m, at), load(self.s, at), self.clamp, self.type)
        return Loops((Nest(variables, value),))


def window_sum(x: Array, window: Window, shape: Shape, fill: float) -> Array:
    """The sum of each window's taps, in x's dtype."""
    total = np.zeros(shape, x.dtype)
    for _, _, view in window.taps(window.pad(x, fill), (shape[1], shape[2])):
        total += view
    return total
