"""Equation (6) rounded behind the pack: every shift, zero points at their ends, and sums on both
sides of each result, or so large that words saturate."""

from __future__ import annotations

import numpy as np
import pytest

from irc.backends.llvm.target import parse_target
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.types import DType, Quant
from tests.backends.harness import TARGETS, each, kernels_agree
from tests.backends.products import joined
from tests.ops.sampling import Sample

WIDE = [t for t in TARGETS if parse_target(t).rounds_words]
SUMS = 64


def layer(shifts: range, dtype: DType, zero: int, bounds: tuple[int, int]) -> Sample:
    """A linear layer of one input, which is 0: channels are their biases, of every shift those
    around where results step, and the largest."""
    rng = np.random.default_rng(shifts.start)
    b, m, s = [], [], []
    for shift in shifts:
        multipliers = rng.integers(2**30, 2**31, SUMS)
        steps = rng.integers(-300, 300, SUMS) + 0.5
        near = np.rint(steps * 2.0**shift / multipliers) + rng.integers(-1, 2, SUMS)
        near[:8] = [2**24, -(2**24), 2**24 - 1, 1 - 2**24, 0, 1, -1, 2**23]
        b.append(np.clip(near, -(2**24), 2**24).astype(np.int32))
        m.append(multipliers.astype(np.int32))
        s.append(np.full(SUMS, shift, np.int8))
    bias, multiplier, amount = (Const(np.concatenate(parts)) for parts in (b, m, s))
    x = Input(DType.U8, (9, 4), Quant(0.5, 0), name="x")
    w = Const(np.full((len(bias.array), 4), 3, np.int8))
    y = QLinear(x, w, bias, multiplier, amount, bounds, dtype, Quant(0.5, zero))
    return Sample(Graph("late", (x,), (y,), ("y",)), {"x": np.zeros((9, 4), np.uint8)})


SHIFTS = (range(33, 40), range(38, 46), range(32, 63), range(27, 33))


@pytest.mark.parametrize("target", each(WIDE))
@pytest.mark.parametrize(
    ("dtype", "zero", "bounds"),
    [
        (DType.U8, 0, (0, 255)), (DType.U8, 255, (17, 254)), (DType.I8, 127, (-5, 3)),
        pytest.param(DType.U8, 255, (0, 255), marks=pytest.mark.long),
        pytest.param(DType.I8, -128, (-128, 127), marks=pytest.mark.long),
        pytest.param(DType.I8, 127, (-128, 127), marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_results_step_where_they_did(
    dtype: DType, zero: int, bounds: tuple[int, int], target: str
) -> None:
    drawn = joined([layer(shifts, dtype, zero, bounds) for shifts in SHIFTS])
    names = kernels_agree(drawn.graph, drawn.feeds, target)
    assert len(names) == len(SHIFTS)
    assert all(name.startswith("qgemm_u8i8_") for name in names)
