import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.macs import count_macs, pin_shapes


def model_of(
    node: onnx.NodeProto, x: list[int | str], *weights: tuple[int, ...], rank: int = 4
) -> onnx.ModelProto:
    """Return a model of one node on input x with zero weights w0, w1, …"""
    constants = [
        numpy_helper.from_array(np.zeros(shape, np.float32), f"w{i}")
        for i, shape in enumerate(weights)
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph([node], "g", [given], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def macs(node: onnx.NodeProto, x: tuple[int, ...], *weights: tuple[int, ...]) -> int:
    model = model_of(node, ["n", *x[1:]], *weights, rank=len(x))
    pin_shapes(model, {"x": x})
    return count_macs(model)


def test_convolution() -> None:
    node = helper.make_node("Conv", ["x", "w0"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    assert macs(node, (1, 3, 8, 8), (16, 3, 3, 3)) == 16 * 4 * 4 * 3 * 9


def test_depthwise_convolution() -> None:
    node = helper.make_node("Conv", ["x", "w0"], ["y"], group=8)
    assert macs(node, (1, 8, 5, 5), (8, 1, 3, 3)) == 8 * 3 * 3 * 9


def test_transposed_convolution() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w0"], ["y"], strides=[2, 2])
    assert macs(node, (1, 4, 5, 5), (4, 6, 2, 2)) == 4 * 5 * 5 * 6 * 4


def test_matmul() -> None:
    node = helper.make_node("MatMul", ["x", "w0"], ["y"])
    assert macs(node, (2, 5, 7), (7, 3)) == 2 * 5 * 7 * 3


@pytest.mark.parametrize(("transposed", "x"), [(0, (5, 7)), (1, (7, 5))])
def test_gemm(transposed: int, x: tuple[int, int]) -> None:
    node = helper.make_node("Gemm", ["x", "w0"], ["y"], transA=transposed)
    assert macs(node, x, (7, 3)) == 5 * 7 * 3


def test_elementwise_counts_nothing() -> None:
    assert macs(helper.make_node("Relu", ["x"], ["y"]), (1, 3, 8, 8)) == 0


def test_pinning_an_unknown_input_is_an_error() -> None:
    model = model_of(helper.make_node("Relu", ["x"], ["y"]), ["n", 3, 8, 8])
    with pytest.raises(KeyError, match="z"):
        pin_shapes(model, {"z": (1, 3, 8, 8)})
