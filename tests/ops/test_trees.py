"""Ensembles of trees in integers: no leaf beyond what a result can be takes bits from others."""

from __future__ import annotations

import numpy as np
import pytest

from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize
from irc.ops.trees import TreeEnsemble
from irc.types import Array, DType, Quant, TensorType

RESULT = TensorType(DType.I16, (1, 4), Quant(2.0**-12))
"""Within 8."""


def forest(x: Input, leaves: Array, rng: np.random.Generator, trees: int) -> TreeEnsemble:
    """Two groups of trees of depth 2, two numbers in each of their leaves."""
    nodes, count = 6 * trees, 8 * trees
    children = np.empty((nodes, 2), np.int32)
    for i in range(2 * trees):
        first, leaf = 3 * i, nodes + 4 * i
        children[first : first + 3] = [
            [first + 1, first + 2], [leaf, leaf + 1], [leaf + 2, leaf + 3]
        ]  # fmt: skip
    none = Const(np.zeros(nodes, np.bool_))
    return TreeEnsemble(
        Dequantize(x), Const(rng.integers(0, 3, nodes).astype(np.uint8)),
        Const(rng.integers(-50, 50, nodes).astype(np.float32)), none, none, Const(children),
        Const((3 * np.arange(2 * trees)).reshape(2, trees).astype(np.int32)),
        Const(leaves.reshape(count, 2).astype(np.float32)),
        Const(rng.normal(size=4).astype(np.float32)), 2,
    )  # fmt: skip


@pytest.mark.parametrize("trees", [1, 3])
@pytest.mark.parametrize("far", [0.0, 9.0, 1e9, -1e30])
def test_leaves_far_beyond_the_result(trees: int, far: float) -> None:
    """Sums are what those of reals are within the result's bounds, whatever a leaf of the first
    tree of each group holds."""
    rng = np.random.default_rng(trees)
    leaves = rng.uniform(-1, 1, (2, trees, 4, 2))
    leaves[:, 0, rng.integers(0, 4), :] += far
    x = Input(DType.I8, (1, 3), Quant(1.0), name="x")
    float_ = forest(x, leaves, rng, trees)
    whole = float_.quantized((x, *float_.operands[1:]), RESULT)
    graph = Graph("trees", (x,), (float_, whole), ("real", "whole"))
    low, high = ((end * RESULT.scale) for end in (RESULT.dtype.min, RESULT.dtype.max))
    seen = set()
    for row in rng.integers(-60, 60, (60, 1, 3)).astype(np.int8):
        made = evaluate(graph, {"x": row})
        wanted = np.clip(made["real"].astype(np.float64), low, high)
        seen |= set(wanted.reshape(-1).tolist())
        tolerance = 0.5 * RESULT.scale + 0.5 * trees * 20 / 2**15
        np.testing.assert_allclose(made["whole"] * RESULT.scale, wanted, atol=tolerance)
    if abs(far) > 9:
        assert (high if far > 0 else low) in seen


def test_opposite_leaves_stay_as_far_apart() -> None:
    """A large one and a small one of another tree may come to anything together."""
    rng = np.random.default_rng(0)
    leaves = rng.uniform(-1, 1, (2, 2, 4, 2))
    leaves[:, 0], leaves[:, 1] = leaves[:, 0] + 1000, leaves[:, 1] - 1000
    x = Input(DType.I8, (1, 3), Quant(1.0), name="x")
    float_ = forest(x, leaves, rng, 2)
    whole = float_.quantized((x, *float_.operands[1:]), RESULT)
    graph = Graph("trees", (x,), (float_, whole), ("real", "whole"))
    made = evaluate(graph, {"x": np.zeros((1, 3), np.int8)})
    np.testing.assert_allclose(made["whole"] * RESULT.scale, made["real"], atol=0.1)
