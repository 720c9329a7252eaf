"""What loop nests mean, by NumPy over whole index grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irc.fixedpoint import mul_shift
from irc.loops import (
    ARITHMETIC,
    WRAPPING,
    Binary,
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    Loops,
    MulShift,
    Reduce,
    Select,
    Source,
    Var,
)
from irc.types import Array
from irc.value import Value

_UFUNCS: dict[str, Callable[[Any, Any], Any]] = ARITHMETIC | {"min": np.minimum, "max": np.maximum}
_BINARY = _UFUNCS | {kind: _UFUNCS[plain] for kind, plain in WRAPPING.items()}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less, "le": np.less_equal, "eq": np.equal,
}  # fmt: skip
_REDUCE: dict[str, Callable[..., Any]] = {"add": np.sum, "max": np.max, "min": np.min}


def interpret(loops: Loops, operands: Mapping[Value, Array]) -> Array:
    """What the nests compute, by NumPy over whole index grids: slow, small and obvious.

    It holds `loops()` to `evaluate()` in tests; memory grows with output x reduction size.
    """
    arrays: dict[Source, Array] = {v: a for v, a in operands.items()}
    for nest in loops.nests:
        env = _grid(nest.axes, 0)
        shape = tuple(v.extent for v in nest.axes)
        result = np.broadcast_to(_value(nest.value, env, len(shape), arrays), shape)
        if nest.target is None:
            return np.ascontiguousarray(result)
        arrays[nest.target] = result.astype(nest.target.element.numpy)
    raise AssertionError("Loops checks that the last nest fills the result")


def _grid(variables: Sequence[Var], before: int) -> dict[Expr, Array]:
    rank = before + len(variables)
    return {
        v: np.arange(v.extent).reshape([-1 if i == before + n else 1 for i in range(rank)])
        for n, v in enumerate(variables)
    }


def _value(e: Expr, known: dict[Expr, Array], rank: int, arrays: Mapping[Source, Array]) -> Array:
    """The node's array, computed once; `known` begins with the loop variables."""
    if e not in known:
        known[e] = _computed(e, known, rank, arrays)
    return known[e]


def _computed(
    e: Expr, known: dict[Expr, Array], rank: int, arrays: Mapping[Source, Array]
) -> Array:
    def go(x: Expr) -> Array:
        return _value(x, known, rank, arrays)

    match e:
        case Int(value=value):
            result: Any = value
        case Load():
            return _load(e, [go(i) for i in e.index], arrays[e.source])
        case Binary(kind=kind, a=a, b=b):
            result = _BINARY[kind](go(a), go(b))
        case Compare(kind=kind, a=a, b=b):
            result = _COMPARE[kind](go(a), go(b))
        case Select(condition=c, a=a, b=b):
            result = np.where(go(c), go(a), go(b))
        case Cast(a=a):
            result = go(a)
        case MulShift(a=a, m=m, s=s, half=half):
            result = mul_shift(go(a), go(m), go(s), half=half)
        case Reduce():
            variables = {v: a for v, a in known.items() if isinstance(v, Var)}
            return _reduce(e, variables, rank, arrays)
        case _:
            raise TypeError(f"no meaning for {type(e).__name__}")
    return np.asarray(result).astype(e.dtype.numpy)


def _load(e: Load, index: list[Array], array: Array) -> Array:
    inside: Array = np.asarray(True)
    for i, extent in zip(index, e.source.shape, strict=True):
        inside = inside & (i >= 0) & (i < extent)
    if e.fill is None:
        if not np.all(inside):
            raise IndexError(f"a load leaves shape {e.source.shape}")
        return np.asarray(array[tuple(index)])
    safe = tuple(np.clip(i, 0, d - 1) for i, d in zip(index, e.source.shape, strict=True))
    fill = e.fill.value if isinstance(e.fill, Int) else 0
    return np.where(inside, array[safe], np.asarray(fill, array.dtype))


def _reduce(
    e: Reduce, env: Mapping[Var, Array], rank: int, arrays: Mapping[Source, Array]
) -> Array:
    inner: dict[Expr, Array] = {v: a.reshape(a.shape + (1,) * len(e.axes)) for v, a in env.items()}
    inner |= _grid(e.axes, rank)
    full = rank + len(e.axes)
    body = np.asarray(_value(e.body, inner, full, arrays))
    body = body.reshape((1,) * (full - body.ndim) + body.shape)
    extents = tuple(v.extent for v in e.axes)
    body = np.broadcast_to(body, body.shape[:rank] + extents)
    reduced = tuple(range(rank, full))
    return np.asarray(_REDUCE[e.kind](body, axis=reduced)).astype(e.dtype.numpy)
