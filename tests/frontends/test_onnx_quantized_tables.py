"""Rows picked from a quantized table, as onnxruntime's quantizer writes embeddings: the scale is
stated behind the Gather."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.types import Array


def model(moved: str) -> onnx.ModelProto:
    """Ids to rows, moved between the table and DequantizeLinear, times reals."""
    rng = np.random.default_rng(0)
    stored: dict[str, Array] = {
        "table": rng.integers(0, 256, (30, 8)).astype(np.uint8),
        "scale": np.array(0.02, np.float32),
        "zero": np.array(131, np.uint8),
        "w": rng.standard_normal((2 if moved == "Transpose" else 8, 3)).astype(np.float32),
        "axes": np.array([1]),
    }
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"])]
    if moved:
        given = ["rows", "axes"] if moved == "Unsqueeze" else ["rows"]
        nodes.append(helper.make_node(moved, given, ["moved"]))
    last = nodes[-1].output[0]
    nodes += [
        helper.make_node("DequantizeLinear", [last, "scale", "zero"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "table",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("moved", ["", "Unsqueeze", "Transpose"])
def test_equals_onnxruntime_and_compiles(moved: str) -> None:
    proto = model(moved)
    ids = np.random.default_rng(1).integers(0, 30, (2, 5))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = np.asarray(session.run(None, {"ids": ids})[0])
    graph = irc.load(proto)
    assert np.allclose(irc.evaluate(graph, {"ids": ids})["y"], wanted, rtol=1e-4, atol=1e-5)
    quantized = irc.quantize(graph, [{"ids": ids}])
    found = irc.compile(quantized)({"ids": ids})["y"]
    assert np.array_equal(found, irc.compile(quantized, backend="reference")({"ids": ids})["y"])
