"""Convolutions over NHWC images with OHWI weights, float and integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Kept, Tie, tie
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Nest, Reduce, Var, axes, load
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    Folded,
    averaged,
    check_accumulator,
    check_bounds,
    check_common,
    check_exception,
    check_weights,
    common_sums,
    constant,
    excepted,
    excepted_sums,
    folded_constants,
    full_range,
    is_wide,
    need_quantized,
    requantized,
    with_common,
)
from irc.ops.windows import (
    Pads,
    Pair,
    TransposedWindow,
    Window,
    correlate,
    correlate_transposed,
    need_nhwc,
)
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op


def conv_shape(
    x: TensorType, w: TensorType, window: Window | TransposedWindow, groups: int
) -> Shape:
    """Result shape of a convolution; raises `TypeCheckError` where operands don't fit."""
    need_nhwc("x", x.shape)
    need_nhwc("w", w.shape)
    channels, out = x.shape[3], w.shape[0]
    if groups < 1 or channels % groups or out % groups:
        raise TypeCheckError(f"{groups} groups divide neither {channels} nor {out} channels")
    if w.shape[3] * groups != channels:
        raise TypeCheckError(f"x has {channels} channels, w takes {w.shape[3] * groups}")
    return (x.shape[0], *window.output(x.shape[1], x.shape[2]), out)


def float_result(x: Value, w: Value, b: Value | None, shape: Shape) -> TensorType:
    """Type of a float convolution; raises `TypeCheckError` unless its operands are of one type."""
    if not x.type.dtype.is_float or w.type.dtype is not x.type.dtype:
        raise TypeCheckError(f"x {x.type} and w {w.type} must be one float type")
    if b is not None and (b.shape != (shape[3],) or b.type.dtype is not x.type.dtype):
        raise TypeCheckError(f"b must be {x.type.dtype.value}[{shape[3]}], it is {b.type}")
    return TensorType(x.type.dtype, shape)


def folded(
    operands: tuple[Value, ...], result: TensorType, name: str
) -> tuple[Const, Folded]:
    """The weights of an integer convolution, and what is folded of x, w and perhaps a bias:
    equations (4), (5)."""
    x, w = operands[0], constant(operands[1], f"the weights of %{name}")
    bias = operands[2] if len(operands) > 2 else None
    return Const(w.array, name=w.name), folded_constants(x, w, bias, result, name)


def integer_result(
    x: Value, w: Value, b: Value, m: Value, s: Value, window: Window | TransposedWindow, groups: int
) -> Shape:
    """Shape of an integer convolution; raises `TypeCheckError` where operands don't fit."""
    shape = conv_shape(x.type, w.type, window, groups)
    need_quantized("x", x.type)
    check_weights(w)
    check_accumulator(shape[3], b, m, s)
    return shape


