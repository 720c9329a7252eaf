"""Vectors as parts of wider ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import I32


def part(builder: Any, value: Any, lanes: Sequence[int]) -> Any:
    """Some lanes of a vector."""
    if lanes == range(value.type.count):
        return value
    mask = shuffle_mask(lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def parts(builder: Any, value: Any, lanes: int) -> list[Any]:
    """A vector as vectors of so many lanes."""
    return [part(builder, value, range(i, i + lanes)) for i in range(0, value.type.count, lanes)]


def join(builder: Any, vectors: list[Any], width: int) -> Any:
    """The first `width` lanes of vectors side by side; a scalar if that is one."""
    if width == 1:
        return builder.extract_element(vectors[0], ir.Constant(I32, 0))
    while len(vectors) > 1:
        vectors = [_beside(builder, vectors[i : i + 2]) for i in range(0, len(vectors), 2)]
    (whole,) = vectors
    if whole.type.count == width:
        return whole
    mask = shuffle_mask(range(width))
    return builder.shuffle_vector(whole, whole, mask)


def filled(builder: Any, value: Any, lanes: int) -> Any:
    """A scalar or narrower vector as the first of so many lanes; the others are 0."""
    if not isinstance(value.type, ir.VectorType):
        zeros = constant(ir.VectorType(value.type, lanes), 0)
        return builder.insert_element(zeros, value, ir.Constant(I32, 0))
    count = value.type.count
    mask = [min(i, count) for i in range(lanes)]
    zeros = constant(value.type, 0)
    return builder.shuffle_vector(value, zeros, shuffle_mask(mask))


def _beside(builder: Any, vectors: list[Any]) -> Any:
    """Two vectors as one; the second of a missing one is undefined."""
    first, second = vectors[0], vectors[-1]
    count = first.type.count
    if second is first:
        second = ir.Constant(first.type, ir.Undefined)
    elif second.type.count < count:
        lanes = shuffle_mask(range(count))
        second = builder.shuffle_vector(second, second, lanes)
    mask = shuffle_mask(range(2 * count))
    return builder.shuffle_vector(first, second, mask)
