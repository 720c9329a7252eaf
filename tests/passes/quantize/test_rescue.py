"""What is done unasked where a result is poor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.history import history_of
from irc.ops.activation import Clip, Relu, Tanh
from irc.ops.cast import Cast
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Mul, Sub
from irc.ops.linear import Linear
from irc.ops.pool import MaxPool2d
from irc.ops.reduce import ReduceSum
from irc.ops.shape import Reshape, Slice
from irc.ops.spectrum import Magnitude
from irc.ops.unary import Exp, Log
from irc.passes.quantize import rescue, sensitivity
from irc.passes.quantize import weights as weighting
from irc.passes.quantize.precision_search import Refinement
from irc.passes.quantize.sites import Sites
from irc.properties import is_qdq
from irc.types import Array, DType
from tests.backends.harness import agree
from tests.passes.nets import sqnr

Feeds = list[dict[str, Array]]


def const(array: Any, name: str = "c") -> Const:
    return Const(np.asarray(array, np.float32), name=name)


def wasteful(factor: float = 1000.0) -> Graph:
    """A channel that nothing reads takes nearly all of a range."""
    x = Input(DType.F32, (1, 6, 6, 4), name="x")
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.3, (4, 1, 1, 4)), rng.normal(0, 0.3, (5, 3, 3, 4))
    first[0] *= factor
    second[..., 0] = 0
    a = MaxPool2d(Relu(Conv2d(x, const(first)), name="a"), (2, 2), (2, 2), name="p")
    return Graph("wasteful", (x,), (Conv2d(a, const(second), name="y"),), ("y",))


def images(seed: int, count: int = 12) -> Feeds:
    made = np.random.default_rng(seed).normal(0, 1, (count, 1, 6, 6, 4))
    return [{"x": x.astype(np.float32)} for x in made]


def logarithms() -> Graph:
    """Powers of a spectrum in decibels, and a layer that reads them."""
    x = Input(DType.F32, (1, 64), name="x")
    angles = np.outer(np.arange(1, 17) / 6, np.arange(64))
    basis = np.concatenate([np.cos(angles), np.sin(angles)])
    parts = Linear(x, const(basis), name="parts")
    a, b = (Slice(parts, (0, i), (1, i + 16), (1, 1)) for i in (0, 16))
    size = Magnitude(a, b, name="size")
    power = Clip(Mul(size, size), 1e-10, np.inf)
    decibels = Reshape(Log(power, name="log"), (1, 16), name="r")
    w = np.random.default_rng(0).normal(0, 1, (5, 16))
    return Graph("decibels", (x,), (Linear(decibels, const(w - w.mean(1, keepdims=True))),), ("y",))


def sounds(seed: int, count: int = 40) -> Feeds:
    """Frames of a tone in faint noise, some loud, most quiet."""
    rng = np.random.default_rng(seed)
    tones = np.sin(np.outer(rng.uniform(0.1, 2.5, count), np.arange(64)))
    heard = (tones + rng.normal(0, 0.05, tones.shape)) * 10 ** rng.uniform(-2, 0, (count, 1))
    return [{"x": row[None].astype(np.float32)} for row in heard]


def quality(graph: Graph, made: Graph, feeds: Feeds) -> float:
    """The SQNR in dB of an integer graph's output."""
    integer = driver.integerize(made)
    found = [
        edge.to_reals(
            integer.output_types, evaluate(integer, edge.to_integers(integer.input_types, f)[0])
        )["y"]
        for f in feeds
    ]
    return sqnr(np.stack([evaluate(graph, f)["y"] for f in feeds]), np.stack(found))


def test_poor_results_are_bettered_unasked() -> None:
    graph = wasteful()
    plain = irc.quantize(graph, calibration=images(0), min_sqnr=0)
    made = irc.quantize(graph, calibration=images(0))
    assert quality(graph, plain, images(1)) < rescue.POOR
    assert quality(graph, made, images(1)) > 18
    assert not history_of(plain).notes
    (note,) = history_of(made).notes
    assert note.startswith("1 value has 16 bits, since an output had ")
    assert note.endswith("--min-sqnr 0 leaves that")
    integer = driver.integerize(made)
    assert "join_bytes" in {v.op for v in integer.order}
    agree(integer, edge.to_integers(integer.input_types, images(2)[0])[0], ("host",), numba=True)


