"""From one dtype to another, without a scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from irc.channels import Tie, tie_axes
from irc.errors import IRCError, TypeCheckError
from irc.loops import Expr, Int, Load, Loops, Select, elementwise, load
from irc.ops.moving import in_type
from irc.ops.plain_integers import need_whole, wrapped
from irc.ops.truth import QCast
from irc.types import Array, DType, TensorType
from irc.value import Value, op


@op("cast")
class Cast(Value):
    """The same numbers in another dtype, by NumPy's rules: floats are truncated towards zero,
    narrowed integers wrap, and booleans say what is not zero."""

    x: Value
    dtype: DType
    declares: ClassVar[tuple[str, ...]] = ("dtype",)

    def infer(self) -> TensorType:
        """An operand without a scale."""
        if self.x.type.quant is not None:
            raise TypeCheckError(f"x must not be quantized, it is {self.x.type}")
        return TensorType(self.dtype, self.x.shape)

    @np.errstate(all="ignore")
    def evaluate(self, x: Array) -> Array:
        """NumPy's astype."""
        return x.astype(self.dtype.numpy)

    def ties(self) -> Iterable[Tie]:
        """Every axis."""
        return tie_axes(self.x, self, range(len(self.shape)))

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """Between floats a cast is nothing, from plain integers it is `qcast`; raises `IRCError`
        for casts of reals to integers."""
        if not self.dtype.is_float:
            raise IRCError(f"cast %{self.name} of {self.x.type} to {self.dtype.value} has no"
                           " integer form")  # fmt: skip
        if not self.x.type.dtype.is_float and operands[0].type.quant is None:
            return QCast.of(operands[0], result, name=self.name)
        return in_type(operands[0], result)

    def loops(self) -> Loops:
        """One load, for integers; those that don't fit wrap around."""
        low, high = self.x.type.dtype, self.dtype
        if low.is_float or high.is_float:
            return super().loops()
        if high is DType.BOOL:
            return elementwise(self.shape, lambda *i: _nonzero(load(self.x, *i)))
        if not high.min <= low.min <= low.max <= high.max:
            need_whole(self)
            return elementwise(
                self.shape, lambda *i: wrapped(load(self.x, *i).cast(DType.I64), high)
            )
        return elementwise(self.shape, lambda *i: load(self.x, *i).cast(high))


def _nonzero(a: Load) -> Expr:
    if a.dtype is DType.BOOL:
        return a
    return Select(a.equals(0), Int(0, DType.BOOL), Int(1, DType.BOOL))
