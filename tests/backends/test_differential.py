"""Reference = scheduled = numba = llvm in process = llvm library, bit for bit: every op by itself,
and random graphs, where fusion and the memory plan have something to do."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.types import Array
from tests.backends.graphs import float_models, integer_graphs
from tests.backends.harness import TARGETS, agree, examples
from tests.ops.sampling import Sample, load_samples

SAMPLES = load_samples()
OPS = sorted(SAMPLES)


@pytest.mark.parametrize("op", OPS)
def test_op_on_llvm(op: str) -> None:
    @examples(10)
    @given(SAMPLES[op], st.sampled_from(TARGETS))
    def check(drawn: Sample, target: str) -> None:
        agree(drawn.graph, drawn.feeds, [target])

    check()


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("op", OPS)
def test_op_on_numba_and_as_a_library(op: str, count: int) -> None:
    """Numba takes half a second for each example: one by default."""

    @examples(count)
    @given(SAMPLES[op], st.sampled_from(TARGETS))
    def check(drawn: Sample, target: str) -> None:
        agree(drawn.graph, drawn.feeds, numba=True, library=target)

    check()


@examples(80)
@given(integer_graphs(), st.sampled_from(TARGETS))
def test_graphs_on_llvm(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target])


@examples(5)
@given(integer_graphs(), st.sampled_from(TARGETS))
def test_graphs_on_numba_and_as_a_library(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, numba=True, library=target)


@examples(6)
@given(float_models(), st.sampled_from(TARGETS))
def test_quantized_models(drawn: Sample, target: str) -> None:
    """Calibrated on noise: QDQ, integers and all backends."""
    quantized = irc.quantize(drawn.graph, calibration_of(drawn.feeds))
    integer = driver.integerize(quantized)
    close_to_qdq(drawn.graph, quantized, integer, drawn.feeds)
    agree(integer, integers(integer, drawn.feeds), [target])


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_graphs_at_length(target: str) -> None:
    @examples(400)
    @given(integer_graphs())
    def check(drawn: Sample) -> None:
        agree(drawn.graph, drawn.feeds, [target])

    check()


@pytest.mark.long
@pytest.mark.parametrize("op", OPS)
def test_op_at_length(op: str) -> None:
    @examples(40)
    @given(SAMPLES[op])
    def check(drawn: Sample) -> None:
        agree(drawn.graph, drawn.feeds, TARGETS, numba=True, library="host")

    check()


@pytest.mark.long
@examples(100)
@given(integer_graphs())
def test_graphs_on_numba_at_length(drawn: Sample) -> None:
    agree(drawn.graph, drawn.feeds, numba=True)


def calibration_of(feeds: dict[str, Array]) -> list[dict[str, Array]]:
    """The inputs themselves, and smaller ones."""
    return [{n: (a * f).astype(np.float32) for n, a in feeds.items()} for f in (1.0, 0.5, -0.7)]


def integers(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """Float inputs as the integers that the graph takes."""
    made, _ = edge.to_integers(graph.input_types, feeds)
    return made


def close_to_qdq(real: Graph, quantized: Graph, integer: Graph, feeds: dict[str, Array]) -> None:
    """A QDQ graph rounds in floats where the integers round once: few steps of difference, or,
    where a coarse value meets a fine one and a step becomes many, what quantizing itself costs."""
    exact, rounded = evaluate(real, feeds), evaluate(quantized, feeds)
    made = edge.to_reals(integer.output_types, evaluate(integer, integers(integer, feeds)))
    for name, array in rounded.items():
        scale = integer.output_types[name].scale
        steps = np.abs(made[name] - array).max(initial=0) / scale
        cost = np.abs(array - exact[name]).max(initial=0) / scale
        assert steps <= max(3.01, 2 * cost), f"{name} is {steps} steps off in\n{integer}"
