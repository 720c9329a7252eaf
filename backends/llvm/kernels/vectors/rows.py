"""Loops over the rows of a tensor: all axes but the last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from irc.backends.llvm.code.loop import counted, i64, minimum
from irc.backends.llvm.kernels.vectors.memory import times
from irc.backends.llvm.work import KernelFunction
from irc.types import Shape


def rows(
    f: KernelFunction, shape: Shape, cut: int | None, indices: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """The indices of every row, or of the axis `cut` only those of the function's units."""
    axis = len(indices)
    if axis == len(shape) - 1:
        yield indices
        return
    begin, end = _bounds(f, shape, cut, axis)
    with counted(f.builder, end, begin=begin, label="row") as loop:
        yield from rows(f, shape, cut, (*indices, loop.index))


def row_blocks(
    f: KernelFunction, shape: Shape, cut: int | None, size: int
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """The same rows in blocks of at most `size`: indices of the axes before their own, and which of
    that. A lone row has an axis of its own."""
    axis = max(0, len(shape) - 2)
    begin, end = _bounds(f, shape, cut, axis) if len(shape) > 1 else (0, 1)
    for indices in rows(f, shape[:-1], cut) if len(shape) > 1 else [()]:
        with counted(f.builder, end, begin=begin, step=size, label="block") as block:
            following = f.builder.add(block.index, i64(size))
            yield indices, block.index, minimum(f.builder, following, end)


def row_offset(builder: Any, indices: tuple[Any, ...], strides: Shape) -> Any:
    """Where a row begins, in elements; indices may begin with one that stands for no axis."""
    total = i64(0)
    for index, stride in zip(reversed(indices), reversed(strides[:-1]), strict=False):
        total = builder.add(total, times(builder, index, stride))
    return total


def _bounds(f: KernelFunction, shape: Shape, cut: int | None, axis: int) -> tuple[Any, Any]:
    return (f.begin, f.end) if axis == cut and f.split else (0, shape[axis])
