"""Reals that are compared, and whole numbers that are read as reals, in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.driver import integerize
from irc.errors import CompileError
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear, MatMul
from irc.ops.logic import And, Equal, Less, LessOrEqual, Relation
from irc.ops.quantization import Dequantize
from irc.ops.ranking import TopK
from irc.ops.selection import Gather, Where
from irc.ops.shape import Reshape
from irc.ops.truth import Truth
from irc.ops.unary import Abs, Floor, Log, Sqrt
from irc.passes.quantize.writer import pair
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

X = np.random.default_rng(0).uniform(-2, 2, (5, 8)).astype(np.float32)
Z = np.random.default_rng(1).uniform(-3, 1, (5, 8)).astype(np.float32)
STEP = 5 / 255


def made(result: Callable[[Value, Value], Value]) -> Graph:
    x, z = (Input(DType.F32, X.shape, name=n) for n in "xz")
    return Graph("made", (x, z), (result(x, z).replace(name="y"),), ("y",))


def scalar(value: float) -> Const:
    return Const(np.asarray(value, np.float32))


def agreement(graph: Graph, feeds: dict[str, Array]) -> tuple[Array, Array]:
    """Real and integer results; the compiled ones are the integer ones."""
    quantized = irc.quantize(graph, [feeds])
    compiled = irc.compile(quantized, backend="llvm")
    real, found = evaluate(graph, feeds)["y"], compiled(feeds)["y"]
    assert found.dtype == real.dtype
    return real, np.asarray(found)


@pytest.mark.parametrize("relation", [Less, LessOrEqual, Equal])
def test_two_tensors_of_unlike_scales(relation: type[Relation]) -> None:
    real, found = agreement(made(lambda x, z: relation(x, z)), {"x": X, "z": Z})
    clear = np.abs(X - Z) > 2 * STEP
    np.testing.assert_array_equal(real[clear], found[clear])
    ops = [v.op for v in integerize(irc.quantize(made(lambda x, z: relation(x, z)),
                                                 [{"x": X, "z": Z}])).order]  # fmt: skip
    assert "qcompare" in ops


def test_a_predicate_of_one_tensor_is_a_table() -> None:
    def inside(x: Value, z: Value) -> Value:
        return Where(And(Less(x, scalar(0.7)), Less(scalar(-0.4), x)), x, z)

    real, found = agreement(made(inside), {"x": X, "z": Z})
    clear = (np.abs(X - 0.7) > STEP) & (np.abs(X + 0.4) > STEP)
    assert np.abs(real - found)[clear].max() < 2 * STEP
    ops = [v.op for v in integerize(irc.quantize(made(inside), [{"x": X, "z": Z}])).order]
    assert "truth" in ops
    assert "and" not in ops


@pytest.mark.parametrize("dtype", [DType.I64, DType.I32, DType.BOOL, DType.U8])
def test_whole_numbers_read_as_reals(dtype: DType) -> None:
    x, mask = Input(DType.F32, X.shape, name="x"), Input(dtype, X.shape, name="mask")
    y = Mul(x, Cast(mask, DType.F32, name="f"), name="y")
    graph = Graph("masked", (x, mask), (y,), ("y",))
    feeds = {"x": X, "mask": (Z > -1).astype(dtype.numpy)}
    real, found = agreement(graph, feeds)
    assert np.abs(real - found).max() < 2 * STEP


def test_ranks_are_those_of_the_integers() -> None:
    graph = made(lambda x, z: TopK(x, 1, 3))
    quantized = irc.quantize(graph, [{"x": X, "z": Z}])
    found = irc.compile(quantized, backend="llvm")({"x": X, "z": Z})["y"]
    chosen = np.take_along_axis(X, np.asarray(found), 1)
    np.testing.assert_allclose(chosen, -np.sort(-X, 1)[:, :3], atol=STEP)


@pytest.mark.parametrize("dtype", [DType.U8, DType.I8, DType.I32, DType.I64])
def test_reals_become_whole_numbers(dtype: DType) -> None:
    """Pixels of an image that a network makes; truncated, as everywhere."""

    def pixels(x: Value, z: Value) -> Value:
        del z
        limits = (0.0, 255.0) if dtype is DType.U8 else (-100.0, 100.0)
        return Cast(Clip(Mul(x, scalar(90.0)), *limits), dtype)

    real, found = agreement(made(pixels), {"x": X, "z": Z})
    assert found.dtype == dtype.numpy
    assert np.abs(real.astype(np.int64) - found.astype(np.int64)).max() <= 2


def test_whole_numbers_of_reals_are_read_on() -> None:
    """Rounded down, a place in a table."""

    def entry(x: Value, z: Value) -> Value:
        del z
        place = Cast(Clip(Floor(x), -2.0, 1.0), DType.I64)
        return Gather(Const(np.array([3.0, -1.0, 0.5, 2.0], np.float32)), place, 0)

    real, found = agreement(made(entry), {"x": X, "z": Z})
    clear = np.abs(X - np.rint(X)) > STEP
    np.testing.assert_allclose(real[clear], found[clear], atol=0.03)


ROWS = np.random.default_rng(2).integers(0, 1000, (200, 1, 4)).astype(np.float32)
LIMITS = np.asarray([[100.0, 310.5, 770.0, 990.0]], np.float32)


def told(made: Callable[[Value], Value], rows: Array = ROWS) -> tuple[Array, Array, Graph]:
    """What floats and compiled integers make of rows of whole numbers that 8 bits don't hold."""
    x = Input(DType.F32, rows.shape[1:], name="x")
    graph = Graph("told", (x,), (made(x).replace(name="y"),), ("y",))
    quantized = irc.quantize(graph, [{"x": row} for row in rows])
    library = irc.compile(quantized, backend="llvm")
    real, found = (
        np.stack([np.asarray(f({"x": row})["y"]) for row in rows])
        for f in (lambda feed: evaluate(graph, feed), library)
    )
    return real, found, integerize(quantized)


