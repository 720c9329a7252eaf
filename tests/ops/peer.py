"""One ONNX operator, run by onnxruntime: the second opinion on what float ops mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from irc.types import Array

OPSET = 22


def run(op: str, inputs: Sequence[Array | None], **attributes: Any) -> Array:
    """The first result of the operator; an absent input is None."""
    given = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "peer",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given.items()
        ],
        [helper.make_tensor_value_info("y", result_type(op, inputs), None)],
    )
    imports = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, given)[0])


def result_type(op: str, inputs: Sequence[Array | None]) -> int:
    """The element type of the result."""
    if op in ("Equal", "Less", "LessOrEqual", "And", "Or"):
        return int(TensorProto.BOOL)
    values = inputs[1] if op == "Where" else inputs[0]
    assert values is not None
    return int(helper.np_dtype_to_tensor_dtype(values.dtype))


def to_nchw(x: Array) -> Array:
    """An NHWC image as ONNX wants it."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def to_nhwc(x: Array) -> Array:
    """An ONNX image as the IR wants it."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))
