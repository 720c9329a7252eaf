"""Inputs whose columns have units of their own: one scale and zero point for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import irc
from irc import driver
from irc.driver.forms import simplify
from irc.edge import to_integers
from irc.errors import CompileError, DataError, IRCError
from irc.graph import Graph, evaluate
from irc.ops.columns import Columns
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.logic import Less
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Reshape
from irc.ops.trees import TreeEnsemble
from irc.ops.unary import Exp, Sqrt
from irc.passes.calibration.calibrate import Profile
from irc.passes.quantize import column_units, quantize
from irc.passes.quantize.column_units import in_units
from irc.passes.quantize.quantize import profile as profiled
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import agree
from tests.passes.nets import sqnr

MEAN = np.asarray([45.0, 40_000.0, 0.3, 2015.0, 0.0], np.float32)
WIDTH = np.asarray([20.0, 9_000.0, 0.05, 6.0, 1e-4], np.float32)
"""Ages, incomes, ratios, years, and what is smaller still."""


Feeds = list[dict[str, Array]]


def rows(count: int, seed: int = 0) -> Feeds:
    x = np.random.default_rng(seed).uniform(-1.7, 1.7, (count, 1, len(MEAN))).astype(np.float32)
    return [{"x": row * WIDTH + MEAN} for row in x]


def table() -> Input:
    return Input(DType.F32, (1, len(MEAN)), name="x")


def const(array: object) -> Const:
    return Const(np.asarray(array, np.float32))


def whole(array: object) -> Const:
    return Const(np.asarray(array, np.int64))


def perceptron(x: Value) -> Value:
    rng = np.random.default_rng(1)
    w = rng.normal(size=(8, len(MEAN))).astype(np.float32) / WIDTH
    hidden = Linear(x, const(w), const(-w @ MEAN))
    return Linear(Exp(Mul(hidden, const(-0.3))), const(rng.normal(size=(3, 8))), None)


def distances(x: Value) -> Value:
    """From two rows, each column by its width; the sum reads what has no unit."""
    apart = Add(Reshape(x, (1, 1, len(MEAN))), const([-MEAN, WIDTH - MEAN]))
    squares = Mul(Mul(apart, apart), const(1 / WIDTH**2))
    return Sqrt(ReduceSum(squares, (2,), False))


def thresholds(x: Value) -> Value:
    """Two columns, each compared with a number, and both again."""
    picked = Gather(x, whole([1, 4]), 1)
    scaled = Mul(Concat((picked, Gather(x, whole([0]), 1)), 1), const([0.5, 2.0, 3.0]))
    below = Less(scaled, const([21_000.0, 2e-5, 130.0]))
    return Where(below, const([1.0]), const([-2.0]))


def trees_and_layer(x: Value) -> Value:
    """Both read the input."""
    return Add(tree(x), Linear(x, const([1 / WIDTH]), const([0.0])))


def tree(x: Value) -> TreeEnsemble:
    """x1 > 40,000, then x3 >= 2015 or x4 > 0."""
    return TreeEnsemble(
        x, Const(np.asarray([1, 3, 4], np.uint8)), const([40_000.0, 2015.0, 0.0]),
        Const(np.asarray([False, True, False])), Const(np.asarray([True, False, True])),
        Const(np.asarray([[1, 2], [3, 4], [5, 6]], np.uint8)), Const(np.asarray([[0]], np.uint8)),
        const([[1.0], [2.5], [-3.0], [0.25]]), const([10.0]), 2,
    )  # fmt: skip


NETWORKS = [perceptron, distances, thresholds, trees_and_layer]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_takes_the_units_in(network: object) -> None:
    """What is left of them is one node."""
    x = table()
    graph = simplify(Graph("g", (x,), (network(x),), ("y",)))  # type: ignore[operator]
    scale = 2.0 ** np.ceil(np.log2(WIDTH))
    offset = np.where(MEAN > 4 * WIDTH, MEAN, 0)
    made = in_units(graph, {"x": np.stack([scale, offset]).astype(np.float32)})
    readers = made.users[made.inputs[0]]
    assert [type(v) for v in readers] == [Columns]
    for feed in rows(30):
        np.testing.assert_allclose(
            evaluate(made, feed)["y"], evaluate(graph, feed)["y"], rtol=1e-3, atol=2e-3
        )


@pytest.mark.parametrize("network", NETWORKS)
def test_integers_are_near_to_float(network: object) -> None:
    x = table()
    graph = Graph("g", (x,), (network(x),), ("y",))  # type: ignore[operator]
    quantized = irc.quantize(graph, calibration=rows(60))
    given = quantized.inputs[0]
    made = driver.integerize(quantized)
    t = made.input_types["x"]
    assert t.dtype is DType.I16
    assert t.quant is not None
    assert t.quant.axis == given.type.rank - 1
    library = irc.compile(quantized)
    unseen = rows(40, 1)
    real = np.concatenate([evaluate(graph, feed)["y"] for feed in unseen])
    found = np.concatenate([library(feed)["y"] for feed in unseen])
    assert sqnr(real, found) > 30
    agree(made, to_integers(made.input_types, unseen[0])[0], ["host"])


def test_a_table_in_one_unit_has_one_scale() -> None:
    feeds = [{"x": (feed["x"] - MEAN) / WIDTH} for feed in rows(60)]
    x = table()
    graph = Graph("g", (x,), (perceptron(Add(Mul(x, const(WIDTH)), const(MEAN))),), ("y",))
    t = driver.integerize(irc.quantize(graph, calibration=feeds)).input_types["x"]
    assert t.quant is not None
    assert t.quant.axis is None


def test_samples_are_read_once() -> None:
    def once() -> Iterator[dict[str, Array]]:
        yield from rows(100)

    x = table()
    graph = simplify(Graph("g", (x,), (perceptron(x),), ("y",)))
    assert str(quantize(graph, once())) == str(quantize(graph, rows(100)))


def test_a_profile_remembers_units(tmp_path: Path) -> None:
    x = table()
    graph = simplify(Graph("g", (x,), (perceptron(x),), ("y",)))
    profiled(graph, rows(60)).save(tmp_path / "profile.npz")
    again = quantize(graph, Profile.load(tmp_path / "profile.npz"))
    assert str(again) == str(quantize(graph, rows(60)))


def test_trees_have_scales_for_their_thresholds() -> None:
    """Rows that are as near to thresholds as singles tell go the way that they went."""
    x = table()
    graph = Graph("g", (x,), (tree(x),), ("y",))
    quantized = irc.quantize(graph, calibration=rows(20))
    library = irc.compile(quantized)
    for feed in rows(50, 2):
        near = feed["x"].copy()
        near[0, 1] = np.nextafter(np.float32(40_000), np.float32(feed["x"][0, 1]))
        near[0, 3] = np.rint(near[0, 3])
        for array in (near, feed["x"], np.asarray([[0, 40_000, 0, 2015, 0]], np.float32)):
            wanted = evaluate(graph, {"x": array})["y"]
            np.testing.assert_allclose(library({"x": array})["y"], wanted, rtol=1e-4)
    made = driver.integerize(quantized)
    for feed in rows(5):
        integers = to_integers(made.input_types, feed)[0]
        agree(made, integers, ["host"], numba=True)
        np.testing.assert_allclose(
            evaluate(quantized, feed)["y"].reshape(-1), library(feed)["y"].reshape(-1), rtol=1e-6
        )


@pytest.mark.parametrize("network", [trees_and_layer, tree])
def test_onnx_says_the_same(network: object, tmp_path: Path) -> None:
    x = table()
    graph = Graph("g", (x,), (network(x),), ("y",))  # type: ignore[operator]
    for written in (graph, irc.quantize(graph, calibration=rows(60))):
        irc.to_onnx(written, tmp_path / "g.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
        for feed in [*rows(5), {"x": np.asarray([[0, 40_000, 0, 2015, 0]], np.float32)}]:
            found = np.asarray(session.run(None, feed)[0])
            np.testing.assert_allclose(found, evaluate(written, feed)["y"], rtol=1e-4, atol=1e-3)


def test_a_library_knows_its_columns(tmp_path: Path) -> None:
    x = table()
    graph = Graph("g", (x,), (distances(x),), ("y",))
    model = irc.compile(irc.quantize(graph, calibration=rows(60)))
    model.save(tmp_path, name="net")
    library = irc.open_library(tmp_path / "libnet.so")
    for feed in rows(5, 3):
        np.testing.assert_array_equal(library(feed)["y"], model(feed)["y"])


def of_edges(*shape: int) -> Feeds:
    """Columns at the edges that vary by 5 % of what others do, or less."""
    edges = np.clip(0.025 * 2.0 ** np.arange(shape[-1]), 0.05, 1).astype(np.float32)
    x = np.random.default_rng(2).uniform(0, 16, (100, *shape)).astype(np.float32)
    return [{"x": row * edges * edges[::-1]} for row in x]


@pytest.mark.parametrize("shape", [(1, 64), (1, 28, 28)])
def test_pictures_keep_eight_bits(shape: tuple[int, ...]) -> None:
    """What one scale of 8 bits serves well stays so."""
    rng = np.random.default_rng(3)
    feeds = of_edges(*shape)
    if len(shape) == 2:  # digits: whole numbers up to 16, in some columns 0 or 1
        feeds = [{"x": np.minimum(np.rint(f["x"]), np.arange(64) % 17)} for f in feeds]
        feeds = [{"x": f["x"].astype(np.float32)} for f in feeds]
    x = Input(DType.F32, shape, name="x")
    count = int(np.prod(shape))
    layer = Linear(Reshape(x, (1, count)), const(rng.normal(size=(5, count))), None)
    graph = Graph("g", (x,), (layer,), ("y",))
    t = driver.integerize(irc.quantize(graph, calibration=feeds)).input_types["x"]
    assert t.dtype is DType.U8


def incomes(column: Array, seed: int = 0) -> Feeds:
    """A table whose first column is given."""
    feeds = rows(len(column), seed)
    for feed, value in zip(feeds, column, strict=True):
        feed["x"][0, 0] = value
    return feeds


def ratio(graph: Graph, calibration: Feeds, unseen: Feeds) -> float:
    quantized = irc.quantize(graph, calibration=calibration)
    real = np.concatenate([evaluate(graph, feed)["y"] for feed in unseen])
    return sqnr(real, np.concatenate([evaluate(quantized, feed)["y"] for feed in unseen]))


def layer_of(first: float) -> Graph:
    """A layer over the table, its columns evened out; the first one lies within `first`."""
    x = table()
    w = np.random.default_rng(4).normal(size=(4, len(MEAN))) / [first, *WIDTH[1:]]
    offset = -w @ [0.0, *MEAN[1:]]
    return Graph("g", (x,), (Linear(x, const(w), const(offset)),), ("y",))


def test_a_column_that_comes_late_is_seen() -> None:
    late = np.where(np.arange(200) < 100, 0, 50_000 * np.random.default_rng(5).random(200))
    assert ratio(layer_of(50_000.0), incomes(late), incomes(late[::-1], 1)) > 30


def test_what_is_held_of_samples_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_units, "SEEN", 3 * (column_units.ALONE + 4 * len(MEAN)))
    feeds = iter(rows(10))
    assert len(column_units.ahead(feeds)) == 3
    assert len(column_units.ahead(feeds)) == 3


@pytest.mark.parametrize(("once", "later"), [(0.0, 5_000.0), (300.0, 600.0)])
def test_a_column_that_was_one_number_may_vary(once: float, later: float) -> None:
    """It has units like the other columns', or like itself, not 1."""
    graph = layer_of(2 * later)
    varies = later * np.random.default_rng(6).random(40)
    assert ratio(graph, incomes(np.full(60, once)), incomes(varies, 1)) > 25


