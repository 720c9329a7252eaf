"""What the rounding of single values costs, and values that get 16 bits for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.errors import CompileError, DataError, IRCError
from irc.graph import Graph, evaluate
from irc.ops.activation import HardSwish, Relu
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.pool import MaxPool2d
from irc.passes.calibration.calibrate import Profile
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.precision_search import Refinement
from irc.passes.quantize.quantize import profile, quantize
from irc.passes.quantize.sensitivity import Energy, sensitivities
from irc.passes.quantize.sites import Sites
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import agree
from tests.passes.nets import NETS, Net, sqnr


def const(array: Any, name: str = "c") -> Const:
    return Const(np.asarray(array, np.float32), name=name)


def table(columns: int = 4) -> Graph:
    """A small network over columns of unlike sizes, each as telling as the others."""
    x = Input(DType.F32, (1, columns), name="x")
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, (16, columns)) / 10.0 ** np.arange(columns)
    hidden = Relu(Linear(x, const(w), const(rng.normal(0, 1, 16))), name="hidden")
    return Graph("table", (x,), (Linear(hidden, const(rng.normal(0, 1, (3, 16)))),), ("y",))


def rows(seed: int, columns: int = 4, count: int = 40) -> list[dict[str, Array]]:
    made = np.random.default_rng(seed).normal(0, 1, (count, 1, columns))
    return [{"x": (row * 10.0 ** np.arange(columns)).astype(np.float32)} for row in made]


def quality(graph: Graph, made: Graph, feeds: list[dict[str, Array]]) -> float:
    """The least SQNR of an output of an integer graph."""
    wanted = [evaluate(graph, f) for f in feeds]
    found = [
        edge.to_reals(made.output_types, evaluate(made, edge.to_integers(made.input_types, f)[0]))
        for f in feeds
    ]
    return min(
        sqnr(np.stack([w[n] for w in wanted]), np.stack([f[n] for f in found]))
        for n in graph.output_names
    )


def test_only_what_follows_is_computed_anew() -> None:
    x = Input(DType.F32, (1, 8), name="x")
    a, b = Mul(x, const(2.0), name="a"), Add(x, const(1.0), name="b")
    graph = Graph("g", (x,), (a, b), ("a", "b"))
    feed = {"x": np.linspace(0, 1, 8, dtype=np.float32)[None]}
    coarse, exact = (TensorType(DType.U8, (1, 8), Quant(s)) for s in (0.5, 1 / 7))
    found = sensitivities(graph, [feed], {x: coarse, a: coarse})
    rounded = np.rint(feed["x"] / 0.5) * 0.5
    assert found[x] == pytest.approx(sqnr(feed["x"], rounded), abs=0.01)
    twice = 2 * feed["x"]
    assert found[a] == pytest.approx(sqnr(twice, np.rint(twice / 0.5) * 0.5), abs=0.01)
    assert sensitivities(graph, [feed], {x: exact})[x] > 100


def test_columns_of_unlike_sizes_come_in_16_bits() -> None:
    graph = table()
    made = driver.integerize(irc.quantize(graph, calibration=rows(0)))
    assert made.input_types["x"].dtype is DType.I16
    assert quality(graph, made, rows(1)) > 24
    assert [v.type.shape for v in made.order if v.op == "qlinear"] == [(2, 1, 16), (1, 3)]
    coarse = driver.integerize(irc.quantize(graph, calibration=rows(0), activations=8))
    assert quality(graph, coarse, rows(1)) < 10
    agree(made, edge.to_integers(made.input_types, rows(2)[0])[0], ("host",), numba=True)


def test_even_columns_come_in_8_with_some_room() -> None:
    graph = table(1)
    made = irc.quantize(graph, calibration=rows(0, 1))
    (q,) = (v for v in made.order if v.op == "quantize" and v.operands[0] in made.inputs)
    values = np.concatenate([f["x"] for f in rows(0, 1)])
    assert q.type.dtype is DType.U8
    assert 255 * q.type.scale == pytest.approx(9 / 8 * (values.max() - values.min()), rel=0.01)


def test_bounds_that_many_elements_reach_stay() -> None:
    graph = table(1)
    bounded = [{"x": np.clip(f["x"], -1, 1)} for f in rows(0, 1)]
    made = irc.quantize(graph, calibration=bounded)
    (q,) = (v for v in made.order if v.op == "quantize" and v.operands[0] in made.inputs)
    assert 255 * q.type.scale == pytest.approx(2)


def test_a_profile_knows_of_fine_inputs(tmp_path: Any) -> None:
    """All columns lie far from 0, in one unit."""
    x = Input(DType.F32, (1, 4), name="x")
    w = const(np.random.default_rng(0).normal(0, 1, (3, 4)))
    graph = Graph("g", (x,), (Linear(x, w, const(-60 * w.array.sum(1))),), ("y",))
    units = 10.0 ** np.arange(4, dtype=np.float32)
    feeds = [{"x": (f["x"] / units + 60).astype(np.float32)} for f in rows(0)]
    graph = driver.simplify(graph)
    profile(graph, feeds).save(tmp_path / "profile.npz")
    kept = Profile.load(tmp_path / "profile.npz")
    assert kept.fine == ("x",)
    assert str(quantize(graph, kept)) == str(quantize(graph, feeds))


def wasteful() -> Graph:
    """A channel that nothing reads takes nearly all of a range."""
    x = Input(DType.F32, (1, 6, 6, 4), name="x")
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.3, (4, 1, 1, 4)), rng.normal(0, 0.3, (5, 3, 3, 4))
    first[0] *= 200
    second[..., 0] = 0
    a = MaxPool2d(Relu(Conv2d(x, const(first)), name="a"), (2, 2), (2, 2), name="p")
    return Graph("wasteful", (x,), (Conv2d(a, const(second), name="y"),), ("y",))


def images(seed: int, count: int = 12) -> list[dict[str, Array]]:
    made = np.random.default_rng(seed).normal(0, 1, (count, 1, 6, 6, 4))
    return [{"x": x.astype(np.float32)} for x in made]


def test_values_get_16_bits_until_the_accuracy_is_reached() -> None:
    graph = wasteful()
    plain = driver.integerize(irc.quantize(graph, calibration=images(0), method="minmax"))
    made = driver.integerize(
        irc.quantize(graph, calibration=images(0), method="minmax", min_sqnr=30)
    )
    assert quality(graph, plain, images(1)) < 25
    assert quality(graph, made, images(1)) > 28
    assert made.input_types["x"].dtype is DType.U8, "what costs little keeps 8 bits"
    assert "join_bytes" in {v.op for v in made.order}
    agree(made, edge.to_integers(made.input_types, images(2)[0])[0], ("host",), numba=True)


def test_what_is_accurate_already_stays() -> None:
    graph, data = wasteful(), images(0, 3)  # too few to keep any apart
    asked = irc.quantize(graph, calibration=data, min_sqnr=1)
    assert str(asked) == str(irc.quantize(graph, calibration=data, min_sqnr=0))


def test_an_accuracy_that_cant_be_had_is_refused() -> None:
    with pytest.raises(CompileError, match=r"an output has \d+\.\d dB, 90 are asked for"):
        irc.quantize(wasteful(), calibration=images(0), min_sqnr=90)


def test_samples_are_needed() -> None:
    graph = driver.simplify(wasteful())
    known = profile(graph, images(0))
    with pytest.raises(DataError, match="a calibration profile has none"):
        quantize(graph, known, min_sqnr=20)
    with pytest.raises(IRCError, match="activations=8 forbids"):
        irc.quantize(graph, calibration=images(0), activations=8, min_sqnr=20)


@pytest.mark.parametrize("kind", NETS)
def test_all_that_may_have_16_bits_has_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(0)
    graph = NETS[kind](net)
    feeds = [{"x": x} for x in net.samples(4)]
    written: list[Graph] = []

    def reached(_: Refinement, made: Graph) -> float:
        written.append(made)
        return -100.0

    monkeypatch.setattr(Refinement, "reached", reached)
    with pytest.raises(CompileError, match=r"-100\.0 dB"):
        irc.quantize(graph, calibration=feeds, min_sqnr=20)
    made = driver.integerize(written[-1])
    assert sum(v.type.dtype is DType.I16 for v in made.order) > 1
    agree(made, edge.to_integers(made.input_types, feeds[0])[0], ("host",))


def activated() -> Graph:
    """Layers with an activation that is a table, whose operand nearly fills its range once."""
    x = Input(DType.F32, (1, 6, 6, 4), name="x")
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.3, (4, 1, 1, 4)), rng.normal(0, 0.3, (5, 3, 3, 4))
    first[0] *= 100
    second[..., 0] = 0
    a: Value = HardSwish(Conv2d(x, const(first), name="c"), name="a")
    return Graph("activated", (x,), (Conv2d(a, const(second), name="y"),), ("y",))


def test_functions_take_and_give_16_bits() -> None:
    graph = activated()
    eight = driver.integerize(irc.quantize(graph, calibration=images(0), method="minmax"))
    assert quality(graph, eight, images(1)) < 20
    asked = irc.quantize(graph, calibration=images(0), method="minmax", min_sqnr=30)
    made = driver.integerize(asked)
    assert quality(graph, made, images(1)) > 28
    assert {v.op for v in made.order} >= {"join_bytes", "interpolate"}
    agree(made, edge.to_integers(made.input_types, images(2)[0])[0], ("host",), numba=True)


def test_groups_are_taken_apart_as_far_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty values in three groups, each rounded to coarser steps than the one before."""
    x = Input(DType.F32, (1, 64), name="x")
    values: list[Value] = [Mul(x, const(1 + i / 50), name=f"v{i}") for i in range(20)]
    total = values[0]
    for v in values[1:]:
        total = Add(total, v)
    graph = Graph("g", (x,), (total,), ("y",))
    types = {v: TensorType(DType.I16, (1, 64), Quant(1e-4 * 1.4**i)) for i, v in enumerate(values)}
    monkeypatch.setattr(Refinement, "candidates", lambda self, scales: iter(values))
    feeds = [{"x": np.random.default_rng(i).uniform(0, 1, (1, 64))} for i in range(4)]
    tried: list[int] = []

    def never(_: Any, precise: bool = False, /) -> Any:
        raise AssertionError

    scales = Scales(types)
    ranked = Refinement(Sites(graph), feeds, 90.0, never, tried.append).ranked(scales)
    assert [next(ranked)[0].name for _ in range(3)] == ["v19", "v18", "v17"]
    assert tried == list(range(1, 3 + 4 + 1)), "three groups, and the four values of the last"
    rest = [v.name for v, _ in ranked]
    assert sorted(rest) == sorted(v.name for v in values[:17])
    assert len(tried) == 3 + 20
    tried.clear()
    refinement = Refinement(Sites(graph), feeds, 90.0, never, tried.append, trials=8, worth=1.0)
    assert not list(refinement.ranked(scales)), "eight values can't make as much noise as signal"
    assert len(tried) == 3


@pytest.mark.parametrize(
    ("real", "found", "decibels"),
    [(1.0, 1.0, math.inf), (0.0, 1.0, math.inf), (np.inf, 1.0, math.inf), (np.nan, 1.0, math.inf),
     (1.0, np.inf, -math.inf), (10.0, 9.0, 20.0)],
)  # fmt: skip
def test_energies_of_what_is_no_number(real: float, found: float, decibels: float) -> None:
    energy = Energy()
    with np.errstate(all="ignore"):
        energy.add(np.array([real]), np.array([found]))
    assert energy.decibels == pytest.approx(decibels)