def test_logarithms_need_no_bettering() -> None:
    graph = logarithms()
    made = irc.quantize(graph, calibration=sounds(0), min_sqnr=0)
    assert quality(graph, made, sounds(1)) > 20
    integer = driver.integerize(made)
    assert "lookup_wide" in {v.op for v in integer.order}
    agree(integer, edge.to_integers(integer.input_types, sounds(2)[0])[0], ("host",), numba=True)


def test_weights_are_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, rounded = wasteful(), list[Any]()
    plainly = weighting.quantize_weights

    def counted(*given: Any) -> Any:
        rounded.append(given)
        return plainly(*given)

    monkeypatch.setattr(weighting, "quantize_weights", counted)
    made = irc.quantize(graph, calibration=images(0))
    assert history_of(made).notes
    assert len(rounded) == 2, "two layers"


def test_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The float graph by calibration, the corrected one while it is corrected."""
    computed = list[tuple[int, int]]()
    plain = sensitivity.real_outputs

    def counted(graph: Graph, feed: dict[str, Array]) -> dict[str, Array]:
        computed.append((id(graph), id(feed)))
        assert is_qdq(graph)
        return plain(graph, feed)

    monkeypatch.setattr(sensitivity, "real_outputs", counted)
    graph, kept = wasteful(1.0), images(0)
    made = irc.quantize(graph, calibration=kept)
    assert len(computed) == len(set(computed)) <= 2 * rescue.FEW
    assert quality(graph, made, images(1)) > 30


def test_good_results_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(Refinement, "ranked", never)
    graph = wasteful(1.0)
    made = irc.quantize(graph, calibration=images(0))
    assert str(made) == str(irc.quantize(graph, calibration=images(0), min_sqnr=0))
    assert not history_of(made).notes


@pytest.mark.parametrize("given", [{"calibration": "random:4"}, {"activations": 8}])
def test_noise_and_eight_bits_are_taken_as_they_are(given: dict[str, Any]) -> None:
    made = irc.quantize(wasteful(), **{"calibration": images(0), **given})
    assert str(made) == str(
        irc.quantize(wasteful(), **{"calibration": images(0), **given, "min_sqnr": 0})
    )
    assert not history_of(made).notes


@pytest.mark.parametrize(("name", "value"), [("SHARE", 0.0), ("WORTH", 90.0), ("TRIALS", 0)])
def test_what_costs_too_much_or_gains_too_little_is_left(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, name, value)
    made = irc.quantize(wasteful(), calibration=images(0))
    assert str(made) == str(irc.quantize(wasteful(), calibration=images(0), min_sqnr=0))


def test_a_pass_takes_the_option() -> None:
    graph = driver.simplify(wasteful(1.0))
    made = driver.run_passes(graph, "quantize{calibration=random:4,min_sqnr=0}")
    assert str(made) == str(driver.run_passes(graph, "quantize{calibration=random:4}"))


def test_what_was_quantized_stays_where_nothing_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that can't be told apart, as infinitely far ones, leave the graph as it was."""
    monkeypatch.setattr(Refinement, "reached", lambda *_: -math.inf)
    made = irc.quantize(wasteful(), images(0))
    assert is_qdq(made)
    assert not any("16 bits" in note for note in history_of(made).notes)


def neighbours() -> Graph:
    """Bells around points of a table, and a layer that adds them up."""
    rng = np.random.default_rng(0)
    x = Input(DType.F32, (1, 4), name="x")
    row = Reshape(x, (1, 1, 4))
    apart = Sub(row, const(rng.normal(0, 1, (1, 24, 4))), name="apart")
    distances = ReduceSum(Mul(apart, apart, name="squares"), (2,), False, name="distances")
    bells = Exp(Mul(distances, const(np.asarray(-0.7))), name="bells")
    y = Linear(bells, const(rng.normal(0, 1, (1, 24))), name="y")
    return Graph("bells", (x,), (y,), ("y",))


