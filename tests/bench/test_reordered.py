"""Convolutions whose channels are added in another order are the same network."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.reordered import reordered
from irc.types import Array


def test_the_network_stays_the_same() -> None:
    rng = np.random.default_rng(0)
    whole, grouped = rng.integers(-9, 9, (6, 8, 3, 3)), rng.integers(-9, 9, (6, 1, 3, 3))
    stored = [("w", whole), ("v", grouped)]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "one"], ["dequantized"]),
        helper.make_node("Conv", ["x", "dequantized"], ["between"]),
        helper.make_node("DequantizeLinear", ["v", "one"], ["each"]),
        helper.make_node("Conv", ["between", "each"], ["y"], group=6),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8, 7, 7))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6, 3, 3))],
        [numpy_helper.from_array(np.ones((), np.float32), "one"),
         *(numpy_helper.from_array(w.astype(np.int8), name) for name, w in stored)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    x = rng.integers(-9, 9, (1, 8, 7, 7)).astype(np.float32)

    def run(model: onnx.ModelProto) -> Array:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {"x": x})[0])

    before = run(model)
    assert reordered(model, rng) == 1
    (w,) = (i for i in model.graph.initializer if i.name == "w")
    assert not np.array_equal(numpy_helper.to_array(w), whole)
    np.testing.assert_array_equal(run(model), before)