def test_a_bias_may_be_computed() -> None:
    x = table()
    bias = Exp(Gather(Reshape(x, (len(MEAN),)), whole([2, 2]), 0))
    layer = Linear(x, const(np.stack([1 / WIDTH, -1 / WIDTH])), bias)
    graph = Graph("g", (x,), (layer,), ("y",))
    made = in_units(graph, {"x": np.stack([WIDTH, MEAN])})
    for feed in rows(5):
        real = evaluate(graph, feed)["y"]
        np.testing.assert_allclose(evaluate(made, feed)["y"], real, rtol=1e-3, atol=2e-3)
    with pytest.raises(CompileError, match="its bias is computed at run time"):
        quantize(graph, rows(60))


def test_zero_points_have_32_bits() -> None:
    """Times within an hour, all columns or one of them."""
    for far in (np.asarray([0, 1.7e9, 0, 0, 0]), np.full(5, 1.7e9)):
        feeds = [{"x": (f["x"] + far).astype(np.float32)} for f in rows(60)]
        x = table()
        graph = Graph("g", (x,), (Linear(x, const([1 / WIDTH]), const([-1.0])),), ("y",))
        t = driver.integerize(irc.quantize(graph, calibration=feeds)).input_types["x"]
        assert t.quant is not None
        assert np.abs(t.quant.zero_point).max() < 2**30


