"""Between reals and integers: quantize, dequantize; and from integers to integers: requantize,
lookup. What other families share of equation (6) stands here too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Int, Loops, MulShift, Select, clamp, elementwise, lift, load
from irc.ops.core import Const
from irc.proofs import ACCUMULATOR_LIMIT, accumulator_bound, needs_wide
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

Bounds = tuple[int, int]


@op("quantize")
class Quantize(Value):
    """Equation (2): reals to integers.

    `single`: the runtime that the program was made for, such as onnxruntime, computes these
    integers in single precision from the sums of the layer before, `rint(float32(sum) *
    float32(factor))`; in this type, whatever `dtype` has become since.
    """

    x: Value
    dtype: DType
    quant: Quant
    single: DType | None = None
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")
    flags: ClassVar[tuple[str, ...]] = ("single",)

    def infer(self) -> TensorType:
        """The operand's shape; the operand must be float."""
        if not self.x.type.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {self.x.type}")
        return TensorType(self.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """Equation (2)."""
        return fixedpoint.quantize(x, self.type)


@op("dequantize")
class Dequantize(Value):
    """Equation (1): integers to the reals that they stand for."""

    x: Value

    def infer(self) -> TensorType:
        """The operand's shape in f32; the operand must carry a quantization."""
        if self.x.type.quant is None:
            raise TypeCheckError(f"x must be quantized, it is {self.x.type}")
        return TensorType(DType.F32, self.x.shape)

    def evaluate(self, x: Array) -> Array:
        """Equation (1)."""
        return fixedpoint.dequantize(x, self.x.type)


@op("requantize")
class Requantize(Value):
    """Equation (6) on `x - zp_x`: the same reals in another quantization."""

    x: Value
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @classmethod
    def to(cls, x: Value, result: TensorType, *, name: str = "") -> Requantize:
        """`x` in the quantization of `result`; m and s by equation (5)."""
        m, s = fixedpoint.multiplier(x.type.scale / result.scale)
        bounds = (result.dtype.min, result.dtype.max)
        return cls(x, m, s, bounds, result.dtype, fixedpoint.quant_of(result), name=name)

    def infer(self) -> TensorType:
        """The operand's shape; quantized per tensor on both sides."""
        need_quantized("x", self.x.type)
        check_bounds(self.clamp, self.dtype)
        return TensorType(self.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """Equation (6)."""
        d = x.astype(np.int64) - self.x.type.zero
        zero = self.type.zero
        return fixedpoint.requantize(d, self.m, self.s, zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """One multiplication per element."""

        def value(*i: Expr) -> Expr:
            d = difference(load(self.x, *i), self.x.type)
            bound = magnitude(self.x.type)
            return rescaled(d, bound, (self.m, self.s), self.clamp, self.type)

        return elementwise(self.shape, value)


@op("lookup")
class Lookup(Value):
    """Equation (8): `table[x - dtype.min]`, any function of one 8-bit value."""

    x: Value
    table: Value
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("quant",)

    def infer(self) -> TensorType:
        """The operand's shape, the table's dtype; the table has 256 entries."""
        if self.x.type.dtype not in (DType.U8, DType.I8):
            raise TypeCheckError(f"x must be u8 or i8, it is {self.x.type}")
        if self.table.shape != (256,):
            raise TypeCheckError(f"the table must have 256 entries, it is {self.table.type}")
        return TensorType(self.table.type.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array, table: Array) -> Array:
        """Indexing."""
        return table[x.astype(np.int64) - self.x.type.dtype.min]

    def loops(self) -> Loops:
        """One load per element."""
        low = self.x.type.dtype.min
        return elementwise(
            self.shape, lambda *i: load(self.table, load(self.x, *i).cast(DType.I64) - low)
        )


def need_quantized(what: str, t: TensorType) -> None:
    """Raise `TypeCheckError` unless `t` is an integer type with a per-tensor quantization."""
    if t.quant is None or t.quant.axis is not None:
        raise TypeCheckError(f"{what} must be quantized per tensor, it is {t}")


def check_bounds(bounds: Bounds, dtype: DType) -> None:
    """Raise `TypeCheckError` unless `bounds` is a range within `dtype`."""
    if not dtype.min <= bounds[0] <= bounds[1] <= dtype.max:
        raise TypeCheckError(f"clamp {list(bounds)} is no range of {dtype.value}")


def check_exception(channels: int, exception: Value | None) -> None:
    """Raise `TypeCheckError` unless the channels' exceptions are i32[2n, channels] or absent."""
    if exception is None:
        return
    t = exception.type
    if t.dtype is not DType.I32 or t.rank != 2 or t.shape[0] % 2 or t.shape[1] != channels:
        raise TypeCheckError(f"exception must be i32[2n,{channels}], it is {t}")


def check_weights(w: Value) -> None:
    """Raise `TypeCheckError` unless weights are i8, or i16."""
    if w.type.dtype not in (DType.I8, DType.I16):
        raise TypeCheckError(f"w must be i8 or i16, it is {w.type}")


def check_common(shape: Shape, common: Value | None, share: Value | None) -> None:
    """Raise `TypeCheckError` unless what a result's channels have in common is i32 [..., 1], and
    their shares of it i32, one each."""
    wanted = {"common": (common, (*shape[:-1], 1)), "share": (share, shape[-1:])}
    for what, (v, fitting) in wanted.items():
        if v is not None and (v.type.dtype is not DType.I32 or v.shape != fitting):
            raise TypeCheckError(f"{what} must be i32{list(fitting)}, it is {v.type}")
    if common is None and share is not None:
        raise TypeCheckError("there is a share of nothing")


def check_accumulator(channels: int, b: Value, m: Value, s: Value) -> None:
    """Raise `TypeCheckError` unless b, m, s are i32, i32, i8 vectors of one entry per channel."""
    for what, v, dtype in (("b", b, DType.I32), ("m", m, DType.I32), ("s", s, DType.I8)):
        if v.shape != (channels,) or v.type.dtype is not dtype:
            raise TypeCheckError(f"{what} must be {dtype.value}[{channels}], it is {v.type}")


def scalars(m: int, s: int) -> tuple[Expr, Expr]:
    """A multiplier and shift as constants for `requantized`."""
    return Int(m, DType.I32), Int(s, DType.I8)


def requantized(
    acc: Expr, m: Expr, s: Expr, bounds: Bounds, result: TensorType, *, wide: bool = False,
    half: bool = True,
) -> Expr:  # fmt: skip
    """Equation (6) as an expression: `clamp(zp + MulShift(acc, m, s), lo, hi)` in the dtype; in 64
    bits if `wide`."""
    acc = acc.cast(DType.I64) if wide else acc
    return clamp(MulShift(acc, m, s, half) + result.zero, *bounds).cast(result.dtype)


def with_common(
    acc: Expr, common: Value | None, share: Value | None, place: Sequence[Expr]
) -> Expr:
    """The sum of products at a place of the result, with what its channels have in common."""
    if common is None:
        return acc
    more: Expr = load(common, *place[:-1], 0)
    return acc + (more if share is None else more * load(share, place[-1]))


def common_sums(common: Array | None, share: Array | None) -> Array:
    """What it adds, i64, to be broadcast over the result."""
    more = np.zeros((), np.int64) if common is None else common.astype(np.int64)
    return more if share is None else more * share


def excepted(acc: Expr, exception: Value | None, channel: Expr) -> Expr:
    """Sums as equation (6) takes them: those of a channel which stand in the even rows of
    `exception`, i32[2n, channels], count as many more as the rows behind them say."""
    if exception is None:
        return acc
    total = acc
    for row in range(0, exception.shape[0], 2):
        listed = acc.equals(load(exception, row, channel))
        total += Select(listed, load(exception, row + 1, channel), lift(0, DType.I32))
    return total


def excepted_sums(acc: Array, exception: Array | None) -> Array:
    """As `excepted`, of i64 sums [..., channels]."""
    total = acc
    for at, by in () if exception is None else exception.reshape(-1, 2, acc.shape[-1]):
        total = total + (acc == at) * by
    return total


def magnitude(t: TensorType) -> int:
    """The largest `|x - zp|` that a tensor of this type can hold."""
    return max(t.dtype.max - t.zero, t.zero - t.dtype.min)


def difference(x: Expr, t: TensorType, dtype: DType = DType.I32) -> Expr:
    """`x - zp` of an element of a tensor of type `t`."""
    return x.cast(dtype) - t.zero


def accumulator(bound: int) -> DType:
    """The dtype that holds sums of magnitude `bound`: i32 where that is proved, else i64."""
    return DType.I32 if bound < 2**31 else DType.I64


def check_product(bound: int, m: int, s: int) -> None:
    """Raise `TypeCheckError` unless (6) of sums up to `bound` stays within its 64 bits."""
    if not 1 <= s <= fixedpoint.MAX_SHIFT or not -(2**31) <= m < 2**31:
        raise TypeCheckError(f"m = {m}, s = {s} is no multiplier")
    if bound * abs(m) + 2 ** (s - 1) >= 2**63:
        raise TypeCheckError(f"sums of up to {bound} are too large to rescale in 64 bits")


def rescaled(
    acc: Expr, bound: int, multiplier: tuple[int, int], bounds: Bounds, result: TensorType
) -> Expr:
    """Equation (6) with one constant (m, s), for an `acc` of at most `bound` in magnitude;
    computed in 64 bits where 32 could overflow before the clamp."""
    m, s = multiplier
    largest = (bound * abs(m) >> s) + 1 + abs(result.zero)
    wide = acc if largest < 2**31 else acc.cast(DType.I64)
    return requantized(wide, *scalars(m, s), bounds, result)


def averaged(acc: Expr, power: int, bounds: Bounds, result: TensorType) -> Expr:
    """Equation (10) with the factor 2^-power, as an expression: `fixedpoint.halved`, clamped."""
    odd = (acc >> power) & 1
    mean = (acc + ((1 << (power - 1)) - 1) + odd) >> power
    return clamp(mean + result.zero, *bounds).cast(result.dtype)


def constant(v: Value, what: str) -> Const:
    """`v` as the constant that it must be; raises `IRCError` where it is computed at run time."""
    if not isinstance(v, Const):
        raise IRCError(f"{what} %{v.name} ({v.op}) must be a constant to be compiled to integers")
    return v


def channel_scales(w: TensorType, channels: int) -> Array:
    """The scales of weights per output channel (axis 0), float64[channels]."""
    quant = fixedpoint.quant_of(w)
    if quant.axis not in (None, 0):
        raise IRCError(f"weights {w} must be quantized per tensor or along their output channels")
    return np.broadcast_to(np.asarray(quant.scales, np.float64), (channels,))


@np.errstate(all="ignore")
def accumulator_units(bias: Value | None, scales: Array, what: str) -> Array:
    """The bias in accumulator units, float64[channels]: `bias / (s_x * s_w)`.

    `bias` is a quantized i32 or float constant, or absent. Raises `IRCError` where it does not
    fit an i32.
    """
    if bias is None:
        return np.zeros(len(scales))
    units = np.asarray(real_constant(bias, "bias").reshape(-1) / scales)
    if not np.all(np.abs(np.rint(units)) < 2.0**31):
        raise IRCError(
            f"{what}: the bias does not fit the 32-bit accumulator's scale; the weights of a"
            " channel are far smaller than its bias"
        )
    return units


def accumulator_bias(bias: Value | None, scales: Array, what: str) -> Array:
    """`accumulator_units`, rounded half to even: i64[channels]."""
    return np.rint(accumulator_units(bias, scales, what)).astype(np.int64)


def epilogue_constants(
    factors: Array, bias: Array, name: str
) -> tuple[Const, Const, Const]:
    """The constants b, m, s of a multiply-accumulate op; raises `IRCError` if b is no i32."""
    if np.any(np.abs(bias) >= 2**31):
        raise IRCError(f"%{name}: the folded bias does not fit 32 bits")
    m, s = fixedpoint.multipliers(factors)
    b = bias.astype(np.int32)
    return Const(b, name=f"{name}.b"), Const(m, name=f"{name}.m"), Const(s, name=f"{name}.s")


FRACTION = 8
"""Bits below the accumulator's unit that a bias in reals gets at most."""


@dataclass(frozen=True)
class Folded:
    """What a multiply-accumulate op adds and multiplies with. b of `fraction` bits, if any, below
    the unit of the sum holds what rounds the result, too."""

    b: Const
    m: Const
    s: Const
    fraction: int


def folded_constants(
    x: Value, w: Const, bias: Value | None, result: TensorType, name: str
) -> Folded:
    """b, m, s of a multiply-accumulate op with weights `w`, output channels on axis 0: equation
    (4) with `-zp_x * sum(w)` folded into the bias, and (5) per output channel.

    Raises `IRCError` for weights with a zero point, or a bias that does not fit.
    """
    channels = w.shape[0]
    if np.any(np.asarray(fixedpoint.quant_of(w.type).zero_point)):
        raise IRCError(f"%{name}: weights %{w.name} must be quantized with zero point 0")
    scales = x.type.scale * channel_scales(w.type, channels)
    units = accumulator_units(bias, scales, f"%{name}")
    offset = x.type.zero * w.array.reshape(channels, -1).sum(1, dtype=np.int64)
    factors, fraction = scales / result.scale, 0
    if bias is not None and bias.type.dtype is not DType.I32 and np.any(units != np.rint(units)):
        rounding = 0.5 / np.maximum(factors, 2.0**-FRACTION / ACCUMULATOR_LIMIT)
        bound = accumulator_bound(w.array, np.rint(units) - offset, x.type.dtype)
        fraction = _room(float((bound + rounding).max()))
        units = units + rounding if fraction else units
    b = np.rint(np.ldexp(units, fraction)).astype(np.int64) - (offset << fraction)
    return Folded(*epilogue_constants(np.ldexp(factors, -fraction), b, name), fraction)


def _room(bound: float) -> int:
    """How many bits below its unit a 32-bit accumulator has room for, as far as a bias needs them.
    Rounded to the unit, that would turn the rounding of one result in some thousands."""
    return min(FRACTION, max(math.floor(math.log2((ACCUMULATOR_LIMIT - 1) / (bound + 1))), 0))


def is_wide(x: Value, w: Array, folded: Folded, result: TensorType) -> bool:
    """Whether a multiply-accumulate op must rescale in 64 bits (`proofs.needs_wide`)."""
    b, m, s = (c.array for c in (folded.b, folded.m, folded.s))
    return needs_wide(w, b, m, s, x.type.dtype, result.zero, folded.fraction)


def real_constant(v: Value, what: str) -> Array:
    """The reals that a constant stands for, float64; raises `IRCError` if it is computed."""
    const = constant(v, what)
    if const.quant is None:
        return const.array.astype(np.float64)
    return fixedpoint.dequantize(const.array, const.type, DType.F64)


def tabulated(x: Value, f: Callable[[Array], Array], result: TensorType, what: str) -> Lookup:
    """Equation (8): the lookup of `f`, reals to reals, over the 8-bit `x`; of one of 16 bits over
    the upper ones. Raises `IRCError` for a wider one."""
    if (upper := upper_bits(x.type)) is not None:
        x = Requantize.to(x, upper, name=x.name)
    if x.type.dtype not in (DType.U8, DType.I8):
        raise IRCError(f"{what}: a table needs an 8-bit operand, %{x.name} is {x.type}")
    table = Const(fixedpoint.table(f, x.type, result))
    return Lookup(x, table, fixedpoint.quant_of(result))


def upper_bits(t: TensorType) -> TensorType | None:
    """The 8 bits that span the range of a tensor of 16 with one scale; None for others."""
    dtype = {DType.U16: DType.U8, DType.I16: DType.I8}.get(t.dtype)
    if dtype is None or t.quant is None or t.quant.axis is not None:
        return None
    steps = 257  # 65535 / 255
    zero = round((t.zero - t.dtype.min) / steps) + dtype.min
    return TensorType(dtype, t.shape, Quant(t.scale * steps, zero))


def full_range(t: TensorType) -> Bounds:
    """The clamp that does nothing."""
    return t.dtype.min, t.dtype.max
