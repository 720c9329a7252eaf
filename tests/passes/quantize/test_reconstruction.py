"""Ranges by what layers make of values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import irc
from irc import fixedpoint
from irc.graph import Graph
from irc.ops.activation import HardSwish, Sigmoid
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.quantization import Quantize
from irc.ops.shape import Concat, Reshape
from irc.passes.quantize import reconstruction
from irc.passes.quantize.ranges import Ranges
from irc.passes.quantize.reconstruction import FACTORS, _Channels, _Reach
from irc.passes.quantize.sites import Sites
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.passes.quantize.test_rescue import Feeds, quality

SIZES = np.array([0.15, 0.2, 0.25, 0.3, 0.2, 0.4, 20.0, 30.0])
"""Of channels that one scale must hold, and that a layer evens out."""


def const(array: npt.ArrayLike) -> Const:
    return Const(np.asarray(array, np.float32))


def conv(x: Value, w: npt.ArrayLike, b: npt.ArrayLike, groups: int = 1, name: str = "") -> Conv2d:
    w = np.asarray(w)
    pad = w.shape[1] // 2
    return Conv2d(x, const(w), const(b), (1, 1), (pad,) * 4, (1, 1), groups, name=name)


def unlike(seed: int) -> Graph:
    """Channels that are unlike, a function of them, and a layer that reads each for itself."""
    rng = np.random.default_rng(seed)
    x = Input(DType.F32, (1, 24, 24, 4), name="x")
    w = rng.normal(0, 0.5, (8, 1, 1, 4)) * SIZES[:, None, None, None]
    made = HardSwish(conv(x, w, rng.normal(0, 0.3, 8) * SIZES, name="unlike"), name="swish")
    taps = rng.normal(0, 1, (8, 3, 3, 1)) / SIZES[:, None, None, None]
    return Graph("unlike", (x,), (conv(made, taps, np.zeros(8), 8, "even"),), ("y",))


def images(seed: int, count: int = 8) -> Feeds:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, 24, 24, 4)).astype(np.float32)} for _ in range(count)]


def scales(made: Graph) -> dict[str, Quant]:
    return {v.name: fixedpoint.quant_of(v.type) for v in made.order if isinstance(v, Quantize)}


def without_and_with(graph: Graph, **options: Any) -> tuple[Graph, Graph]:
    """The QDQ graphs of the same samples, of ranges as they are and of reconstructed ones."""
    plain, made = (
        irc.quantize(graph, calibration=images(0), min_sqnr=0, reconstruct=on, **options)
        for on in (False, True)
    )
    return plain, made


@pytest.mark.parametrize("seed", [1, 2, 8])
def test_layers_that_even_channels_out_see_less_noise(seed: int) -> None:
    graph = unlike(seed)
    plain, made = without_and_with(graph)
    assert quality(graph, made, images(1)) > quality(graph, plain, images(1)) + 2
    before, after = scales(plain), scales(made)
    moved = {n for n in before if n in after and before[n] != after[n]}
    assert moved <= {"unlike.q", "swish.q"}
    for name in moved:
        ratio = after[name].tensor_scale / before[name].tensor_scale
        assert min(abs(ratio - f) for f in FACTORS) < 1e-3
        assert after[name].zero == before[name].zero


@pytest.mark.parametrize("seed", [0, 3, 9])
def test_what_would_not_help_is_left(seed: int) -> None:
    graph = unlike(seed)
    plain, made = without_and_with(graph)
    assert quality(graph, made, images(1)) > quality(graph, plain, images(1)) - 0.3


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_a_method_of_literal_meaning_stays(method: str) -> None:
    plain, made = without_and_with(unlike(1), method=method)
    assert scales(plain) == scales(made)


def test_nothing_is_looked_at_that_has_no_scale_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A concatenation's parts share one; inputs and outputs are the caller's; few elements tell
    nothing."""
    looked: list[str] = []

    def best(self: object, reach: _Reach) -> float:
        looked.append(reach.inside[0].name)
        return 1.0

    monkeypatch.setattr(reconstruction._Search, "best", best)
    rng = np.random.default_rng(0)
    x = Input(DType.F32, (1, 24, 24, 4), name="x")
    parts = [conv(x, rng.normal(0, 1, (4, 1, 1, 4)), np.zeros(4), name=n) for n in "ab"]
    both = Concat(tuple(parts), 3, name="both")
    alone = conv(both, rng.normal(0, 1, (8, 1, 1, 8)), np.zeros(8), name="alone")
    bounded = Sigmoid(alone, name="bounded")
    last = conv(bounded, rng.normal(0, 1, (8, 1, 1, 8)), np.zeros(8), name="last")
    graph = Graph("g", (x,), (last,), ("y",))
    irc.quantize(graph, calibration=images(0), min_sqnr=0)
    assert looked == ["alone"]
    looked.clear()
    monkeypatch.setattr(reconstruction, "ELEMENTS", 10**9)
    irc.quantize(graph, calibration=images(0), min_sqnr=0)
    assert not looked


def reach(graph: Graph, name: str) -> tuple[Sequence[str], Sequence[str]]:
    (v,) = (v for v in graph.order if v.name == name)
    found = _Reach.of(v, Sites(graph))
    return [u.name for u in found.inside], [u.name for u in found.readers]