def test_a_zero_point_beyond_32_bits_is_refused() -> None:
    even = Columns(table(), const(np.ones(5)), const([0, 0, 0, 1.7e9, 0]), name="even")
    with pytest.raises(IRCError, match=r"columns %even: column 3 of %x lies so far"):
        even.outside(TensorType(DType.I16, (1, 5), Quant(2.0**-8, 0)))


def test_a_profile_of_other_columns_is_of_another_graph() -> None:
    x, other = table(), Input(DType.F32, (1, 4), name="x")
    graph = simplify(Graph("g", (x,), (perceptron(x),), ("y",)))
    another = Graph("h", (other,), (Linear(other, const(np.ones((2, 4))), None),), ("y",))
    with pytest.raises(DataError, match="taken of another graph than h: calibrate again"):
        quantize(another, profiled(graph, rows(60)))


def test_units_can_be_switched_off() -> None:
    x = table()
    graph = Graph("g", (x,), (perceptron(x),), ("y",))
    for made in map(driver.integerize, (
        irc.quantize(graph, calibration=rows(60), equalize=False),
        irc.quantize(graph, calibration=rows(60), activations=8),
    )):  # fmt: skip
        assert (quant := made.input_types["x"].quant) is not None
        assert quant.axis is None


@pytest.mark.filterwarnings("error")
def test_bounds_beyond_all_elements_stay_numbers() -> None:
    """In units as small as these they would be infinite."""
    most = np.finfo(np.float32).max
    bounds = np.asarray([most, 40_000, -most, 2015, most], np.float32)
    x = table()
    graph = Graph("g", (x,), (Where(Less(const(bounds), x), const(1.0), const(0.0)),), ("y",))
    made = irc.quantize(graph, calibration=rows(20))
    assert all(np.isfinite(v.array).all() for v in made.order if isinstance(v, Const))
    for feed in rows(20, 1):
        np.testing.assert_array_equal(irc.evaluate(made, feed)["y"], evaluate(graph, feed)["y"])
