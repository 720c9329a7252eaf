"""Fusing by substitution changes no bit, and equal work has one key."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given

from irc.compose import compose, has_reduction, pointwise, work_key
from irc.graph import Graph, evaluate
from irc.interpret import interpret
from irc.loops import Load, walk
from irc.ops.core import Const, Input, Kernel
from irc.ops.pool import MaxPool2d
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Lookup, Requantize
from irc.ops.shape import Pad, Transpose
from irc.types import Array, DType, Quant
from irc.value import Value
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, schedule
from tests.ops.sampling import Sample

Q = Quant(0.5, 128)


def interpreted(body: Graph, arrays: list[Array]) -> Array:
    values: dict[Value, Array] = {v: v.array for v in body.constants}
    values |= dict(zip(body.inputs, arrays, strict=True))
    return interpret(compose(body), values)


@examples(40)
@given(integer_graphs())
def test_a_kernels_nests_mean_what_its_body_means(drawn: Sample) -> None:
    scheduled = schedule(drawn.graph)
    seen: dict[Value, Array] = {}
    evaluate(scheduled, drawn.feeds, observe=seen.__setitem__)
    for v in scheduled.order:
        if isinstance(v, Kernel) and seen[v].size < 400:
            made = interpreted(v.body, [seen[a] for a in v.args])
            assert made.astype(seen[v].dtype).tolist() == seen[v].tolist(), scheduled


@examples(40)
@given(integer_graphs())
def test_nests_load_only_operands_and_temporaries(drawn: Sample) -> None:
    for v in schedule(drawn.graph).order:
        if isinstance(v, Kernel):
            loops = compose(v.body)
            known = {*v.body.inputs, *v.body.constants, *loops.temps}
            loads = [e for nest in loops.nests for e in walk(nest.value) if isinstance(e, Load)]
            assert {e.source for e in loads} <= known


def body(x: Input, *outputs: Value) -> Graph:
    return Graph("body", (x,), outputs, ("result",))


def test_a_padded_load_of_a_computed_value_is_filled() -> None:
    """A pool behind a table: outside of the image stands the fill, not the table of it."""
    x = Input(DType.U8, (1, 2, 2, 1), Q, name="x")
    y = Lookup(x, Const(np.arange(255, -1, -1, dtype=np.uint8)), Q)
    padded = Pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), -64.0)
    graph = body(x, MaxPool2d(padded, (2, 2)))
    feed = np.array([0, 1, 254, 255], np.uint8).reshape(1, 2, 2, 1)
    expected = evaluate(graph, {"x": feed})["result"]
    assert interpreted(graph, [feed]).tolist() == expected.tolist()


def test_compose_is_remembered() -> None:
    x = Input(DType.U8, (4,), Q, name="x")
    graph = body(x, Lookup(x, Const(np.zeros(256, np.uint8)), Q))
    assert compose(graph) is compose(graph)


def requantized(name: str, scale: float, m: int, shape: tuple[int, ...] = (4,)) -> Graph:
    x = Input(DType.U8, shape, Quant(scale, 3), name=name)
    y = Requantize(x, m, 35, (0, 255), DType.U8, Quant(scale * 2, 5), name=f"{name}.y")
    return body(x, y)


def test_names_and_scales_are_no_work() -> None:
    key = work_key(requantized("a", 0.5, 2**30))
    assert key == work_key(requantized("b", 0.1, 2**30))
    assert key != work_key(requantized("a", 0.5, 2**30 + 1))
    assert key != work_key(requantized("a", 0.5, 2**30, (5,)))


def test_inner_constants_are_told_apart_by_content() -> None:
    def looked_up(value: int) -> str:
        x = Input(DType.U8, (4,), Q, name="x")
        return work_key(body(x, Lookup(x, Const(np.full(256, value, np.uint8)), Q)))

    assert looked_up(1) == looked_up(1)
    assert looked_up(1) != looked_up(2)


def test_operands_in_another_order_are_other_work() -> None:
    a, b = (Input(DType.U8, (4,), Q, name=n) for n in "ab")
    one = QAdd(a, b, 3, 5, 4, (0, 255), DType.U8, Q)
    two = QAdd(b, a, 3, 5, 4, (0, 255), DType.U8, Q)
    keys = [work_key(Graph("body", (a, b), (v,), ("result",))) for v in (one, two)]
    assert keys[0] != keys[1]


def test_pointwise() -> None:
    x = Input(DType.U8, (2, 3), Q, name="x")
    row = Input(DType.U8, (1, 3), Q, name="row")
    add = QAdd(x, row, 3, 5, 4, (0, 255), DType.U8, Q)
    assert pointwise(add, x)
    assert not pointwise(add, row)
    square = Input(DType.U8, (3, 3), Q, name="square")
    assert not pointwise(Transpose(square, (1, 0)), square)
    both = QAdd(square, Transpose(square, (1, 0)), 3, 5, 4, (0, 255), DType.U8, Q)
    assert pointwise(both, square)
    pool = MaxPool2d(Input(DType.U8, (1, 3, 3, 1), Q, name="image"), (2, 2))
    assert has_reduction(pool.loops())
    assert not has_reduction(add.loops())
    assert dataclasses.is_dataclass(add)
