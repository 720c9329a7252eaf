"""Comparisons, and the logic of booleans: what exporters compute shapes and masks with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irc.errors import TypeCheckError
from irc.loops import CompareKind, Expr, Int, Loops, elementwise, load_broadcast
from irc.ops.moving import joined
from irc.types import Array, DType, TensorType, broadcast_shapes
from irc.value import Value, op


@dataclass(frozen=True, eq=False)
class Relation(Value):
    """Base of ops from two operands, broadcast, to booleans."""

    a: Value
    b: Value
    numpy: ClassVar[Callable[..., Any]]
    kind: ClassVar[CompareKind | None] = None

    def infer(self) -> TensorType:
        """Operands of one dtype and one scale."""
        joined((self.a, self.b))
        return TensorType(DType.BOOL, broadcast_shapes(self.a.shape, self.b.shape))

    def evaluate(self, a: Array, b: Array) -> Array:
        """NumPy's comparison."""
        return np.asarray(type(self).numpy(a, b))

    def loops(self) -> Loops:
        """Two loads, for integers."""
        if self.a.type.dtype.is_float:
            return super().loops()
        return elementwise(
            self.shape, lambda *i: self.relate(load_broadcast(self.a, i), load_broadcast(self.b, i))
        )

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The expression of one element."""
        raise NotImplementedError


@op("equal")
class Equal(Relation):
    """`a == b`."""

    numpy: ClassVar[Callable[..., Any]] = np.equal
    kind: ClassVar[CompareKind | None] = "eq"

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The comparison."""
        return a.equals(b)


@op("less")
class Less(Relation):
    """`a < b`."""

    numpy: ClassVar[Callable[..., Any]] = np.less
    kind: ClassVar[CompareKind | None] = "lt"

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The comparison."""
        return a < b


@op("less_or_equal")
class LessOrEqual(Relation):
    """`a <= b`."""

    numpy: ClassVar[Callable[..., Any]] = np.less_equal
    kind: ClassVar[CompareKind | None] = "le"

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The comparison."""
        return a <= b


@op("and")
class And(Relation):
    """`a and b` of booleans."""

    numpy: ClassVar[Callable[..., Any]] = np.logical_and

    def infer(self) -> TensorType:
        """Booleans."""
        return _logical(self, super().infer())

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The conjunction."""
        return a & b


@op("or")
class Or(Relation):
    """`a or b` of booleans."""

    numpy: ClassVar[Callable[..., Any]] = np.logical_or

    def infer(self) -> TensorType:
        """Booleans."""
        return _logical(self, super().infer())

    def relate(self, a: Expr, b: Expr) -> Expr:
        """The disjunction."""
        return a | b


def _logical(v: Relation, result: TensorType) -> TensorType:
    if v.a.type.dtype is not DType.BOOL:
        raise TypeCheckError(f"operands must be b1, they are {v.a.type}")
    return result


@op("not")
class Not(Value):
    """Logical negation of booleans."""

    x: Value

    def infer(self) -> TensorType:
        """Booleans of the operand's shape."""
        if self.x.type.dtype is not DType.BOOL:
            raise TypeCheckError(f"x must be b1, it is {self.x.type}")
        return self.x.type

    def evaluate(self, x: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.logical_not(x))

    def loops(self) -> Loops:
        """A comparison with 0."""
        zero = Int(0, DType.I32)
        return elementwise(
            self.shape, lambda *i: load_broadcast(self.x, i).cast(DType.I32).equals(zero)
        )
