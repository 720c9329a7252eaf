"""What rules ask of constants, and how they make them."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.ops.core import Const
from irc.ops.quantization import Dequantize
from irc.types import Array, DType, Quant, Shape
from irc.value import Value


def uniform(v: Value) -> float | None:
    """The number that every element of a plain constant is, or None."""
    if not isinstance(v, Const) or v.quant is not None or v.array.size == 0:
        return None
    first = v.array.reshape(-1)[0]
    return float(first) if np.all(v.array == first) else None


def is_uniform(v: Value, number: float, tolerance: float = 0.0) -> bool:
    """Whether every element of a plain constant is `number`, within a relative tolerance."""
    found = uniform(v)
    return found is not None and abs(found - number) <= tolerance * abs(number)


def channels(v: Value, like: Value) -> Array | None:
    """A plain float constant as one number per index of the last axis of `like`, in float64.

    None where `v` is something else, varies along another axis, or makes `like` broadcast.
    """
    if not isinstance(v, Const) or not v.type.dtype.is_float or not like.shape:
        return None
    rank, count = v.type.rank, like.shape[-1]
    if rank > like.type.rank or prod(v.shape[:-1]) != 1 or v.array.size not in (1, count):
        return None
    return np.broadcast_to(v.array.astype(np.float64).reshape(-1), (count,))


def real(array: Array | float, dtype: DType, name: str = "") -> Const:
    """A float constant, rounded once from float64."""
    return Const(np.array(array, dtype.numpy, order="C"), name=name)


def weights(v: Value) -> Const | None:
    """The stored array of constant weights: the constant, or the one under a `dequantize`."""
    stored = v.x if isinstance(v, Dequantize) else v
    return stored if isinstance(stored, Const) else None


def rewritten(v: Value, array: Array, quant: Quant | None) -> Value:
    """`weights(v)` with another array and quantization, under the `dequantize` if there is one."""
    stored = weights(v)
    assert stored is not None
    made = Const(np.array(array, order="C"), quant, name=stored.name)
    return v.replace(x=made) if isinstance(v, Dequantize) else made


def transposed(v: Value, perm: tuple[int, ...]) -> Value | None:
    """Constant weights with their axes (and the axis of their scales) permuted, else None."""
    stored = weights(v)
    if stored is None:
        return None
    quant = stored.quant
    if quant is not None and quant.axis is not None:
        quant = Quant(quant.scale, quant.zero_point, perm.index(quant.axis))
    return rewritten(v, stored.array.transpose(perm), quant)


def reshaped(v: Value, dims: Shape) -> Value | None:
    """Constant weights in another shape, else None; None too where the axis of their scales
    does not live on as an axis."""
    stored = weights(v)
    if stored is None:
        return None
    quant = stored.quant
    if quant is not None and quant.axis is not None:
        axis = axis_after(stored.shape, quant.axis, dims)
        if axis is None:
            return None
        quant = Quant(quant.scale, quant.zero_point, axis)
    return rewritten(v, stored.array.reshape(dims), quant)


def axis_after(shape: Shape, axis: int, dims: Shape) -> int | None:
    """Which axis of `dims`, a reshaped `shape`, has the indices of `axis`; None if none has."""
    for new, extent in enumerate(dims):
        if extent == shape[axis] and prod(dims[:new]) == prod(shape[:axis]):
            return new
    return None
