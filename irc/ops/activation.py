"""Functions of one element. Their integer twins are tables (8), or clamps within (6)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie_axes, tie_broadcast
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, MulShift, Select, clamp, elementwise, load, load_broadcast
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    Requantize,
    check_bounds,
    check_product,
    difference,
    full_range,
    magnitude,
    need_quantized,
    real_constant,
    scalars,
    tabulated,
)
from irc.types import Array, DType, Quant, TensorType, broadcast_shapes
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
            return np.asarray(self.fn(x.astype(np.float64))).astype(x.dtype)

    def ties(self) -> Iterable[Tie]:
        """Every axis."""
        return tie_axes(self.x, self, range(len(self.shape)))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """A table of all 256 results, equation (8)."""
        made = tabulated(operands[0], self.fn, result, f"{self.op} %{self.name}")
        return made.replace(name=self.name)


@dataclass(frozen=True, eq=False)
class _Clamp(Unary):
    """Base of the clamps: exact in every dtype, and free within equation (6)."""

    integers: ClassVar[bool] = True

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
        return np.asarray(self.fn(x)).astype(x.dtype)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`requantize` with the bounds as its clamp."""
        bounds = fixedpoint.clamp_bounds(result, *self.range)
        return Requantize.to(operands[0], result, name=self.name).replace(clamp=bounds)


@op("relu")
class Relu(_Clamp):
    """`max(x, 0)`."""

    @property
    def range(self) -> tuple[float, float]:
        """Not negative."""
        return 0.0, math.inf


@op("clip")
class Clip(_Clamp):
    """`min(max(x, lo), hi)`; a bound may be infinite."""

    lo: float
    hi: float

    @property
    def range(self) -> tuple[float, float]:
        """`lo` and `hi`; where they cross, all becomes `hi`, as ONNX says."""
        return min(self.lo, self.hi), self.hi


@op("leaky_relu")
class LeakyRelu(Unary):
    """`x` where positive, else `alpha * x`."""

    alpha: float

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.where(real >= 0, real, self.alpha * real)


@op("sigmoid")
class Sigmoid(Unary):
    """`1 / (1 + exp(-x))`."""

    def fn(self, real: Array) -> Array:
        """The formula; exp may overflow to inf, which gives 0."""
        return sigmoid(real)


@op("tanh")
class Tanh(Unary):
    """Hyperbolic tangent."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.tanh(real)


@op("hard_sigmoid")
class HardSigmoid(Unary):
    """`clip(alpha * x + beta, 0, 1)`."""

    alpha: float = 0.2
    beta: float = 0.5

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.clip(self.alpha * real + self.beta, 0.0, 1.0)


@op("hard_swish")
class HardSwish(Unary):
    """`x * clip(x / 6 + 1/2, 0, 1)`."""

    def fn(self, real: Array) -> Array:
        """The formula."""
        return real * np.clip(real / 6 + 0.5, 0.0, 1.0)


@op("silu")
class Silu(Unary):
    """`x * sigmoid(x)`."""

    def fn(self, real: Array) -> Array:
        """The formula."""
        return real * sigmoid(real)


@op("gelu")
class Gelu(Unary):
    """`x * P(X <= x)` for a standard normal X; `approximate = "tanh"` is its usual formula."""

    approximate: str = "none"

    def infer(self) -> TensorType:
        """The operand's own type; `approximate` is one of two words."""
        if self.approximate not in ("none", "tanh"):
            raise TypeCheckError(f'approximate must be "none" or "tanh", not {self.approximate!r}')
        return super().infer()

    def fn(self, real: Array) -> Array:
        """Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv:1606.08415."""
        if self.approximate == "tanh":
            inner = math.sqrt(2 / math.pi) * (real + 0.044715 * real**3)
            return np.asarray(real * 0.5 * (1 + np.tanh(inner)))
        return np.asarray(real * 0.5 * (1 + erf(real / math.sqrt(2))))


@op("elu")
class Elu(Unary):
    """`x` where positive, else `alpha * (exp(x) - 1)`."""

    alpha: float = 1.0

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.where(real > 0, real, self.alpha * np.expm1(real))


@op("selu")
class Selu(Unary):
    """`gamma * elu(x, alpha)` (Klambauer et al., arXiv:1706.02515)."""

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.asarray(self.gamma * np.where(real > 0, real, self.alpha * np.expm1(real)))


@op("softplus")
class Softplus(Unary):
    """`log(1 + exp(x))`."""

    def fn(self, real: Array) -> Array:
        """Without overflow."""
        return np.logaddexp(0.0, real)


@op("softsign")
class Softsign(Unary):
    """`x / (1 + |x|)`."""

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.asarray(real / (1 + np.abs(real)))


@op("mish")
class Mish(Unary):
    """`x * tanh(softplus(x))`."""

    def fn(self, real: Array) -> Array:
        """The formula."""
        return real * np.tanh(np.logaddexp(0.0, real))


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


@dataclass(frozen=True, eq=False)
class _Exact(Unary):
    """Base of functions that are exact in every dtype, plain integers included."""

    integers: ClassVar[bool] = True

    def evaluate(self, x: Array) -> Array:
        """`fn` in the operand's own dtype."""
        return np.asarray(self.fn(x))


