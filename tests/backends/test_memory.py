"""The harness sees what it is there to see: each fault, planted."""

from __future__ import annotations

import ctypes
import dataclasses
import signal
from collections.abc import Callable

import numpy as np
import pytest

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.quantization import Lookup
from irc.types import DType, Quant, TensorType
from tests.backends.harness import TARGETS, agree, executable_targets, same_bits, schedule
from tests.backends.memory import run_guarded

GIVEN = np.arange(5, dtype=np.uint8)
RESULT = TensorType(DType.U8, (5,))


def run(code: Callable[[int, int, int], object]) -> np.ndarray:
    """`code(input, output, workspace)` by addresses; the output."""

    def status(*pointers: int) -> int:
        code(*pointers)
        return 0

    return run_guarded(status, [GIVEN], [RESULT], 64)[0]


def test_good_code_passes() -> None:
    def good(x: int, y: int, workspace: int) -> None:
        ctypes.memmove(workspace, x, 5)
        ctypes.memmove(y, workspace, 5)

    assert run(good).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "bad",
    [
        lambda x, y, w: ctypes.string_at(x, 6),
        lambda x, y, w: ctypes.memset(y, 0, 6),
        lambda x, y, w: ctypes.memset(w + 64, 0, 1),
    ],
    ids=["reads past an input", "writes past an output", "writes past the workspace"],
)
def test_what_leaves_its_memory_crashes(bad: Callable[[int, int, int], object]) -> None:
    with pytest.raises(AssertionError, match=f"returned -{int(signal.SIGSEGV)}"):
        run(bad)


def test_writing_in_front_is_seen() -> None:
    with pytest.raises(AssertionError, match="in front"):
        run(lambda x, y, w: ctypes.memset(y - 1, 0, 1))


def test_writing_to_an_input_is_seen() -> None:
    with pytest.raises(AssertionError, match="wrote to an input"):
        run(lambda x, y, w: ctypes.memset(x, 9, 1))


def test_a_status_is_seen() -> None:
    with pytest.raises(AssertionError, match="the code returned 3"):
        run_guarded(lambda *_: 3, [GIVEN], [RESULT], 64)


def graph(last: int) -> Graph:
    x = Input(DType.U8, (5,), Quant(0.5, 1), name="x")
    table = np.arange(256, dtype=np.uint8)
    table[4] = last
    return Graph("net", (x,), (Lookup(x, Const(table), Quant(0.5, 1)),), ("y",))


def test_a_wrong_bit_is_seen_and_the_graph_is_told() -> None:
    good, bad = np.arange(5, dtype=np.uint8), np.array([0, 1, 2, 3, 5], np.uint8)
    with pytest.raises(AssertionError, match=r"(?s)graph @net.*1 of 5.*at \(4,\) 5, not 4"):
        same_bits("it", {"y": bad}, {"y": good}, graph(4))
    with pytest.raises(AssertionError, match="is int8"):
        same_bits("it", {"y": good.astype(np.int8)}, {"y": good}, graph(4))


def test_wrong_code_is_seen_on_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled graph differs in one byte of one table."""
    monkeypatch.setattr("tests.backends.harness.compile_graph", _wrong_compiler())
    for target in TARGETS:
        with pytest.raises(AssertionError, match=f"llvm {target.replace('+', '.')}: output y"):
            agree(graph(4), {"x": GIVEN}, [target])


def _wrong_compiler() -> Callable[[Graph, str], object]:
    from irc.backends.llvm.host.jit import compile_graph

    def compile_wrongly(scheduled: Graph, target: str) -> object:
        executable = compile_graph(schedule(graph(5)), target)
        executable.graph = dataclasses.replace(scheduled)
        return executable

    return compile_wrongly


def test_the_host_is_always_among_the_targets() -> None:
    assert executable_targets()[0] == "host"
