"""Sequences of known length: lists at import, nothing in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import irc
from irc.errors import ModelError

FLOAT, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
X = helper.make_tensor_value_info("x", FLOAT, [2, 7, 3])


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def number(name: str, *values: int, rank: int | None = None) -> onnx.TensorProto:
    shape = [len(values)] if rank is None else [1] * rank
    return helper.make_tensor(name, INT, shape, values)


def model(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], outputs: list[str]
) -> onnx.ModelProto:
    made = [helper.make_tensor_value_info(o, FLOAT, None) for o in outputs]
    graph = helper.make_graph(nodes, "lists", [X], made, constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def agree(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], *outputs: str) -> None:
    """onnxruntime and `evaluate` give the same."""
    proto = model(nodes, constants, list(outputs))
    x = np.random.default_rng(0).standard_normal((2, 7, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = irc.evaluate(irc.load(proto), {"x": x})
    for name, want in zip(outputs, session.run(list(outputs), {"x": x}), strict=True):
        np.testing.assert_array_equal(found[name], np.asarray(want))


@pytest.mark.parametrize("sizes", [number("n", 3, rank=0), number("n", 1, 4, 2)])
def test_split_and_taken(sizes: onnx.TensorProto) -> None:
    agree(
        [
            node("SplitToSequence", "x n", "parts", axis=1), node("SequenceAt", "parts two", "a"),
            node("SequenceAt", "parts last", "b"), node("Relu", "a", "y"), node("Neg", "b", "z"),
        ],
        [sizes, number("two", 1, rank=0), number("last", -1, rank=0)], "y", "z",
    )  # fmt: skip


@pytest.mark.parametrize("keep", [0, 1])
def test_split_one_by_one_and_joined(keep: int) -> None:
    agree(
        [
            node("SplitToSequence", "x", "parts", axis=1, keepdims=keep),
            node("SequenceErase", "parts at", "fewer"), node("SequenceErase", "fewer", "least"),
            node("ConcatFromSequence", "least", "y", axis=0),
            node("ConcatFromSequence", "least", "z", axis=-1, new_axis=1),
        ],
        [number("at", 2, rank=0)], "y", "z",
    )  # fmt: skip


def test_made_in_a_loop() -> None:
    """As exporters write bags and lists that grow."""
    body = helper.make_graph(
        [
            node("Gather", "x i", "row", axis=1), node("SequenceInsert", "list row", "longer"),
            node("Identity", "go", "goes"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("list", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", onnx.TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info("longer", FLOAT, None),
        ],
    )  # fmt: skip
    agree(
        [
            node("SequenceEmpty", "", "none", dtype=FLOAT),
            helper.make_node("Loop", ["rounds", "", "none"], ["rows"], body=body),
            node("SequenceInsert", "rows x0 first", "all"),
            node("ConcatFromSequence", "all", "y", axis=1, new_axis=1),
            node("SequenceLength", "all", "count"), node("Cast", "count", "z", to=FLOAT),
        ],
        [
            number("rounds", 4, rank=0), number("first", 0, rank=0),
            helper.make_tensor("x0", FLOAT, [2, 3], range(6)),
        ],
        "y", "z",
    )  # fmt: skip


@pytest.mark.parametrize("place", [1, -1, -3, 3])
def test_constructed_and_passed_on(place: int) -> None:
    agree(
        [
            node("Neg", "x", "n"), node("SequenceConstruct", "x n x", "three"),
            node("Identity", "three", "same"), node("SequenceInsert", "same n at", "four"),
            node("ConcatFromSequence", "four", "y", axis=2),
        ],
        [number("at", place, rank=0)], "y",
    )  # fmt: skip


SPLIT = node("SplitToSequence", "x", "parts", axis=1)
REFUSED = {
    "output": ([SPLIT], "parts", "'parts' is a sequence of 7 tensors"),
    "operand": ([SPLIT, node("Relu", "parts", "y")], "y", "input 0 is a sequence of 7 tensors"),
    "tensor": ([node("SequenceLength", "x", "y")], "y", "input 0 must be a sequence"),
    "position": ([SPLIT, node("SequenceAt", "parts n", "y")], "y", "9 does not exist among 7"),
    "empty": (
        [node("SequenceEmpty", "", "e"), node("ConcatFromSequence", "e", "y", axis=0)], "y",
        "nothing is in the sequence",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusal(case: str) -> None:
    nodes, output, message = REFUSED[case]
    with pytest.raises(ModelError, match=message):
        irc.load(model(nodes, [number("n", 9, rank=0)], [output]))