def accumulation(v: QConv2d | QConvTranspose2d, n: Expr, y: Expr, x: Expr, o: Expr) -> Expr:
    """The i32 sum of equation (4) for one result element, over taps and channels."""
    (kh, kw), per_group = v.window.kernel, v.w.shape[3]
    ky, kx, c = Var("ky", kh), Var("kx", kw), Var("c", per_group)
    channel: Expr = c
    if v.groups > 1:
        channel = (o // (v.shape[3] // v.groups)) * per_group + c
    fill = v.x.type.zero if v.window.padded else None
    pixel = load(v.x, n, *v.window.source(y, x, ky, kx), channel, fill=fill)
    product = pixel.cast(DType.I32) * load(v.w, o, ky, kx, c).cast(DType.I32)
    total: Expr = Reduce("add", (ky, kx, c), product)
    if isinstance(v, QConv2d):
        total = with_common(total, v.common, v.share, (n, y, x, o))
    return (total << v.fraction) + load(v.b, o)


def convolution_loops(v: QConv2d | QConvTranspose2d) -> Loops:
    """The sum, then equation (6)."""
    n, y, x, o = axes(v.shape, "n y x o")
    acc = accumulation(v, n, y, x, o)
    if isinstance(v, QConv2d):
        acc = excepted(acc, v.exception, o)
        if v.power:
            value = averaged(acc, v.power, v.clamp, v.type)
            return Loops((Nest((n, y, x, o), value),))
    m, s = load(v.m, o), load(v.s, o)
    value = requantized(acc, m, s, v.clamp, v.type, wide=v.wide, half=not v.fraction)
    return Loops((Nest((n, y, x, o), value),))


@dataclass(frozen=True, eq=False)
class Convolution(Value):
    """Base of the float convolutions. x [N,H,W,C], w [O,kh,kw,C/groups], b [O]."""

    x: Value
    w: Value
    b: Value | None = None
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    groups: int = 1

    @property
    def window(self) -> Window | TransposedWindow:
        """The sliding or spreading window."""
        raise NotImplementedError

    def infer(self) -> TensorType:
        """Float operands that fit each other."""
        need_nhwc("w", self.w.shape)
        shape = conv_shape(self.x.type, self.w.type, self.window, self.groups)
        return float_result(self.x, self.w, self.b, shape)

    def ties(self) -> Iterator[Tie]:
        """Images; outputs with rows of w and with b; inputs with the weights' channels. Of a
        grouped convolution whole groups live and die, inputs and outputs together."""
        yield tie(self.x, 0, self, 0)
        yield tie(self.w, 0, self, 3)
        if self.b is not None:
            yield tie(self.b, 0, self, 3)
        if self.groups == 1:
            yield tie(self.x, 3, self.w, 3)
            return
        ins, outs = self.w.shape[3], self.shape[3] // self.groups
        first = np.arange(self.groups)
        for i in range(1, ins):
            yield tie(self.x, 3, self.x, 3, first * ins, first * ins + i)
        for o in range(outs):
            yield tie(self.x, 3, self, 3, first * ins, first * outs + o)

    def narrowed(self, new: Callable[[Value], Value], kept: Kept) -> Value:
        """Over operands that lost channels, with as many groups as are left."""
        groups = self.groups if self.groups == 1 else int(kept(self.x, 3).sum()) // self.w.shape[3]
        b = None if self.b is None else new(self.b)
        return self.replace(x=new(self.x), w=new(self.w), b=b, groups=groups)


@op("conv2d")
class Conv2d(Convolution):
    """Float 2-D convolution. x [N,H,W,C], w [O,kh,kw,C/groups], b [O]; result [N,Ho,Wo,O]."""

    @property
    def window(self) -> Window:
        """The sliding window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return Window(kernel, self.strides, self.pads, self.dilations)

    def evaluate(self, x: Array, w: Array, b: Array | None) -> Array:
        """By BLAS."""
        y = correlate(x, w, self.window, self.groups)
        return y if b is None else y + b

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qconv2d`, with the bias folded by equation (4)."""
        w, made = folded(operands, result, self.name)
        return QConv2d(
            operands[0], w, made.b, made.m, made.s,
            strides=self.strides, pads=self.pads, dilations=self.dilations, groups=self.groups,
            clamp=full_range(result), dtype=result.dtype, quant=fixedpoint.quant_of(result),
            wide=is_wide(operands[0], w.array, made, result), fraction=made.fraction,
            name=self.name,
        )  # fmt: skip


@op("qconv2d")
class QConv2d(Value):
    """Integer convolution, equations (4) and (6).

    x [N,H,W,C] quantized per tensor, padded with its zero point; w i8 or i16 [O,kh,kw,C/groups];
    b i32, m i32, s i8 per output channel, b with `-zp_x * sum(w)` folded in. `wide`: equation (6)
    is computed in 64 bits, because 32 could overflow before the clamp. b, and the sum that it is
    added to, have `fraction` bits below the unit of the products; if any, b holds the half, too.
    The sums that `exception`, i32[2n,O], names for a channel count as many more as it says. If
    `power` is set, the factor of all channels is 2^-power, and ties go to the even integer.
    `common`, i32[N,Ho,Wo,1], is added to the sum of products of each channel: `lift` times the sum
    of the window, so that the weights are w + lift; or that sum itself, as often as `share`,
    i32[O], says for the channel.
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
    wide: bool = False
    fraction: int = 0
    exception: Value | None = None
    power: int = 0
    common: Value | None = None
    share: Value | None = None
    lift: int = 0
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")
    flags: ClassVar[tuple[str, ...]] = ("power", "lift")

    @property
    def window(self) -> Window:
        """The sliding window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return Window(kernel, self.strides, self.pads, self.dilations)

    def infer(self) -> TensorType:
        """Operands that fit each other; x and the result quantized per tensor."""
        need_nhwc("w", self.w.shape)
        check_bounds(self.clamp, self.dtype)
        operands = self.x, self.w, self.b, self.m, self.s
        shape = integer_result(*operands, self.window, self.groups)
        check_exception(shape[3], self.exception)
        check_common(shape, self.common, self.share)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(
        self, x: Array, w: Array, b: Array, m: Array, s: Array, exception: Array | None,
        common: Array | None, share: Array | None,
    ) -> Array:  # fmt: skip
        """In float64 by BLAS, exact below 2^53."""
        products = correlate(
            x.astype(np.float64), w.astype(np.float64), self.window, self.groups,
            fill=self.x.type.zero,
        )  # fmt: skip
        acc = products.astype(np.int64) + common_sums(common, share)
        total = excepted_sums((acc << self.fraction) + b, exception)
        if self.power:
            return fixedpoint.averaged(total, self.power, self.type, self.clamp)
        zero, half = self.type.zero, not self.fraction
        return fixedpoint.requantize(total, m, s, zero, self.clamp, self.dtype, half=half)

    def loops(self) -> Loops:
        """A reduction over taps and channels, then equation (6)."""
        return convolution_loops(self)


@op("conv_transpose2d")
class ConvTranspose2d(Convolution):
    """Float transposed convolution. x [N,H,W,C], w [O,kh,kw,C/groups], b [O]; result [N,Ho,Wo,O].

    Input pixel (i, j) adds `w[:, ky, kx] @ x[i, j]` to output pixel `(i, j) * strides + (ky, kx) *
    dilations - pads`.
    """

    output_padding: Pair = (0, 0)

    @property
    def window(self) -> TransposedWindow:
        """The spreading window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return TransposedWindow(
            kernel, self.strides, self.pads, self.dilations, self.output_padding
        )

    def evaluate(self, x: Array, w: Array, b: Array | None) -> Array:
        """By BLAS."""
        y = correlate_transposed(x, w, self.window, self.groups)
        return y if b is None else y + b

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qconv_transpose2d`, with the bias folded by equation (4)."""
        w, made = folded(operands, result, self.name)
        return QConvTranspose2d(
            operands[0], w, made.b, made.m, made.s,
            strides=self.strides, pads=self.pads, dilations=self.dilations, groups=self.groups,
            output_padding=self.output_padding, clamp=full_range(result),
            dtype=result.dtype, quant=fixedpoint.quant_of(result), name=self.name,
            wide=is_wide(operands[0], w.array, made, result), fraction=made.fraction,
        )  # fmt: skip


@op("qconv_transpose2d")
class QConvTranspose2d(Value):
    """Integer transposed convolution, equations (4) and (6); operands as in `qconv2d`.

    In gather form: every output pixel sums all taps, those that meet no input pixel with zp_x.
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
    output_padding: Pair
    clamp: Bounds
    dtype: DType
    quant: Quant
    wide: bool = False
    fraction: int = 0
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def window(self) -> TransposedWindow:
        """The spreading window."""
        kernel = (self.w.shape[1], self.w.shape[2])
        return TransposedWindow(
            kernel, self.strides, self.pads, self.dilations, self.output_padding
        )

    def infer(self) -> TensorType:
        """Operands that fit each other; x and the result quantized per tensor."""
        need_nhwc("w", self.w.shape)
        check_bounds(self.clamp, self.dtype)
        operands = self.x, self.w, self.b, self.m, self.s
        shape = integer_result(*operands, self.window, self.groups)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(self, x: Array, w: Array, b: Array, m: Array, s: Array) -> Array:
        """In float64 by BLAS, exact below 2^53: on `x - zp_x`, so that taps without a pixel add
        nothing; `zp_x * sum(w)` of all taps then undoes what is folded into b."""
        zero = self.x.type.zero
        centred = x.astype(np.float64) - zero
        acc = correlate_transposed(centred, w.astype(np.float64), self.window, self.groups)
        unfold = zero * w.reshape(len(w), -1).sum(1, dtype=np.int64)
        total = ((acc.astype(np.int64) + unfold) << self.fraction) + b
        zero, half = self.type.zero, not self.fraction
        return fixedpoint.requantize(total, m, s, zero, self.clamp, self.dtype, half=half)

    def loops(self) -> Loops:
        """A reduction over taps and channels, then equation (6)."""
        return convolution_loops(self)
