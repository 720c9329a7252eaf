"""Samples of ensembles of trees, of any shape, leaves alone among them; and of columns."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np

from irc.ops.columns import QColumns
from irc.ops.core import Const, Input
from irc.ops.trees import QTreeEnsemble
from irc.types import DType, Quant
from tests.ops.sampling import (
    EIGHT_BITS,
    RESULTS,
    Draw,
    Feed,
    Sample,
    array,
    clamp,
    integer,
    multiplier,
    pick,
    quant,
    sample,
    sample_of,
    shape,
)


@sample("qtree_ensemble")
def qtree_ensemble(draw: Draw) -> Sample:
    """Nodes lead to later ones, or to leaves."""
    rows, columns, groups, trees, width = (integer(draw, 1, 3) for _ in range(5))
    nodes, leaves = integer(draw, 1, 9), integer(draw, 1, 6)
    rng = np.random.default_rng(integer(draw, 0, 2**32 - 1))
    dtype = pick(draw, (*EIGHT_BITS, DType.I16))
    by_columns = Quant((0.5,) * columns, tuple(range(columns)), 1)
    again = rng.integers(0, columns, integer(draw, 1, 3)) if draw(st.booleans()) else None
    x = Input(dtype, (rows, columns), by_columns if draw(st.booleans()) else quant(draw, dtype),
              name="x")  # fmt: skip
    children = rng.integers(np.arange(1, nodes + 1)[:, None], nodes + leaves, (nodes, 2))
    wide = draw(st.booleans())
    threshold = rng.integers(dtype.min - wide, dtype.max + 1, nodes)
    result = pick(draw, RESULTS)
    small = pick(draw, (np.uint8, np.uint16, np.int32))
    node = QTreeEnsemble(
        x, Const(rng.integers(0, columns + (0 if again is None else len(again)), nodes)
                 .astype(small)),
        Const(threshold.astype(np.int32 if wide else dtype.numpy)), Const(children.astype(small)),
        Const(rng.integers(0, nodes + leaves, (groups, trees)).astype(small)),
        Const(rng.integers(-(2**15) + 1, 2**15, (leaves, width)).astype(np.int16)),
        Const(rng.integers(-(2**20), 2**20, groups * width).astype(np.int32)), nodes,
        *multiplier(draw, 20, 50), clamp(draw, result), result, quant(draw, result),
        None if again is None else Const(again.astype(small)),
    )  # fmt: skip
    given = array(draw, dtype, x.shape)
    lacks = rng.random(x.shape) < (0 if again is None else 0.3)
    return sample_of(node, Feed(x, np.where(lacks, dtype.numpy.type(dtype.min), given)))


@sample("qcolumns")
def qcolumns(draw: Draw) -> Sample:
    """Integers of any type."""
    dtype, dims = pick(draw, RESULTS), shape(draw)
    x = Input(dtype, dims, Quant((0.5,) * dims[-1], 3, len(dims) - 1), name="x")
    return sample_of(QColumns(x, quant(draw, dtype)), Feed(x, array(draw, dtype, dims)))
