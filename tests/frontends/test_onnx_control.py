"""Loop and Scan with known trip counts: unrolled, or rounds that share nothing at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irc
from irc.errors import ModelError
from tests.frontends.single_op import agree, i64, model, node, reals

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def accumulator(condition: str = "go") -> onnx.GraphProto:
    """`v = v * 0.5 + x`, and each v; x comes from outside."""
    nodes = [
        node("Constant", [], ["half"], value_float=0.5),
        node("Constant", [], ["four"], value_int=4),
        node("Mul", ["v", "half"], ["scaled"]),
        node("Add", ["scaled", "x"], ["next"]),
        node("Identity", ["next"], ["seen"]),
        node("Less", ["i", "four"], ["less"]),
        node("ReduceMax", ["next"], ["largest"], keepdims=0),
        node("Less", ["largest", "half"], ["small"]),
    ]
    inputs = [value("i", INT64, []), value("go", BOOL, []), value("v")]
    return body(nodes, inputs, [value(condition, BOOL, []), value("next"), value("seen")])


def looped(condition: str, limit: str = "m", **constants: Any) -> onnx.ModelProto:
    made = node("Loop", [limit, "", "x"], ["y", "all"], body=accumulator(condition))
    return model([made], {"x": reals(0, 2, 3)}, constants, 16, ["y", "all"])


def test_a_loop_with_a_trip_count() -> None:
    agree(looped("go", m=i64(5).reshape(())), {"x": reals(0, 2, 3)})


def test_a_loop_with_a_condition_on_its_counter() -> None:
    agree(looped("less", limit=""), {"x": reals(0, 2, 3)})


def test_a_loop_whose_condition_depends_on_data_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Loop.*goes on is computed at run time"):
        irc.load(looped("small", m=i64(5).reshape(())))


def test_an_endless_loop_is_refused() -> None:
    with pytest.raises(ModelError, match=r"too many to be unrolled"):
        irc.load(looped("go", limit=""))


def test_a_loop_without_a_round_is_refused() -> None:
    with pytest.raises(ModelError, match=r"makes no round"):
        irc.load(looped("go", m=i64(0).reshape(())))


def test_a_trip_count_that_is_an_input() -> None:
    """Refused, unless the caller fixes it."""
    proto = looped("go")
    proto.graph.input.append(value("m", INT64, []))
    with pytest.raises(ModelError, match="run time"):
        irc.load(proto)
    graph = irc.load(proto, values={"m": 3})
    assert [v.name for v in graph.inputs] == ["x"]
    found = irc.evaluate(graph, {"x": reals(0, 2, 3)})
    assert found["all"].shape == (3, 2, 3)
    np.testing.assert_allclose(found["y"], reals(0, 2, 3) * 1.875, rtol=1e-6)


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scan(backward: int, axis: int) -> None:
    x = {"x": reals(0, 3, 3, 3), "s": reals(1, 3, 3)}
    nodes = [node("Add", ["sum", "part"], ["new"]), node("Mul", ["new", "part"], ["out"])]
    inner = body(nodes, [value("sum"), value("part")], [value("new"), value("out")])
    made = node(
        "Scan", ["s", "x"], ["y", "all"], body=inner, num_scan_inputs=1, scan_input_axes=[axis],
        scan_input_directions=[backward], scan_output_axes=[axis],
        scan_output_directions=[1 - backward],
    )  # fmt: skip
    agree(model([made], x, {}, 16, ["y", "all"]), x)


def test_scanned_inputs_of_different_length_are_refused() -> None:
    x = {"a": reals(0, 3, 2), "b": reals(1, 4, 2)}
    nodes = [node("Add", ["p", "q"], ["out"])]
    inner = body(nodes, [value("p"), value("q")], [value("out")])
    made = node("Scan", ["a", "b"], ["y"], body=inner, num_scan_inputs=2)
    with pytest.raises(ModelError, match="differ in length"):
        irc.load(model([made], x, {}, 16))


def distances(*, out_axis: int = 0, power: float = 2.0, sizes: bool = False) -> onnx.ModelProto:
    """Of each row of x from each row of y, a round for each of these, as scikit-learn's converter
    writes them; or, in a way that must know its slice, times its size."""
    nodes = [
        node("Identity", ["before"], ["after"]),
        node("Sub", ["before", "row"], ["apart"]),
        node("Abs", ["apart"], ["size"]),
        node("Constant", [], ["p"], value_float=power),
        node("Pow", ["size", "p"], ["powers"]),
        node("ReduceSum", ["powers", "axis"], ["total"], keepdims=0),
    ]
    last = "total"
    if sizes:
        nodes += [
            node("NonZero", ["row"], ["places"]), node("Shape", ["places"], ["count"], start=1),
            node("Cast", ["count"], ["real"], to=FLOAT), node("Mul", ["total", "real"], ["y"]),
        ]  # fmt: skip
        last = "y"
    inner = body(nodes, [value("before"), value("row")], [value("after"), value(last)])
    made = node("Scan", ["x", "rows"], ["same", "y"], body=inner, num_scan_inputs=1,
                scan_output_axes=[out_axis])  # fmt: skip
    rows = {"rows": reals(1, 6, 3), "axis": i64(1)}
    return model([made], {"x": reals(0, 4, 3)}, rows, 16, ["same", "y"])


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("out_axis", [0, 1])
def test_rounds_that_share_nothing_are_computed_at_once(out_axis: int, power: float) -> None:
    graph = agree(distances(out_axis=out_axis, power=power), {"x": reals(0, 4, 3)})
    assert [v.op for v in graph.order].count("reduce_sum") == 1


def test_rounds_that_must_know_their_slice_are_unrolled() -> None:
    graph = agree(distances(sizes=True), {"x": reals(0, 4, 3)})
    assert [v.op for v in graph.order].count("reduce_sum") == 6
