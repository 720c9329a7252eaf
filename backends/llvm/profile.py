"""Where a model's time goes, kernel by kernel, on this machine and one thread."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.backends.llvm.jit import Executable, runnable
from irc.backends.llvm.module import generate_timed, workspace_array
from irc.errors import CompileError
from irc.graph import Graph, check_inputs
from irc.ops.core import Const, Kernel
from irc.summary import layer_of


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


def profile(
    graph: Graph, inputs: Mapping[str, Any], rounds: int = 50, target: str = "host"
) -> list[LayerTime]:
    """Time every kernel of a scheduled graph, in the order in which they run.

    The CPU's clock is read between kernels; how fast it ticks is found by the system's.
    Raises `CompileError` where code can't read such a clock.
    """
    aimed = runnable(target)
    if not aimed.is_x86:
        raise CompileError(f"kernels are timed on x86-64 only, not on {aimed.arch}")
    code, calls = generate_timed(graph, aimed, "timed")
    executable = Executable(graph, code)
    function = executable.function("timed", len(code.interface.ports) + 2)
    arrays = [np.ascontiguousarray(a) for a in check_inputs(graph, inputs)]
    arrays += [np.empty(t.shape, t.dtype.numpy) for t in graph.output_types.values()]
    workspace, ticks = workspace_array(code.interface.workspace_bytes), np.zeros(
        (rounds + 2, len(calls) + 1), np.int64
    )
    before = time.perf_counter_ns()
    for row in ticks:
        function(*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, workspace, row)))
    elapsed = time.perf_counter_ns() - before
    per_tick = elapsed / max(1, int(ticks[-1, -1] - ticks[0, 0]))
    middle = np.median(np.diff(ticks[2:], axis=1), axis=0) * per_tick / 1e6
    sizes = {v.name: _traffic(v) for v in graph.order if isinstance(v, Kernel)}
    return [
        LayerTime(c.layer, c.kernel, c.macs, float(t), sizes.get(c.layer, 0))
        for c, t in zip(calls, middle, strict=True)
    ]


def _traffic(kernel: Kernel) -> int:
    """Bytes that a kernel reads and writes at least: each operand, constant and result once."""
    operands = {a for a in kernel.args if not isinstance(a, Const)}
    moved = sum(a.type.nbytes for a in operands)
    return moved + layer_of(kernel).nbytes + kernel.type.nbytes
