import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.macs import count_macs
from bench.shapes import pin_shapes


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


def shaped_by_nodes(steps: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Return Reshape (by what the steps compute from the shape of x) and a matrix product."""
    tail = [
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w0"], ["y"], name="product"),
    ]
    model = model_of(tail[1], ["n", 4, 5, 6], (120, 3), rank=2)
    del model.graph.node[:]
    model.graph.node.extend([*steps, *tail])
    minus_one = numpy_helper.from_array(np.array([-1], np.int64), "minus_one")
    bounds = [numpy_helper.from_array(np.array([i], np.int64), f"at{i}") for i in (0, 1)]
    model.graph.initializer.extend([minus_one, *bounds])
    return model


def test_shapes_that_nodes_compute_are_followed() -> None:
    model = shaped_by_nodes(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["wide"], ["back"], to=TensorProto.INT64),
            helper.make_node("Slice", ["back", "at0", "at1"], ["batch"]),
            helper.make_node("Concat", ["batch", "minus_one"], ["target"], axis=0),
        ]
    )
    before = model.SerializeToString()
    pin_shapes(model, {"x": (2, 4, 5, 6)})
    nodes = [node.op_type for node in model.graph.node]
    assert count_macs(model) == 2 * 120 * 3
    assert [node.op_type for node in model.graph.node] == nodes
    assert before != model.SerializeToString()  # pinned, but not folded


def test_a_product_of_unknown_shape_is_an_error_not_a_smaller_count() -> None:
    model = shaped_by_nodes([])
    shape = helper.make_tensor_value_info("target", TensorProto.INT64, [2])
    model.graph.input.append(shape)
    pin_shapes(model, {"x": (2, 4, 5, 6)})
    with pytest.raises(ValueError, match="MatMul product: the shape of flat is not known"):
        count_macs(model)
