"""Functions of two elements, with NumPy's broadcasting; their integer twins by equation (7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_broadcast
from irc.errors import IRCError, TypeCheckError
from irc.loops import (
    BinaryKind,
    Expr,
    Int,
    Loops,
    Select,
    binary,
    elementwise,
    load_broadcast,
)
from irc.ops.core import Const, is_number
from irc.ops.plain_integers import divisor, need_whole, wrapped
from irc.ops.qelementwise import QAdd, QDiv, QMul
from irc.ops.quantization import (
    Requantize,
    full_range,
    need_quantized,
    real_constant,
    tabulated,
)
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class Binary(Value):
    """Base of the functions of two reals, or of two plain integers (index arithmetic)."""

    a: Value
    b: Value

    def fn(self, a: Array, b: Array) -> Array:
        """The function in NumPy, in the dtype of its operands."""
        raise NotImplementedError

    def infer(self) -> TensorType:
        """One dtype, no quantization, shapes that broadcast."""
        a, b = self.a.type, self.b.type
        if a.dtype is not b.dtype or a.dtype is DType.BOOL:
            raise TypeCheckError(f"a {a} and b {b} must be numbers of one dtype")
        if a.quant is not None or b.quant is not None:
            raise TypeCheckError(f"a {a} and b {b} must not be quantized: use q{self.op}")
        return TensorType(a.dtype, broadcast_shapes(a.shape, b.shape))

    def evaluate(self, a: Array, b: Array) -> Array:
        """`fn` in the operands' dtype."""
        with np.errstate(all="ignore"):
            return np.asarray(self.fn(a, b))

    def ties(self) -> Iterable[Tie]:
        """Every axis that broadcasting does not widen."""
        return (*tie_broadcast(self.a, self), *tie_broadcast(self.b, self))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """A table where one operand is a single constant, else the op's own twin."""
        made = self._table(operands, result)
        if made is None:
            made = self.twin(_per_tensor(operands[0]), _per_tensor(operands[1]), result)
        return made.replace(name=self.name)

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """The integer form for two tensors; raises `IRCError` where there is none."""
        del a, b, result
        raise IRCError(f"{self.op} %{self.name} of two tensors has no integer form")

    def _table(self, operands: tuple[Value, ...], result: TensorType) -> Value | None:
        a, b = operands
        what = f"{self.op} %{self.name}"
        if is_number(b) and a.shape == self.shape and a.type.dtype.bits == 8:
            right = real_constant(b, what).reshape(())
            return tabulated(a, lambda real: self.fn(real, right), result, what)
        if is_number(a) and b.shape == self.shape and b.type.dtype.bits == 8:
            left = real_constant(a, what).reshape(())
            return tabulated(b, lambda real: self.fn(left, real), result, what)
        return None


def _per_tensor(v: Value) -> Value:
    """A constant without a scale, or with many, as i16 of one scale: fine enough for either."""
    if not isinstance(v, Const) or (v.quant is not None and v.quant.axis is None):
        return v
    real = real_constant(v, "the operand")
    scale = float(np.abs(real).max(initial=0)) / DType.I16.max
    quant = Quant(scale if scale > 0 else 1.0)
    array = fixedpoint.quantize(real, TensorType(DType.I16, v.shape, quant))
    return Const(array, quant, name=v.name)


@dataclass(frozen=True, eq=False)
class Arithmetic(Binary):
    """Base of what plain integers have code for, too."""

    def loops(self) -> Loops:
        """Two loads, for plain integers."""
        if self.type.dtype.is_float:
            return super().loops()
        need_whole(self)

        def value(*i: Expr) -> Expr:
            a, b = (load_broadcast(v, i).cast(DType.I64) for v in (self.a, self.b))
            return wrapped(self.whole(a, b), self.type.dtype)

        return elementwise(self.shape, value)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The function of two i64."""
        raise NotImplementedError


@op("add")
class Add(Arithmetic):
    """`a + b`."""

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.add(a, b)

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """`qadd`."""
        return QAdd.of(a, b, result)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The sum."""
        return binary("wrap_add", a, b)


@op("sub")
class Sub(Arithmetic):
    """`a - b`."""

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.subtract(a, b)

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """`qadd` with a negative multiplier for b."""
        return QAdd.of(a, b, result, sign=-1)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The difference."""
        return binary("wrap_sub", a, b)


@op("mul")
class Mul(Arithmetic):
    """`a * b`."""

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.multiply(a, b)

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """`qmul`."""
        m, s = fixedpoint.multiplier(a.type.scale * b.type.scale / result.scale)
        quant = fixedpoint.quant_of(result)
        return QMul(a, b, m, s, full_range(result), result.dtype, quant)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The product."""
        return binary("wrap_mul", a, b)


