"""Normalizations: by statistics that are constants, or by those of each row (equation (11))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie, tie_axes
from irc.errors import TypeCheckError
from irc.ops.core import Const
from irc.ops.qnorm import QNorm
from irc.ops.quantization import need_quantized, real_constant
from irc.ops.shape import with_shape
from irc.types import Array, Shape, TensorType
from irc.value import Value, op

Axes = tuple[int, ...]


@op("batch_norm")
class BatchNorm(Value):
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`, each [C] along `axis` of x. Float only,
    since canonical graphs have mul and add."""

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


@dataclass(frozen=True, eq=False)
class RowNorm(Value):
    """Base of the norms by a row's own statistics: `x / deviation * scale + bias`.

    A subclass says how x is seen (`view`), which axes of that make a row, and whether the mean is
    taken off first. Scale and bias have the shape of the view's last axes, or are absent.
    """

    x: Value
    centred: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Value | None, Value | None]:
        """Scale and bias, as far as the op has them."""
        return getattr(self, "scale", None), getattr(self, "bias", None)

    @property
    def view(self) -> Shape:
        """The shape of x as its rows are taken."""
        return self.x.shape

    @property
    def axes(self) -> Axes:
        """The axes of the view that make a row."""
        raise NotImplementedError

    @property
    def takes_wide(self) -> bool:
        """Whether its integer twin takes rows of 16-bit elements, equation (11)."""
        return fixedpoint.Norm.takes_wide(prod(self.view[a] for a in self.axes), self.centred)

    @property
    def affine(self) -> Shape:
        """The shape of scale and bias."""
        raise NotImplementedError

    @property
    def added(self) -> float:
        """Epsilon, which is added to the mean of squares."""
        return float(self.attributes["epsilon"])

    def infer(self) -> TensorType:
        """The type of x; rows that are not empty, parameters that fit."""
        t = self.x.type
        if not t.dtype.is_float:
            raise TypeCheckError(f"x must be float, it is {t}")
        if not 0 <= self.added < float("inf"):
            raise TypeCheckError(f"epsilon = {self.added} must not be negative")
        if not self.axes or prod(self.view[a] for a in self.axes) == 0:
            raise TypeCheckError(f"{t} has no rows to be normalized")
        size = prod(self.affine)
        for what, v in zip(("scale", "bias"), self.parameters, strict=True):
            if v is not None and (v.type.size != size or v.type.dtype is not t.dtype):
                raise TypeCheckError(f"{what} must be {t.dtype.value}{list(self.affine)},"
                                     f" it is {v.type}")  # fmt: skip
        return t

    def normalized(self, x: Array, scale: Array | None, bias: Array | None) -> Array:
        """The norm in float64, rounded to the operand's dtype."""
        rows = x.astype(np.float64).reshape(self.view)
        with np.errstate(all="ignore"):
            if self.centred:
                rows = rows - rows.mean(self.axes, keepdims=True)
            square = np.mean(rows * rows, self.axes, keepdims=True)
            y = rows / np.sqrt(square + self.added)
        # A row without deviation, and no epsilon: still without.
        y = np.where((rows == 0) & np.isfinite(square), 0.0, y)
        if scale is not None:
            y = y * scale.astype(np.float64).reshape(self.affine)
        if bias is not None:
            y = y + bias.astype(np.float64).reshape(self.affine)
        return np.asarray(y.reshape(x.shape), x.dtype)

    def ties(self) -> Iterable[Tie]:
        """The axes outside of a row, with those of scale and bias where they are one for one."""
        if self.view != self.x.shape:
            return tie_axes(self.x, self, (0,))
        last = len(self.shape) - 1
        outside = tie_axes(self.x, self, set(range(last + 1)) - set(self.axes))
        vectors = [v for v in self.parameters if v is not None and v.shape == self.shape[last:]]
        beside = [] if last in self.axes else vectors
        return (*outside, *(tie(v, 0, self, last) for v in beside))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qnorm`, its scale and bias as constants in units of the result."""
        x = operands[0]
        need_quantized("x", x.type)
        count = prod(self.view[a] for a in self.axes)
        norm = fixedpoint.Norm.of(count, self.centred, self.added, x.type)
        given = iter(operands[1:])
        scale, bias = (None if v is None else next(given) for v in self.parameters)
        factor, offset = np.broadcast_arrays(self._real(scale, 1.0), self._real(bias, 0.0))
        unit = norm.unit / result.scale
        m, b, s = fixedpoint.affine_multipliers(factor * unit, offset / result.scale)
        rows = with_shape(x, self.view, x.name)
        made = QNorm(
            rows, Const(m, name=f"{self.name}.m"), Const(b, name=f"{self.name}.b"), self.axes,
            norm.centred, norm.lift, norm.epsilon, norm.shift, s,
            (result.dtype.min, result.dtype.max), result.dtype, fixedpoint.quant_of(result),
            name=self.name,
        )  # fmt: skip
        return with_shape(made, self.shape, self.name)

    def _real(self, v: Value | None, absent: float) -> Array:
        if v is None:
            return np.asarray(absent)
        return real_constant(v, "a norm's parameter").reshape(self.affine)


@dataclass(frozen=True, eq=False)
class _LastAxes(RowNorm):
    """Base of the norms over the last axes, `axis` being the first of them."""

    @property
    def axes(self) -> Axes:
        """From `axis` to the last."""
        return tuple(range(self.attributes["axis"], self.x.type.rank))

    @property
    def affine(self) -> Shape:
        """The shape of a row."""
        return self.x.shape[self.attributes["axis"] :]

    def infer(self) -> TensorType:
        """As all norms; `axis` counts from the front."""
        if not 0 <= (axis := self.attributes["axis"]) < self.x.type.rank:
            raise TypeCheckError(f"axis {axis} is not an axis of {self.x.type}")
        return super().infer()


@op("layer_norm")
class LayerNorm(_LastAxes):
    """`(x - mean) / sqrt(var + epsilon) * scale + bias` over the axes from `axis` on, which is the
    shape of scale and bias."""

    scale: Value | None
    bias: Value | None
    axis: int
    epsilon: float

    def evaluate(self, x: Array, scale: Array | None, bias: Array | None) -> Array:
        """In float64."""
        return self.normalized(x, scale, bias)


@op("rms_norm")
class RMSNorm(_LastAxes):
    """`x / sqrt(mean(x^2) + epsilon) * scale` over the axes from `axis` on."""

    scale: Value | None
    axis: int
    epsilon: float
    centred: ClassVar[bool] = False

    def evaluate(self, x: Array, scale: Array | None) -> Array:
        """In float64."""
        return self.normalized(x, scale, None)


@op("instance_norm")
class InstanceNorm(RowNorm):
    """Each channel of each image by itself. x [N, ..., C], scale and bias [C]."""

    scale: Value | None
    bias: Value | None
    epsilon: float

    @property
    def axes(self) -> Axes:
        """All but the first and the last."""
        return tuple(range(1, self.x.type.rank - 1))

    @property
    def affine(self) -> Shape:
        """The channels."""
        return self.x.shape[-1:]

    def evaluate(self, x: Array, scale: Array | None, bias: Array | None) -> Array:
        """In float64."""
        return self.normalized(x, scale, bias)


@op("group_norm")
class GroupNorm(RowNorm):
    """Each group of neighbouring channels of each image. x [N, ..., C], scale and bias [C]."""

    scale: Value | None
    bias: Value | None
    groups: int
    epsilon: float

    @property
    def view(self) -> Shape:
        """[N, ..., groups, C / groups]."""
        *outer, channels = self.x.shape
        return (*outer, self.groups, channels // self.groups)

    @property
    def axes(self) -> Axes:
        """All of the view but the first and the groups."""
        rank = self.x.type.rank
        return (*range(1, rank - 1), rank)

    @property
    def affine(self) -> Shape:
        """The channels, by group."""
        return self.view[-2:]

    def infer(self) -> TensorType:
        """As all norms; the groups share the channels evenly."""
        shape = self.x.shape
        if len(shape) < 2 or self.groups < 1 or shape[-1] % self.groups:
            raise TypeCheckError(f"{self.groups} groups do not share the channels of {self.x.type}")
        return super().infer()

    def evaluate(self, x: Array, scale: Array | None, bias: Array | None) -> Array:
        """In float64."""
        return self.normalized(x, scale, bias)
