"""What stands before trees goes into their thresholds.

A tree only compares columns. What is added to a column, or multiplied with it, moves the
thresholds; which single exceeds one is found by bisection, so that every row goes the way that
it went. What a missing element is filled in with goes one way at each node, so that nothing needs
to be filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.logic import Equal, Not
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Slice
from irc.ops.trees import TreeEnsemble, stored
from irc.passes.float.float32_bisection import parted
from irc.pipeline import Pass
from irc.rewrite import rebuild, rewrite
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class Forests(Pass):
    """Trees read what their columns come from, and know what is missing there, if it can be."""

    name: ClassVar[str] = "forests"

    def run(self, graph: Graph) -> Graph:
        """See the module. Runs before anything takes elements for numbers that need no filling."""
        if not any(isinstance(v, TreeEnsemble) for v in graph.order):
            return graph
        return _noted(rewrite(graph, RULES))


def _noted(graph: Graph) -> Graph:
    """The graph whose trees say where what is missing is filled in before it comes to them."""
    filled: set[Value] = set()
    for v in graph.order:
        asks = isinstance(v, Equal) and v.a is v.b
        if asks or not filled.isdisjoint(v.operands):
            filled.add(v)

    def noted(v: Value, made: Value) -> Value:
        tree = isinstance(made, TreeEnsemble) and v in filled and not made.filled
        return made.replace(filled=True) if tree else made

    return rebuild(graph, noted)


def trees_of_columns(v: Value) -> Value | None:
    """Trees over columns that were chosen, put together, moved, scaled or filled in, as trees over
    what these were.

        (%x: f32[1,4])
        %i = const [2, 0] : i64[2]
        %c = gather(%x, %i) {axis = 1} : f32[1,2]
        %s = const [2.0, 4.0] : f32[2]
        %z = mul(%c, %s) : f32[1,2]
        %f = const [1] : u8[1]
        %t = const [2.0] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%z, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
        ->
        %f = const [0] : u8[1]
        %t = const [0.5] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%x, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
    """
    match v:
        case TreeEnsemble(
            feature=Const() as feature, threshold=Const() as threshold,
            inclusive=Const() as inclusive, missing=Const() as missing,
        ) if isinstance(v.x, Concat | Gather | Slice | Where | Add | Sub | Mul | Div):  # fmt: skip
            asked = np.unique(feature.array).tolist()
            traced = {column: _Column.of(v.x, column) for column in asked}
        case _:
            return None
    roots = list(dict.fromkeys(t.root for t in traced.values()))
    x = roots[0] if len(roots) == 1 else Concat(tuple(roots), 1)
    if x is v.x or (isinstance(v.x, Concat) and set(roots) == set(v.x.xs)):
        return None
    first = dict(zip(roots, np.cumsum([0, *(r.shape[1] for r in roots)]), strict=False))
    tests = _Tests(threshold.array.copy(), inclusive.array, missing.array.copy())
    columns = feature.array.astype(np.int64)
    for column, t in traced.items():
        here = np.flatnonzero(feature.array == column)
        columns[here] = first[t.root] + t.column
        tests.before(t.steps, here)
    return v.replace(
        x=x, feature=Const(stored(columns), name=feature.name),
        threshold=Const(tests.threshold, name=threshold.name),
        missing=Const(tests.missing, name=missing.name),
    )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """What was done to a column by a number."""

    op: type[Value]
    by: np.float32

    def __call__(self, real: Array) -> Array:
        if self.op is Add:
            return np.asarray(real + self.by)
        if self.op is Sub:
            return np.asarray(real - self.by)
        return np.asarray(real * self.by if self.op is Mul else real / self.by)


@dataclass(frozen=True)
class _Column:
    """A column of another value, and what was done to it, the last step first."""

    root: Value
    column: int
    steps: Sequence[_Step]

    @classmethod
    def of(cls, v: Value, column: int) -> _Column:
        """What a column of a table comes from."""
        steps: list[_Step] = []
        while (before := _before(v, column)) is not None:
            v, column, step = before
            steps += [] if step is None else [step]
        return cls(v, column, steps)


def _before(v: Value, column: int) -> tuple[Value, int, _Step | None] | None:
    """What one column of a table was, and what was done to it; None where it was made there."""
    match v:
        case Concat(axis=1):
            for part in v.xs:
                if column < part.shape[1]:
                    return part, column, None
                column -= part.shape[1]
        case Gather(x=x, indices=Const() as at, axis=1) if at.type.rank == 1 and x.type.rank == 2:
            return x, int(at.array[column]) % x.shape[1], None
        case Slice(x=x) if v.shape[:1] == x.shape[:1] and v.steps[0] == 1:
            return x, v.starts[1] + v.steps[1] * column, None
        case Add(a=x, b=Const() as c) | Sub(a=x, b=Const() as c) if _by_columns(v, x, c):
            return x, column, _Step(type(v), _number(c, column))
        case Mul(a=x, b=Const() as c) | Div(a=x, b=Const() as c) if _by_columns(v, x, c):
            by = _number(c, column)
            return (x, column, _Step(type(v), by)) if by > 0 else None
        case Where(condition=Equal(a=x, b=same), a=a, b=Const() as c) if x is same is a:
            return (x, column, _Step(Where, _number(c, column))) if _by_columns(v, x, c) else None
        case Where(condition=Not(x=Equal(a=x, b=same)), a=Const() as c, b=b) if x is same is b:
            return (x, column, _Step(Where, _number(c, column))) if _by_columns(v, x, c) else None
    return None


def _by_columns(v: Value, x: Value, c: Const) -> bool:
    """Whether a table is made of another one by a number, or one for each column."""
    plain = c.type.size == 1 or c.shape[-1] == c.type.size
    return x.shape == v.shape and len(x.shape) == 2 and plain and not isinstance(x, Const)


def _number(c: Const, column: int) -> np.float32:
    numbers = c.array.reshape(-1)
    return np.float32(numbers[column if numbers.size > 1 else 0])


@dataclass
class _Tests:
    """What nodes ask of an element."""

    threshold: Array
    inclusive: Array
    missing: Array

    def before(self, steps: Sequence[_Step], here: Array) -> None:
        """Nodes `here` ask the same of what an element was before steps, the last one first."""
        inclusive = self.inclusive[here]
        for step in steps:
            threshold = self.threshold[here]
            if step.op is Where:
                met = inclusive & (step.by == threshold)
                self.missing[here] = (step.by > threshold) | met
                continue
            with np.errstate(all="ignore"):
                last, first = parted(step, threshold, inclusive)
            moved = np.where(inclusive, first, last)
            self.threshold[here] = np.where(np.isfinite(threshold), moved, threshold)


RULES = (trees_of_columns,)
