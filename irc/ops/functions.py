"""Rarer functions of one element; like all of them they become tables (8)."""

from __future__ import annotations

import numpy as np

from irc.errors import TypeCheckError
from irc.ops.unary import Unary
from irc.types import Array, TensorType
from irc.value import op


@op("tan")
class Tan(Unary):
    """Tangent of radians."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.tan(real)


@op("asin")
class Asin(Unary):
    """Inverse sine, in radians; NaN outside of [-1, 1]."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arcsin(real)


@op("acos")
class Acos(Unary):
    """Inverse cosine, in radians; NaN outside of [-1, 1]."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arccos(real)


@op("atan")
class Atan(Unary):
    """Inverse tangent, in radians."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arctan(real)


@op("sinh")
class Sinh(Unary):
    """Hyperbolic sine."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.sinh(real)


@op("cosh")
class Cosh(Unary):
    """Hyperbolic cosine."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.cosh(real)


@op("asinh")
class Asinh(Unary):
    """Inverse hyperbolic sine."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arcsinh(real)


@op("acosh")
class Acosh(Unary):
    """Inverse hyperbolic cosine; NaN below 1."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arccosh(real)


@op("atanh")
class Atanh(Unary):
    """Inverse hyperbolic tangent; NaN outside of [-1, 1]."""

    def fn(self, real: Array) -> Array:
        """NumPy's."""
        return np.arctanh(real)


@op("thresholded_relu")
class ThresholdedRelu(Unary):
    """`x` above alpha, else 0."""

    alpha: float = 1.0

    def fn(self, real: Array) -> Array:
        """The formula."""
        return np.where(real > self.alpha, real, 0.0)


@op("shrink")
class Shrink(Unary):
    """`x + bias` below -threshold, `x - bias` above threshold, 0 between."""

    threshold: float = 0.5
    bias: float = 0.0

    def infer(self) -> TensorType:
        """The operand's own type; a threshold that is not negative."""
        if self.threshold < 0:
            raise TypeCheckError(f"threshold = {self.threshold} must not be negative")
        return super().infer()

    def fn(self, real: Array) -> Array:
        """The formula."""
        inner = np.where(real > self.threshold, real - self.bias, 0.0)
        return np.where(real < -self.threshold, real + self.bias, inner)
