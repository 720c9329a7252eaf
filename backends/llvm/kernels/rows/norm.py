"""Which norms are done row by row (`norm_rows`)."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.backends.llvm.code.numbers import is_numbers
from irc.backends.llvm.kernels.rows.norm_rows import BLOCK, NormRows, Row, Rows
from irc.backends.llvm.kernels.rows.norm_words import NormWords
from irc.backends.llvm.kernels.rows.square_root import starts
from irc.backends.llvm.kernels.vectors.packs import packs
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work, outer_axis
from irc.compose import reads_in_step
from irc.loops import Binary, Cast, Expr, Int, Load, Reduce, Temp, walk
from irc.ops.qnorm import QNorm
from irc.types import Array

ROW_CYCLES, VECTOR_CYCLES = 200, 13
"""Estimated: of a row's statistics and root; of a vector of elements, whatever its width."""
LONGEST = 2**15 - 1
"""Elements of a row: so its sums fit 32 bits, squares of bytes too, and so does count * x."""


def norm(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for a norm along the last axis with its elementwise tail."""
    found = match(work) if packs(target) else None
    if found is None:
        return None
    node, strides = found.node, found.strides
    cut = outer_axis(work.kernel.shape)
    lanes, rows = target.vector_bytes // 4, NormRows if target.is_x86 else NormWords
    return MicroKernel(
        name=f"qnorm_{node.x.type.dtype.value}_rows_{target.vector_bytes * 8}",
        key=f"{cut} {strides} {node.norm} {node.s} {node.clamp} {node.type.zero}",
        emit=rows(found, lanes, cut).emit,
        arrays=(*rows.constants(found, lanes), starts()),
        replaces=tuple(v for v in (node.m, node.b) if v in work.body.inputs),
        scratch=BLOCK * Row.nbytes(lanes // 2),
        units=1 if cut is None else work.kernel.shape[cut],
        cycles=prod(node.shape[:-1]) * (ROW_CYCLES + node.shape[-1] * VECTOR_CYCLES / lanes),
        reason="sums on vectors, a root by Newton's steps per row",
        proof=f"|(p*m + b) >> s| <= {found.bound}: 32 bits hold it",
    )


def match(work: Work) -> Rows | None:
    """The work as a norm of rows, where its nests are those of one with an elementwise tail."""
    nodes = [v for v in work.body.order if isinstance(v, QNorm)]
    if len(nodes) != 1 or len(work.loops.nests) != len(nodes[0].loops().nests) or work.aliased:
        return None
    (node,), nest, inputs = nodes, work.loops.result, work.body.inputs
    m, b = (_row(work.constant(v), node) for v in (node.m, node.b))
    if node.x not in inputs or m is None or b is None or node.shape != work.kernel.shape:
        return None
    strides = work.strides[[v is node.x for v in inputs].index(True)]
    result = _result(work, node)
    if strides[-1] != 1 or work.result_strides[-1] != 1 or result is None:
        return None
    if any(isinstance(e, Reduce) for e in walk(nest.value)) or not _fits_16_bits(node):
        return None
    products = np.abs(m.astype(np.float64)) * node.norm.largest + np.abs(b.astype(np.float64))
    bound = int(products.max() / 2.0**node.s) + 2
    return Rows(node, m, b, strides, result, bound) if bound < 2**30 else None


def _fits_16_bits(node: QNorm) -> bool:
    """Whether elements and results fit 16 bits, and rows are those along the last axis."""
    axis, length = len(node.shape) - 1, node.shape[-1]
    small = node.x.type.dtype.bits <= 16 and node.dtype.bits <= 16
    return small and node.axes == (axis,) and 0 not in node.shape and length <= LONGEST


def _row(array: Array | None, node: QNorm) -> Array | None:
    """A factor or offset of every element of a row; None where rows differ in them."""
    if array is None or array.size not in (1, *array.shape[-1:]):
        return None
    return np.broadcast_to(array.reshape(-1), (node.shape[-1],))


def _result(work: Work, node: QNorm) -> Expr | None:
    """What stands for the norm's result, if it is read in step."""
    nest = work.loops.result
    if not reads_in_step(nest, node.x):
        return None
    for e in walk(nest.value):
        match e:
            case Cast(
                to=to, a=Binary(kind="min", a=Binary(kind="max", a=y, b=Int()), b=Int())
            ) if to is node.dtype and _loads_temp(y):
                return e
    return None


def _loads_temp(e: Expr) -> bool:
    loads = (x.source for x in walk(e) if isinstance(x, Load))
    return any(isinstance(source, Temp) and not is_numbers(source) for source in loads)
