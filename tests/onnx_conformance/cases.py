"""ONNX's own test cases: models of one operator, and small ones that exporters made."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
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
