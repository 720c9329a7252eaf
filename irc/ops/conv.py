"""Convolutions over NHWC images with OHWI weights, float and integer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Nest, Reduce, Var, axes, load
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    accumulator_bias,
    channel_scales,
    check_accumulator,
    check_bounds,
    constant,
    epilogue_constants,
    full_range,
    need_quantized,
    requantized,
)
from irc.ops.windows import Pads, Pair, Window, correlate, need_nhwc
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op


def conv_shape(x: TensorType, w: TensorType, window: Window, groups: int) -> Shape:
    """Result shape of a convolution; raises `TypeCheckError` where operands don't fit."""
    need_nhwc("x", x.shape)
    need_nhwc("w", w.shape)
    channels, out = x.shape[3], w.shape[0]
    if groups < 1 or channels % groups or out % groups:
        raise TypeCheckError(f"{groups} groups divide neither {channels} nor {out} channels")
    if w.shape[3] * groups != channels:
        raise TypeCheckError(f"x has {channels} channels, w takes {w.shape[3] * groups}")
    return (x.shape[0], *window.output(x.shape[1], x.shape[2]), out)


@op("conv2d")
class Conv2d(Value):
    """Float 2-D convolution. x [N,H,W,C], w [O,kh,kw,C/groups], b [O]; result [N,Ho,Wo,O]."""

    x: Value
    w: Value
    b: Value | None = None
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    groups: int = 1

    @property
    def window(self) -> Window:
        """The sliding window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return Window(kernel, self.strides, self.pads, self.dilations)

    def infer(self) -> TensorType:
        """Float operands that fit each other."""
        need_nhwc("w", self.w.shape)
        shape = conv_shape(self.x.type, self.w.type, self.window, self.groups)
        if not self.x.type.dtype.is_float or self.w.type.dtype is not self.x.type.dtype:
            raise TypeCheckError(f"x {self.x.type} and w {self.w.type} must be one float type")
        if self.b is not None and self.b.shape != (shape[3],):
            raise TypeCheckError(f"b must have {shape[3]} entries, it is {self.b.type}")
        return TensorType(self.x.type.dtype, shape)

    def evaluate(self, x: Array, w: Array, b: Array | None) -> Array:
        """By BLAS."""
        y = correlate(x, w, self.window, self.groups)
        return y if b is None else y + b

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qconv2d`, with the bias folded by equation (4)."""
        x, w = operands[0], constant(operands[1], "the weights of conv2d")
        channels = w.shape[0]
        scales = x.type.scale * channel_scales(w.type, channels)
        bias = accumulator_bias(operands[2] if len(operands) > 2 else None, scales, self.name)
        bias = bias - x.type.zero * w.array.reshape(channels, -1).sum(1, dtype=np.int64)
        b, m, s = epilogue_constants(scales / result.scale, bias, self.name)
        return QConv2d(
            x, Const(w.array, name=w.name), b, m, s,
            strides=self.strides, pads=self.pads, dilations=self.dilations, groups=self.groups,
            clamp=full_range(result), dtype=result.dtype, quant=fixedpoint.quant_of(result),
        )  # fmt: skip


@op("qconv2d")
class QConv2d(Value):
    """Integer convolution, equations (4) and (6).

    x [N,H,W,C] quantized per tensor, padded with its zero point; w i8 [O,kh,kw,C/groups]; b i32,
    m i32, s i8 per output channel, b with `-zp_x * sum(w)` folded in.
    """

    x: Value
    w: Value
    b: Value
    m: Value
    s: Value
    strides: Pair
    pads: Pads
    dilations: Pair
    groups: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def window(self) -> Window:
        """The sliding window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return Window(kernel, self.strides, self.pads, self.dilations)

    def infer(self) -> TensorType:
        """Operands that fit each other; x and the result quantized per tensor."""
        need_nhwc("w", self.w.shape)
        shape = conv_shape(self.x.type, self.w.type, self.window, self.groups)
        need_quantized("x", self.x.type)
        if self.w.type.dtype is not DType.I8:
            raise TypeCheckError(f"w must be i8, it is {self.w.type}")
        check_accumulator(shape[3], self.b, self.m, self.s)
        check_bounds(self.clamp, self.dtype)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(self, x: Array, w: Array, b: Array, m: Array, s: Array) -> Array:
        """In float64 by BLAS, exact below 2^53."""
        zero = self.x.type.zero
        acc = correlate(
            x.astype(np.float64), w.astype(np.float64), self.window, self.groups, fill=zero
        )
        total = acc.astype(np.int64) + b
        return fixedpoint.requantize(total, m, s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A reduction over taps and channels, then equation (6)."""
        n, y, x, o = axes(self.shape, "n y x o")
        (kh, kw), per_group = self.window.kernel, self.w.shape[3]
        ky, kx, c = Var("ky", kh), Var("kx", kw), Var("c", per_group)
        channel: Expr = c
        if self.groups > 1:
            channel = (o // (self.shape[3] // self.groups)) * per_group + c
        fill = self.x.type.zero if self.window.padded else None
        pixel = load(self.x, n, *self.window.source(y, x, ky, kx), channel, fill=fill)
        product = pixel.cast(DType.I32) * load(self.w, o, ky, kx, c).cast(DType.I32)
        acc = Reduce("add", (ky, kx, c), product) + load(self.b, o)
        value = requantized(acc, load(self.m, o), load(self.s, o), self.clamp, self.type)
        return Loops((Nest((n, y, x, o), value),))
