"""Small ONNX models, and the comparison of what we import with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, helper, numpy_helper

from irc.frontends.onnx import load
from irc.graph import Graph, evaluate
from irc.types import Array

IR_VERSION = 8


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attrs: Any
) -> NodeProto:
    """A node; attributes that are None are left out."""
    given = {k: v for k, v in attrs.items() if v is not None}
    return helper.make_node(op, list(inputs), list(outputs), name=f"{op}_{outputs[0]}", **given)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A model over inputs of the given arrays' shapes and dtypes."""
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in inputs.items()
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    results = [helper.make_empty_tensor_value_info(n) for n in outputs]
    graph = helper.make_graph(list(nodes), "test", infos, results, tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def fused(
    op: str, inputs: list[str], x: dict[str, Array], constants: dict[str, Array],
    outputs: tuple[str, ...] = ("y",), **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of one of onnxruntime's own operators."""
    made = node(op, inputs, outputs, domain="com.microsoft", **attributes)
    proto = model([made], x, constants, outputs=outputs)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def reference(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime makes of it, without its optimizations, with its exact kernels."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation of pairs
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    arrays = [np.asarray(a) for a in session.run(names, dict(inputs))]
    return dict(zip(names, arrays, strict=True))


def agree(
    proto: onnx.ModelProto, inputs: Mapping[str, Array], *, relative: float = 1e-5
) -> Graph:
    """Import, evaluate, compare with onnxruntime; differences count against the largest element."""
    graph = load(proto)
    expected = reference(proto, inputs)
    found = evaluate(graph, inputs)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        size = max(1.0, float(np.abs(array.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(found[name], array, rtol=relative, atol=relative * size)
    return graph


def check(
    op: str,
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    order: Sequence[str] | None = None,
    relative: float = 1e-5,
    **attrs: Any,
) -> Graph:
    """`agree` for one node whose inputs are `order`, by default all inputs, then all constants."""
    names = order if order is not None else [*inputs, *(constants or {})]
    proto = model([node(op, names, **attrs)], inputs, constants, opset)
    return agree(proto, inputs, relative=relative)


def reals(seed: int, *shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    """Random float32."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def f32(*values: float) -> Array:
    """A list of float32."""
    return np.asarray(values, np.float32)


def i64(*values: int) -> Array:
    """A list of int64."""
    return np.asarray(values, np.int64)
