"""The memory plan of a scheduled graph: where in the one static arena each result lives."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from irc.types import Shape, TensorType


@dataclass(frozen=True)
class Buffer:
    """A tensor's place: bytes from the arena's start, and strides in elements per axis.

    Strides wider than dense are how a producer writes straight into its slice of a
    concatenation.
    """

    offset: int
    strides: Shape

    @classmethod
    def dense(cls, offset: int, shape: Shape) -> Buffer:
        """A row-major tensor at `offset`."""
        return cls(offset, dense_strides(shape))

    def is_dense(self, type_: TensorType) -> bool:
        """Whether the elements lie row-major without gaps (axes of extent 1 don't count)."""
        dense = dense_strides(type_.shape)
        triples = zip(self.strides, dense, type_.shape, strict=True)
        return all(s == d or extent == 1 for s, d, extent in triples)


@dataclass(frozen=True)
class Plan:
    """`buffers[i]` is the place of the i-th node of `graph.order`, None for nodes that live
    elsewhere: inputs, constants, and outputs that are written to the caller's memory.
    `scratch[i]` is the offset of the i-th node's temporaries, None where it has none.
    """

    arena: int
    align: int
    buffers: tuple[Buffer | None, ...]
    scratch: tuple[int | None, ...] = ()


def dense_strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
