"""Inputs pinned to values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc

F, INT = TensorProto.FLOAT, TensorProto.INT64


def branching(rate: int = INT, default: int | None = None) -> onnx.ModelProto:
    """`x * 2` at a rate of 16000, else `-x`; x f32[2,3]."""

    def branch(op: str, inputs: list[str], name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, F, None)
        return helper.make_graph([helper.make_node(op, inputs, [name])], name, [], [out])

    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["fast"]),
        helper.make_node(
            "If", ["fast"], ["y"],
            then_branch=branch("Add", ["x", "x"], "twice"),
            else_branch=branch("Neg", ["x"], "negative"),
        ),
    ]  # fmt: skip
    kind = helper.tensor_dtype_to_np_dtype(rate)
    constants = [numpy_helper.from_array(np.array(16000, kind), "rate")]
    if default is not None:
        constants.append(numpy_helper.from_array(np.array(default, kind), "sr"))
    graph = helper.make_graph(
        nodes, "branching",
        [helper.make_tensor_value_info("x", F, [2, 3]),
         helper.make_tensor_value_info("sr", rate, [])],
        [helper.make_tensor_value_info("y", F, None)], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(values: dict[str, Any], model: onnx.ModelProto | None = None) -> np.ndarray[Any, Any]:
    graph = irc.load(model or branching(), values=values)
    assert [v.name for v in graph.inputs] == ["x"]
    return irc.evaluate(graph, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)})["y"]


def test_a_condition_may_hang_on_a_pinned_input() -> None:
    assert run({"sr": 16000})[1, 2] == 10
    assert run({"sr": np.array(8000)})[1, 2] == -5
    assert run({"sr": 16000.0})[1, 2] == 10


def test_what_pinning_would_do_is_told() -> None:
    model = branching()
    (twice,) = (a.g.node[0] for a in model.graph.node[1].attribute if a.name == "then_branch")
    twice.op_type = "Shape"
    del twice.input[1]
    with pytest.raises(irc.IRCError, match=r"'fast'\) is computed.*: --value sr=\.\.\. makes it"):
        irc.load(model)
    assert run({"sr": 8000}, model)[1, 2] == -5


def test_a_value_takes_the_place_of_a_default() -> None:
    assert run({"sr": 8000}, branching(default=16000))[1, 2] == -5


def test_the_model_given_is_left_as_it_is() -> None:
    model = branching()
    before = model.SerializeToString()
    run({"sr": 16000}, model)
    assert model.SerializeToString() == before


def test_inputs_that_nothing_reads() -> None:
    """Keras's exporter leaves some, of constants that it folded; the cure is told, and is one."""
    model = branching()
    model.graph.input.append(helper.make_tensor_value_info("norm/Sub/y:0", F, [1, 1, 3]))
    graph = irc.load(model, values={"sr": 16000})
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    cure = r"nothing reads \['norm/Sub/y:0'\]: --value norm/Sub/y:0=0 leaves that out .*load"
    for run_on in (
        lambda: irc.evaluate(graph, {"x": x}),
        lambda: irc.quantize(graph, calibration=[{"x": x}]),
        lambda: irc.quantize(graph, calibration=x[None]),
    ):
        with pytest.raises(irc.IRCError, match=cure):
            run_on()
    assert run({"sr": 16000, "norm/Sub/y:0": 0}, model)[1, 2] == 10


def test_flat_values_take_the_shape_of_their_input() -> None:
    values = {"sr": 16000, "x": [1, 2, 3, 4, 5, 6]}
    graph = irc.load(branching(), values=values)
    np.testing.assert_array_equal(irc.evaluate(graph, {})["y"], [[2, 4, 6], [8, 10, 12]])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": 1}, "the model's inputs are"),
        ({"nothing": 1}, "'nothing'"),
        ({"sr": 0.5}, "no value of type int64"),
        ({"sr": "fast"}, "no value of type int64"),
        ({"sr": [1, 2]}, "the model says"),
        ({"x": [1.0, 2.0]}, r"\[2\] is given, the model says \[2, 3\]"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], words: str) -> None:
    with pytest.raises(irc.IRCError, match=words):
        irc.load(branching(), values=values)


@pytest.mark.parametrize("shapes", [(2, 3), np.zeros((9, 9))], ids=["tuple", "array"])
def test_shapes_without_names(shapes: Any) -> None:
    with pytest.raises(irc.IRCError, match=r"^shapes: a \w+ is given[^\n]*$"):
        irc.load(branching(), shapes)
