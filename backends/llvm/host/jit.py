"""In process: the same object code that `save` writes, loaded by LLVM's JIT linker."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from llvmlite import binding

from irc.backends.llvm.amx_permission import tiles_permitted
from irc.backends.llvm.host.invoke import Entry, Workspaces
from irc.backends.llvm.kernels import select
from irc.backends.llvm.module.build import Code, generate, generate_edge
from irc.backends.llvm.module.edge import has_edge
from irc.backends.llvm.target import Target, aim, initialize, refusal
from irc.backends.llvm.work import Chooser
from irc.errors import CompileError
from irc.graph import Graph, check_inputs
from irc.streams import names_of
from irc.types import Array

NAME = "net"
EDGE = "edge"
"""What the code of the float edge is loaded as, beside the network's."""


class Executable:
    """A compiled graph: call it with integer arrays by name. Threads may share it."""

    def __init__(self, graph: Graph, code: Code) -> None:
        self.graph = graph
        self.code = code
        self._loaded = _Loaded(code.object_code())
        self._workspaces = Workspaces(code.interface.workspace_bytes)
        self._left = names_of(graph.states)
        edge = has_edge(graph.input_types, graph.output_types, self._left)
        self._has_edge = edge and code.target.hardware_double
        self._floats: Entry | None = None
        self._adding = threading.Lock()
        if code.interface.threads > 1:
            stop = self.function("threads_stop", 0)
            weakref.finalize(self, _stop, stop, self._loaded)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run; raises `DataError` for inputs that don't fit."""
        made = self._integers.attempt(inputs)
        return self._integers.run(check_inputs(self.graph, inputs)) if made is None else made

    def attempt(self, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
        """Run on arrays just as they are, float32 by the code's own edge; None where they don't
        fit."""
        made = self._integers.attempt(inputs)
        if made is None and self._has_edge:
            return (self._floats or self._with_edge()).attempt(inputs)
        return made

    @cached_property
    def _run(self) -> Any:
        return self.function("run", len(self.code.interface.ports) + 1)

    def function(self, what: str, count: int) -> Any:
        """A function of the C interface that takes so many pointers."""
        return ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * count)(self._address(what))

    def _address(self, what: str, library: str = NAME) -> int:
        return self._loaded.address(f"{self.code.interface.name}_{what}", library)

    @cached_property
    def _integers(self) -> Entry:
        return self._entry("run", edge=False)

    def _with_edge(self) -> Entry:
        """The float edge, which is compiled when it is first asked for."""
        with self._adding:
            if self._floats is None:
                edge = generate_edge(self.code.interface, self.code.target)
                self._loaded.add(edge.object_code(), EDGE)
                self._floats = self._entry("run_f32", edge=True)
        return self._floats

    def _entry(self, what: str, *, edge: bool) -> Entry:
        inputs, outputs = self.graph.input_types, self.graph.output_types
        address = self._address(what, EDGE if edge else NAME)
        return Entry(address, inputs, outputs, self._workspaces, edge=edge, left=self._left)


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


def _stop(stop: Callable[[], int], _loaded: _Loaded) -> None:
    """End the threads of a pool while its code is still there."""
    stop()


class _Loaded:
    """Object code in this process, as JITLink places it: all sections of an object side by side,
    so that any amount of weights is in reach of the code."""

    def __init__(self, code: bytes) -> None:
        initialize()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(jit=True)
        self._jit = binding.create_lljit_compiler(machine, use_jit_link=True)
        self._kept = [binding.JITLibraryBuilder().add_object_img(code).link(self._jit, NAME)]

    def address(self, function: str, library: str) -> int:
        """Where a function lies, for as long as this object lives."""
        self._kept.append(self._jit.lookup(library, function))
        return int(self._kept[-1][function])

    def add(self, code: bytes, library: str) -> None:
        """Load more code, which may call what was loaded first."""
        builder = binding.JITLibraryBuilder().add_object_img(code).add_jit_library(NAME)
        self._kept.append(builder.link(self._jit, library))
