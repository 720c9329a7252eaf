"""Which values of a float graph are kept in 16 bits, and with which scales.

These are the states of recurrent networks and what their gates are computed from
(arithmetic.md (13)). Their scales are powers of two around zero, so that the same state gets the
same scale at every step, and an output state is an input state without any conversion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irc.graph import Graph
from irc.ops.recurrent import CARRIED, PRECISE, LstmHidden, Recurrent, TanhState
from irc.passes.calibrate import Statistics
from irc.types import DType, Quant, TensorType
from irc.value import Value, operand_fields

BITS = 16
HEADROOM = 1.5
"""States of a longer run may grow beyond what calibration saw."""
SUMS = frozenset({"add", "sub"})

Edge = tuple[Value, Value]


@dataclass(frozen=True)
class States:
    """The recurrent cells of a float graph."""

    graph: Graph

    @cached_property
    def steps(self) -> tuple[Value, ...]:
        """The ops of cells."""
        return tuple(v for v in self.graph.order if v.op in PRECISE)

    @cached_property
    def roots(self) -> frozenset[Value]:
        """What such an op computes or reads in 16 bits, and what that is the sum of; groups that
        hold one are of 16 bits."""
        found: set[Value] = set()
        stack = [*self.steps, *(o for v in self.steps for o in precise_operands(v))]
        while stack:
            v = stack.pop()
            if v not in found:
                found.add(v)
                stack += v.operands if v.op in SUMS else ()
        return frozenset(found)

    @cached_property
    def sharing(self) -> Mapping[Value, tuple[Value, ...]]:
        """The steps that multiply by each weight, by its value."""
        found: dict[Value, list[Value]] = {}
        for v in self.steps:
            if isinstance(v, Recurrent):
                found.setdefault(v.w, []).append(v)
        return {w: tuple(steps) for w, steps in found.items()}

    def shared(self, layer: Value) -> tuple[Value, ...]:
        """What a layer's weights multiply, at every step that shares them."""
        node: Any = layer
        steps = self.sharing.get(node.w, ()) if isinstance(layer, Recurrent) else ()
        return tuple(v.operands[0] for v in steps) or (node.x,)

    def edges(self) -> Iterator[Edge]:
        """Pairs of values that must share one scale: a state with its successor, and the same
        place of each step of a layer."""
        for v in self.steps:
            carried = CARRIED.get(v.op)
            before = getattr(v, carried) if carried else None
            if before is not None:
                yield before, v
        for first, *others in self.sharing.values():
            for v in others:
                yield v.operands[0], first.operands[0]
                yield v, first
        hidden: dict[Value, Value] = {}
        for v in self.steps:
            source = v.operands[0]
            if isinstance(v, LstmHidden | TanhState) and isinstance(source, Recurrent):
                yield v, hidden.setdefault(source.w, v)


def precise_operands(v: Value) -> tuple[Value, ...]:
    """The operands that an op reads in 16 bits."""
    fields = PRECISE.get(v.op, frozenset())
    found = (getattr(v, f) for f in operand_fields(type(v)) if f in fields)
    return tuple(o for o in found if o is not None)


def state_quant(parts: Iterable[Statistics], fills: Iterable[float]) -> Quant:
    """A power of two around zero: 2^-15 for what stays within 1, else with headroom."""
    ends = [max(-s.low, s.high) for s in parts] + [abs(f) for f in fills]
    return power_of_two(max(ends, default=0.0))


def power_of_two(largest: float) -> Quant:
    """The scale of states of at most this magnitude."""
    exponent = 0 if largest <= 1 else math.ceil(math.log2(HEADROOM * largest))
    return Quant(2.0 ** (exponent - (BITS - 1)))


def state_constant(array: Any) -> TensorType:
    """The type of a constant state."""
    largest = float(np.abs(array).max(initial=0))
    return TensorType(DType.I16, array.shape, power_of_two(largest))


def merged(parts: Sequence[Statistics]) -> Statistics:
    """What is known of several values as of one: range, and moments per channel."""
    if len(parts) == 1:
        return parts[0]
    made = Statistics(min(s.low for s in parts), max(s.high for s in parts))
    made.rows = sum(s.rows for s in parts)
    made.total = np.sum([s.total for s in parts], axis=0)
    made.squares = np.sum([s.squares for s in parts], axis=0)
    return made