@op("neg")
class Neg(_Exact):
    """`-x`."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.negative(real)


@op("abs")
class Abs(_Exact):
    """`|x|`."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.abs(real)


@op("sign")
class Sign(_Exact):
    """-1, 0 or 1."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.sign(real)


@op("erf")
class Erf(Unary):
    """The error function."""

    def fn(self, real: Array) -> Array:
        """The C library's."""
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


@op("not")
class Not(Value):
    """Logical negation of booleans."""

    x: Value

    def infer(self) -> TensorType:
        """Booleans of the operand's shape."""
        if self.x.type.dtype is not DType.BOOL:
            raise TypeCheckError(f"x must be b1, it is {self.x.type}")
        return self.x.type

    def evaluate(self, x: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.logical_not(x))


@op("prelu")
class PRelu(Value):
    """`x` where not negative, else `slope * x`; slope broadcasts to x."""

    x: Value
    slope: Value

    def infer(self) -> TensorType:
        """The type of x, which the slope must not widen."""
        t = self.x.type
        if not t.dtype.is_float or self.slope.type.dtype is not t.dtype:
            raise TypeCheckError(f"x {t} and slope {self.slope.type} must be one float type")
        need_broadcast("slope", self.slope.type, t)
        return t

    def evaluate(self, x: Array, slope: Array) -> Array:
        """The formula in the operands' dtype."""
        with np.errstate(all="ignore"):
            return np.where(x < 0, slope * x, x)

    def ties(self) -> Iterable[Tie]:
        """Every axis that broadcasting does not widen."""
        return (*tie_axes(self.x, self, range(len(self.shape))), *tie_broadcast(self.slope, self))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qprelu`; a single slope is a table."""
        x, slope = operands[0], real_constant(operands[1], "the slope of prelu")
        if slope.size == 1 and x.type.dtype.bits == 8:
            return LeakyRelu(self.x, float(slope.reshape(-1)[0]), name=self.name).quantized(
                (x,), result
            )
        factor = x.type.scale / result.scale
        m, s = fixedpoint.multiplier(factor)
        m_neg, s_neg = fixedpoint.multipliers(np.abs(slope.reshape(-1)) * factor)
        m_neg = np.asarray(np.where(slope.reshape(-1) < 0, -m_neg, m_neg), np.int32)
        return QPRelu(
            x, m, s,
            Const(m_neg.reshape(slope.shape), name=f"{self.name}.m"),
            Const(s_neg.reshape(slope.shape), name=f"{self.name}.s"),
            full_range(result), result.dtype, fixedpoint.quant_of(result), name=self.name,
        )  # fmt: skip


@op("qprelu")
class QPRelu(Value):
    """Equation (6) with one multiplier for `x >= zp`, and others below.

    m, s for the upper branch; m_neg i32, s_neg i8 broadcast to x (per channel, usually), with
    m_neg negative where the slope is.
    """

    x: Value
    m: int
    s: int
    m_neg: Value
    s_neg: Value
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    def infer(self) -> TensorType:
        """The shape of x; multipliers that broadcast to it."""
        need_quantized("x", self.x.type)
        for what, v, dtype in (("m_neg", self.m_neg, DType.I32), ("s_neg", self.s_neg, DType.I8)):
            need_broadcast(what, v.type, self.x.type)
            if v.type.dtype is not dtype:
                raise TypeCheckError(f"{what} must be {dtype.value}, it is {v.type}")
        check_bounds(self.clamp, self.dtype)
        check_product(magnitude(self.x.type), self.m, self.s)
        return TensorType(self.dtype, self.x.shape, self.quant)

    def evaluate(self, x: Array, m_neg: Array, s_neg: Array) -> Array:
        """Equation (6) by branch."""
        d = x.astype(np.int64) - self.x.type.zero
        m: Any = np.where(d < 0, m_neg, self.m)
        s: Any = np.where(d < 0, s_neg, self.s)
        return fixedpoint.requantize(d, m, s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """Both products, in 64 bits since a steep slope may leave 32, and a choice."""

        def value(*i: Expr) -> Expr:
            d = difference(load(self.x, *i), self.x.type, DType.I64)
            lower = MulShift(d, load_broadcast(self.m_neg, i), load_broadcast(self.s_neg, i))
            upper = MulShift(d, *scalars(self.m, self.s))
            chosen = Select(d < 0, lower, upper)
            return clamp(chosen + self.type.zero, *self.clamp).cast(self.dtype)

        return elementwise(self.shape, value)


def need_broadcast(what: str, t: TensorType, to: TensorType) -> None:
    """Raise `TypeCheckError` unless `t` broadcasts to the shape of `to` without widening it."""
    if broadcast_shapes(t.shape, to.shape) != to.shape:
        raise TypeCheckError(f"{what} {t} does not broadcast to {to}")


def sigmoid(real: Array) -> Array:
    """`1 / (1 + exp(-x))`, without overflow."""
    small = np.exp(-np.abs(real))
    return np.asarray(np.where(real >= 0, 1.0, small) / (1 + small))


def erf(real: Array) -> Array:
    """The error function of each element, float64."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(real), np.float64)
