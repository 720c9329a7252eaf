"""Libraries with threads of their own."""

import io
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from irc.audit import audit
from irc.audit.checks import POOL
from irc.backends.llvm import open_library, save
from irc.backends.llvm.host.jit import Executable, compile_graph
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import NAMED, parse_target
from irc.errors import CompileError
from irc.graph import Graph, evaluate
from irc.ops.core import Input
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.backends.harness import cut_small_kernels
from tests.backends.llvm.nets import conv, random_inputs, scheduled, small_net, tiny_net
from tests.backends.llvm.test_aot import undefined

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_net(40)


@pytest.fixture(scope="module")
def feeds(graph: Graph) -> dict[str, Array]:
    return random_inputs(graph)


@pytest.fixture(scope="module")
def wanted(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    return evaluate(graph, feeds)


@pytest.fixture
def executable(graph: Graph) -> Iterator[Executable]:
    with cut_small_kernels():
        yield compile_graph(graph, threads=3)


@pytest.fixture(scope="module")
def folder(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pooled")
    with cut_small_kernels():
        save(graph, made, "net", threads=3)
    return made


def assert_same(got: dict[str, Array], wanted: dict[str, Array]) -> None:
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
def test_the_same_bits_every_time(
    graph: Graph, feeds: dict[str, Array], wanted: dict[str, Array], threads: int
) -> None:
    with cut_small_kernels():
        pooled = compile_graph(graph, threads=threads)
    for _ in range(100):
        assert_same(pooled(feeds), wanted)


def test_several_callers_at_once(
    executable: Executable, feeds: dict[str, Array], wanted: dict[str, Array]
) -> None:
    wrong: list[str] = []

    def call() -> None:
        for _ in range(50):
            got = executable(feeds)
            wrong.extend(n for n in wanted if not np.array_equal(got[n], wanted[n]))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_threads_stop_and_start_again(
    executable: Executable, feeds: dict[str, Array], wanted: dict[str, Array]
) -> None:
    before = threads_of_this_process()
    stop = executable.function("threads_stop", 0)
    assert stop() == 0  # none were started
    for _ in range(3):
        assert_same(executable(feeds), wanted)
        assert threads_of_this_process() == before + 2
        assert stop() == 0
        assert threads_of_this_process() == before


def test_threads_end_with_their_code(graph: Graph, feeds: dict[str, Array]) -> None:
    before = threads_of_this_process()
    pooled = compile_graph(graph, threads=3)
    pooled(feeds)
    assert threads_of_this_process() == before + 2
    del pooled
    assert threads_of_this_process() == before


def threads_of_this_process() -> int:
    return len(os.listdir("/proc/self/task"))


def test_a_forked_child_has_threads_of_its_own(
    executable: Executable, feeds: dict[str, Array], wanted: dict[str, Array]
) -> None:
    assert_same(executable(feeds), wanted)
    child = os.fork()
    if child == 0:
        same = False
        try:
            got = executable(feeds)
            same = threads_of_this_process() == 3
            same = same and all(np.array_equal(got[n], wanted[n]) for n in wanted)
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same(executable(feeds), wanted)


def test_the_library(folder: Path, feeds: dict[str, Array], wanted: dict[str, Array]) -> None:
    library = open_library(folder / "libnet.so")
    assert library.self_test()
    assert library.manifest["threads"] == 3
    assert_same(library(feeds), wanted)


def test_the_audit_knows_the_pool(folder: Path) -> None:
    assert [c for c in audit(folder / "libnet.so") if not c.holds] == []


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_linux_target_needs_the_pools_symbols_alone(name: str) -> None:
    target, graph = parse_target(name), tiny_net()
    if target.system != "linux":
        with pytest.raises(CompileError, match="no POSIX threads"):
            generate_library(graph, target, "net", threads=2)
        return
    content = generate_library(graph, target, "net", threads=2).object_code()
    assert set(undefined(ELFFile(io.BytesIO(content)))) == POOL


@pytest.mark.parametrize("threads", [0, 257])
def test_so_many_threads_make_no_sense(graph: Graph, threads: int) -> None:
    with pytest.raises(CompileError, match="threads must be"):
        compile_graph(graph, threads=threads)


def program(folder: Path, graph: Graph, target: str = "host") -> Path:
    """examples/executor.cpp, with a network of one output."""
    one = Graph(graph.name, graph.inputs, graph.outputs[:1], graph.output_names[:1])
    with cut_small_kernels():
        save(rescheduled(one), folder, "net", target, emit=["a"])
    command = ["c++", "-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", f"-I{folder}",
               str(EXAMPLES / "executor.cpp"), str(folder / "libnet.a"), "-pthread",
               "-o", str(folder / "executor")]  # fmt: skip
    subprocess.run(command, check=True)
    return folder / "executor"


def rescheduled(graph: Graph) -> Graph:
    """The same kernels with a plan of their own."""
    from irc.passes.schedule.plan import PlanMemory

    return PlanMemory()(graph)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_pool_in_cpp(graph: Graph, tmp_path: Path) -> None:
    made = program(tmp_path, graph)
    for threads in (1, 2, 5):
        out = subprocess.check_output([str(made), str(threads)])
        assert out == f"{threads} threads: the same bits\n".encode()


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["helgrind", "memcheck"])
def test_valgrind_sees_no_race(graph: Graph, tmp_path: Path, tool: str) -> None:
    if shutil.which("valgrind") is None or shutil.which("c++") is None:
        pytest.skip("valgrind and a C++ compiler are needed")
    made = program(tmp_path, graph, "x86-64-v3")
    command = ["valgrind", f"--tool={tool}", "-q", "--error-exitcode=9", str(made), "3"]
    assert subprocess.check_output(command) == b"3 threads: the same bits\n"


@contextmanager
def one_core() -> Iterator[None]:
    """This thread, and those that it starts, on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a core of its own")
def test_who_waits_lets_others_have_the_core() -> None:
    """Four threads on one core take the processor time of one, and a little: 2.0 times of it where
    who waits keeps the core."""
    x = Input.of(TensorType(DType.U8, (1, 40, 40, 64), Quant(0.1, 5)), "x")
    y: Value = x
    for seed in range(4):
        y = conv(y, 64, seed)
    deep = scheduled(Graph("deep", (x,), (y,), ("y",)))
    feeds = random_inputs(deep)

    alone, crowded = (compile_graph(deep, threads=n) for n in (1, 4))

    def taken(executable: Executable) -> float:
        executable(feeds)
        start = time.process_time()
        for _ in range(20):
            executable(feeds)
        return time.process_time() - start

    with one_core():
        assert any(taken(crowded) < 1.5 * taken(alone) for _ in range(3))
