"""In process: the same object code that `save` writes, loaded by LLVM's JIT linker."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from llvmlite import binding

from irc.backends.llvm.kernels import select
from irc.backends.llvm.module import Code, generate, workspace_array
from irc.backends.llvm.permission import tiles_permitted
from irc.backends.llvm.target import Target, aim, initialize, refusal
from irc.backends.llvm.work import Chooser
from irc.errors import CompileError
from irc.graph import Graph, check_inputs
from irc.types import Array

NAME = "net"


class Executable:
    """A compiled graph: call it with integer arrays by name. Threads may share it."""

    def __init__(self, graph: Graph, code: Code) -> None:
        self.graph = graph
        self.code = code
        self._engine = _load(code.object_code())
        self._local = threading.local()
        if code.interface.threads > 1:
            stop = self.function("threads_stop", 0)
            weakref.finalize(self, _stop, stop, self._engine)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run; raises `DataError` for inputs that don't fit."""
        arrays = [np.ascontiguousarray(a) for a in check_inputs(self.graph, inputs)]
        outputs = {
            n: np.empty(t.shape, t.dtype.numpy) for n, t in self.graph.output_types.items()
        }
        pointers = [a.ctypes.data for a in (*arrays, *outputs.values())]
        status = self._run(*pointers, self._workspace().ctypes.data)
        if status:
            raise CompileError(f"{self.graph.name}: the compiled code returned {status}")
        return outputs

    @cached_property
    def _run(self) -> Any:
        return self.function("run", len(self.code.interface.ports) + 1)

    def function(self, what: str, count: int) -> Any:
        """A function of the C interface that takes so many pointers."""
        address = self._engine.get_function_address(f"{self.code.interface.name}_{what}")
        return ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * count)(address)

    def _workspace(self) -> Array:
        if not hasattr(self._local, "workspace"):
            self._local.workspace = workspace_array(self.code.interface.workspace_bytes)
        return np.asarray(self._local.workspace)


def compile_graph(
    graph: Graph, target: str = "host", threads: int = 1, optimize: str = "speed",
    choose: Chooser = select,
) -> Executable:  # fmt: skip
    """Compile a scheduled graph for this process; it has its own `threads` - 1 threads.

    Raises `CompileError` for a target that this machine is not.
    """
    aimed = runnable(target, optimize)
    return Executable(graph, generate(graph, aimed, NAME, threads, choose))


def runnable(target: str, optimize: str = "speed") -> Target:
    """A target by name whose code this process can run; raises `CompileError` for others."""
    aimed = aim(target, optimize)
    why = foreign(aimed)
    if why:
        raise CompileError(f"target {target} can't run in this process: {why}; save a library")
    return aimed


def foreign(target: Target) -> str:
    """Why code for a target can't run in this process; empty where it can."""
    why = refusal(target.triple, target.cpu, target.features)
    if not why and target.tiles and not tiles_permitted():
        return "the system does not lend it AMX"
    return why


def _stop(stop: Callable[[], int], _engine: Any) -> None:
    """End the threads of a pool while its code, which the engine holds, is still there."""
    stop()


def _load(code: bytes) -> Any:
    initialize()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine
