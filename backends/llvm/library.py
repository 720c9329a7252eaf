"""Saved libraries, opened again: through `ctypes`, by what their manifest says."""

from __future__ import annotations

import ctypes
import json
import shutil
import tempfile
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from irc.backends.llvm.module import workspace_array
from irc.backends.llvm.target import refusal
from irc.edge import to_integers, to_reals
from irc.errors import ToolError
from irc.graph import Graph, check_inputs
from irc.ops.core import Input
from irc.types import Array, DType, Quant, TensorType


class Library:
    """A shared library of ours: call it with arrays by name, as a compiled model. Threads may
    share it; each has a workspace of its own."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._library = _open(self.path)
        self.manifest = _read_manifest(self._library, self.path)
        _check_machine(self.manifest["target"], self.path)
        self.name: str = self.manifest["name"]
        self.workspace_bytes: int = self.manifest["workspace_bytes"]
        self.input_types = _types(self.manifest["inputs"])
        self.output_types = _types(self.manifest["outputs"])
        inputs = tuple(Input.of(t, n) for n, t in self.input_types.items())
        self._interface = Graph(self.name, inputs, (), ())
        self._run = self._function("run", len(self.input_types) + len(self.output_types) + 1)
        self._local = threading.local()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Float arrays are quantized at the edge and then give float32
        outputs; integer arrays are taken as they are. Raises `DataError` for what doesn't fit."""
        if self._fits_edge(inputs):
            return self.run_f32(inputs)
        integers, real = to_integers(self.input_types, inputs)
        outputs = self.run(integers)
        return to_reals(self.output_types, outputs) if real else outputs

    def _fits_edge(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the library's own float edge takes the inputs as they are: it gives the bits of
        the one in Python, sooner."""
        if not self.manifest["float_io"] or set(inputs) != set(self.input_types):
            return False
        arrays = [(np.asarray(inputs[n]), t) for n, t in self.input_types.items()]
        fits = all(a.dtype == _edge_dtype(t) and a.shape == t.shape for a, t in arrays)
        return fits and any(t.quant is not None for _, t in arrays)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run`: integer arrays in, integer arrays out."""
        arrays = [np.ascontiguousarray(a) for a in check_inputs(self._interface, inputs)]
        outputs = {n: np.empty(t.shape, t.dtype.numpy) for n, t in self.output_types.items()}
        self._call(self._run, [*arrays, *outputs.values()])
        return outputs

    def run_f32(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run_f32`: the library's own float edge. Raises `ToolError` if it was left out."""
        if not self.manifest["float_io"]:
            raise ToolError(f"{self.path} was compiled without run_f32")
        function = self._edge
        arrays = [
            np.ascontiguousarray(inputs[n], _edge_dtype(t)).reshape(t.shape)
            for n, t in self.input_types.items()
        ]
        outputs = {n: np.empty(t.shape, _edge_dtype(t)) for n, t in self.output_types.items()}
        self._call(function, [*arrays, *outputs.values()])
        return outputs

    @cached_property
    def _edge(self) -> Any:
        return self._function("run_f32", len(self.input_types) + len(self.output_types) + 1)

    def self_test(self) -> bool:
        """Whether the golden vector inside the library comes out right, bit by bit."""
        return int(self._function("self_test", 1)(self._workspace().ctypes.data)) == 0

    def _function(self, what: str, count: int) -> Any:
        try:
            function = getattr(self._library, f"{self.name}_{what}")
        except AttributeError:
            raise ToolError(f"{self.path} has no {self.name}_{what}") from None
        function.argtypes = [ctypes.c_void_p] * count
        function.restype = ctypes.c_int
        return function

    def _call(self, function: Any, arrays: list[Array]) -> None:
        status = function(*[a.ctypes.data for a in arrays], self._workspace().ctypes.data)
        if status:
            raise ToolError(f"{self.path}: the library returned {status}")

    def _workspace(self) -> Array:
        if not hasattr(self._local, "workspace"):
            self._local.workspace = workspace_array(self.workspace_bytes)
        return np.asarray(self._local.workspace)


def open_library(path: str | Path) -> Library:
    """A saved `libNAME.so` as a callable; raises `ToolError` where it is no library of ours."""
    return Library(path)


def _open(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise ToolError(f"there is no library {path}")
    try:
        # A copy of its own: the system's loader would give back what it once loaded by this
        # name, even if the file was compiled anew since.
        with tempfile.TemporaryDirectory(prefix="irc-") as folder:
            return ctypes.CDLL(shutil.copy(path, folder))
    except OSError as error:
        raise ToolError(f"can't load {path}: {error}") from None


def _read_manifest(library: ctypes.CDLL, path: Path) -> dict[str, Any]:
    name = path.name.removeprefix("lib").split(".")[0]
    try:
        function = getattr(library, f"{name}_manifest")
    except AttributeError:
        raise ToolError(
            f"{path} is no library of ours: it has no function {name}_manifest (a library must"
            " keep the name that it was compiled with)"
        ) from None
    function.restype = ctypes.c_char_p
    content: dict[str, Any] = json.loads(function().decode())
    return content


def _check_machine(target: Mapping[str, str], path: Path) -> None:
    why = refusal(target["triple"], target["cpu"], target["features"])
    if why:
        raise ToolError(f"{path} was compiled for {target['name']}: {why}")


def _types(entries: list[dict[str, Any]]) -> dict[str, TensorType]:
    found: dict[str, TensorType] = {}
    for entry in entries:
        quant = Quant(entry["scale"], entry["zero_point"]) if "scale" in entry else None
        found[entry["name"]] = TensorType(DType(entry["dtype"]), tuple(entry["shape"]), quant)
    return found


def _edge_dtype(t: TensorType) -> np.dtype[Any]:
    return t.dtype.numpy if t.quant is None else np.dtype(np.float32)
