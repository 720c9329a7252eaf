"""ONNX's own test cases: models of one operator, and small ones that exporters made."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.backend.test import loader

from irc.types import Array

STORED = ("simple", "pytorch-converted", "pytorch-operator")
LIGHT = "light"

@dataclass(frozen=True)
class Case:
    """A model, inputs and the outputs that it must give. What is no tensor is None."""

    name: str
    kind: str
    model: onnx.ModelProto
    inputs: Sequence[Array | None]
    outputs: Sequence[Array | None]
    rtol: float
    atol: float

    @property
    def op(self) -> str:
        """The operator that the case is about: that of its first node."""
        node = self.model.graph.node[0]
        return f"{node.domain}.{node.op_type}" if node.domain else node.op_type

    @property
    def last_places(self) -> int:
        """How far integers may be off: 1 where reals are rounded to them."""
        ops = [node.op_type for node in self.model.graph.node]
        return int(any("Quantize" in op or "QLinear" in op for op in ops))


def node_cases() -> Iterator[Case]:
    """A model of one node for each feature of each operator."""
    with contextlib.redirect_stdout(io.StringIO()):  # some cases print what they hold
        found = loader.load_node_model_tests()
    for case in found:
        model, sets = case.model, case.data_sets
        if model is not None and sets:
            inputs, outputs = ([_array(v) for v in values] for values in sets[0])
            yield Case(case.name, "node", model, inputs, outputs, case.rtol, case.atol)


def stored_cases(kind: str) -> Iterator[Case]:
    """The cases of one folder: models as exporters wrote them."""
    for case in sorted(loader.load_model_tests(kind=kind), key=lambda c: c.name):
        folder = Path(str(case.model_dir))
        model = onnx.load(folder / "model.onnx")
        data = folder / "test_data_set_0"
        inputs = [_read(p) for p in _numbered(data, "input")]
        outputs = [_read(p) for p in _numbered(data, "output")]
        yield Case(case.name, kind, model, inputs, outputs, case.rtol, case.atol)


def light_cases() -> Iterator[Case]:
    """The well-known nets that onnx stores without their weights: these are random here, and the
    outputs onnxruntime's."""
    folder = Path(onnx.backend.test.__file__).parent / "data" / LIGHT
    for path in sorted(folder.glob("*.onnx")):
        model, rng = refilled(onnx.load(path)), np.random.default_rng(len(path.stem))
        (info,) = model.graph.input
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        x = rng.normal(size=shape).astype(np.float32)
        expected = _by_onnxruntime(model, {info.name: x})
        size = max(float(np.abs(a).max()) for a in expected)
        yield Case(path.stem, LIGHT, model, [x], expected, 1e-3, 1e-4 * size)


def refilled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with seeded random weights in the place of those that it fills with one number."""
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    readers = {name: (n, i) for n in graph.node for i, name in enumerate(n.input)}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "ConstantOfShape":
            graph.node.append(node)
            continue
        reader, at = readers[node.output[0]]
        shape = tuple(int(d) for d in shapes[node.input[0]])
        weights = _weights(rng, shape, reader.op_type, at)
        graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
    stored = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = 8  # since 4, initializers need not be listed as inputs
    if graph.node[-1].op_type == "Softmax":  # one 1 and many 0 where weights are random: cut it off
        graph.output[0].name = graph.node.pop().input[0]
        graph.output[0].ClearField("type")
    return model


def _weights(rng: np.random.Generator, shape: tuple[int, ...], reader: str, at: int) -> Array:
    """Random numbers that neither let signals die nor grow: around 1 for the factors and variances
    of norms, around 0 for biases, by the number of inputs for weights."""
    if len(shape) > 1:
        spread = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return rng.standard_normal(shape, np.float32) * spread
    if reader in ("Conv", "Gemm") or (reader == "BatchNormalization" and at in (2, 3)):
        return (0.1 * rng.normal(size=shape)).astype(np.float32)
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def _by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(a) for a in session.run(None, feeds)]


def _numbered(folder: Path, what: str) -> list[Path]:
    return sorted(folder.glob(f"{what}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))


def _read(path: Path) -> Array | None:
    tensor = TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, DecodeError):
        return None


def _array(value: Any) -> Array | None:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return value if hasattr(value, "dtype") else None
