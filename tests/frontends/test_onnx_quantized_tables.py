"""Rows picked from a quantized table, as onnxruntime's quantizer writes embeddings: the scale is
stated behind the Gather."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.edge import to_reals
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
    return of_nodes(nodes, stored)


def of_nodes(nodes: list[onnx.NodeProto], stored: Mapping[str, Array]) -> onnx.ModelProto:
    """From `ids` i64[2,5] to `y`."""
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


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scale_for_each_row_or_column(axis: int) -> None:
    """As NNCF writes embeddings: rows of a table of many scales, for a layer and for others."""
    rng = np.random.default_rng(2)
    stored: dict[str, Array] = {
        "table": rng.integers(-128, 128, (30, 8)).astype(np.int8),
        "scale": rng.uniform(0.01, 0.05, (30, 8)[axis]).astype(np.float32),
        "w": rng.standard_normal((8, 8)).astype(np.float32),
        "step": np.array(0.06, np.float32),
        "zero": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scale"], ["reals"], axis=axis),
        helper.make_node("Gather", ["reals", "ids"], ["rows"]),
        helper.make_node("QuantizeLinear", ["rows", "step", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "step", "zero"], ["read"]),
        helper.make_node("MatMul", ["read", "w"], ["made"]),
        helper.make_node("Add", ["rows", "made"], ["y"]),
    ]
    loaded = irc.load(of_nodes(nodes, stored))
    ids = {"ids": rng.integers(0, 30, (2, 5))}
    scale = stored["scale"][:, None] if axis == 0 else stored["scale"]
    rows = (stored["table"] * scale)[ids["ids"]]
    wanted = rows + np.round(rows / 0.06) * 0.06 @ stored["w"]
    library = irc.compile(irc.quantize(loaded, [ids]))
    found = to_reals(library.graph.output_types, library(ids))["y"]
    np.testing.assert_allclose(irc.evaluate(loaded, ids)["y"], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
