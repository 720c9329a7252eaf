"""Logits without what they have in common, and comparisons before growing functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import irc
from irc import driver
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip, Sigmoid
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.logic import Less, LessOrEqual
from irc.ops.ranking import ArgMax
from irc.ops.reduce import ReduceMax, ReduceSum
from irc.ops.selection import Gather
from irc.ops.shape import Reshape
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp, Log
from irc.passes.float.canonicalize import Canonicalize
from irc.passes.float.logits import CentreLogits
from irc.types import Array, DType
from irc.value import Value

JOINT = """
graph @joint(%x: f32[1,8]) {{
  %w = const {w} : f32[3,8]
  %b = const [-1.0, -2.0, -1.5] : f32[3]
  %y = linear(%x, %w, %b) : f32[1,3]
  %m = reduce_max(%y) {{axes = [1], keepdims = true}} : f32[1,1]
  %c = clip(%m) {{lo = -3.4e38, hi = 3.4e38}} : f32[1,1]
  %d = sub(%y, %c) : f32[1,3]
  %e = exp(%d) : f32[1,3]
  %s = reduce_sum(%e) {{axes = [1], keepdims = false}} : f32[1]
  %l = log(%s) : f32[1]
  %k = reshape(%c) : f32[1]
  %a = add(%l, %k) : f32[1]
  %r = reshape(%a) : f32[1,1]
  %z = sub(%y, %r) : f32[1,3]
  {last}
}}
"""


def joint(last: str = "%p = exp(%z) : f32[1,3]\nreturn %p") -> Graph:
    """Logarithms of -1,000 that differ by a few, as naive Bayes has them."""
    rng = np.random.default_rng(0)
    w = rng.normal(-5, 0.02, (3, 8)).astype(np.float32)
    listed = ", ".join(str(float(f)) for f in w.reshape(-1))
    return irc.parse(JOINT.format(w=f"[{listed}]", last=last))


def samples(count: int, seed: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(0, 50, (1, 8)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("last", [
    "%p = exp(%z) : f32[1,3]\nreturn %p",
    "%p = argmax(%y) {axis = 1, keepdims = false, select_last = false} : i64[1]\nreturn %z, %p",
])  # fmt: skip
def test_joint_logarithms(last: str) -> None:
    """Whole logarithms in 8 bits, or 16, tell nothing of their differences."""
    graph = joint(last)
    model = irc.compile(irc.quantize(graph, calibration=samples(32, 1)), backend="reference")
    real, found = zip(*((evaluate(graph, s), model(s)) for s in samples(40, 2)), strict=True)
    a, b = (np.stack([next(iter(o.values())) for o in side]) for side in (real, found))
    assert 10 * np.log10(np.square(a).sum() / np.square(a - b).sum()) > 25


def test_rows_lose_what_they_share() -> None:
    graph = CentreLogits()(Canonicalize()(joint()))
    (layer,) = (v for v in graph.order if isinstance(v, Linear))
    assert isinstance(layer.w, Const)
    assert np.abs(layer.w.array).max() < 0.1
    for s in samples(4, 3):
        a, b = (next(iter(evaluate(g, s).values())) for g in (joint(), graph))
        assert np.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("reads", ["itself", "sigmoid", "another axis"])
def test_rows_that_are_read_otherwise_stay(reads: str) -> None:
    x = Input(DType.F32, (2, 4), name="x")
    layer = Linear(x, Const(np.full((3, 4), 5, np.float32)), None, name="y")
    other: Value = layer
    if reads == "sigmoid":
        other = Sigmoid(layer)
    elif reads == "another axis":
        other = ArgMax(layer, 0, False, False)
    graph = Graph("g", (x,), (Softmax(layer, 1), other), ("p", "other"))
    assert CentreLogits()(graph) is graph


@pytest.mark.parametrize("op", [Less, LessOrEqual])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("f", [Add, Mul])
def test_comparisons_before_scalers(
    op: type[Less] | type[LessOrEqual], left: bool, f: type[Add] | type[Mul]
) -> None:
    """Each single goes the way that it went, those beside the bound too."""
    rng = np.random.default_rng(0)
    k, c = rng.uniform(0.1, 3, 16).astype(np.float32), rng.normal(0, 1, 16).astype(np.float32)
    x = Input(DType.F32, (9, 16), name="x")
    made = f(x, Const(k))
    y = op(Const(c), made) if left else op(made, Const(c))
    before = Graph("g", (x,), (y,), ("y",))
    after = Canonicalize()(before)
    assert not any(isinstance(v, f) for v in after.order)
    middle = (c / k if f is Mul else c - k).astype(np.float32)
    steps = np.arange(-4, 5)[:, None] * np.spacing(middle)
    feed = {"x": (middle + steps).astype(np.float32)}
    (a,), (b,) = (evaluate(g, feed).values() for g in (before, after))
    assert np.array_equal(a, b)
    assert a.any()
    assert not a.all()


WALK = """
graph @walk(%x: f32[1,4], %j: i64[1]) {
  %n = const [2, 0, 3, 1, 1, 2] : i64[6]
  %t = const [0.001, 90.0, 0.002, 400.0, 300.0, 0.003] : f32[6]
  %zero = const [0] : i64[]
  %all = const [4] : i64[]
  %c = gather(%n, %j) {axis = 0} : i64[1]
  %low = less(%c, %zero) : b1[1]
  %up = add(%c, %all) : i64[1]
  %at = where(%low, %up, %c) : i64[1]
  %r = reshape(%x) : f32[4]
  %a = gather(%r, %at) {axis = 0} : f32[1]
  %b = gather(%t, %j) {axis = 0} : f32[1]
  %y = less_or_equal(%a, %b) : b1[1]
  %z = cast(%y) : f32[1]
  return %z
}
"""


def test_columns_that_are_chosen_at_run_time() -> None:
    """As Hummingbird walks trees: thousandths are compared by their own scale, not by that of
    hundreds."""
    graph = irc.parse(WALK)
    size = np.array([0.004, 200, 0.004, 800])
    rng = np.random.default_rng(0)
    rows = [
        {"x": (rng.uniform(0, 1, (1, 4)) * size).astype(np.float32), "j": rng.integers(0, 6, 1)}
        for _ in range(60)
    ]
    model = irc.compile(irc.quantize(graph, calibration=rows[:40]), backend="reference")
    wanted = [evaluate(graph, r)["z"] for r in rows]
    assert 0 < np.mean(wanted) < 1
    assert np.allclose([model(r)["z"] for r in rows], wanted, atol=0.01)


def test_channels_that_a_scaler_makes_alike_stay_so() -> None:
    """Without their factors one scale would hold the results of all channels, thousands of one
    beside thousandths of another."""
    rng, size = np.random.default_rng(0), np.array([100, 1, 0.01], np.float32)
    x = Input(DType.F32, (1, 6), name="x")
    w = (rng.normal(size=(3, 6)) * size[:, None]).astype(np.float32)
    alike = Mul(Linear(x, Const(w)), Const(1 / size))
    y = Cast(Less(alike, Const(np.full(1, 0.5, np.float32))), DType.F32)
    graph = driver.simplify(Graph("g", (x,), (y,), ("y",)))
    rows = [{"x": rng.normal(size=(1, 6)).astype(np.float32)} for _ in range(64)]
    made = irc.quantize(graph, calibration=rows, min_sqnr=0)
    wrong = [evaluate(made, r)["y"] != evaluate(graph, r)["y"] for r in rows]
    assert np.mean(wrong, (0, 1)).max() < 0.1


def test_what_is_used_twice_is_looked_at_once() -> None:
    """Sums of the two before, fifty times."""
    x = Input(DType.F32, (1, 4), name="x")
    j = Input(DType.I64, (1,), name="j")
    totals: list[Value] = [ReduceSum(Exp(x), (1,), True), ReduceSum(Exp(Mul(x, x)), (1,), True)]
    columns: list[Value] = [Gather(Const(np.array([k, 0, 0, 0])), j, 0) for k in (0, 1)]
    for _ in range(50):
        totals.append(Add(totals[-2], totals[-1]))
        columns.append(Add(columns[-2], columns[-1]))
    place = ArgMax(Div(x, totals[-1]), 1, False)
    picked = Gather(Reshape(x, (4,)), columns[-1], 0)
    bound = Gather(Const(np.arange(4, dtype=np.float32)), j, 0)
    chosen = Less(picked, bound)
    made = Canonicalize().run(Graph("g", (x, j), (place, chosen), ("place", "chosen")))
    assert isinstance(made.outputs[0], ArgMax)
    assert made.outputs[0].x is made.inputs[0]


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1), (1, 1, 1), (1,)])
def test_bounds_of_chosen_columns_may_spread(shape: tuple[int, ...]) -> None:
    x = Input(DType.F32, (1, 3), name="x")
    w = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    bounds = np.array([0.5, -1, 2], np.float32)[: np.prod(shape)].reshape(shape)
    graph = Graph("g", (x,), (LessOrEqual(Linear(x, Const(w)), Const(bounds)),), ("y",))
    after, feed = Canonicalize().run(graph), {"x": np.array([[1, 5, 0.25]], np.float32)}
    np.testing.assert_array_equal(evaluate(after, feed)["y"], evaluate(graph, feed)["y"])


@pytest.mark.parametrize(("columns", "made", "shape"), [
    ("[0, 4, 1]", "reshape(%c)", [2]),  # a column that there is not, and that nothing chooses
    ("[0, 1, 1]", "add(%c1, %c)", [2, 2]),
])  # fmt: skip
def test_columns_in_other_places_stay(columns: str, made: str, shape: list[int]) -> None:
    graph = irc.parse(f"""
