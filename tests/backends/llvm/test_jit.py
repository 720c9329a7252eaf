"""The reference and the compiled code agree bit for bit."""

import threading
from typing import Any

import numpy as np
import pytest

from irc.backends import reference
from irc.backends.llvm.host.jit import compile_graph, foreign
from irc.backends.llvm.target import NAMED, host
from irc.errors import CompileError, DataError, GraphError
from irc.graph import Graph, evaluate
from tests.backends.harness import each
from tests.backends.llvm.nets import conv, random_inputs, scheduled, small_net

LEVELS = [t for t in NAMED.values() if t.is_x86]
TARGETS = ["host", *(t.name for t in LEVELS if not foreign(t))]


def assert_same(graph: Graph, inputs: dict[str, Any], target: str = "host") -> None:
    got, wanted = compile_graph(graph, target)(inputs), evaluate(graph, inputs)
    assert list(got) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])
        assert got[name].dtype == wanted[name].dtype


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("channels", [5, 40])
def test_small_net(channels: int, target: str) -> None:
    graph = small_net(channels)
    assert_same(graph, random_inputs(graph), target)


def test_backends_are_called_alike() -> None:
    graph = small_net()
    inputs = random_inputs(graph)
    got, wanted = compile_graph(graph)(inputs), reference.compile(graph)(inputs)
    assert all(np.array_equal(got[n], wanted[n]) for n in wanted)


def test_equal_work_shares_a_function() -> None:
    graph = small_net()
    x = graph.inputs[0]
    first = conv(x, 16, 3)
    second = conv(first, 16, 4)
    assert second.type == first.type
    third = conv(second, 16, 5)
    net = scheduled(Graph("chain", (x,), (third,), ("y",)))
    text = compile_graph(net).code.text
    assert text.count('define internal void @"net_k') == 2  # the first reads another zero point


def test_threads_share_an_executable() -> None:
    graph = small_net()
    executable = compile_graph(graph)
    inputs = [random_inputs(graph, seed) for seed in range(8)]
    wanted = [evaluate(graph, i) for i in inputs]
    found: dict[int, bool] = {}

    def work(n: int) -> None:
        got = [executable(inputs[n]) for _ in range(20)]
        found[n] = all(np.array_equal(g[k], wanted[n][k]) for g in got for k in g)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == dict.fromkeys(range(8), True)


def test_inputs_are_checked() -> None:
    graph = small_net()
    with pytest.raises(DataError, match="takes"):
        compile_graph(graph)({})
    with pytest.raises(DataError, match="dtype"):
        compile_graph(graph)({"x": np.zeros((1, 14, 13, 16), np.int8)})


def test_what_can_not_be_compiled() -> None:
    graph = small_net()
    with pytest.raises(GraphError, match="scheduled"):
        compile_graph(graph.with_outputs(graph.outputs))
    foreign = "riscv64" if host().arch != "riscv64" else "aarch64"
    with pytest.raises(CompileError, match="this machine"):
        compile_graph(graph, foreign)
