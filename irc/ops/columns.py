"""Inputs whose columns, the last axis, have units of their own: ages beside incomes.

The caller's integers have a scale for each column; inside of the network the same integers have
one.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.loops import Loops, elementwise, load
from irc.ops.quantization import constant
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, op


@op("columns")
class Columns(Value):
    """`(x - offset) / scale`, both f32 [C], of x f32 [..., C]."""

    x: Value
    scale: Value
    offset: Value

    def infer(self) -> TensorType:
        """The operand's shape."""
        x = self.x.type
        if x.dtype is not DType.F32 or not x.rank:
            raise TypeCheckError(f"x must be f32 with columns, it is {x}")
        for what, v in (("scale", self.scale), ("offset", self.offset)):
            if v.type != TensorType(DType.F32, x.shape[-1:]):
                raise TypeCheckError(f"{what} must be f32[{x.shape[-1]}], it is {v.type}")
        return x

    def evaluate(self, x: Array, scale: Array, offset: Array) -> Array:
        """In float64, rounded once."""
        return ((x.astype(np.float64) - offset) / scale).astype(np.float32)

    def outside(self, inside: TensorType) -> TensorType:
        """The type of x whose integers are those of the result; offsets are rounded to steps.

        Raises `IRCError` for zero points beyond 32 bits.
        """
        scale, offset = (
            constant(v, "units").array.astype(np.float64) for v in (self.scale, self.offset)
        )
        steps = inside.scale * scale
        zeros = inside.zero - np.rint(offset / steps)
        if np.any(beyond := np.abs(zeros) > DType.I32.max):
            raise IRCError(
                f"columns %{self.name}: column {int(beyond.argmax())} of %{self.x.name} lies so far"
                " from zero that its zero point has more than 32 bits: give the network its"
                " distance from a number that is near"
            )
        quant = Quant(tuple(map(float, steps)), tuple(map(int, zeros)), inside.rank - 1)
        return TensorType(inside.dtype, inside.shape, quant)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """The same integers; raises `IRCError` where x has others."""
        x = operands[0]
        if x.type != self.outside(result):
            raise IRCError(f"columns %{self.name}: %{x.name} is {x.type}, not in its units")
        return QColumns(x, fixedpoint.quant_of(result), name=self.name)


@op("qcolumns")
class QColumns(Value):
    """The same integers in one scale for all columns."""

    x: Value
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("quant",)

    def infer(self) -> TensorType:
        """The operand's dtype and shape; scales along its last axis."""
        x = self.x.type
        if x.quant is None or x.quant.axis != x.rank - 1:
            raise TypeCheckError(f"x must have a scale for each column, it is {x}")
        return TensorType(x.dtype, x.shape, self.quant)

    def evaluate(self, x: Array) -> Array:
        """What was given."""
        return x

    def loops(self) -> Loops:
        """One load per element."""
        return elementwise(self.shape, lambda *i: load(self.x, *i))
