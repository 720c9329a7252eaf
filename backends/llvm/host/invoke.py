"""A compiled function as Python calls it: what it takes is prepared once, a call only looks.

For a network that takes microseconds, asking NumPy for addresses and `ctypes` for conversions would
cost as much as the network itself.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from irc.backends.llvm.module.edge import needs_edge
from irc.backends.llvm.module.interface import ALIGN
from irc.errors import ToolError
from irc.types import Array, TensorType

Types = Mapping[str, TensorType]
_memory: Callable[[Any], Any] = (ctypes.c_char * 0).from_buffer
"""The memory of a writable array as an argument, which keeps the array alive."""


class Workspaces:
    """A workspace for each thread, made when that first needs one, and kept."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._local = threading.local()

    def mine(self) -> Any:
        """The calling thread's workspace, as an argument."""
        try:
            return self._local.memory
        except AttributeError:
            self._local.memory = _memory(workspace_array(self._nbytes))
            return self._local.memory


def workspace_array(nbytes: int) -> Any:
    """A fresh workspace as NumPy bytes, aligned as the library wants it."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]


class Entry:
    """`int function(inputs…, outputs…, workspace)` at an address. With `edge` it is the float edge:
    float32 where a tensor is quantized, but for those `left` as integers. Threads may share it."""

    def __init__(
        self, address: int, inputs: Types, outputs: Types, workspaces: Workspaces, *, edge: bool,
        left: Collection[str] = (),
    ) -> None:  # fmt: skip
        # Without declared types `ctypes` converts nothing, and passes memory as a pointer.
        self._function = ctypes.CFUNCTYPE(ctypes.c_int)(address)
        self.inputs, self._outputs = (
            [(n, t.shape, _dtype(t, edge=edge and n not in left)) for n, t in types.items()]
            for types in (inputs, outputs)
        )
        self._workspaces = workspaces

    def attempt(self, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
        """Run; None where the inputs are not arrays of just the names, shapes and dtypes that it
        takes."""
        if not isinstance(inputs, dict) or len(inputs) != len(self.inputs):
            return None
        places = []
        for name, shape, dtype in self.inputs:
            array = inputs.get(name)
            if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
                return None
            places.append(_argument(array))
        return self._run(places)

    def run(self, arrays: Iterable[Array]) -> dict[str, Array]:
        """Run on arrays in order; their shapes and dtypes are not looked at."""
        return self._run([_argument(a) for a in arrays])

    def _run(self, places: list[Any]) -> dict[str, Array]:
        outputs = {name: np.empty(shape, dtype) for name, shape, dtype in self._outputs}
        places += map(_memory, outputs.values())
        status = self._function(*places, self._workspaces.mine())
        if status:
            raise ToolError(f"the compiled code returned {status}")
        return outputs


def _argument(array: Array) -> Any:
    """An array's memory; a copy's where the array does not lie there as C wants it."""
    if array.flags.carray:
        return _memory(array)
    return np.require(array, requirements=("C", "A")).ctypes.data_as(ctypes.c_void_p)


def _dtype(t: TensorType, *, edge: bool) -> np.dtype[Any]:
    return np.dtype(np.float32) if edge and needs_edge(t) else t.dtype.numpy
