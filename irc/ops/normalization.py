"""Normalizations with constant statistics; float only, since canonical graphs have mul and add."""

from __future__ import annotations

import numpy as np

from irc.errors import TypeCheckError
from irc.types import Array, TensorType
from irc.value import Value, op


@op("batch_norm")
class BatchNorm(Value):
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`, each [C] along `axis` of x."""

    x: Value
    scale: Value
    bias: Value
    mean: Value
    var: Value
    epsilon: float
    axis: int

    def infer(self) -> TensorType:
        """The type of x; four vectors that fit its axis."""
        t = self.x.type
        if not t.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {t}")
        if not 0 <= self.axis < t.rank:
            raise TypeCheckError(f"axis {self.axis} is not an axis of {t}")
        channels = t.shape[self.axis]
        for what in ("scale", "bias", "mean", "var"):
            found: TensorType = getattr(self, what).type
            if found.shape != (channels,) or found.dtype is not t.dtype:
                raise TypeCheckError(f"{what} must be {t.dtype.value}[{channels}], it is {found}")
        return t

    def evaluate(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
        """One factor and one offset per channel, found in float64."""
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(var.astype(np.float64) + self.epsilon)
            offset = bias - mean * factor
        shape = [1] * x.ndim
        shape[self.axis] = -1
        scaled = x * factor.astype(x.dtype).reshape(shape)
        return np.asarray(scaled + offset.astype(x.dtype).reshape(shape))
