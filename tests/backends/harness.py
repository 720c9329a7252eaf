"""One graph, all backends: every one gives the bits of the reference."""

from __future__ import annotations

import ctypes
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from hypothesis import HealthCheck, Phase, settings
from llvmlite import binding

from irc.backends.llvm.files.aot import save
from irc.backends.llvm.host.jit import Executable, compile_graph
from irc.backends.llvm.host.library import Library
from irc.backends.llvm.module import call
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import NAMED, parse_target
from irc.backends.numba import compile as compile_numba
from irc.graph import Graph, evaluate
from irc.passes.schedule.fuse_kernels import FuseKernels
from irc.passes.schedule.plan import PlanMemory
from irc.types import Array
from tests.backends.executors import Executor, shuffled, threaded
from tests.backends.memory import run_guarded

Arrays = Mapping[str, Array]

_V2 = {"sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16"}
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
NEEDS: dict[str, set[str]] = {
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v3+avxvnni": _V3 | {"avxvnni"},
    "x86-64-v4": _V4,
    "x86-64-v4+avx512vnni": _V4 | {"avx512vnni"},
    "x86-64-v4+amx": _V4 | {"avx512vnni", "amx-tile", "amx-int8"},
}
"""What a CPU must be able to do, in LLVM's words, to run a named target's code."""


def executable_targets() -> list[str]:
    """The targets whose code this machine runs; `host` first."""
    present = {name for name, on in binding.get_host_cpu_features().items() if on}
    assert set(NEEDS) <= set(NAMED), "a target is called otherwise by now"
    return ["host", *(name for name, needed in NEEDS.items() if needed <= present)]


TARGETS = executable_targets()
VECTORS = [t for t in TARGETS if "+" not in t]
"""Those that differ in more than the instructions for products."""


def _abilities(name: str) -> tuple[object, ...]:
    target = parse_target(name)
    return target.arch, target.vector_bytes, target.registers, target.dot, target.tiles


def each(targets: Sequence[str]) -> list[ParameterSet]:
    """Targets as a test's parameters. The one that has the host's abilities gets the same kernels,
    and AVX-512 without VNNI those of AVX2 on wider vectors: they are slow."""
    twins = {t for t in targets if t != "host" and _abilities(t) == _abilities("host")}
    rare = {"x86-64-v4"} | (twins if "host" in targets else set())
    return [pytest.param(t, marks=pytest.mark.slow if t in rare else ()) for t in targets]


def examples(count: int) -> settings:
    """So many examples, as slow as compiling is. A failure is shrunk but not explained: that
    would run it hundreds of times more, and the graph's text says enough."""
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
    factor = int(os.environ.get("IRC_EXAMPLES", "1"))
    return settings(max_examples=count * factor, suppress_health_check=slow, phases=phases)


def schedule(graph: Graph, *, in_place: bool = True) -> Graph:
    """Kernels and a memory plan."""
    return PlanMemory(in_place)(FuseKernels()(graph))


def agree(
    graph: Graph, feeds: Arrays, targets: Iterable[str] = (), *, numba: bool = False,
    library: str = "", threads: int | Sequence[int] = 0,
) -> Graph:  # fmt: skip
    """Hold the scheduled graph, llvm for `targets` (on so many `threads` too, or on each of several
    numbers), the numba backend and a saved library for the target `library` to what `graph`
    evaluates to. Returns the scheduled graph."""
    counts = [threads] * bool(threads) if isinstance(threads, int) else threads
    expected = evaluate(graph, feeds)
    scheduled = schedule(graph)
    same_bits("scheduled", evaluate(scheduled, feeds), expected, scheduled)
    for target in targets:
        made = run_llvm(compile_graph(scheduled, target), feeds, f"llvm {target}")
        same_bits(f"llvm {target}", made, expected, scheduled)
        for who, made in run_parallel(scheduled, target, feeds, counts):
            same_bits(who, made, expected, scheduled)
    if numba:
        same_bits("numba", run_numba(scheduled, feeds), expected, scheduled)
    if library:
        made = run_library(scheduled, feeds, library)
        same_bits(f"library {library}", made, expected, scheduled)
    return scheduled


