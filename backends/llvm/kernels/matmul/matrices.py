"""Products of two activations, as attention has them: what each side is, and the loop over a batch
of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from irc.backends.llvm.code.loop import counted
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.operands import Centred, centred, steps
from irc.backends.llvm.work import KernelFunction, Work, balance
from irc.loops import Binary, Reduce, Var, walk
from irc.types import DType


@dataclass(frozen=True)
class Matrix:
    """One side: the elements, and bytes from one to the next along each axis of the result and
    along k."""

    of: Centred
    axes: tuple[int, ...]
    k: int

    @property
    def signed(self) -> bool:
        """Whether its bytes are."""
        return self.of.load.dtype is DType.I8


@dataclass(frozen=True)
class MatMul:
    """`acc[.., row, .., column] = sum over k of left * right`; the column is the last axis."""

    reduce: Reduce
    left: Matrix
    right: Matrix
    row: int | None
    """The axis that only the left side moves along, None for a single row."""
    extents: tuple[int, ...]
    depth: int

    @property
    def rows(self) -> int:
        """Rows of one matrix."""
        return 1 if self.row is None else self.extents[self.row]

    @property
    def columns(self) -> int:
        """Columns of one matrix."""
        return self.extents[-1]

    @property
    def row_step(self) -> int:
        """Bytes from one row of the left side to the next."""
        return 0 if self.row is None else self.left.axes[self.row]

    @property
    def pairs(self) -> int:
        """Pairs along k; the last one may be half."""
        return ceil(self.depth / 2)


def best_cut(m: MatMul, rows: int) -> tuple[int | None, int]:
    """The axis that threads share, and into how many units it is cut: one of the batch, if that
    is even, or the rows' by tiles: then each thread packs the right side for itself."""
    batch = [a for a in range(len(m.extents) - 1) if a != m.row]
    best = max(batch, key=lambda a: balance(m.extents[a]), default=None)
    tiles = ceil(m.rows / rows)
    if best is not None and balance(m.extents[best]) >= 0.9 * balance(tiles):
        return best, m.extents[best]
    return m.row, tiles


def match(work: Work) -> MatMul | None:
    """The work as a product, where its only nest is one with an elementwise tail."""
    nest, shape = work.loops.result, work.kernel.shape
    reduces = [e for e in walk(nest.value) if isinstance(e, Reduce)]
    if len(reduces) != 1 or len(work.loops.nests) != 1 or 0 in shape or len(shape) < 2:
        return None
    (reduce,) = reduces
    if not (isinstance(reduce.body, Binary) and reduce.body.kind == "mul"):
        return None
    if len(reduce.axes) != 1 or reduce.kind != "add" or reduce.dtype is not DType.I32:
        return None
    sides = [_matrix(work, e, reduce.axes[0]) for e in (reduce.body.a, reduce.body.b)]
    if sides[0] is None or sides[1] is None or work.result_strides[-1] != 1:
        return None
    return _product(reduce, sides[0], sides[1], shape)


def _matrix(work: Work, e: Any, k: Var) -> Matrix | None:
    side = centred(work, e)
    if side is None or side.load.dtype.bits != 8 or side.load.source not in work.body.inputs:
        return None
    found = steps(work, side.load, (*work.loops.result.axes, k))
    return None if found is None else Matrix(side, found[:-1], 1 if k.extent == 1 else found[-1])


def _product(reduce: Reduce, left: Matrix, right: Matrix, shape: tuple[int, ...]) -> MatMul | None:
    if left.axes[-1] != 0:
        left, right = right, left
    if shape[-1] == 1:
        right = dataclasses.replace(right, axes=(*right.axes[:-1], 1))
    across = right.axes[-1]
    if left.axes[-1] != 0 or across == 0 or left.k != 1 or 1 not in (right.k, across):
        return None
    free = [a for a in range(len(shape) - 1) if right.axes[a] == 0 and left.axes[a] != 0]
    row = max(free, key=lambda a: shape[a], default=None)
    return MatMul(reduce, left, right, row, shape, reduce.axes[0].extent)


Indices = tuple[Any, ...]


def over_matrices(
    f: KernelFunction, m: MatMul, cut: int | None, body: Callable[[Indices], None]
) -> None:
    """The loops over the matrices of a batch, or over those of the function's units: `body` with
    the indices of all axes but the columns', the row's at 0."""

    def axis(depth: int, indices: Indices) -> None:
        if depth == len(m.extents) - 1:
            body(indices)
            return
        begin, end = 0, 1 if depth == m.row else m.extents[depth]
        if depth == cut and depth != m.row and f.split:
            begin, end = f.begin, f.end
        with counted(f.builder, end, begin=begin, label="n") as loop:
            axis(depth + 1, (*indices, loop.index))

    axis(0, ())


def matrix_start(f: KernelFunction, side: Matrix, indices: Indices) -> Any:
    """Where one matrix of a side begins."""
    pointer = f.places[side.of.load.source].pointer
    for index, step in zip(indices, side.axes[:-1], strict=True):
        if step:
            pointer = at(f.builder, pointer, times(f.builder, index, step))
    return pointer