@pytest.mark.parametrize("relation", [Less, LessOrEqual, Equal])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("limits", [LIMITS, np.float32(310.0), np.float32(310.5)])
def test_sixteen_bits_are_compared_exactly(
    relation: type[Relation], first: bool, limits: Array
) -> None:
    """Limits of each column, which lie on either side, and one for all."""
    def below(x: Value) -> Value:
        c = Const(np.asarray(limits, np.float32))
        return relation(c, x) if first else relation(x, c)

    rows = ROWS.copy()
    rows[:50] = np.floor(limits)
    real, found, integer = told(below, rows)
    assert integer.inputs[0].type.dtype is DType.I16
    np.testing.assert_array_equal(real, found)


def test_a_limit_of_each_column_in_eight_bits() -> None:
    """Limits lie between the integers of what they are compared with, however unlike they are."""
    limits = np.asarray([[3.5, 100.0, -1e6, 191.0, np.inf, np.nan]], np.float32)
    rows = np.random.default_rng(3).integers(0, 200, (100, 1, 6)).astype(np.float32)
    for relation in (Less, LessOrEqual):
        real, found, integer = told(lambda x, r=relation: r(x, Const(limits)), rows)  # type: ignore[misc]
        assert integer.inputs[0].type.dtype is DType.U8
        np.testing.assert_array_equal(real, found)


def test_sixteen_bits_become_whole_numbers() -> None:
    real, found, integer = told(lambda x: Cast(x, DType.I64))
    np.testing.assert_array_equal(real, found)
    tables = [v.table for v in integer.order if isinstance(v, Truth)]
    assert [t.type.dtype for t in tables] == [DType.I16]


def test_a_choice_by_a_comparison_reads_what_its_function_does() -> None:
    """The comparison is a part of the table, and stands for itself as well."""
    def chosen(x: Value) -> Value:
        below = Less(x, scalar(500.0))
        part = Where(below, Mul(x, x), scalar(3.0))
        return Where(And(below, Less(x, Const(LIMITS))), part, scalar(7.0))

    real, found, _ = told(chosen)
    assert np.abs(real - found).max() < 0.03 * np.abs(real).max()