def test_functions_are_followed_to_what_reads_them() -> None:
    x = Input(DType.F32, (1, 6, 6, 4), name="x")
    v = conv(x, np.ones((4, 1, 1, 4)), np.zeros(4), name="v")
    swish = Mul(v, Sigmoid(v, name="gate"), name="swish")
    moved = Reshape(swish, (1, 36, 1, 4), name="moved")
    one = conv(moved, np.ones((4, 1, 1, 4)), np.zeros(4), name="one")
    two = Add(v, x, name="two")
    graph = Graph("g", (x,), (one, two), ("one", "two"))
    assert reach(graph, "v") == (["v", "gate", "swish", "moved"], ["two", "one"])
    assert reach(graph, "one") == (["one"], [])


def test_noise_is_of_each_channel_by_its_own_variance() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (1, 50, 50, 3)) * np.array([1.0, 100.0, 0.0])
    off = rng.normal(0, 0.1, (1, 50, 50, 3)) * np.array([1.0, 100.0, 1.0])
    assert noise(real, real + off, centred=False) == pytest.approx(0.01, rel=0.1)
    shifted = real + off + np.array([1.0, 50.0, 0.0])
    assert noise(real, shifted, centred=True) == pytest.approx(0.01, rel=0.1)
    assert noise(real, shifted, centred=False) == pytest.approx(0.01 + 0.625, rel=0.1)
    few = real[:, :1, :4] + np.array([1.0, 50.0, 0.0])
    assert noise(real[:, :1, :4], few, centred=True) > 0.1  # chance, of so few rows


def noise(real: Array, made: Array, *, centred: bool) -> float:
    total = _Channels(centred)
    for rows in (slice(0, 30), slice(30, None)):
        if real[:, rows].size:
            total.add(real[:, rows], made[:, rows])
    return total.noise


def test_ranges_are_chosen_once() -> None:
    v, w = (Input(DType.F32, (1,), name=n) for n in "vw")
    ranges, calls = Ranges({v: 2.0}), []

    def choose() -> Quant:
        calls.append(1)
        return Quant(0.5, 7)

    assert ranges.of([v], [], choose) == ranges.of([v], [], choose) == Quant(1.0, 7)
    assert len(calls) == 1
    assert ranges.of([v, w], [], choose) == Quant(0.5, 7)  # not a scale for itself
    assert ranges.of([w], [], choose) == Quant(0.5, 7)
    assert len(calls) == 3


def beside(bring: float | None, *, given: bool = False) -> Graph:
    """Channels that a layer evens out, beside a constant, and as an output, perhaps."""
    rng = np.random.default_rng(3)
    x = Input(DType.F32, (1, 24, 24, 4), name="x")
    sizes = SIZES if bring is None else np.ones(8)
    w = rng.normal(0, 0.5, (8, 1, 1, 4)) * sizes[:, None, None, None]
    read: Value = conv(x, w, rng.normal(0, 0.3, 8) * sizes, name="unlike")
    made = read
    if bring is not None:
        read = Concat((read, const(np.full((1, 24, 24, 1), bring))), 3)
        sizes = np.append(sizes, 100.0)
    taps = rng.normal(0, 1, (sizes.size, 3, 3, 1)) / sizes[:, None, None, None]
    even = conv(read, taps, np.zeros(sizes.size), sizes.size, "even")
    outputs: tuple[Value, ...] = (even, made) if given else (even,)
    return Graph("beside", (x,), outputs, ("y", "z")[: len(outputs)])


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        (beside(None), True), (beside(None, given=True), False),
        (beside(100.0), False), (beside(0.0), False),
    ],
    ids=["inside", "an output", "a constant", "zeros"],
)  # fmt: skip
def test_what_others_ask_of_a_range_stays(graph: Graph, changes: bool) -> None:
    """The caller reads outputs as well, and constants beside a value must not be clipped."""
    found = [
        scales(irc.quantize(graph, calibration=images(0), min_sqnr=0, reconstruct=on))
        for on in (False, True)
    ]
    assert (found[0]["unlike.q"] != found[1]["unlike.q"]) is changes


def test_functions_that_are_outputs_are_read() -> None:
    x = Input(DType.F32, (1, 6, 6, 4), name="x")
    v = conv(x, np.ones((4, 1, 1, 4)), np.zeros(4), name="v")
    swish = HardSwish(v, name="swish")
    one = conv(swish, np.ones((4, 1, 1, 4)), np.zeros(4), name="one")
    assert reach(Graph("g", (x,), (one, swish), ("one", "s")), "v")[1] == ["one", "swish"]


def test_numbers_that_become_none_are_noise() -> None:
    """A rounding by which a reader divides by zero is none to choose."""
    real = np.random.default_rng(0).normal(0, 1, (1, 50, 50, 3))
    made = real.copy()
    made[0, 40, 0, 1] = np.inf
    with np.errstate(invalid="ignore"):
        assert noise(real, made, centred=False) == np.inf
        assert noise(made, made, centred=False) == 0  # an infinity of float's own tells nothing
