"""Between reals and integers: quantize, dequantize; and from integers to integers: requantize,
lookup. What other families share of equation (6) stands here too."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Int, Loops, MulShift, clamp, elementwise, load
from irc.ops.core import Const
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

Bounds = tuple[int, int]


@op("quantize")
class Quantize(Value):
    """Equation (2): reals to integers."""

    x: Value
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

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
        difference = x.astype(np.int64) - self.x.type.zero
        zero = self.type.zero
        return fixedpoint.requantize(difference, self.m, self.s, zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """One multiplication per element."""

        def value(*i: Expr) -> Expr:
            difference = load(self.x, *i).cast(DType.I32) - self.x.type.zero
            return requantized(difference, *scalars(self.m, self.s), self.clamp, self.type)

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


def check_accumulator(channels: int, b: Value, m: Value, s: Value) -> None:
    """Raise `TypeCheckError` unless b, m, s are i32, i32, i8 vectors of one entry per channel."""
    for what, v, dtype in (("b", b, DType.I32), ("m", m, DType.I32), ("s", s, DType.I8)):
        if v.shape != (channels,) or v.type.dtype is not dtype:
            raise TypeCheckError(f"{what} must be {dtype.value}[{channels}], it is {v.type}")


def scalars(m: int, s: int) -> tuple[Expr, Expr]:
    """A multiplier and shift as constants for `requantized`."""
    return Int(m, DType.I32), Int(s, DType.I8)


def requantized(acc: Expr, m: Expr, s: Expr, bounds: Bounds, result: TensorType) -> Expr:
    """Equation (6) as an expression: `clamp(zp + MulShift(acc, m, s), lo, hi)` in the dtype."""
    return clamp(MulShift(acc, m, s) + result.zero, *bounds).cast(result.dtype)


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
def accumulator_bias(bias: Value | None, scales: Array, what: str) -> Array:
    """The bias in accumulator units, i64[channels]: `round_half_even(bias / (s_x * s_w))`.

    `bias` is a quantized i32 or float constant, or absent. Raises `IRCError` where it does not
    fit an i32.
    """
    if bias is None:
        return np.zeros(len(scales), np.int64)
    const = constant(bias, "bias")
    real = const.array.astype(np.float64)
    if const.quant is not None:
        real = fixedpoint.dequantize(const.array, const.type, DType.F64)
    units = np.rint(real.reshape(-1) / scales)
    if not np.all(np.abs(units) < 2.0**31):
        raise IRCError(
            f"{what}: the bias does not fit the 32-bit accumulator's scale; the weights of a"
            " channel are far smaller than its bias"
        )
    return units.astype(np.int64)


def epilogue_constants(
    factors: Array, bias: Array, name: str
) -> tuple[Const, Const, Const]:
    """The constants b, m, s of a multiply-accumulate op; raises `IRCError` if b is no i32."""
    if np.any(np.abs(bias) >= 2**31):
        raise IRCError(f"%{name}: the folded bias does not fit 32 bits")
    m, s = fixedpoint.multipliers(factors)
    b = bias.astype(np.int32)
    return Const(b, name=f"{name}.b"), Const(m, name=f"{name}.m"), Const(s, name=f"{name}.s")


def full_range(t: TensorType) -> Bounds:
    """The clamp that does nothing."""
    return t.dtype.min, t.dtype.max

