"""Minimal filtering: the identity itself, the bounds that proofs stand on."""

from __future__ import annotations

import numpy as np
import pytest

from irc.backends.llvm.kernels.winograd.minimal import F2, F4, Filter, matrix, transformed
from irc.types import Array

BOTH = pytest.mark.parametrize("f", [F2, F4], ids=["F2", "F4"])


def scales(f: Filter) -> Array:
    one_way = np.array([f.odd << s for s in f.shifts], np.int64)
    return np.outer(one_way, one_way)


@BOTH
def test_filters_are_exact_multiples(f: Filter) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.integers(0, 256, (f.size, f.size))
        w = rng.integers(-128, 128, (3, 3))
        made = np.array(transformed(f.inputs, list(x))) * transformed(f.weights, list(w))
        direct = [[(x[i : i + 3, j : j + 3] * w).sum() for j in range(f.m)] for i in range(f.m)]
        assert np.array_equal(transformed(f.outputs, list(made)), np.array(direct) * scales(f))


@BOTH
def test_one_product_is_in_all_results_alike(f: Filter) -> None:
    made = np.zeros((f.size, f.size), np.int64)
    made[1, 1] = f.one
    assert np.array_equal(transformed(f.outputs, made.tolist()), scales(f))


@BOTH
def test_bounds_are_reached_and_fit(f: Filter) -> None:
    rows = matrix(f.inputs, f.size)
    kernel = np.einsum("ik,jl->ijkl", rows, rows)
    low, high = f.input_range()
    assert (255 * np.minimum(kernel, 0).sum((2, 3))).min() == low
    assert (255 * np.maximum(kernel, 0).sum((2, 3))).max() == high
    assert -(2**15) < low < high < 2**15
    signs = np.sign(matrix(f.weights, 3))
    reached = max(
        np.abs(transformed(f.weights, (127 * np.outer(a, b)).tolist())).max()
        for a in signs
        for b in signs
    )
    assert reached == f.weight_bound(127) < 2**15


@BOTH
def test_the_division_is_exact_up_to_the_limit(f: Filter) -> None:
    results = np.array([-f.limit, 1 - f.limit, -1, 0, 1, f.limit - 1])
    for scale, shift in zip(scales(f).flat, np.add.outer(f.shifts, f.shifts).flat, strict=True):
        wrapped = (results * scale).astype(np.uint32)
        divided = (wrapped * np.uint32(f.inverse)).astype(np.int32) >> shift
        assert np.array_equal(divided, results)
