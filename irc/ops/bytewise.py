"""Values of 16 bits that are multiplied with weights of 8: as two rows of bytes, in one product.

    x + 2^15 = 256 * high + low,   sum x*w = 256 * sum high*w + sum low*w - 2^15 * sum w
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Loops, MulShift, clamp, elementwise, load
from irc.ops.conv import Conv2d, QConv2d
from irc.ops.core import Const
from irc.ops.linear import QLinear
from irc.ops.moving import in_type
from irc.ops.quantization import (
    Bounds,
    accumulator_bias,
    channel_scales,
    check_bounds,
    difference,
    full_range,
    magnitude,
    need_quantized,
)
from irc.ops.shape import Pad, Reshape
from irc.proofs import rescaled_bound
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

IDENTITY = (1 << 30, 30)
"""The multiplier of 1."""
OFFSET = 1 << 15
"""What makes a 16-bit integer unsigned."""


@op("split_bytes")
class SplitBytes(Value):
    """`x + 2^15` as bytes: a new first axis holds the high ones, then the low ones."""

    x: Value

    def infer(self) -> TensorType:
        """u8 [2, ...], plain numbers of scale 1."""
        need_quantized("x", self.x.type)
        if self.x.type.dtype is not DType.I16:
            raise TypeCheckError(f"x must be i16, it is {self.x.type}")
        return TensorType(DType.U8, (2, *self.x.shape), Quant(1.0))

    def evaluate(self, x: Array) -> Array:
        """By shift and mask."""
        wide = x.astype(np.int64) + OFFSET
        return np.stack([wide >> 8, wide & 255]).astype(np.uint8)

    def loops(self) -> Loops:
        """A shift of 8 for the first row, of 0 for the second."""

        def value(*i: Expr) -> Expr:
            wide = load(self.x, *i[1:]).cast(DType.I32) + OFFSET
            shift = (1 - i[0]).cast(DType.I32) * 8
            return ((wide >> shift) & 255).cast(DType.U8)

        return elementwise(self.shape, value)


@op("join_bytes")
class JoinBytes(Value):
    """`clamp(zp + a + (((256 * sums[0] + sums[1] + b) * m + 2^(s-1)) >> s))`, (4) and (6).

    sums i32 [2, ..., O], of `split_bytes`; b with the zero point folded in, m i32, s i8 [O];
    a [..., O] in the scale of the result. In 32 bits, b i32, or in 64, b i64, if `wide`.
    """

    sums: Value
    b: Value
    m: Value
    s: Value
    a: Value | None
    clamp: Bounds
    dtype: DType
    quant: Quant
    wide: bool = False
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def accumulator(self) -> DType:
        """What the sums are added in."""
        return DType.I64 if self.wide else DType.I32

    def infer(self) -> TensorType:
        """The shape of one row of sums."""
        shape = self.sums.shape[1:]
        if self.sums.type.dtype is not DType.I32 or self.sums.shape[:1] != (2,) or not shape:
            raise TypeCheckError(f"sums must be i32 [2, ..., O], they are {self.sums.type}")
        for what, v, dtype in (
            ("b", self.b, self.accumulator), ("m", self.m, DType.I32), ("s", self.s, DType.I8),
        ):  # fmt: skip
            if v.shape != shape[-1:] or v.type.dtype is not dtype:
                raise TypeCheckError(f"{what} must be {dtype.value}[{shape[-1]}], it is {v.type}")
        result = TensorType(self.dtype, shape, self.quant)
        check_bounds(self.clamp, self.dtype)
        if self.a is not None and not _same_scale(self.a.type, result):
            raise TypeCheckError(f"a {self.a.type} must have the shape and scale of {result}")
        return result

    def evaluate(
        self, sums: Array, b: Array, m: Array, s: Array, a: Array | None
    ) -> Array:
        """Equation (6)."""
        wide = sums.astype(np.int64)
        y = fixedpoint.mul_shift(256 * wide[0] + wide[1] + b, m, s) + self.type.zero
        if self.a is not None and a is not None:
            y = y + (a.astype(np.int64) - self.a.type.zero)
        return np.asarray(np.clip(y, *self.clamp), self.dtype.numpy)

    def loops(self) -> Loops:
        """A few additions and a multiplication per element."""
        of = self.accumulator

        def value(*i: Expr) -> Expr:
            o = i[-1]
            high, low = (load(self.sums, row, *i).cast(of) for row in (0, 1))
            acc = high * 256 + low + load(self.b, o)
            y = MulShift(acc, load(self.m, o), load(self.s, o)) + self.type.zero
            if self.a is not None:
                y = y + difference(load(self.a, *i), self.a.type, of)
            return clamp(y, *self.clamp).cast(self.dtype)

        return elementwise(self.shape, value)


def multiplied(
    x: Value, w: Const, b: Value | None, a: Value | None, result: TensorType, name: str
) -> JoinBytes:
    """`a + x @ w.T + b` over the 16-bit `x` and weights i8, in the type `result`."""
    x = in_type(x, state_type(x.type))
    sums = QLinear(
        SplitBytes(x, name=f"{name}.bytes"), _weights(w), *_identity(w.shape[0]),
        *_PLAIN, name=f"{name}.sums",
    )  # fmt: skip
    return joined_bytes(sums, x.type, w, b, a, result, name)


def joined_bytes(
    sums: Value, x: TensorType, w: Const, b: Value | None, a: Value | None, result: TensorType,
    name: str,
) -> JoinBytes:  # fmt: skip
    """What the products of both bytes of `x` with the weights, `sums`, come to with `a` and `b`.

    Raises `IRCError` where the sum of so many weights may leave 64 bits.
    """
    plan = _joining(w, b, x, result, name)
    return JoinBytes(
        sums, plan.b, plan.m, plan.s,
        None if a is None else in_type(a, result.with_shape(a.shape)),
        full_range(result), result.dtype, fixedpoint.quant_of(result), plan.wide, name=name,
    )  # fmt: skip


@dataclass(frozen=True)
class _Joining:
    """The constants that join the sums of both bytes, and whether in 64 bits."""

    b: Const
    m: Const
    s: Const
    wide: bool


_known: WeakKeyDictionary[Const, dict[tuple[object, ...], _Joining]] = WeakKeyDictionary()
"""The steps of a layer share their weights, and what follows from them."""


def _joining(
    w: Const, b: Value | None, x: TensorType, result: TensorType, name: str
) -> _Joining:
    known = _known.setdefault(w, {})
    key = (b, x.scale, x.zero, result.scale, result.zero)
    if key not in known:
        known[key] = _joined(w, b, x, result, name)
    return known[key]


def _joined(w: Const, b: Value | None, x: TensorType, result: TensorType, name: str) -> _Joining:
    scales = x.scale * channel_scales(w.type, w.shape[0])
    rows = w.array.reshape(len(w.array), -1).astype(np.int64)
    folded = accumulator_bias(b, scales, f"%{name}") - (OFFSET + x.zero) * rows.sum(1)
    m, s = fixedpoint.multipliers(scales / result.scale)
    largest = 0xFFFF * np.abs(rows).sum(1) + np.abs(folded)
    if np.any(largest >= 2**32):
        raise IRCError(f"%{name}: {rows.shape[1]} products of 16-bit values may leave 64 bits")
    # What is added to the rescaled sum, and the sum of both, must fit too.
    wide = max(int(largest.max()), 2 * rescaled_bound(largest, m, s, result.zero)) >= 2**31
    bias = Const(folded if wide else folded.astype(np.int32), name=f"{name}.b")
    return _Joining(bias, Const(m, name=f"{name}.m"), Const(s, name=f"{name}.s"), wide)


_bare: WeakKeyDictionary[Const, Const] = WeakKeyDictionary()


def _weights(w: Const) -> Const:
    """The integers of weights, without their scales: one constant for all steps."""
    return _bare.setdefault(w, Const(w.array, name=w.name))


def convolved(node: Conv2d, x: Value, w: Const, b: Value | None, result: TensorType) -> JoinBytes:
    """A convolution of 16-bit `x` and weights i8, in the type `result`: of both bytes at once, as
    two batches. The padding comes first, since zero has two different bytes."""
    x = in_type(x, state_type(x.type))
    top, left, bottom, right = node.pads
    if any(node.pads):
        x = Pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), name=f"{node.name}.padded")
    n, h, width, c = x.shape
    batches = Reshape(SplitBytes(x, name=f"{node.name}.bytes"), (2 * n, h, width, c))
    sums = QConv2d(
        batches, _weights(w), *_identity(w.shape[0]), node.strides, (0, 0, 0, 0),
        node.dilations, node.groups, *_PLAIN, name=f"{node.name}.sums",
    )  # fmt: skip
    both = Reshape(sums, (2, *node.shape), name=f"{node.name}.both")
    return joined_bytes(both, x.type, w, b, None, result, node.name)


_PLAIN = ((DType.I32.min, DType.I32.max), DType.I32, Quant(1.0))
"""Clamp, dtype and scale of sums as they are."""


@functools.cache
def _identity(outs: int) -> tuple[Const, Const, Const]:
    """b, m and s that leave sums as they are."""
    m, s = IDENTITY
    return (
        Const(np.zeros(outs, np.int32)),
        Const(np.full(outs, m, np.int32)),
        Const(np.full(outs, s, np.int8)),
    )


def state_type(t: TensorType, smallest: float = 0.0) -> TensorType:
    """The 16-bit type around zero of a state, with a scale of at least `smallest`: `t` itself if
    it is one."""
    if t.dtype is DType.I16 and t.zero == 0 and t.scale >= smallest:
        return t
    scale = magnitude(t) * t.scale / DType.I16.max
    return TensorType(DType.I16, t.shape, Quant(max(scale, smallest)))


def need_state(what: str, v: Value) -> None:
    """Raise `TypeCheckError` unless `v` is of 16 bits around zero."""
    need_quantized(what, v.type)
    if v.type.dtype is not DType.I16 or v.type.zero:
        raise TypeCheckError(f"{what} must be i16 around zero, it is {v.type}")


def _same_scale(a: TensorType, b: TensorType) -> bool:
    return a.shape == b.shape and a.quant is not None and a.scale == b.scale
