"""A multi-layer perceptron of seeded random weights, as ONNX."""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
SEED = 4


def perceptron(shape: tuple[int, ...], widths: Iterable[int]) -> onnx.ModelProto:
    """Return layers of `widths` neurons on an input `x` of a shape, relu between them.

    Weights are normal with variance 2 / inputs (He et al., 2015), which keeps activations in scale.
    """
    generator = np.random.default_rng(SEED)
    nodes = [helper.make_node("Flatten", ["x"], ["h0"])]
    weights: list[onnx.TensorProto] = []
    inputs, last = int(np.prod(shape[1:])), "h0"
    for i, width in enumerate(widths, 1):
        if i > 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            last = f"r{i}"
        drawn = generator.normal(0, np.sqrt(2 / inputs), (width, inputs)).astype(np.float32)
        weights += [_named(drawn, f"w{i}"), _named(np.zeros(width, np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"], transB=1))
        inputs, last = width, f"h{i}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, (shape[0], inputs))
    graph = helper.make_graph(nodes, "perceptron", [x], [y], weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _named(array: NDArray[np.float32], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)
