from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.errors import DataError
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.elementwise import Add
from irc.ops.unary import Exp
from irc.passes.calibration import calibrate as calibration
from irc.passes.calibration.calibrate import BINS, Profile, Statistics, calibrate
from irc.passes.calibration.data import batches
from irc.passes.quantize.options import METHODS, Options
from irc.passes.quantize.scales import (
    Histogram,
    asymmetric,
    choose_range,
    mse_range,
    squared_error,
)
from irc.types import DType
from tests.passes.nets import Net, residual

ARRAYS = st.lists(
    st.tuples(
        st.integers(0, 2**32), st.floats(1e-6, 1e6), st.floats(-10, 10), st.integers(1, 300)
    ),
    min_size=1,
    max_size=6,
)


def drawn(parts: list[tuple[int, float, float, int]]) -> list[Any]:
    return [
        (np.random.default_rng(seed).standard_normal((n, 2)) + shift).astype(np.float32) * scale
        for seed, scale, shift, n in parts
    ]


@given(ARRAYS)
def test_statistics_hold_every_element(parts: list[tuple[int, float, float, int]]) -> None:
    arrays, s = drawn(parts), Statistics()
    for a in arrays:
        s.add(a)
    whole = np.concatenate(arrays)
    assert s.counts.sum() == whole.size
    assert (s.low, s.high) == (float(whole.min()), float(whole.max()))
    np.testing.assert_allclose(s.mean, whole.mean(0), rtol=1e-5, atol=1e-6 * abs(whole).max())
    np.testing.assert_allclose(s.mean_square, (whole.astype(float) ** 2).mean(0), rtol=1e-5)


@given(ARRAYS)
def test_bins_count_what_lies_in_them(parts: list[tuple[int, float, float, int]]) -> None:
    arrays, s = drawn(parts), Statistics()
    for a in arrays:
        s.add(a)
    whole = np.concatenate(arrays).astype(np.float64).reshape(-1)
    edges = (s.first + np.arange(BINS + 1)) * s.width
    # Bins are closed below: searchsorted tells each element's bin.
    bins = np.searchsorted(edges, whole, side="right") - 1
    np.testing.assert_array_equal(np.bincount(bins, minlength=BINS), s.counts)
    # The range fills a good part of the bins: the resolution that methods rely on.
    assert s.width <= max(abs(s.low), abs(s.high)) / (BINS / 8)


def test_memory_does_not_grow() -> None:
    s, rng = Statistics(), np.random.default_rng(0)
    for scale in (1, 1e-3, 1e5, 1):
        s.add(rng.standard_normal((1000, 3)).astype(np.float32) * np.float32(scale))
        assert (len(s.counts), len(s.total), len(s.squares)) == (BINS, 3, 3)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_zero_is_exact(low: float, extent: float) -> None:
    q = asymmetric(low, low + extent)
    assert 0 <= q.zero <= 255
    # The ends are within half a step, which rounding the zero point may cost.
    step = q.tensor_scale
    assert (0 - q.zero) * step <= min(low, 0.0) + 0.51 * step
    assert (255 - q.zero) * step >= max(low + extent, 0.0) - 0.51 * step


def test_a_constant_value_has_a_scale() -> None:
    assert asymmetric(0.0, 0.0).tensor_scale > 0


def measured(array: Any) -> Statistics:
    s = Statistics()
    s.add(array)
    return s


def test_percentile_leaves_out_outliers() -> None:
    a = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    a[7] = 50.0
    low, high = choose_range([measured(a)], Options(method="percentile"))
    assert high < 1.2
    assert low == pytest.approx(-1, abs=0.1)
    assert choose_range([measured(a)], Options(method="minmax"))[1] == 50.0


def test_mse_beats_minmax_on_outliers() -> None:
    a = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    a[7] = 20.0
    h = Histogram.merged([measured(a)])
    chosen, whole = asymmetric(*mse_range(h)), asymmetric(h.low, h.high)
    assert squared_error(h, chosen) < 0.5 * squared_error(h, whole)
    # The histogram's error is the true one, nearly.
    q = np.clip(np.rint(a / chosen.tensor_scale) + chosen.zero, 0, 255)
    true = float((((q - chosen.zero) * chosen.tensor_scale - a) ** 2).sum())
    assert squared_error(h, chosen) == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_lie_within_the_data(method: str) -> None:
    a = np.random.default_rng(1).exponential(size=5000).astype(np.float32)
    low, high = choose_range([measured(a)], Options(method=method))
    assert 0 <= low < high <= a.max()


def test_profile_is_replayed(tmp_path: Path) -> None:
    net = Net()
    graph = residual(net)
    profile = calibrate(graph, batches(graph, net.samples()))
    profile.save(tmp_path / "profile")
    again = Profile.load(tmp_path / "profile")
    again.check(graph)
    assert (again.samples, list(again.values)) == (8, list(profile.values))
    for old, new in zip(profile.values.values(), again.values.values(), strict=True):
        for f in ("low", "high", "width", "first", "rows"):
            assert getattr(old, f) == getattr(new, f)
        np.testing.assert_array_equal(old.counts, new.counts)
        np.testing.assert_array_equal(old.mean, new.mean)


