"""The compile-time proofs of a whole integer graph, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from irc.errors import CompileError
from irc.fixedpoint import MAX_SHIFT
from irc.graph import Graph
from irc.ops.core import Const, Kernel
from irc.ops.quantization import accumulator
from irc.pipeline import Pass
from irc.proofs import (
    ACCUMULATOR_LIMIT,
    accumulator_bound,
    broken_pairs,
    high_half,
    neighbours,
    rescaled_bound,
    uses_pairs,
)
from irc.types import Array
from irc.value import Value, operand_fields


@dataclass(frozen=True)
class Proof:
    """What is proved of one layer.

    accumulator: the largest magnitude that the 32-bit sum can reach; limit: what it must stay
    below; pairs: neighbour weights that share a 16-bit sum (0 for ops without weights and for
    depthwise convolutions); broken: those that could saturate `vpmaddubsw`, so that the layer
    takes an exact kernel; result: the largest magnitude that equation (6) can give before its
    clamp, below 2^31 too, or 0 where it is computed in 64 bits; shift: least and largest s of
    equation (6); high_half: whether every channel's requantization can use the high half of the
    product.
    """

    name: str
    op: str
    accumulator: int
    limit: int
    pairs: int
    broken: int
    shift: tuple[int, int]
    high_half: bool
    result: int = 0

    @property
    def pairs_exact(self) -> bool:
        """Whether no pair of weights can saturate."""
        return self.broken == 0

    def as_json(self) -> dict[str, Any]:
        """Plain data, for the manifest."""
        return {**asdict(self), "shift": list(self.shift), "pairs_exact": self.pairs_exact}


@dataclass(frozen=True)
class Prove(Pass):
    """The pass: changes nothing, and refuses a graph that could overflow."""

    name = "prove"
    requires: ClassVar[tuple[str, ...]] = ("integer",)
    ensures: ClassVar[tuple[str, ...]] = ("integer",)

    def run(self, graph: Graph) -> Graph:
        """See `prove`."""
        prove(graph)
        return graph


def prove(graph: Graph) -> tuple[Proof, ...]:
    """One proof per layer that accumulates, in the graph's order; kernels' bodies included.

    Raises `CompileError` naming the layer whose accumulator could leave 32 bits, or whose
    multiplier or shift is out of range.
    """
    known: Known = {}
    return tuple(_checked(p) for v, given in _layers(graph, {}) if (p := _proof(v, given, known)))


Known = dict[tuple[object, ...], Proof]
"""The proofs of layers, by all that they depend on: steps of a recurrent layer share theirs."""
Constants = Mapping[Value, Value]
"""What a body's inputs stand for."""


def _layers(graph: Graph, given: Constants) -> Iterator[tuple[Value, Constants]]:
    for v in graph.order:
        if isinstance(v, Kernel):
            args = [given.get(a, a) for a in v.args]
            yield from _layers(v.body, dict(zip(v.body.inputs, args, strict=True)))
        else:
            yield v, given


def _checked(proof: Proof) -> Proof:
    at = f"{proof.op} %{proof.name}"
    if proof.accumulator >= proof.limit:
        raise CompileError(
            f"{at}: the 32-bit accumulator could overflow, it may reach {proof.accumulator}:"
            " give its weights 8 bits if they have more, or split it along its input channels"
        )
    low, high = proof.shift
    if not 1 <= low <= high <= MAX_SHIFT:
        raise CompileError(f"{at}: shifts {low} to {high} are not within 1 to {MAX_SHIFT}")
    if proof.result >= ACCUMULATOR_LIMIT:
        raise CompileError(
            f"{at}: the rescaled sum could overflow 32 bits, it may reach {proof.result}: set"
            " wide, so that it is computed in 64"
        )
    return proof


def _proof(v: Value, given: Constants, known: Known) -> Proof | None:
    fields = operand_fields(type(v))
    if {"w", "b", "m", "s"} <= set(fields):
        return _weighted_once(v, given, known)
    bound = BOUNDS.get(v.op)
    if bound is None:
        return None
    node: Any = v
    shifts = _array(node.s, given) if isinstance(node.s, Value) else np.array([node.s])
    worst = bound(v)
    halves = bool(np.all(high_half(worst, shifts)))
    return Proof(v.name, v.op, worst, _limit(v.op, worst), 0, 0, _range(shifts), halves)


def _limit(op: str, bound: int) -> int:
    """32 bits, or 64 for the ops that widen their sum where they must."""
    bits = accumulator(bound).bits if op in WIDENING else 32
    return int(2 ** (bits - 1))


def _weighted_once(v: Value, given: Constants, known: Known) -> Proof:
    node: Any = v
    constants = (given.get(f, f) for f in (node.w, node.b, node.m, node.s))
    share = getattr(v, "share", None)
    lifts = getattr(v, "lift", 0), share and given.get(share, share)
    key = (v.op, *constants, *lifts, node.x.type.dtype, v.type.zero, node.wide, node.fraction)
    if key not in known:
        known[key] = _weighted(v, given)
    return replace(known[key], name=v.name)


def _weighted(v: Value, given: Constants) -> Proof:
    node: Any = v
    w, b, m, s = (_array(f, given) for f in (node.w, node.b, node.m, node.s))
    lifted = w.astype(np.int64) + _lifts(v, given).reshape(-1, *[1] * (w.ndim - 1))
    bounds = accumulator_bound(lifted, b, node.x.type.dtype, node.fraction)
    pairs = neighbours(w).shape[1] * len(w) if uses_pairs(w) else 0
    return Proof(
        v.name, v.op, int(bounds.max(initial=0)), ACCUMULATOR_LIMIT, pairs,
        int(broken_pairs(w).sum()), _range(s), bool(np.all(high_half(bounds, s))),
        0 if node.wide else rescaled_bound(bounds, m, s, v.type.zero),
    )  # fmt: skip


def _lifts(v: Value, given: Constants) -> Array:
    """What the weights of a layer's channels have in common besides: i64, one or one each."""
    share: Value | None = getattr(v, "share", None)
    return np.array([getattr(v, "lift", 0)]) if share is None else _array(share, given)


def _array(v: Value, given: Constants) -> Array:
    found = given.get(v, v)
    if not isinstance(found, Const):
        raise CompileError(f"{v.op} %{v.name}: weights and multipliers must be constants")
    return found.array


def _range(shifts: Array) -> tuple[int, int]:
    return (int(shifts.min()), int(shifts.max())) if shifts.size else (1, 1)


def _magnitude(v: Value) -> int:
    """The largest |q| and |q - z| of an operand."""
    t = v.type
    return max(abs(t.dtype.min), t.dtype.max, t.dtype.max - t.zero, t.zero - t.dtype.min)


def _product_sum(v: Value) -> int:
    node: Any = v
    return int(node.a.shape[-1]) * _magnitude(node.a) * _magnitude(node.b)


def _product(v: Value) -> int:
    node: Any = v
    return _magnitude(node.a) * _magnitude(node.b)


def _total(v: Value) -> int:
    node: Any = v
    return int(node.count) * _magnitude(node.x)


def _window_total(v: Value) -> int:
    node: Any = v
    return int(node.kernel[0] * node.kernel[1]) * _magnitude(node.x)


WIDENING = frozenset({"qmatmul", "qreduce_sum"})

BOUNDS: Mapping[str, Callable[[Value], int]] = {
    "qmatmul": _product_sum,
    "qmul": _product,
    "qreduce_sum": _total,
    "qavg_pool2d": _window_total,
}
"""Ops that accumulate or multiply activations, and how far their sums can reach."""
