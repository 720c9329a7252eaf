"""The memory plan of a scheduled graph: where each result lives, in the one static arena or in
the caller's own input and output memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from irc.types import Shape, TensorType

ARENA = "arena"


@dataclass(frozen=True)
class Buffer:
    """A tensor's place: a base, bytes from its start, and strides in elements per axis.

    `base` is `"arena"`, `"input NAME"` or `"output NAME"`. Strides wider than dense are how a
    producer writes straight into its slice of a concatenation.
    """

    offset: int
    strides: Shape
    base: str = ARENA

    @classmethod
    def dense(cls, offset: int, shape: Shape, base: str = ARENA) -> Buffer:
        """A row-major tensor at `offset`."""
        return cls(offset, dense_strides(shape), base)

    def is_dense(self, type_: TensorType) -> bool:
        """Whether the elements lie row-major without gaps (axes of extent 1 don't count)."""
        dense = dense_strides(type_.shape)
        triples = zip(self.strides, dense, type_.shape, strict=True)
        return all(s == d or extent == 1 for s, d, extent in triples)

    def extent(self, type_: TensorType) -> int:
        """Bytes from the first element to past the last."""
        if type_.size == 0:
            return 0
        last = sum((d - 1) * s for d, s in zip(type_.shape, self.strides, strict=True))
        return (last + 1) * type_.dtype.numpy.itemsize


@dataclass(frozen=True)
class Plan:
    """`buffers[i]` is the place of the i-th node of `graph.order`; None only for constants.
    `scratch[i]` is the arena offset of the i-th node's temporaries, None where it has none.
    """

    arena: int
    align: int
    buffers: tuple[Buffer | None, ...]
    scratch: tuple[int | None, ...] = ()


def dense_strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def aligned(offset: int, align: int) -> int:
    """The next multiple of `align`."""
    return -(-offset // align) * align
