"""What all ops share that move or select elements.

They mean the same on reals and on integers: they keep their operands' quantization and are their
own integer twin.
"""

from __future__ import annotations

from typing import ClassVar

from irc.errors import TypeCheckError
from irc.ops.core import Const
from irc.ops.quantization import Requantize
from irc.types import Shape, TensorType
from irc.value import Value


class Moving(Value):
    """Base of ops whose result consists of elements of their operands, scale and all."""

    moves: ClassVar[bool] = True

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """The same op over the integers, requantized where `result` has another scale."""
        given = iter(operands)
        return in_type(self.map_operands(lambda _: next(given)), result)


class Joining(Moving):
    """Base of ops that take elements from several operands, which must agree in scale."""

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """The same op over operands that are requantized first, each on its own."""
        given = iter(operands)

        def integer(old: Value) -> Value:
            new = next(given)
            return in_type(new, result) if old.type.dtype.is_float else new

        return self.map_operands(integer)


def origin(v: Value) -> Value:
    """What a value was moved from, as a whole or by known indices."""
    while v.moves:
        sources = [o for o in v.operands if not isinstance(o, Const)]
        if len(sources) != 1:
            break
        (v,) = sources
    return v


def in_type(v: Value, result: TensorType) -> Value:
    """`v` with the dtype and quantization of `result`: itself, or a `requantize` of it."""
    if (v.type.dtype, v.type.quant) == (result.dtype, result.quant):
        return v
    return Requantize.to(v, result, name=v.name)


def moved(t: TensorType, shape: Shape) -> TensorType:
    """The elements of `t` in another shape; raises `TypeCheckError` for scales along an axis."""
    if t.quant is not None and t.quant.axis is not None:
        raise TypeCheckError(f"{t} has scales along an axis, which this op can't move")
    return t.with_shape(shape)


def joined(operands: tuple[Value, ...]) -> TensorType:
    """The dtype and quantization that the operands share, shape left empty; raises
    `TypeCheckError` where they differ."""
    first = moved(operands[0].type, ())
    for v in operands[1:]:
        if (v.type.dtype, v.type.quant) != (first.dtype, first.quant):
            raise TypeCheckError(
                f"operands must agree in dtype and scale: {operands[0].type} and {v.type}"
            )
    return first


def need_axis(axis: int, rank: int) -> None:
    """Raise `TypeCheckError` unless `axis` counts from the front and exists."""
    if not 0 <= axis < rank:
        raise TypeCheckError(f"axis {axis} of a tensor with {rank} axes")