def test_trees_by_matrices() -> None:
    """As Hummingbird writes them: chosen columns, comparisons, how many of them hold, equality."""
    sides = np.asarray([[1, 1, 0], [1, -1, 0], [-1, 0, 1], [-1, 0, -1]], np.float32)
    held = np.asarray([2, 1, 1, 0], np.float32).reshape(4, 1)
    leaves = np.asarray([[0.3, -1.0, 2.0, 0.7]], np.float32)
    columns = np.eye(4, dtype=np.float32)[[2, 0, 3]]
    limits = np.asarray([[500.5], [12.0], [0.25]], np.float32)

    def scores(x: Value) -> Value:
        chosen = MatMul(Const(columns), Reshape(x, (4, 1)))
        below = Cast(LessOrEqual(chosen, Const(limits)), DType.F32)
        reached = Cast(Equal(Const(held), MatMul(Const(sides), below)), DType.F32)
        return MatMul(Const(leaves), reached)

    rows = ROWS * np.asarray([0.03, 1.0, 1.0, 1e-3], np.float32)
    real, found, _ = told(scores, rows)
    assert np.abs(real - found).max() < 0.02


TENTHS = (0.05, 0.1, 0.15, 0.35)
"""Constants, most of which single precision has a step off what a scale of 0.05 makes."""


@pytest.mark.parametrize("relation", [Less, LessOrEqual, Equal])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "limits", [[TENTHS], [[0.06, 0.123, -0.01, 900.0]], *TENTHS, 0.123]
)
@pytest.mark.parametrize("dtype", [DType.U8, DType.I16])
def test_constants_are_what_they_are_in_the_graph(
    relation: type[Relation], first: bool, limits: Any, dtype: DType
) -> None:
    """Reals of a QDQ graph, of single precision, lie on constants or beside them."""
    x = Input(DType.F32, (40, 4), name="x")
    steps = np.arange(-20, 20)[:, None] + np.zeros(4)
    read = pair(x, TensorType(dtype, (), Quant(float(np.float32(0.05)), 100)), "x")
    c = Const(np.asarray(limits, np.float32))
    y = (relation(c, read) if first else relation(read, c)).replace(name="y")
    graph = Graph("told", (x,), (y,), ("y",))
    feed = {"x": (steps * np.float32(0.05)).astype(np.float32)}
    library = irc.compile(graph, backend="reference")
    np.testing.assert_array_equal(evaluate(graph, feed)["y"], library(feed)["y"])


def test_rounded_reals_equal_rounded_constants() -> None:
    """A sum is as near to a constant as its steps allow; whole numbers are equal or not."""
    sums = np.asarray([[0.31, -0.77, 1.23, 0.05]], np.float32)
    x, z = (Input(DType.F32, (1, 4), name=n) for n in "xz")
    y = Equal(Add(x, z, name="s"), Const(sums), name="y")
    graph = Graph("told", (x, z), (y,), ("y",))
    rng = np.random.default_rng(0)
    feeds = [
        {"x": a, "z": sums - a}
        for a in rng.choice(np.asarray([-1, -0.5, 0.25, 0.5, 1.5], np.float32), (20, 1, 4))
    ]
    quantized = irc.quantize(graph, feeds)
    found = np.concatenate([evaluate(quantized, feed)["y"] for feed in feeds])
    assert found.mean() > 0.3
    real, whole, _ = told(lambda v: Equal(v, scalar(10.5)), np.minimum(ROWS, 20))
    assert not real.any()
    assert not whole.any()


def test_constants_of_a_scale_for_each_channel_are_compared() -> None:
    x = Input(DType.F32, (5, 3), name="x")
    scales = Quant((0.1, 0.2, 0.4), 0, 1)
    c = Dequantize(Const(np.asarray([[1, 2, 100]], np.uint8), scales, name="c"))
    read = pair(x, TensorType(DType.U8, (), Quant(0.25, 100)), "x")
    graph = Graph("told", (x,), (Less(read, c, name="y"),), ("y",))
    feed = {"x": np.linspace(-9, 9, 15).reshape(5, 3).astype(np.float32)}
    library = irc.compile(graph, backend="reference")
    np.testing.assert_array_equal(evaluate(graph, feed)["y"], library(feed)["y"])


def test_values_of_a_scale_for_each_channel_are_named() -> None:
    x, z = (Input(DType.F32, (5, 3), name=n) for n in "xz")
    many = pair(x, TensorType(DType.U8, (5, 3), Quant((0.1, 0.2, 0.4), 0, 1)), "x")
    one = pair(z, TensorType(DType.U8, (), Quant(0.25, 100)), "z")
    graph = Graph("told", (x, z), (Less(many, one, name="y"),), ("y",))
    with pytest.raises(CompileError, match=r"less %y: compares %x\S*, which has a scale for each"):
        integerize(graph)


