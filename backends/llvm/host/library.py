"""Saved libraries, opened again: through `ctypes`, by what their manifest says."""

from __future__ import annotations

import ctypes
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from irc.backends.llvm.host.invoke import Entry, Workspaces
from irc.backends.llvm.module.edge import has_edge
from irc.backends.llvm.target import refusal
from irc.edge import check_named, to_integers, to_reals
from irc.errors import DataError, ToolError
from irc.graph import Graph, check_inputs
from irc.ops.core import Input
from irc.streams import State, left_as_integers, names_of
from irc.types import Array, DType, Quant, TensorType, signature


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
        self.states = self._initial(self.manifest.get("states", ()))
        self._left = names_of(self.states)
        self._run = self._function("run", len(self.input_types) + len(self.output_types) + 1)
        self._workspaces = Workspaces(self.workspace_bytes)
        self._integers = self._entry("run", edge=False)
        edge = self.manifest["float_io"] and has_edge(
            self.input_types, self.output_types, self._left
        )
        self._floats = self._entry("run_f32", edge=True) if edge else None

    def __repr__(self) -> str:
        return f"<Library {self.path}: {signature(self.input_types, self.output_types)}>"

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Float arrays are quantized at the edge and then give float32
        outputs; integer arrays are taken as they are. Raises `DataError` for what doesn't fit."""
        # The library's own edge gives the bits of the one in Python, sooner.
        made = self._floats.attempt(inputs) if self._floats else None
        if made is not None:
            return made
        integers, real = to_integers(self.input_types, inputs)
        outputs = self.run(integers)
        if not real:
            return outputs
        return to_reals(self.output_types, outputs, left_as_integers(self.states, inputs))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run`: integer arrays in, integer arrays out."""
        made = self._integers.attempt(inputs)
        return self._integers.run(check_inputs(self._interface, inputs)) if made is None else made

    def run_f32(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """`NAME_run_f32`: the library's own float edge; states are integers there, too. Raises
        `ToolError` if it was left out."""
        if not self.manifest["float_io"]:
            raise ToolError(f"{self.path} was compiled without run_f32")
        check_named(self.input_types, inputs)
        entry = self._floats or self._entry("run_f32", edge=True)
        return entry.run(self._reals(n, inputs, dtype) for n, _, dtype in entry.inputs)

    def _reals(self, name: str, inputs: Mapping[str, Any], dtype: Any) -> Array:
        array, shape = np.asarray(inputs[name], dtype), self.input_types[name].shape
        if array.size != prod(shape):
            raise DataError(f"input {name}: shape {list(array.shape)} given, {list(shape)} wanted")
        return array

    def self_test(self) -> bool:
        """Whether the golden vector inside the library comes out right, bit by bit."""
        return int(self._function("self_test", 1)(self._workspaces.mine())) == 0

    def _function(self, what: str, count: int) -> Any:
        function = self._symbol(what)
        function.argtypes = [ctypes.c_void_p] * count
        function.restype = ctypes.c_int
        return function

    def _symbol(self, what: str) -> Any:
        try:
            return getattr(self._library, f"{self.name}_{what}")
        except AttributeError:
            raise ToolError(f"{self.path} has no {self.name}_{what}") from None

    def _entry(self, what: str, *, edge: bool) -> Entry:
        address = ctypes.cast(self._symbol(what), ctypes.c_void_p).value
        assert address is not None, "a symbol that was found has an address"
        return Entry(
            address, self.input_types, self.output_types, self._workspaces, edge=edge,
            left=self._left,
        )  # fmt: skip

    def _initial(self, entries: Sequence[Mapping[str, str]]) -> tuple[State, ...]:
        """The states, as `NAME_reset` begins them."""
        types = [self.input_types[e["input"]] for e in entries]
        arrays = [np.empty(t.shape, t.dtype.numpy) for t in types]
        if entries:
            self._function("reset", len(arrays))(*(a.ctypes.data for a in arrays))
        return tuple(
            State(e["input"], e["output"], a) for e, a in zip(entries, arrays, strict=True)
        )


def open_library(path: str | Path) -> Library:
    """A saved `libNAME.so` as a callable; raises `ToolError` where it is no library of ours."""
    return Library(path)


def _open(path: Path) -> ctypes.CDLL:
    if path.is_dir():
        raise ToolError(f"{path} is a folder: libNAME.so is wanted")
    if not path.is_file():
        raise ToolError(f"there is no library {path}")
    # A copy of its own: the system's loader would give back what it once loaded by this name, even
    # if the file was compiled anew since.
    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        try:
            copy = shutil.copy(path, folder)
        except OSError as error:
            raise ToolError(f"can't copy {path} to {folder}: {error.strerror or error}") from None
        return _loaded(copy, path)


def _loaded(copy: str, path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(copy)
    except OSError as error:
        why = str(error).rpartition(": ")[2]  # what stands before names the copy
        cure = "" if path.suffix == ".so" else "; libNAME.so is wanted"
        raise ToolError(f"can't load {path}: {why}{cure}") from None


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
        quant = _quant(entry) if "scale" in entry else None
        found[entry["name"]] = TensorType(DType(entry["dtype"]), tuple(entry["shape"]), quant)
    return found


def _quant(entry: dict[str, Any]) -> Quant:
    """One scale, or one for each entry of an axis."""
    scale, zero = (tuple(p) if isinstance(p, list) else p
                   for p in (entry["scale"], entry["zero_point"]))  # fmt: skip
    return Quant(scale, zero, entry.get("axis"), entry.get("missing"))
