"""Positions of extremes, against onnxruntime."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from irc.errors import TypeCheckError
from irc.ops.core import Input
from irc.ops.ranking import ArgMax, ArgMin
from irc.types import Array, DType, Quant


def peer(op: str, x: Array, axis: int, keepdims: bool, last: bool) -> Array:
    node = helper.make_node(
        op, ["x"], ["y"], axis=axis, keepdims=keepdims, select_last_index=last
    )
    graph = helper.make_graph(
        [node],
        "peer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
    )
    imports = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("cls", [ArgMax, ArgMin])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_position_is_the_onnx_operator(
    cls: type[ArgMax] | type[ArgMin], axis: int, keepdims: bool, last: bool
) -> None:
    x = np.random.default_rng(1).integers(0, 4, (5, 6, 7)).astype(np.float32)
    node = cls(Input(DType.F32, x.shape), axis, keepdims, last)
    name = "ArgMax" if cls is ArgMax else "ArgMin"
    expected = peer(name, x, axis, keepdims, last)
    found = node.evaluate(x)
    assert found.dtype == np.int64
    assert node.type.shape == found.shape
    np.testing.assert_array_equal(found, expected)


def test_refusals() -> None:
    with pytest.raises(TypeCheckError, match="empty"):
        ArgMax(Input(DType.F32, (2, 0)), 1, True)
    with pytest.raises(TypeCheckError, match="not axes"):
        ArgMin(Input(DType.F32, (2, 3)), 2, True)
    along = Quant((0.5, 0.25), 0, 0)
    with pytest.raises(TypeCheckError, match="per tensor"):
        ArgMax(Input(DType.I8, (2, 3), along), 1, True)