def test_stale_profile_is_refused(tmp_path: Path) -> None:
    net = Net()
    profile = calibrate(graph := residual(net), batches(graph, net.samples()))
    with pytest.raises(DataError, match="another graph"):
        profile.check(residual(Net(seed=1)))
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(DataError, match="no calibration profile"):
        Profile.load(tmp_path / "text")


def test_unnamed_values_have_keys_of_their_own() -> None:
    x = Input(DType.F32, (1, 2), name="x")
    graph = Graph("g", (x,), (Add(Add(x, x), Add(x, x, name="x")),), ("y",))
    assert len(calibrate(graph, batches(graph, "random:2")).values) == 4


def test_progress_counts_samples() -> None:
    net = Net()
    seen: list[int] = []
    calibrate(graph := residual(net), batches(graph, net.samples(3)), progress=seen.append)
    assert seen == [1, 2, 3]


def test_every_source_gives_the_same_samples(tmp_path: Path) -> None:
    net = Net()
    graph, data = residual(net), net.samples(3)
    np.savez(tmp_path / "d.npz", x=data[:, 0])
    sources: list[Any] = [
        data, data[:, 0], {"x": data}, {"x": data[:, 0]},
        tmp_path / "d.npz", str(tmp_path / "d.npz"),
        [{"x": a} for a in data], list(data), [{"x": a[0]} for a in data], iter(list(data[:, 0])),
        [data[:, 0]],
    ]  # fmt: skip
    for source in sources:
        fed = [b["x"] for b in batches(graph, source)]
        np.testing.assert_array_equal(np.stack(fed), data)


def test_random_data_is_seeded() -> None:
    graph = residual(Net())
    first, second = ([b["x"] for b in batches(graph, "random:2")] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(first) == 2


def spoiled(value: float) -> Any:
    data = Net().samples(4)
    data[2, 0, 1, 1, 1] = value
    return data


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.float32), "no sample"),
        ([], "no sample"),
        (spoiled(np.nan), "input x: sample 2 holds NaN"),
        (spoiled(np.inf), "input x: sample 2 holds NaN or inf"),
        (np.full((2, 8, 8, 3), 1e300), "input x: sample 0 holds numbers too large for f32"),
        ({"z": np.zeros((1, 8, 8, 3))}, r"for \['z'\], net takes \['x'\]"),
        ({}, "net takes"),
        (np.zeros((2, 9, 8, 3)), r"shape \[2, 9, 8, 3\]"),
        (np.zeros((2, 3, 8, 8)), "another order"),
        (np.zeros((2, 8, 8, 3), bool), "dtype bool"),
        (np.array([["a"] * 3] * 2), "shape"),
        ("random:0", "positive number"),
        ("random:x", "positive number"),
        ("absent.npz", "can't read"),
        (17, "can't be read"),
    ],
)
def test_bad_data_is_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(batches(residual(Net()), source))


def test_a_text_file_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"is no \.npz archive of numbers: save it with"):
        batches(residual(Net()), path)
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"no \.npz"):
        batches(residual(Net()), tmp_path / "d.npy")


def test_overflow_inside_the_model_is_named() -> None:
    x = Input(DType.F32, (1, 2), name="x")
    graph = Graph("g", (x,), (Exp(x, name="e"),), ("y",))
    data = np.array([[1, 2], [3, 1000]], np.float32)
    with pytest.raises(DataError, match="exp %e becomes NaN or infinite in sample 1"):
        calibrate(graph, batches(graph, data))


def test_whole_numbers_are_known_as_such() -> None:
    def of(*values: float) -> Statistics:
        made = Statistics()
        made.add(np.array(values, np.float32))
        return made

    assert of(0, 3, 16).whole
    assert of(-2, 5).whole
    assert not of(0, 3.5, 16).whole
    assert not Statistics().whole


def test_samples_may_be_made_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As loops have it that write each sample over the one before."""
    x = Input(DType.F32, (1, 4), name="x")
    graph, place = Graph("g", (x,), (Add(x, x),), ("y",)), np.zeros((1, 4), np.float32)

    def samples() -> Iterator[Any]:
        for i in range(6):
            place[:] = i
            yield {"x": place}

    found = calibrate(graph, batches(graph, samples()))
    for i, (feed, outputs) in enumerate(zip(found.feeds, found.outputs, strict=True)):
        assert (feed["x"] == i).all()
        assert (outputs["y"] == 2 * i).all()
    monkeypatch.setattr(calibration, "MEMORY", 2 * 4 * 4)
    few = calibrate(graph, batches(graph, samples()))
    assert (len(few.feeds), len(few.outputs)) == (6, 2)
