"""Functions of one real, and what all of them share. Their integer twins are tables (8), or clamps
within (6)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.blocks import by_blocks
from irc.channels import Tie, tie_axes
from irc.errors import TypeCheckError
from irc.loops import Expr, Int, Loops, Select, binary, clamp, elementwise, load
from irc.ops.erf import erf
from irc.ops.plain_integers import need_whole, wrapped
from irc.ops.quantization import Bounds, Requantize, tabulated
from irc.types import Array, DType, TensorType
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class Unary(Value):
    """Base of the functions of one real: a subclass gives `fn`, and has all the rest."""

    x: Value
    integers: ClassVar[bool] = False
    """Whether plain integers (of index arithmetic) are taken too."""

    def fn(self, real: Array) -> Array:
        """The function, float64 to float64, of any shape."""
        raise NotImplementedError

    def infer(self) -> TensorType:
        """The operand's own type."""
        t = self.x.type
        if not t.dtype.is_float and not (self.integers and t.dtype.is_integer and not t.quant):
            raise TypeCheckError(f"x must be float, it is {t}")
        return t

    def evaluate(self, x: Array) -> Array:
        """`fn` in float64, rounded to the operand's dtype."""
        with np.errstate(all="ignore"):
            return by_blocks(lambda part: self.fn(part.astype(np.float64)), x, x.dtype)

    def ties(self) -> Iterable[Tie]:
        """Every axis."""
        return tie_axes(self.x, self, range(len(self.shape)))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """A table of all 256 results, equation (8)."""
        made = tabulated(operands[0], self.fn, result, f"{self.op} %{self.name}")
        return made.replace(name=self.name)


@dataclass(frozen=True, eq=False)
class _Whole(Unary):
    """Base of the functions that plain integers have code for, too."""

    integers: ClassVar[bool] = True

    def loops(self) -> Loops:
        """One load, for plain integers."""
        if self.type.dtype.is_float:
            return super().loops()
        need_whole(self)

        def value(*i: Expr) -> Expr:
            return wrapped(self.whole(load(self.x, *i).cast(DType.I64)), self.type.dtype)

        return elementwise(self.shape, value)

    def whole(self, x: Expr) -> Expr:
        """The function of an i64."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Clamp(_Whole):
    """Base of the clamps: exact in every dtype, and free within equation (6)."""

    @property
    def range(self) -> tuple[float, float]:
        """The real bounds."""
        raise NotImplementedError

    def fn(self, real: Array) -> Array:
        """At least the lower bound, then at most the upper."""
        lo, hi = self.range
        return np.minimum(np.maximum(real, lo), hi)

    def evaluate(self, x: Array) -> Array:
        """In the operand's own dtype, which is exact."""
        lo, hi = self.range
        if DType.of(x.dtype).is_float:
            return np.asarray(np.minimum(np.maximum(x, x.dtype.type(lo)), x.dtype.type(hi)))
        return np.clip(x, *self.bounds)

    @property
    def bounds(self) -> Bounds:
        """The bounds as plain integers, within the dtype."""
        lo, hi = (max(min(end, self.type.dtype.max), self.type.dtype.min) for end in self.range)
        return math.ceil(lo), math.floor(hi)

    def whole(self, x: Expr) -> Expr:
        """The clamp."""
        return clamp(x, *self.bounds)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`requantize` with the bounds as its clamp."""
        bounds = fixedpoint.clamp_bounds(result, *self.range)
        return Requantize.to(operands[0], result, name=self.name).replace(clamp=bounds)


@dataclass(frozen=True, eq=False)
class _Exact(_Whole):
    """Base of functions that are exact in every dtype, plain integers included."""

    def evaluate(self, x: Array) -> Array:
        """`fn` in the operand's own dtype."""
        return np.asarray(self.fn(x))


@op("exp")
class Exp(Unary):
    """`e^x`."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.exp(real)


@op("log")
class Log(Unary):
    """Natural logarithm; -inf at 0, NaN below."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.log(real)


@op("sqrt")
class Sqrt(Unary):
    """Square root; NaN below 0."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.sqrt(real)


@op("neg")
class Neg(_Exact):
    """`-x`."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.negative(real)

    def whole(self, x: Expr) -> Expr:
        """The difference from 0."""
        return binary("wrap_sub", Int(0, DType.I64), x)


@op("abs")
class Abs(_Exact):
    """`|x|`."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.abs(real)

    def whole(self, x: Expr) -> Expr:
        """The number, or what is left of 0 without it."""
        return Select(x < 0, binary("wrap_sub", Int(0, DType.I64), x), x)


@op("sign")
class Sign(_Exact):
    """-1, 0 or 1."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.sign(real)

    def whole(self, x: Expr) -> Expr:
        """Two comparisons."""
        return (x > 0).cast(DType.I64) - (x < 0).cast(DType.I64)


@op("erf")
class Erf(Unary):
    """The error function."""

    def fn(self, real: Array) -> Array:
        """By a series."""
        return erf(real)


@op("reciprocal")
class Reciprocal(Unary):
    """`1 / x`."""

    def fn(self, real: Array) -> Array:
        """The formula."""
        return 1 / real


@op("floor")
class Floor(Unary):
    """The next whole number below."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.floor(real)


@op("ceil")
class Ceil(Unary):
    """The next whole number above."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.ceil(real)


@op("round")
class Round(Unary):
    """The nearest whole number, halves to the even one."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.rint(real)


@op("sin")
class Sin(Unary):
    """Sine of radians."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.sin(real)


@op("cos")
class Cos(Unary):
    """Cosine of radians."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.cos(real)
