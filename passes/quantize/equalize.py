"""Channels of like size: what a norm makes, before weights multiply it.

A trained norm scales some channels a hundred times as much as others, and one 8-bit scale for all
of them leaves the others nothing. What is taken off a channel of the norm is put on the weights
that read it, which have a scale per output channel and mind less:

    %y = layer_norm(%x, %scale, %bias)         %y.even = layer_norm(%x, %scale / t, %bias / t)
    %z = linear(%y, %w)                    ->  %z = linear(%y.even, %w * t)

Where others read the norm too, `t` is taken off by a multiplication of its own. It needs no data:
a normalized element is of size one, so that scale and bias tell how large a channel becomes
(after SmoothQuant, Xiao et al. 2022, and the migration of gamma in Outlier Suppression, Wei et al.
2022).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.graph import Graph
from irc.ops.conv import Conv2d
from irc.ops.core import Const
from irc.ops.elementwise import Mul
from irc.ops.linear import Linear
from irc.ops.normalization import RowNorm
from irc.ops.shape import Reshape, Transpose
from irc.types import Array
from irc.value import Value

SHARE = 0.75
"""How much of a channel's size goes into the weights, as an exponent."""
DEVIATIONS = 3.0
"""How far from its mean an element of a norm is expected."""
EVEN = 1.5
"""Factors that differ less than this change nothing of note."""


def equalized(graph: Graph, *, multiply: bool) -> Graph:
    """The same function of the graph's inputs, norms and the weights behind them in other units.
    `multiply`: also where others read a norm, by a multiplication of its own."""
    plans: dict[Value, _Plan] = {v: p for v in graph.order if (p := _plan(graph, v)) is not None}
    plans = {v: p for v, p in plans.items() if p.alone or multiply}
    factors = {r: p.factors for p in plans.values() for r in p.readers}
    new: dict[Value, Value] = {}
    even: dict[Value, Value] = {}
    for v in graph.order:
        made = v.map_operands(new.__getitem__)
        if v in factors:
            made = _weighted(made, even.get(v.operands[0]), factors[v])
        plan = plans.get(v)
        if plan is not None and plan.alone:
            made = _divided(made, plan.factors)
        elif plan is not None:
            even[v] = _quotient(made, plan.factors)
        new[v] = made
    return graph.with_outputs(tuple(new[v] for v in graph.outputs)) if plans else graph


@dataclass(frozen=True)
class _Plan:
    """The layers that multiply a norm with weights, what its channels are to be divided by, and
    whether nothing else reads it."""

    readers: tuple[Value, ...]
    factors: Array
    alone: bool


def _plan(graph: Graph, norm: Value) -> _Plan | None:
    if not isinstance(norm, RowNorm) or norm.axes != (norm.type.rank - 1,):
        return None
    if norm.view != norm.shape:
        return None
    readers, alone = _readers(graph, norm)
    if not alone:
        readers = tuple(u for u in graph.users[norm] if _multiplies(u))
    if not readers:
        return None
    factors = _factors(norm, readers)
    return _Plan(readers, factors, alone) if factors.max() > EVEN * factors.min() else None


def _readers(graph: Graph, v: Value) -> tuple[tuple[Value, ...], bool]:
    """The layers that a value reaches by moves that keep its channels, and whether these are all
    that read it."""
    found: list[Value] = []
    stack, seen = [v], {v}
    while stack:
        top = stack.pop()
        users = graph.users[top]
        if not users or graph.uses(top) > len(users):
            return (), False
        for u in users:
            if _multiplies(u):
                found.append(u)
            elif not _keeps_channels(u):
                return (), False
            elif u not in seen:
                seen.add(u)
                stack.append(u)
    return tuple(dict.fromkeys(found)), True


def _multiplies(v: Value) -> bool:
    """Whether a layer has constant weights for every channel of its operand."""
    match v:
        case Linear(w=Const()):
            return True
        case Conv2d(w=Const(), groups=1):
            return True
    return False


def _keeps_channels(v: Value) -> bool:
    match v:
        case Reshape(x=x):
            return bool(v.shape) and v.shape[-1] == x.shape[-1]
        case Transpose(perm=perm):
            return perm[-1] == len(perm) - 1
    return False


def _factors(norm: RowNorm, readers: Iterable[Value]) -> Array:
    """What each channel is divided by: as much as evens it out, on average nothing."""
    scale, bias = (None if p is None else np.abs(_real(p)) for p in norm.parameters)
    size = DEVIATIONS * (1.0 if scale is None else scale) + (0.0 if bias is None else bias)
    size, largest = _floored(np.asarray(size), 1e-3), _floored(_largest(readers), 1e-3)
    return _mean_one(size**SHARE / largest ** (1 - SHARE))


def _largest(layers: Iterable[Value]) -> Array:
    """The largest weight that multiplies each channel."""
    weights = [np.abs(w).reshape(-1, w.shape[-1]) for w in map(_weights, layers)]
    return np.asarray(np.concatenate(weights).max(0))


def _floored(sizes: Array, share: float = 1e-9) -> Array:
    """None of them nothing, or less than a share of the largest."""
    return np.asarray(np.maximum(sizes, share * np.max(sizes) + 1e-30))


def _mean_one(factors: Array) -> Array:
    return np.asarray(factors / np.exp(np.log(factors).mean()))


def _real(p: Value) -> Array:
    assert isinstance(p, Const)
    return p.array.astype(np.float64)


def _weights(layer: Value) -> Array:
    return _real(layer.w)  # type: ignore[attr-defined]


def _weighted(layer: Value, x: Value | None, factors: Array) -> Value:
    """A layer that reads divided channels, `x` or what its operand has become."""
    node: Any = layer
    w = Const((_weights(layer) * factors).astype(node.w.array.dtype), name=node.w.name)
    return layer.replace(w=w) if x is None else layer.replace(x=x, w=w)


def _divided(norm: Value, factors: Array) -> Value:
    """A norm with smaller parameters."""
    node: Any = norm
    scale = np.ones(norm.shape[-1]) if node.scale is None else _real(node.scale)
    changes: dict[str, Value] = {"scale": _parameter(norm, "scale", scale / factors)}
    if getattr(node, "bias", None) is not None:
        changes["bias"] = _parameter(norm, "bias", _real(node.bias) / factors)
    return norm.replace(**changes, name=f"{norm.name}.even")


def _quotient(norm: Value, factors: Array) -> Value:
    by = Const((1 / factors).astype(norm.type.dtype.numpy), name=f"{norm.name}.factors")
    return Mul(norm, by, name=f"{norm.name}.even")


def _parameter(norm: Value, which: str, array: Array) -> Const:
    return Const(array.astype(norm.type.dtype.numpy), name=f"{norm.name}.{which}")