@op("div")
class Div(Arithmetic):
    """`a / b`; of integers, rounded toward zero (frontends refuse a divisor known to be 0)."""

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's for floats; truncating, as ONNX says, for integers."""
        if np.issubdtype(a.dtype, np.floating):
            return np.divide(a, b)
        b = _divisors(b)
        quotient = np.floor_divide(a, b)
        inexact = (quotient * b != a) & ((a < 0) != (b < 0))
        return np.asarray(quotient + inexact).astype(a.dtype)

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """`qdiv`."""
        factor = a.type.scale / (b.type.scale * result.scale)
        m, s = fixedpoint.quotient_multiplier(factor)
        quant = fixedpoint.quant_of(result)
        return QDiv(a, b, m, s, full_range(result), result.dtype, quant)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The quotient, rounded toward zero."""
        floor, rest = a // divisor(b), a % divisor(b)
        inexact = ((rest < 0) | (rest > 0)) & ((a < 0) ^ (b < 0))
        turned = binary("wrap_sub", Int(0, DType.I64), a)
        return Select(b.equals(-1), turned, floor + inexact.cast(DType.I64))


def _divisors(b: Array) -> Array:
    """Whole divisors; 0, for which there is no result, counts as 1."""
    return np.where(b == 0, np.ones_like(b), b)


@op("mod")
class Mod(Arithmetic):
    """The remainder of `a / b`, with the sign of b; with the sign of a if `fmod`."""

    fmod: bool = False

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        if not np.issubdtype(a.dtype, np.floating):
            b = _divisors(b)
        f: Callable[[Array, Array], Array] = np.fmod if self.fmod else np.mod
        return f(a, b)

    def whole(self, a: Expr, b: Expr) -> Expr:
        """The remainder."""
        rest = a % divisor(b)
        if not self.fmod:
            return rest
        turned = ((rest < 0) | (rest > 0)) & ((a < 0) ^ (b < 0))
        return rest - Select(turned, b, Int(0, DType.I64))


@op("pow")
class Pow(Binary):
    """`a ** b`."""

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's; a negative exponent of integers rounds the result toward zero."""
        if np.issubdtype(a.dtype, np.floating):
            return np.power(a, b)
        return np.power(a.astype(np.float64), b).astype(a.dtype)


@dataclass(frozen=True, eq=False)
class _Choice(Binary):
    """Base of minimum and maximum, which also take two tensors of one quantization."""

    kind: ClassVar[BinaryKind]

    def infer(self) -> TensorType:
        """One dtype and one quantization, which the result keeps."""
        a, b = self.a.type, self.b.type
        if a.quant is None and b.quant is None:
            return super().infer()
        need_quantized("a", a)
        if (a.dtype, a.quant) != (b.dtype, b.quant):
            raise TypeCheckError(f"a {a} and b {b} must be quantized alike")
        return TensorType(a.dtype, broadcast_shapes(a.shape, b.shape), a.quant)

    def loops(self) -> Loops:
        """One comparison per element."""
        if self.type.dtype.is_float:
            return super().loops()
        return elementwise(
            self.shape,
            lambda *i: binary(self.kind, load_broadcast(self.a, i), load_broadcast(self.b, i)),
        )

    def twin(self, a: Value, b: Value, result: TensorType) -> Value:
        """The op itself, over operands in the result's quantization."""
        return self.replace(a=_as_type(a, result), b=_as_type(b, result))


def _as_type(v: Value, result: TensorType) -> Value:
    """`v` in the dtype and quantization of `result`; a constant is converted here and now."""
    if (v.type.dtype, v.type.quant) == (result.dtype, result.quant):
        return v
    if isinstance(v, Const):
        real = real_constant(v, "the operand")
        array = fixedpoint.quantize(real, result.with_shape(v.shape))
        return Const(array, result.quant, name=v.name)
    return Requantize.to(v, result, name=v.name)


@op("minimum")
class Minimum(_Choice):
    """The smaller of two."""

    kind: ClassVar[BinaryKind] = "min"

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.minimum(a, b)


@op("maximum")
class Maximum(_Choice):
    """The larger of two."""

    kind: ClassVar[BinaryKind] = "max"

    def fn(self, a: Array, b: Array) -> Array:
        """NumPy's."""
        return np.maximum(a, b)