def test_small_networks_have_sixteen_bits() -> None:
    """Where 8 leave less than 30 dB, wherever they may be."""
    graph = neighbours()
    rows = np.random.default_rng(1).uniform(-1, 1, (2, 200, 1, 4)).astype(np.float32)
    feeds = [[{"x": x} for x in half] for half in rows]
    plain = irc.quantize(graph, calibration=feeds[0], min_sqnr=0)
    made = irc.quantize(graph, calibration=feeds[0])
    assert quality(graph, plain, feeds[1]) < 32
    assert quality(graph, made, feeds[1]) > 34
    (note,) = history_of(made).notes
    assert "values have 16 bits, since an output had " in note


def test_not_where_layers_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the speed and twice the memory are a price."""
    rows = np.random.default_rng(1).uniform(-1, 1, (64, 1, 4)).astype(np.float32)
    feeds = [{"x": x} for x in rows]
    monkeypatch.setattr(rescue, "LIGHT", 20)
    assert not history_of(irc.quantize(neighbours(), calibration=feeds)).notes
    monkeypatch.setattr(rescue, "LIGHT", 24)
    assert history_of(irc.quantize(neighbours(), calibration=feeds)).notes


def test_weights_keep_eight_bits_where_values_suffice() -> None:
    """As few as are asked for: weights of 16 bits are twice the memory."""
    rng = np.random.default_rng(2)
    x = Input(DType.F32, (1, 8), name="x")
    h = Linear(x, const(rng.choice([-1.0, 1.0], (8, 8)) * 0.5), name="h")
    w = rng.choice([-1.0, 1.0], (2, 8)) * 0.5
    graph = Graph("even", (x,), (Linear(Tanh(h), const(w), name="y"),), ("y",))
    rows = rng.normal(0, 1, (2, 64, 1, 8)).astype(np.float32)
    rows[..., 0] *= 100
    feeds = [[{"x": x} for x in half] for half in rows]
    made = irc.quantize(graph, calibration=feeds[0])
    (note,) = history_of(made).notes
    assert "16 bits" in note
    assert sum(v.op == "linear" for v in made.order) == 2


def test_small_networks_have_weights_of_sixteen_bits() -> None:
    """Large weights whose part cancels beside small ones that 8 bits hold none of."""
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.3, (3, 8))
    w[:, :2] = 30.0, -30.0
    x = Input(DType.F32, (1, 8), name="x")
    h = Linear(Tanh(x), const(w), const(np.full(3, 0.25)), name="h")
    y = Linear(Tanh(h), const(rng.normal(0, 1, (2, 3))), name="y")
    graph = Graph("small", (x,), (y,), ("y",))
    rows = rng.normal(0, 1, (2, 100, 1, 8)).astype(np.float32)
    rows[..., 1] = rows[..., 0] + rng.normal(0, 0.01, rows.shape[:-1])
    feeds = [[{"x": x} for x in half] for half in rows]
    plain = irc.quantize(graph, calibration=feeds[0], min_sqnr=0)
    made = irc.quantize(graph, calibration=feeds[0])
    assert quality(graph, plain, feeds[1]) < 28
    assert quality(graph, made, feeds[1]) > 38
    integer = driver.integerize(made)
    assert sum(v.op == "join_bytes" for v in integer.order) == 3
    agree(integer, edge.to_integers(integer.input_types, feeds[1][0])[0], ("host",), numba=True)


@pytest.mark.parametrize("dtype", [DType.U8, DType.F32])
def test_pictures_are_no_tables(dtype: DType) -> None:
    x = Input(dtype, (1, 12, 12, 3), name="x")
    pixels = x if dtype.is_float else Cast(x, DType.F32)
    y = Conv2d(pixels, const(np.ones((8, 3, 3, 3))))

    def never(*_: Any) -> Any:
        raise AssertionError

    assert not rescue.Rescue(Sites(Graph("g", (x,), (y,), ("y",))), (), never).small