def kernels_agree(graph: Graph, feeds: Arrays, target: str) -> list[str]:
    """Hold the code for one target to what `graph` evaluates to; the names of the kernels that were
    selected for it."""
    scheduled = schedule(graph)
    code = generate_library(scheduled, parse_target(target), "net", float_io=False)
    made = run_llvm(Executable(scheduled, code), feeds, f"llvm {target}")
    same_bits(f"llvm {target}", made, evaluate(graph, feeds), scheduled)
    return [kernel["kernel"] for kernel in code.manifest["kernels"]]


def same_bits(who: str, got: Arrays, expected: Arrays, graph: Graph) -> None:
    """Every output in name, shape, dtype and bits; the message holds the graph's text."""
    assert list(got) == list(expected), f"{who}: outputs {list(got)}, not {list(expected)}"
    for name, array in expected.items():
        mine = got[name]
        shown = f"{who}: output {name} of\n{graph}\n"
        types = f"is {mine.dtype}{mine.shape}, not {array.dtype}{array.shape}"
        assert (mine.dtype, mine.shape) == (array.dtype, array.shape), shown + types
        wrong = np.argwhere(mine != array)
        at = tuple(wrong[0].tolist()) if len(wrong) else ()
        count = f"{len(wrong)} of {array.size} elements wrong"
        assert not len(wrong), f"{shown}{count}; at {at} {mine[at]}, not {array[at]}"


def run_llvm(executable: Executable, feeds: Arrays, who: str) -> dict[str, Array]:
    """In process, on guarded memory."""
    graph = executable.graph
    workspace = executable.code.interface.workspace
    return _run_native(executable._run, graph, feeds, workspace, who)


@contextmanager
def cut_small_kernels() -> Iterator[None]:
    """Let threads share every kernel that can be cut, however little there is to do."""
    known, call.TASK_CYCLES = call.TASK_CYCLES, 1e-9
    try:
        yield
    finally:
        call.TASK_CYCLES = known


def run_parallel(
    graph: Graph, target: str, feeds: Arrays, counts: Sequence[int]
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Every kernel that can be cut is: as a whole, in shuffled parts, and in parts at once, for
    each number of threads."""
    if not counts:
        return
    with cut_small_kernels():
        executable = compile_graph(graph, target)
    yield f"llvm {target}, cut", run_llvm(executable, feeds, f"llvm {target}, cut")
    interface = executable.code.interface
    function = executable.function("run_parallel", len(interface.ports) + 2)
    for threads, executor in ((n, made(n)) for n in counts for made in (shuffled, threaded)):

        def run(*pointers: int, executor: Executor = executor) -> int:
            return int(function(*pointers, ctypes.addressof(executor)))

        who, more = f"llvm {target}, {threads} threads", (threads - 1) * interface.task_bytes
        yield who, _run_native(run, graph, feeds, interface.workspace + more, who)


def _run_native(
    run: object, graph: Graph, feeds: Arrays, workspace: int, who: str
) -> dict[str, Array]:
    inputs = [feeds[v.name] for v in graph.inputs]
    try:
        made = run_guarded(run, inputs, list(graph.output_types.values()), workspace)  # type: ignore[arg-type]
    except AssertionError as error:
        raise AssertionError(f"{who}: {error}\n{graph}") from None
    return dict(zip(graph.output_names, made, strict=True))


def run_library(graph: Graph, feeds: Arrays, target: str) -> dict[str, Array]:
    """Saved, linked, loaded again; its self test must pass too."""
    with tempfile.TemporaryDirectory() as folder:
        save(graph, folder, "sample", target, emit=("so",))
        library = Library(Path(folder) / "libsample.so")
    assert library.self_test(), f"the self test fails:\n{graph}"
    assert library.input_types == graph.input_types
    assert library.output_types == graph.output_types
    return _run_native(library._run, graph, feeds, library.workspace_bytes, f"library {target}")


def run_numba(graph: Graph, feeds: Arrays, threads: int = 1) -> dict[str, Array]:
    """Compiled by Numba; its own remarks on small loops are of no interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile_numba(graph, threads=threads)(feeds)
