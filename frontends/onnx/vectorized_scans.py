"""Scans whose rounds know nothing of each other: all of them at once, along a new first axis.

scikit-learn's converter writes distances to samples so, a round for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from irc.frontends.builder import Builder
from irc.ops.elementwise import Binary
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from irc.ops.unary import Unary
from irc.value import Value

REDUCTIONS = (ReduceMax, ReduceMean, ReduceMin, ReduceSum)


def mapped(builder: Builder, result: Value, slots: Mapping[Value, Value]) -> Value | None:
    """The result of a round for every round, rounds first; `slots` are what stands for slices in
    it, by the values that they are slices of, along their first axis. None where there are ops for
    which nothing is known here, or nothing depends on a slice."""
    work = _Work(builder, slots)
    order = _computed(result, slots)
    for v in order:
        made = work.batched(v)
        if made is None:
            return None
        work.new[v] = made
    return work.new.get(result)


def _computed(result: Value, slots: Mapping[Value, Value]) -> list[Value]:
    """What is computed of slices, operands first."""
    depends: dict[Value, bool] = dict.fromkeys(slots, True)
    order: list[Value] = []
    stack = [result]
    while stack:
        v = stack[-1]
        missing = [o for o in v.operands if o not in depends] if v not in depends else []
        if missing:
            stack += missing
            continue
        stack.pop()
        if v not in depends:
            depends[v] = any(depends[o] for o in v.operands)
            if depends[v]:
                order.append(v)
    return order


@dataclass
class _Work:
    builder: Builder
    slots: Mapping[Value, Value]
    new: dict[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.new.update(self.slots)

    def batched(self, v: Value) -> Value | None:
        """A node for all rounds."""
        if isinstance(v, Unary):
            return self.builder.add(v.replace(x=self.new[v.x]))
        if isinstance(v, Binary):
            rank = v.type.rank
            return self.builder.add(
                v.replace(a=self._aligned(v.a, rank), b=self._aligned(v.b, rank))
            )
        if isinstance(v, REDUCTIONS):
            return self.builder.add(
                v.replace(x=self.new[v.x], axes=tuple(a + 1 for a in v.axes))
            )
        return None

    def _aligned(self, v: Value, rank: int) -> Value:
        """An operand with the rounds in front of as many axes as the result has."""
        if v not in self.new:
            return v
        made = self.new[v]
        missing = (1,) * (rank - v.type.rank)
        return self.builder.reshape(made, (made.shape[0], *missing, *v.shape))
