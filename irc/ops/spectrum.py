"""Magnitudes of spectra."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, MulShift, Select, clamp, elementwise, load, maximum, minimum
from irc.ops.bytewise import need_state, state_type
from irc.ops.moving import in_type
from irc.ops.quantization import full_range, magnitude, scalars
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op

ROOT_STEPS = 15
"""Bits of a root of 31 bits, besides the highest."""
LARGEST_ROOT = 46340
"""Its square is the last below 2^31."""


@op("magnitude")
class Magnitude(Value):
    """`sqrt(a^2 + b^2)`: of a spectrum, from its real and its imaginary part."""

    a: Value
    b: Value

    def infer(self) -> TensorType:
        """One float type, one shape."""
        if not self.a.type.dtype.is_float or self.a.type.dtype is not self.b.type.dtype:
            raise TypeCheckError(f"a {self.a.type} and b {self.b.type} must be one float type")
        if self.a.shape != self.b.shape:
            raise TypeCheckError(f"a {self.a.type} and b {self.b.type} must have one shape")
        return self.a.type

    def evaluate(self, a: Array, b: Array) -> Array:
        """In the operands' dtype."""
        return np.asarray(np.sqrt(a * a + b * b))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qmagnitude`."""
        return magnitude_of(operands, result, self.name)


@op("qmagnitude")
class QMagnitude(Value):
    """`clamp(zp + rescaled(floor(sqrt(a^2 + b^2))))` of i16 a and b, of one scale around zero; m, s
    as in equation (6). -2^15 counts as -2^15 + 1."""

    a: Value
    b: Value
    m: int
    s: int
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of both."""
        need_state("a", self.a)
        if self.b.type != self.a.type:
            raise TypeCheckError(f"a {self.a.type} and b {self.b.type} must be of one type")
        result = TensorType(self.dtype, self.a.shape, self.quant)
        _check_factor(self.m, self.s, result)
        return result

    def evaluate(self, a: Array, b: Array) -> Array:
        """An exact root."""
        left, right = (np.maximum(v.astype(np.int64), -32767) for v in (a, b))
        root = np.floor(np.sqrt(left * left + right * right)).astype(np.int64)
        bounds = full_range(self.type)
        return fixedpoint.requantize(root, self.m, self.s, self.type.zero, bounds, self.dtype)

    def loops(self) -> Loops:
        """The root bit by bit, in 32 bits: `2 * 32767^2` is below 2^31."""

        def value(*i: Expr) -> Expr:
            a, b = (maximum(load(v, *i).cast(DType.I32), -32767) for v in (self.a, self.b))
            square = a * a + b * b
            root: Expr = Int(0, DType.I32)
            for bit in range(ROOT_STEPS, -1, -1):
                more = root + (1 << bit)
                held = minimum(more, LARGEST_ROOT)
                root = Select((held * held <= square) & (more <= LARGEST_ROOT), more, root)
            y = MulShift(root, *scalars(self.m, self.s)) + self.type.zero
            return clamp(y, *full_range(self.type)).cast(self.dtype)

        return elementwise(self.shape, value)


def magnitude_of(operands: tuple[Value, ...], result: TensorType, name: str) -> Value:
    """`sqrt(a^2 + b^2)` in the type `result`."""
    a, b = operands
    kept = max((state_type(v.type) for v in (a, b)), key=lambda t: t.scale)
    a, b = (in_type(v, kept.with_shape(v.shape)) for v in (a, b))
    m, s = fixedpoint.multiplier(kept.scale / result.scale)
    return QMagnitude(a, b, m, s, result.dtype, fixedpoint.quant_of(result), name=name)


def _check_factor(m: int, s: int, result: TensorType) -> None:
    """A rescaled root must stay within 32 bits."""
    if not 1 <= s <= fixedpoint.MAX_SHIFT or not 0 <= m < 2**31:
        raise TypeCheckError(f"m = {m}, s = {s} is no multiplier")
    if (LARGEST_ROOT * m >> s) + 1 + magnitude(result) >= 2**31:
        raise TypeCheckError(f"m = {m}, s = {s}: magnitudes would leave 32 bits")
