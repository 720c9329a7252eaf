"""The same bits for any number of threads, in whatever order they do their parts."""

from __future__ import annotations

import ctypes

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.host.invoke import workspace_array
from irc.backends.llvm.host.jit import compile_graph
from irc.backends.llvm.module import call
from tests.backends.executors import shuffled
from tests.backends.graphs import integer_graphs
from tests.backends.harness import (
    TARGETS,
    agree,
    cut_small_kernels,
    examples,
)
from tests.backends.llvm.nets import random_inputs, small_net
from tests.backends.products import convolutions, linears
from tests.ops.sampling import Sample, load_samples

SAMPLES = load_samples()
THREADS = st.integers(1, 5)


@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_op(op: str) -> None:
    @examples(1)
    @given(SAMPLES[op], st.sampled_from(TARGETS), THREADS)
    def check(drawn: Sample, target: str, threads: int) -> None:
        agree(drawn.graph, drawn.feeds, [target], threads=threads)

    check()


@examples(4)
@given(integer_graphs(), st.sampled_from(TARGETS), THREADS)
def test_graphs(drawn: Sample, target: str, threads: int) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=threads)


@examples(4)
@given(st.one_of(convolutions(), linears()), st.sampled_from(TARGETS), THREADS)
def test_products(drawn: Sample, target: str, threads: int) -> None:
    agree(drawn.graph, drawn.feeds, [target], threads=threads)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_graphs_at_length(target: str) -> None:
    @examples(300)
    @given(st.one_of(integer_graphs(), convolutions(), linears()), THREADS)
    def check(drawn: Sample, threads: int) -> None:
        agree(drawn.graph, drawn.feeds, [target], threads=threads)

    check()


def test_small_kernels_are_not_cut() -> None:
    graph = small_net()
    few = call.TASK_CYCLES
    with cut_small_kernels():
        cut = compile_graph(graph).code.text
        assert few > call.TASK_CYCLES
    assert cut.count("_task") > compile_graph(graph).code.text.count("_task")


def test_errors_of_run_parallel() -> None:
    graph = small_net()
    executable = compile_graph(graph)
    interface = executable.code.interface
    run = executable.function("run_parallel", len(interface.ports) + 2)
    inputs = random_inputs(graph)
    executor = shuffled(3)
    workspace = workspace_array(interface.workspace + 2 * interface.task_bytes)
    outputs = [np.empty(t.nbytes, np.uint8) for t in graph.output_types.values()]
    arrays = [*inputs.values(), *outputs, workspace]
    pointers = [*(a.ctypes.data for a in arrays), ctypes.addressof(executor)]
    assert run(*pointers) == 0
    for i in range(len(pointers)):
        assert run(*[0 if i == j else p for j, p in enumerate(pointers)]) == -1
    assert run(*pointers[:-2], pointers[-2] + 8, pointers[-1]) == -2
    executor.parallel_for = type(executor.parallel_for)()
    assert run(*pointers) == -1
