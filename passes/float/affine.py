"""Nodes that scale and move each channel: `x * scale + offset`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.normalization import BatchNorm
from irc.ops.unary import Neg
from irc.passes.float.constants import channels
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class Affine:
    """A node that is `x * scale + offset`, per index of the last axis (float64)."""

    x: Value
    scale: Array
    offset: Array


def affine(v: Value) -> Affine | None:
    """The node read as an affine map along the last axis; None where it is none."""
    match v:
        case BatchNorm(x=x, axis=axis) if axis == x.type.rank - 1:
            return _normalizing(v)
        case Add(a=x, b=c) | Sub(a=x, b=c) if (found := channels(c, x)) is not None:
            sign = -1.0 if isinstance(v, Sub) else 1.0
            return Affine(x, np.ones_like(found), sign * found)
        case Mul(a=x, b=c) if (found := channels(c, x)) is not None:
            return Affine(x, found, np.zeros_like(found))
        case Sub(a=c, b=x) if (found := channels(c, x)) is not None:
            return Affine(x, -np.ones_like(found), found)
        case Neg(x=x) if x.type.rank and x.type.dtype.is_float:
            return Affine(x, -np.ones(x.shape[-1]), np.zeros(x.shape[-1]))
    return None


def _normalizing(v: BatchNorm) -> Affine | None:
    found = factors(v)
    return None if found is None else Affine(v.x, *found)


def factors(v: BatchNorm) -> tuple[Array, Array] | None:
    """Scale and offset of a batch norm: `scale / sqrt(var + epsilon)`, `bias - mean * that`."""
    parts = (v.scale, v.bias, v.mean, v.var)
    if not all(isinstance(p, Const) for p in parts):
        return None
    scale, bias, mean, var = (p.evaluate().astype(np.float64) for p in parts)
    factor = scale / np.sqrt(var + v.epsilon)
    return factor, bias - mean * factor
