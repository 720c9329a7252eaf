"""Where a model's time goes, kernel by kernel, on this machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.backends.llvm.host.invoke import workspace_array
from irc.backends.llvm.host.jit import Executable, runnable
from irc.backends.llvm.kernels import select
from irc.backends.llvm.module.build import generate_timed
from irc.backends.llvm.target import Target, host
from irc.backends.llvm.work import Chooser
from irc.errors import CompileError
from irc.graph import Graph, check_inputs
from irc.ops.core import Const, Kernel
from irc.summary import layer_of
from irc.types import Array


@dataclass(frozen=True)
class LayerTime:
    """One call: the layer, its kernel, its multiply-accumulates, the median of its times, and the
    bytes of what the layer reads, its constants among them, and writes."""

    layer: str
    kernel: str
    macs: int
    milliseconds: float
    nbytes: int = 0

    @property
    def gmacs(self) -> float:
        """Billions of multiply-accumulates a second."""
        return self.macs / max(self.milliseconds, 1e-9) / 1e6


class TimedNetwork:
    """A scheduled graph in this process that tells, run by run, how long each of its calls took."""

    def __init__(
        self, graph: Graph, target: Target, choose: Chooser = select, threads: int = 1
    ) -> None:
        """Raises `CompileError` where code can't read the CPU's clock."""
        check_clock()
        self.graph = graph
        self.code, self.calls = generate_timed(graph, target, "timed", threads, choose)
        self._executable = Executable(graph, self.code)
        ports = len(self.code.interface.ports)
        self._function = self._executable.function("timed", ports + 2)
        self._workspace = workspace_array(self.code.interface.workspace_bytes)

    def run(self, inputs: Mapping[str, Any], rounds: int) -> Array:
        """Milliseconds f64 [rounds, calls]; how fast the clock ticks is found by the system's."""
        arrays = [np.ascontiguousarray(a) for a in check_inputs(self.graph, inputs)]
        arrays += [np.empty(t.shape, t.dtype.numpy) for t in self.graph.output_types.values()]
        ticks = np.zeros((rounds, len(self.calls) + 1), np.int64)
        before = time.perf_counter_ns()
        for row in ticks:
            places = (a.ctypes.data for a in (*arrays, self._workspace, row))
            self._function(*map(ctypes.c_void_p, places))
        elapsed = time.perf_counter_ns() - before
        per_tick = elapsed / max(1, int(ticks[-1, -1] - ticks[0, 0]))
        return np.asarray(np.diff(ticks, axis=1) * per_tick / 1e6)


def check_clock() -> None:
    """Raise `CompileError` where code can't read the CPU's clock."""
    if not host().is_x86:
        raise CompileError(f"kernels are timed on x86-64 only, not on {host().arch}")


def profile(
    graph: Graph, inputs: Mapping[str, Any], rounds: int = 50, target: str = "host",
    threads: int = 1,
) -> list[LayerTime]:  # fmt: skip
    """Time every kernel of a scheduled graph, in the order in which they run; a kernel that
    threads share until the last of them is done.

    Raises `CompileError` for a target that this machine is not, and where code can't read the
    CPU's clock.
    """
    network = TimedNetwork(graph, runnable(target), threads=threads)
    middle = np.median(network.run(inputs, rounds + 2)[2:], axis=0)
    sizes = {v.name: _traffic(v) for v in graph.order if isinstance(v, Kernel)}
    return [
        LayerTime(c.layer, c.kernel, c.macs, float(t), sizes.get(c.layer, 0))
        for c, t in zip(network.calls, middle, strict=True)
    ]


def _traffic(kernel: Kernel) -> int:
    """Bytes that a kernel reads and writes at least: each operand, constant and result once."""
    operands = {a for a in kernel.args if not isinstance(a, Const)}
    moved = sum(a.type.nbytes for a in operands)
    return moved + layer_of(kernel).nbytes + kernel.type.nbytes