def test_functions_that_jump_where_an_input_is_compared_have_16_bits() -> None:
    """Values just beside the threshold are on their own side of it."""
    x, z = (Input(DType.F32, (4, 16), name=n) for n in "xz")
    side = Where(Less(x, scalar(0.0)), Sub(scalar(3.0), Abs(x)), Abs(x))
    other = Where(Less(x, scalar(0.0)), z, Mul(z, z))
    graph = Graph("g", (x, z), (Add(side, other, name="y"),), ("y",))
    rng = np.random.default_rng(1)
    feeds = [{n: rng.normal(size=(4, 16)).astype(np.float32) for n in "xz"} for _ in range(8)]
    for feed in feeds:
        feed["x"] += np.sign(feed["x"])  # few lie near the threshold
    quantized = irc.quantize(graph, feeds)
    near = np.geomspace(1e-3, 1e-2, 64).reshape(4, 16) * np.where(np.arange(16) % 2, 1, -1)
    feed = {"x": near.astype(np.float32), "z": feeds[0]["z"]}
    wanted, found = (evaluate(g, feed)["y"] for g in (graph, quantized))
    assert np.abs(wanted - found).max() < 0.3


@pytest.mark.parametrize(("function", "wide"), [(Sqrt, False), (Log, True)])
def test_functions_of_what_is_compared_have_16_bits_where_8_are_too_few(
    function: Any, wide: bool
) -> None:
    """Which are a table of 65,536 where lines between some of its entries are far off."""
    x = Input(DType.F32, (4, 16), name="x")
    near = function(Add(Abs(x), scalar(1e-3)))
    chosen = Where(Equal(x, scalar(0.0)), scalar(0.0), near)
    w = Const(np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32) / 4)
    graph = Graph("g", (x,), (Linear(chosen, w, None, name="y"),), ("y",))
    rng = np.random.default_rng(1)
    data = rng.normal(size=(16, 4, 16)) * (rng.random((16, 4, 16)) > 0.3)
    feeds = [{"x": a.astype(np.float32)} for a in data]
    quantized = irc.quantize(graph, feeds[:12], min_sqnr=0)
    integer = integerize(quantized)
    assert (max(v.type.size for v in integer.order) > 10_000) == wide
    wanted, found = (
        np.stack([evaluate(g, f)["y"] for f in feeds[12:]]) for g in (graph, quantized)
    )
    assert np.square(found - wanted).sum() < 1e-2 * np.square(wanted).sum()


@pytest.mark.parametrize("op", [Less, LessOrEqual])
@pytest.mark.parametrize("first", [True, False])
def test_bounds_that_values_lie_on(op: type[Less], first: bool) -> None:
    """Decimals beside bounds that are decimals of the same kind, or single precision's next to one:
    CategoricalNB behind KBinsDiscretizer, iris data, 92 % of labels."""
    x = Input(DType.F32, (1, 5), name="x")
    decimals = np.asarray([[1.8, 0.0, 2.9, -1.1, 5.1]], np.float32)
    above = np.nextafter(decimals, np.float32(9)) * np.asarray([1, 0, 1, 1, 1], np.float32)
    below = np.nextafter(decimals, np.float32(-9)) * np.asarray([1, 0, 1, 1, 1], np.float32)
    tiny = np.asarray([0, 1e-6, 0, 0, 0], np.float32)
    made: list[Value] = []
    for bound in (decimals, above + tiny, below - tiny):
        pair = (Const(bound), x) if first else (x, Const(bound))
        made.append(Cast(op(*pair), DType.F32))
    graph = Graph("g", (x,), tuple(made), ("at", "above", "below"))
    seen = np.round(np.random.default_rng(0).uniform(-6, 6, (30, 1, 5)), 1).astype(np.float32)
    library = irc.compile(irc.quantize(graph, list(seen)), backend="reference")
    for row in (*seen, decimals, decimals + np.float32(0.1), decimals - np.float32(0.1)):
        for name, wanted in evaluate(graph, {"x": row}).items():
            np.testing.assert_array_equal(library({"x": row})[name], wanted)
