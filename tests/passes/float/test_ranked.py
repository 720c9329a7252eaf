"""What stands for infinity among elements of which only extremes and places are read."""

from __future__ import annotations

import numpy as np
import pytest

import irc
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.logic import Less
from irc.ops.reduce import ReduceMax, ReduceMin
from irc.ops.selection import Where
from irc.types import DType


@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("op", [ReduceMax, ReduceMin])
def test_infinity_is_no_range(op: type[ReduceMax] | type[ReduceMin], shift: float) -> None:
    """The largest of those that count, and the smallest, keep their eight bits."""
    x = Input(DType.F32, (1, 32), name="x")
    none = np.finfo(np.float32).min if op is ReduceMax else np.finfo(np.float32).max
    counts = Less(Const(np.asarray(shift, np.float32)), x)
    kept = Where(counts, x, Const(np.asarray(none, np.float32)))
    graph = Graph("g", (x,), (op(kept, (1,), False),), ("y",))
    rng = np.random.default_rng(0)
    rows = [{"x": (rng.normal(size=(1, 32)) + shift).astype(np.float32)} for _ in range(40)]
    model = irc.compile(irc.quantize(graph, calibration=rows[:30]), backend="reference")
    for row in rows:
        assert abs(model(row)["y"] - evaluate(graph, row)["y"]) < 0.01 * (abs(shift) + 3)
