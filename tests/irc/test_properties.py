import numpy as np
import pytest

from irc.errors import GraphError
from irc.graph import Graph
from irc.ops.activation import Relu
from irc.ops.core import Const, Input, Kernel
from irc.ops.quantization import Dequantize, Lookup, Quantize
from irc.properties import (
    PROPERTIES,
    first_float,
    is_float,
    is_integer,
    is_qdq,
    is_scheduled,
    require,
)
from irc.types import DType, Quant
from tests.backends.harness import schedule

Q = Quant(0.5, 3)
X = Input(DType.F32, (2,), name="x")
I = Input(DType.U8, (2,), Q, name="i")  # noqa: E741
TABLE = Const(np.zeros(256, np.uint8))


def float_graph() -> Graph:
    return Graph("f", (X,), (Relu(X),), ("y",))


def qdq_graph() -> Graph:
    return Graph("q", (X,), (Relu(Dequantize(Quantize(X, DType.U8, Q))),), ("y",))


def integer_graph() -> Graph:
    return Graph("i", (I,), (Lookup(I, TABLE, Q),), ("y",))


@pytest.mark.parametrize(
    ("make", "has"),
    [
        (float_graph, {"float"}),
        (qdq_graph, {"qdq"}),
        (integer_graph, {"integer", "float"}),  # what has no quantize is "as it was trained"
        (lambda: schedule(integer_graph()), {"integer", "scheduled"}),
    ],
)
def test_properties(make, has):  # type: ignore[no-untyped-def]
    graph = make()
    assert {name for name, holds in PROPERTIES.items() if holds(graph)} == has


def test_the_named_ones_are_the_functions() -> None:
    assert {
        "float": is_float, "qdq": is_qdq, "integer": is_integer, "scheduled": is_scheduled
    } == PROPERTIES  # fmt: skip


def test_a_float_in_a_body_is_found() -> None:
    formal = Input(DType.U8, (2,), Q, name="a")
    inner = Dequantize(formal, name="inside")
    body = Graph("body", (formal,), (Quantize(inner, DType.U8, Q),), ("r",))
    graph = Graph("g", (I,), (Kernel((I,), body),), ("y",))
    assert first_float(graph) is inner
    assert not is_integer(graph)
    with pytest.raises(GraphError, match="who: graph g is not integer: dequantize %inside is f32"):
        require(graph, ("integer",), "who")


def test_a_plan_alone_does_not_schedule() -> None:
    scheduled = schedule(integer_graph())
    loose = Graph("g", (I,), (Lookup(I, TABLE, Q),), ("y",), scheduled.plan)
    assert not is_scheduled(loose)
    assert not is_scheduled(scheduled.with_outputs(scheduled.outputs)), "with_outputs drops it"


def test_require_checks_each() -> None:
    require(integer_graph(), ("integer",), "who")
    with pytest.raises(GraphError, match="who: graph i is not scheduled"):
        require(integer_graph(), ("integer", "scheduled"), "who")
