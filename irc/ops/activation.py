"""Activations of networks, as functions of one real (`irc/ops/unary.py`)."""

from __future__ import annotations

import math

import numpy as np

from irc.errors import TypeCheckError
from irc.ops.erf import erf
from irc.ops.unary import Clamp, Unary
from irc.types import Array, TensorType
from irc.value import op


@op("relu")
class Relu(Clamp):
    """`max(x, 0)`."""

    @property
    def range(self) -> tuple[float, float]:
        """Not negative."""
        return 0.0, math.inf


@op("clip")
class Clip(Clamp):
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


def sigmoid(real: Array) -> Array:
    """`1 / (1 + exp(-x))`, without overflow."""
    small = np.exp(-np.abs(real))
    return np.asarray(np.where(real < 0, small, 1.0) / (1 + small))
