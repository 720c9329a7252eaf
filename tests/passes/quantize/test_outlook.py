"""Ranges for samples that calibration did not see, and what it makes one doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.history import history_of
from irc.ops.activation import Relu
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.passes.calibration.calibrate import Profile, Statistics
from irc.passes.quantize.calibration_warnings import pixels
from irc.passes.quantize.options import Options
from irc.passes.quantize.quantize import profile, quantize
from irc.passes.quantize.ranges import whole_quant
from irc.passes.quantize.scales import LEVELS, choose_quant, fitted
from irc.types import Array, DType, Quant
from tests.passes.nets import sqnr


def measured(samples: list[Array]) -> Statistics:
    s = Statistics()
    for sample in samples:
        s.add(sample.astype(np.float32))
    return s


def normal(count: int, size: int = 3) -> list[Array]:
    return list(np.random.default_rng(0).normal(0, 1, (count, 1, size)))


def extent(q: Quant) -> float:
    return LEVELS * q.tensor_scale


def ratio(samples: list[Array]) -> float:
    """How much wider a range is than what suits the samples alone."""
    parts = [measured(samples)]
    return extent(choose_quant(parts, Options())) / extent(fitted(parts, Options()))


def test_few_samples_leave_room_for_others() -> None:
    ratios = [ratio(normal(count)) for count in (1, 4, 16, 49, 400)]
    assert ratios[0] > 1.5
    assert ratios[2] > ratios[3] > 1.1
    assert ratios[4] == 1


def test_few_numbers_leave_room_on_both_sides() -> None:
    """One of each sample, most of them above zero: others lie further below it than any did."""
    rng = np.random.default_rng(3)
    others, noise = rng.normal(1, 1, 1000), 0.0
    for samples in np.split(rng.normal(1, 1, 320), 10):
        q = choose_quant([measured([s.reshape(1, 1) for s in samples.astype(np.float32)])],
                         Options())  # fmt: skip
        low, high = q.tensor_scale * (0 - q.zero), q.tensor_scale * (LEVELS - q.zero)
        noise += float(np.square(np.clip(others, low, high) - others).mean()) / 10
    assert noise < 2e-3 * np.square(others).mean()


def test_few_bounded_numbers_keep_their_bounds() -> None:
    """A ReLU's zeros, of which there are several."""
    samples = [np.maximum(s, 0) for s in normal(32, 1)]
    assert choose_quant([measured(samples)], Options()).zero == 0


@pytest.mark.filterwarnings("error")
def test_one_huge_number_is_a_range() -> None:
    """Where a recurrence in logarithms begins: so many steps from zero that no integer holds it."""
    q = choose_quant([measured([np.full((1, 4), -1e30), np.full((1, 4), -1e30)])], Options())
    assert q.tensor_scale == pytest.approx(1e30 / LEVELS, rel=1e-6)


def test_many_elements_leave_less() -> None:
    """A few of them beyond the range cost less than coarser steps for all."""
    assert ratio(normal(4, 50_000)) < ratio(normal(4)) - 0.1


def test_bounds_stay() -> None:
    clipped = [np.clip(3 * s, 0, 6) for s in normal(4, 500)]
    q = choose_quant([measured(clipped)], Options())
    assert q.zero == 0
    assert extent(q) == pytest.approx(6, rel=0.01)


def test_other_methods_take_what_was_measured() -> None:
    parts = [measured(normal(4))]
    options = Options(method="minmax")
    assert choose_quant(parts, options) == fitted(parts, options)


def scores() -> Graph:
    """A layer of few outputs."""
    x = Input(DType.F32, (1, 16), name="x")
    w = np.random.default_rng(0).normal(0, 1, (3, 16)).astype(np.float32)
    return Graph("scores", (x,), (Linear(x, Const(w, name="w")),), ("y",))


def rows(seed: int, count: int) -> list[dict[str, Array]]:
    made = np.random.default_rng(seed).normal(0, 1, (count, 1, 16)).astype(np.float32)
    return [{"x": row} for row in made]


def test_unseen_samples_are_held() -> None:
    graph = scores()
    made = driver.integerize(irc.quantize(graph, calibration=rows(0, 16)))
    wanted, found = [], []
    for feed in rows(1, 200):
        wanted.append(evaluate(graph, feed)["y"])
        got = evaluate(made, edge.to_integers(made.input_types, feed)[0])
        found.append(edge.to_reals(made.output_types, got)["y"])
    assert sqnr(np.stack(wanted), np.stack(found)) > 28


def test_a_profile_knows_how_unlike_samples_are(tmp_path: Any) -> None:
    graph = driver.simplify(scores())
    profile(graph, rows(0, 4)).save(tmp_path / "profile.npz")
    kept = Profile.load(tmp_path / "profile.npz")
    assert str(quantize(graph, kept)) == str(quantize(graph, rows(0, 4)))


@pytest.mark.parametrize(
    ("data", "doubt"),
    [
        (rows(0, 1), "calibrated on 1 sample: what others hold is a guess"),
        (rows(0, 1) * 6, "input x is the same in all calibration samples"),
        ([{"x": np.full((1, 16), 0.5, np.float32)}] * 6, "input x is 0.5 everywhere"),
    ],
)
def test_doubts_are_told(data: list[dict[str, Array]], doubt: str) -> None:
    (note,) = history_of(irc.quantize(scores(), calibration=data)).notes
    assert note.startswith(doubt)


def test_data_without_doubt_are_not_spoken_of() -> None:
    assert not history_of(irc.quantize(scores(), calibration=rows(0, 6))).notes


def test_pixels_that_are_not_normalised_are_noted() -> None:
    x = Input(DType.F32, (1, 4, 4, 3), name="x")
    graph = Graph("g", (x,), (Linear(x, Const(np.ones((2, 3), np.float32))),), ("y",))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3)).astype(np.float32)
    (note,) = history_of(irc.quantize(graph, calibration=pixels)).notes
    assert note.startswith("input x holds whole numbers from 0 to 25")
    assert not history_of(irc.quantize(graph, calibration=pixels / 255)).notes


def test_pictures_of_one_number_are_no_pixels() -> None:
    x = Input(DType.F32, (1, 4, 4, 3), name="x")
    graph = Graph("g", (x,), (Relu(x),), ("y",))
    same, mixed = np.full(x.shape, 7.0), np.arange(48.0).reshape(x.shape)
    assert not list(pixels(graph, [{"x": same}]))
    assert len(list(pixels(graph, [{"x": mixed}]))) == 1


@pytest.mark.parametrize("largest", [40, 200, 255, 400])
def test_room_for_others_costs_no_whole_number(largest: int) -> None:
    """Whole numbers that 8 bits hold stay what they are, however few were measured."""
    numbers = np.random.default_rng(0).integers(0, largest + 1, (32, 1, 1))
    part = measured(list(numbers))
    roomy = choose_quant([part], Options())
    made = whole_quant(roomy, [part], [float(largest)])
    if largest <= LEVELS:
        assert made.tensor_scale == 1 or (largest == 40 and made.tensor_scale == 0.5)
        assert made.tensor_scale * (LEVELS - made.zero) >= largest
    else:
        assert made == roomy
