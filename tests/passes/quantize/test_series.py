"""Series that are brought to their own scale, and forecasts that are brought back."""

from __future__ import annotations

import numpy as np
import pytest

import irc
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.reduce import ReduceSum
from irc.ops.shape import Transpose
from irc.ops.unary import Sqrt
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import (
    HEADROOM,
    MOST_HEADROOM,
    Histogram,
    choose_quant,
    choose_wide,
)
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.passes.nets import sqnr

LENGTH, FORECAST = 32, 8
Feeds = list[dict[str, Array]]


def const(array: object, name: str) -> Const:
    return Const(np.asarray(array, np.float32), name=name)


def forecast(x: Value, name: str) -> Value:
    """From all that went before, for each column: [1, FORECAST, 2]."""
    w = np.random.default_rng(1).normal(0, LENGTH**-0.5, (FORECAST, LENGTH))
    columns = Transpose(x, (0, 2, 1), name="columns")
    return Transpose(Linear(columns, const(w, "w"), None, name="layer"), (0, 2, 1), name=name)


def instances() -> Graph:
    """Less its mean, over its deviation, both of what is observed, and back."""
    x = Input(DType.F32, (1, LENGTH, 2), name="x")
    kept = Input(DType.F32, (1, LENGTH, 2), name="kept")
    count = ReduceSum(kept, (1,), True, name="count")
    mean = Div(ReduceSum(Mul(x, kept, name="seen"), (1,), True, name="sum"), count, name="mean")
    d = Sub(x, mean, name="d")
    only = Mul(d, kept, name="only")
    squares = ReduceSum(Mul(only, only, name="squares"), (1,), True, name="total")
    variance = Div(squares, count, name="variance")
    deviation = Sqrt(Add(variance, const(1e-5, "e"), name="floor"), name="deviation")
    y = forecast(Div(d, deviation, name="norm"), "scaled")
    back = Add(Mul(y, deviation, name="grown"), mean, name="y")
    return Graph("instances", (x, kept), (back, deviation), ("y", "deviation"))


def walks(count: int, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    steps = [0.3 * np.cumsum(rng.normal(size=(1, LENGTH, 2)), 1) for _ in range(count)]
    found = [(s + rng.normal(size=(1, 1, 2))).astype(np.float32) for s in steps]
    return [{"x": x, "kept": np.ones_like(x)} for x in found]


def decibels(graph: Graph) -> dict[str, float]:
    """Of the integers, on walks that calibration did not see."""
    integer = irc.compile(irc.quantize(graph, walks(16, 0)), backend="reference")
    feeds = walks(20, 1)
    real, found = [evaluate(graph, f) for f in feeds], [integer(f) for f in feeds]
    return {k: sqnr(np.stack([r[k] for r in real]), np.stack([f[k] for f in found]))
            for k in graph.output_names}  # fmt: skip


def test_variances_are_read_through_their_roots() -> None:
    found = decibels(instances())
    assert found["deviation"] > 34
    assert found["y"] > 28


def measured(samples: list[Array]) -> Statistics:
    s = Statistics()
    for sample in samples:
        s.add(sample.astype(np.float32))
    return s


def room(sizes: Array) -> float:
    """How much further 16 bits reach than samples of these sizes."""
    quant = choose_wide([measured([np.array([[s, -s / 2]]) for s in sizes])])
    return quant.tensor_scale * DType.I16.max / float(np.max(sizes))


def test_samples_of_unlike_sizes_have_more_room() -> None:
    rng = np.random.default_rng(0)
    assert room(np.exp(0.2 * rng.normal(size=16))) == pytest.approx(HEADROOM, rel=1e-3)
    assert HEADROOM < room(np.exp(0.8 * rng.normal(size=16))) <= MOST_HEADROOM * 1.001
    assert room(np.exp(3 * rng.normal(size=16))) <= MOST_HEADROOM * 1.001
    assert choose_wide([]) == choose_wide([measured([np.zeros((1, 2))])])


def reciprocal(x: Array) -> Array:
    return 1 / np.sqrt(x + 1e-3)


def test_functions_of_unlike_units_count_alike() -> None:
    """Of a variance its root and a multiple of the reciprocal: the range is that of either unit."""
    s = measured(list(np.random.default_rng(0).gamma(1.5, 0.2, (16, 1, 2))))

    def chosen(unit: float) -> Quant:
        return choose_quant([s], Options(), (), (np.sqrt, lambda x: unit * reciprocal(x)))

    assert chosen(1.0) == chosen(1000.0) == chosen(0.001)


def test_functions_too_large_for_an_energy_count_as_they_are() -> None:
    s = measured(list(np.random.default_rng(0).normal(0, 1, (16, 1, 2))))
    huge = (lambda x: 1e200 * x, lambda x: -1e200 * x)
    with np.errstate(all="raise"):
        assert Histogram.expected([s], huge).weights == [1.0, 1.0]
        assert Histogram.expected([s], (np.tanh, huge[0])).weights[1] == 0
