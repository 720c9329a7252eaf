"""Weights that make up for each other's rounding, and what is measured for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.graph import Graph
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.passes.calibration.calibrate import Profile, calibrate
from irc.passes.calibration.moments import COLUMNS, Columns, LayerMoments
from irc.passes.quantize import quantize, weights
from irc.passes.quantize.options import Options
from irc.passes.quantize.rounding import compensated
from irc.passes.quantize.weights import SHARES, quantize_weights
from irc.proofs import broken_pairs
from irc.types import Array, DType


def conv(rng: Any, channels: int, outs: int, groups: int, kernel: tuple[int, int]) -> Conv2d:
    x = Input(DType.F32, (2, 7, 6, channels), name="x")
    w = rng.standard_normal((outs, *kernel, channels // groups)).astype(np.float32)
    return Conv2d(x, Const(w), None, strides=(2, 1), pads=(1, 0, 1, 2), groups=groups)


CONVS = st.builds(
    lambda seed, per_group, groups, outs, kernel: conv(
        np.random.default_rng(seed), per_group * groups, outs * groups, groups, kernel
    ),
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([(1, 1), (3, 3), (2, 3), (3, 1)]),
)


@given(CONVS, st.integers(0, 2**32))
def test_windows_are_what_the_weights_multiply(layer: Conv2d, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(layer.x.shape).astype(np.float32)
    w = layer.w.array  # type: ignore[attr-defined]
    columns = Columns.of(layer)
    assert columns is not None
    windows = columns.windows(layer, x)
    found = np.einsum("pgk,grk->pgr", windows, columns.matrix(w)).reshape(len(windows), -1)
    whole = layer.evaluate(x, w, None)
    np.testing.assert_allclose(found, whole.reshape(-1, len(w)), rtol=1e-4, atol=1e-4)


def seen_by(layer: Any, *arrays: Array) -> LayerMoments:
    columns = Columns.of(layer)
    assert columns is not None
    seen = LayerMoments.of(columns)
    for x in arrays:
        seen.add(layer, x)
    return seen


def noise(layer: Any, x: Array, wrong: Array) -> float:
    """The variance of what wrong weights add, as a mean over the outputs."""
    y = layer.evaluate(x, wrong.astype(np.float32), None)
    return float(y.reshape(-1, y.shape[-1]).var(0).mean())


def like_images(rng: Any, shape: tuple[int, ...]) -> Array:
    """Elements that resemble their neighbours and other channels, around a mean of 1."""
    x = rng.standard_normal(shape).cumsum(1).cumsum(2) / 3 + rng.standard_normal((*shape[:3], 1))
    return np.asarray(1 + x, np.float32)


@given(CONVS, st.integers(0, 2**32), st.booleans())
def test_noise_shrinks_and_pairs_stay_safe(layer: Conv2d, seed: int, safe: bool) -> None:
    rng = np.random.default_rng(seed)
    x = like_images(rng, layer.x.shape)
    w = layer.w.array.astype(np.float64)  # type: ignore[attr-defined]
    plain = quantize_weights(w, np.ones_like(w), np.zeros(len(w)), Options(pair_safe=safe))
    made = compensated(w, plain, seen_by(layer, x), safe)
    assert made.array.dtype == np.int8
    assert np.abs(made.array.astype(int)).max() <= 127
    if safe:
        assert not broken_pairs(made.array).any()
    before, after = noise(layer, x, plain.real - w), noise(layer, x, made.real - w)
    assert after <= before * 1.05 + 1e-9  # the ridge, which is not in the noise


def test_much_is_gained_where_inputs_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((4, 64))
    known, unseen = (
        (rng.standard_normal((256, 4)) @ mixed + 0.1 * rng.standard_normal((256, 64))).astype("f4")
        for _ in range(2)
    )
    w = rng.standard_normal((16, 64))
    x = Input(DType.F32, known.shape, name="x")
    layer = Linear(x, Const(w.astype(np.float32)), None)
    plain = quantize_weights(w, np.ones_like(w), np.zeros(len(w)), Options())
    made = compensated(w, plain, seen_by(layer, known), True)
    assert noise(layer, unseen, made.real - w) < 0.25 * noise(layer, unseen, plain.real - w)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("mean", [1e-3, 3.0, 1e4])
@pytest.mark.parametrize("size", [9, 300])
def test_inputs_that_hardly_vary_do_no_harm(size: int, mean: float, spread: float) -> None:
    """Their covariance is less than what floats round away of their mean squares."""
    rng = np.random.default_rng(7)
    rows = (mean * (1 + spread * rng.standard_normal((4096, size)))).astype(np.float32)
    w = rng.standard_normal((16, size))
    layer = Linear(Input(DType.F32, rows.shape, name="x"), Const(w.astype(np.float32)), None)
    plain = quantize_weights(w, np.ones_like(w), np.zeros(len(w)), Options())
    made = compensated(w, plain, seen_by(layer, *np.split(rows, 64)), True)
    assert np.abs(made.real - w).max() <= 8 * plain.scales.max()


@pytest.mark.parametrize("shape", [(5, 3 * COLUMNS + 7), (5, 3, 3, 301), (5, 3, 3, 300)])
def test_wide_rows_are_cut_between_pairs(shape: tuple[int, ...]) -> None:
    w = Const(np.zeros(shape, np.float32))
    if len(shape) == 2:
        layer: Any = Linear(Input(DType.F32, (1, shape[1]), name="x"), w, None)
    else:
        layer = Conv2d(Input(DType.F32, (1, 3, 3, shape[3]), name="x"), w, None)
    columns = Columns.of(layer)
    assert columns is not None
    covered = [i for part in columns.blocks for i in range(part.start, part.stop)]
    assert covered == list(range(int(np.prod(shape[1:]))))
    assert len(columns.blocks) > 1
    assert not any(columns.seconds[part.start] for part in columns.blocks)


def perceptron(rng: Any) -> Graph:
    x = Input(DType.F32, (4, 6), name="x")
    y = Linear(x, Const(rng.standard_normal((8, 6)).astype(np.float32)), None, name="first")
    z = Linear(y, Const(rng.standard_normal((3, 8)).astype(np.float32)), None, name="second")
    return Graph("net", (x,), (z,), ("y",))


def test_a_profile_holds_what_rounding_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    graph = perceptron(rng)
    feeds = [{"x": rng.standard_normal((4, 6)).astype(np.float32)} for _ in range(3)]
    layers = [v for v in graph.order if isinstance(v, Linear)]
    profile = calibrate(graph, feeds, layers=layers)
    assert list(profile.layers) == ["first", "second"]
    profile.save(tmp_path / "profile.npz")
    restored = Profile.load(tmp_path / "profile.npz").layers["second"]
    for a, b in zip(profile.layers["second"].blocks, restored.blocks, strict=True):
        assert (a.count, a.second.tolist()) == (b.count, b.second.tolist())


def test_it_can_be_turned_off() -> None:
    rng = np.random.default_rng(2)
    graph = perceptron(rng)
    feeds = [{"x": rng.standard_normal((4, 6)).astype(np.float32)} for _ in range(8)]
    nearest, made = (quantize(graph, feeds, compensate=c) for c in (False, True))
    assert str(nearest) != str(made)


@given(st.integers(0, 2**32), st.floats(0.3, 3.0))
def test_only_pairs_near_the_limit_are_looked_at(seed: int, power: float) -> None:
    """What is lowered among them is what is lowered among all."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((5, 12))
    rows = np.asarray(np.sign(rows) * np.abs(rows) ** power, np.float32)
    base = weights._largest(rows, True) / weights.LARGEST
    sums = weights._pair_sums(rows, base)
    for share in SHARES:
        scales = weights._rounded(base * share, np.zeros(5))
        found = weights._integers(rows, scales, weights._near(sums, share))
        of_all = weights._integers(rows, scales, np.arange(sums.size))
        np.testing.assert_array_equal(found, of_all)
