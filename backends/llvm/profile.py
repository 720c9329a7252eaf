"""Where a model's time goes, kernel by kernel, on this machine and one thread."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.backends.llvm.jit import Executable
from irc.backends.llvm.module import generate_timed, workspace_array
from irc.backends.llvm.target import host
from irc.errors import CompileError
from irc.graph import Graph, check_inputs


@dataclass(frozen=True)
class LayerTime:
    """One call: the layer, its kernel, its multiply-accumulates, and the median of its times."""

    layer: str
    kernel: str
    macs: int
    milliseconds: float

    @property
    def gmacs(self) -> float:
        """Billions of multiply-accumulates a second."""
        return self.macs / max(self.milliseconds, 1e-9) / 1e6


def profile(graph: Graph, inputs: Mapping[str, Any], rounds: int = 50) -> list[LayerTime]:
    """Time every kernel of a scheduled graph, in the order in which they run.

    The CPU's clock is read between kernels; how fast it ticks is found by the system's.
    Raises `CompileError` where code can't read such a clock.
    """
    if not host().is_x86:
        raise CompileError(f"kernels are timed on x86-64 only, not on {host().arch}")
    code, calls = generate_timed(graph, host(), "timed")
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
    return [
        LayerTime(c.layer, c.kernel, c.macs, float(t)) for c, t in zip(calls, middle, strict=True)
    ]
