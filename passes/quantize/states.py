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
from irc.ops.core import Const, Input
from irc.ops.moving import origin
from irc.ops.recurrent import CARRIED, PRECISE, LstmHidden, Recurrent, TanhState
from irc.passes.calibration.calibrate import Statistics
from irc.types import DType, Quant, TensorType
from irc.value import Value, operand_fields

BITS = 16
HEADROOM = 1.5
"""States of a longer run may grow beyond what calibration saw."""
CELL_RANGE = 32.0
"""A cell state beyond this says no more: its tanh is 1. Some cells only ever add up, to thousands
over a long run; a range for these would leave all others too few steps."""
SUMS = frozenset({"add", "sub"})

KINDS: Mapping[str, str] = {
    "lstm_cell": "c", "lstm_hidden": "h", "gru_state": "h", "tanh_state": "h",
}  # fmt: skip
"""What cells compute: hidden states and cell states."""
ROLES: Mapping[str, Mapping[str, str]] = {
    "recurrent": {"x": "h"}, "lstm_cell": {"c": "c"}, "gru_state": {"h": "h"},
}  # fmt: skip
"""As what cells read them."""
PACKED = TensorType(DType.I32, (), Quant(2.0**-15))
"""Hidden and cell states in one tensor: as fine as the former, as wide as the latter."""
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
    def read(self) -> frozenset[Value]:
        """What cells read in 16 bits."""
        found = (o for v in self.steps for o in precise_operands(v))
        return frozenset(o for o in found if not isinstance(o, Const))

    @cached_property
    def packed(self) -> frozenset[Value]:
        """Inputs and moved values that hold hidden states and cell states side by side: these
        differ in range by far, and share 32 bits."""
        kinds: dict[Value, frozenset[str]] = {}
        for v in self.graph.order:
            if v.op in KINDS:
                kinds[v] = frozenset(KINDS[v.op])
            elif isinstance(v, Input):
                kinds[v] = self._read_as(v)
            elif v.moves:
                below = [kinds.get(o, frozenset()) for o in v.operands]
                whole = frozenset().union(*below)
                kinds[v] = whole & self._read_as(v) if isinstance(origin(v), Input) else whole
        both = frozenset("hc")
        return frozenset(v for v, k in kinds.items() if k == both and v.op not in KINDS)

    def _read_as(self, v: Value) -> frozenset[str]:
        found: set[str] = set()
        stack = list(self.graph.users[v])
        below = {v}
        while stack:
            u = stack.pop()
            if u.moves:
                below.add(u)
                stack += self.graph.users[u]
            elif u.op in PRECISE:
                found |= {k for f, k in ROLES.get(u.op, {}).items() if getattr(u, f) in below}
        return frozenset(found)

    @cached_property
    def sharing(self) -> Mapping[Value, tuple[Value, ...]]:
        """The steps that multiply by each weight, by its value."""
        found: dict[Value, list[Value]] = {}
        for v in self.steps:
            if isinstance(v, Recurrent):
                found.setdefault(v.w, []).append(v)
        return {w: tuple(steps) for w, steps in found.items()}

    def sharers(self, layer: Value) -> tuple[Value, ...]:
        """The steps that share a layer's weights; of any other layer itself."""
        return self.sharing[layer.w] if isinstance(layer, Recurrent) else (layer,)

    def shared(self, layer: Value) -> tuple[Value, ...]:
        """What a layer's weights multiply, at every step that shares them."""
        return tuple(v.operands[0] for v in self.sharers(layer))

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


def state_quant(
    group: Iterable[Value], parts: Iterable[Statistics], fills: Iterable[float]
) -> Quant:
    """A power of two around zero: 2^-15 for what stays within 1, else with headroom, but no more
    than cell states need."""
    ends = [max(-s.low, s.high) for s in parts] + [abs(f) for f in fills]
    cells = any(v.op == "lstm_cell" for v in group)
    limit = CELL_RANGE / HEADROOM if cells else math.inf
    return power_of_two(min(max(ends, default=0.0), limit))


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