graph @walk(%x: f32[4], %j: i64[2]) {{
  %n = const {columns} : i64[3]
  %t = const [0.25, 0.5, -0.5] : f32[3]
  %c = gather(%n, %j) {{axis = 0}} : i64[2]
  %c1 = reshape(%c) : i64[2,1]
  %at = {made} : i64{shape}
  %b = gather(%t, %j) {{axis = 0}} : f32[2]
  %b1 = reshape(%b) : f32[2,1]
  %bounds = {made.replace("%c", "%b")} : f32{shape}
  %a = gather(%x, %at) {{axis = 0}} : f32{shape}
  %y = less_or_equal(%a, %bounds) : b1{shape}
  return %y
}}
""")
    after = Canonicalize().run(graph)
    for seed in range(10):
        x = np.random.default_rng(seed).normal(size=4).astype(np.float32)
        feed = {"x": x, "j": np.array([0, 2])}
        np.testing.assert_array_equal(evaluate(after, feed)["y"], evaluate(graph, feed)["y"])


@pytest.mark.parametrize(("bound", "factor"), [(3.4028234663852886e38, 0.5), (1e20, 1e-20)])
def test_bounds_that_nothing_reaches_stay_numbers(bound: float, factor: float) -> None:
    x = Input(DType.F32, (1, 3), name="x")
    scaled = Mul(x, Const(np.full(1, factor, np.float32)))
    graph = Graph("g", (x,), (Less(scaled, Const(np.full(1, bound, np.float32))),), ("y",))
    made = Canonicalize().run(graph)
    assert all(np.isfinite(v.array).all() for v in made.order if isinstance(v, Const))


KEPT: dict[str, Callable[[Value, Value], Value]] = {
    "softmax of columns": lambda x, y: Softmax(y, 0),
    "places in columns": lambda x, y: ArgMax(y, 0, False),
    "the largest itself": lambda x, y: Clip(ReduceMax(y, (1,), True), -3.4e38, 3.4e38),
    "other ends": lambda x, y: Sub(y, Clip(ReduceMax(y, (1,), True), -9.0, 9.0)),
    "columns' probabilities": lambda x, y: ArgMax(Softmax(x, 0), 1, False),
    "by what may be negative": lambda x, y: ArgMax(Div(x, ReduceSum(x, (1,), True)), 1, False),
    "by what differs": lambda x, y: ArgMax(Div(x, Exp(x)), 1, False),
    "less what differs": lambda x, y: ArgMax(Sub(x, Mul(x, x)), 1, False),
    "turned": lambda x, y: ArgMax(Mul(x, Const(np.full(1, -1, np.float32))), 1, False),
    "each by its own": lambda x, y: ArgMax(Mul(x, Const(np.arange(4, dtype=np.float32))), 1, False),
    "logarithms of columns": lambda x, y: Exp(Sub(x, Log(ReduceSum(Exp(x), (0,), True)))),
    "less the largest twice": lambda x, y: Sub(y, Add(ReduceMax(y, (1,), True), x)),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_others_see_stays(case: str) -> None:
    rng = np.random.default_rng(0)
    x = Input(DType.F32, (3, 4), name="x")
    w = Const((rng.normal(size=(4, 4)) + 10).astype(np.float32))
    graph = Graph("g", (x,), (KEPT[case](x, Linear(x, w)),), ("y",))
    after = driver.simplify(graph)
    for _ in range(5):
        feed = {"x": rng.normal(size=(3, 4)).astype(np.float32)}
        (a,), (b,) = (evaluate(g, feed).values() for g in (graph, after))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
