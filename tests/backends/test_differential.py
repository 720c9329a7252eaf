"""Reference = scheduled = numba = llvm in process = llvm library, bit for bit: every op by itself,
and random graphs, where fusion and the memory plan have something to do."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.ops.quantization import Dequantize, Quantize
from irc.rewrite import rebuild
from irc.types import Array, TensorType
from irc.value import Value
from tests.backends.graphs import float_models, integer_graphs
from tests.backends.harness import TARGETS, agree, examples
from tests.ops.sampling import Sample, load_samples
from tests.passes.networks import Network

SAMPLES = load_samples()
OPS = sorted(SAMPLES)


@pytest.mark.parametrize("op", OPS)
def test_op_on_llvm(op: str) -> None:
    @examples(3)
    @given(SAMPLES[op], st.sampled_from(TARGETS))
    def check(drawn: Sample, target: str) -> None:
        agree(drawn.graph, drawn.feeds, [target])

    check()


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("op", OPS)
def test_op_on_numba_and_as_a_library(op: str, count: int) -> None:
    """Numba takes half a second for each example: one by default."""

    @examples(count)
    @given(SAMPLES[op], st.sampled_from(TARGETS))
    def check(drawn: Sample, target: str) -> None:
        agree(drawn.graph, drawn.feeds, numba=True, library=target)

    check()


@examples(25)
@given(integer_graphs(), st.sampled_from(TARGETS))
def test_graphs_on_llvm(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, [target])


@examples(3)
@given(integer_graphs(), st.sampled_from(TARGETS))
def test_graphs_on_numba_and_as_a_library(drawn: Sample, target: str) -> None:
    agree(drawn.graph, drawn.feeds, numba=True, library=target)


@examples(4)
@given(float_models(), st.sampled_from(TARGETS))
def test_quantized_models(drawn: Sample, target: str) -> None:
    """Calibrated on noise: QDQ, integers and all backends."""
    quantized = named(irc.quantize(drawn.graph, calibration_of(drawn.feeds)))
    integer = driver.integerize(quantized)
    close_to_qdq(quantized, integer, drawn.feeds)
    agree(integer, integers(integer, drawn.feeds), [target])


@pytest.mark.parametrize("seed", [*range(12), 269257, 459313])
def test_integers_round_as_floats_do(seed: int) -> None:
    """Of known networks; the last two have slopes below zero."""
    real = Network(seed).graph(seed % 5)
    x = np.random.default_rng(seed).normal(0, 1, real.inputs[0].shape).astype(np.float32)
    feeds = {real.inputs[0].name: x}
    quantized = named(irc.quantize(real, calibration_of(feeds)))
    close_to_qdq(quantized, driver.integerize(quantized), feeds)


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


def named(graph: Graph) -> Graph:
    """The graph with a name of its own for each node."""
    numbers = {v: n for n, v in enumerate(graph.order)}
    return rebuild(graph, lambda v, made: made.replace(name=f"n{numbers[v]}"))


def close_to_qdq(quantized: Graph, integer: Graph, feeds: dict[str, Array]) -> None:
    """A QDQ graph rounds in floats where the integers round once. Each of its integers, computed
    of those that the integer graph has before it, is at most one off; that is why no difference
    grows from layer to layer, and the bound holds for any network."""
    found: dict[tuple[str, TensorType], Array] = {}

    def keep(v: Value, array: Array) -> None:
        found.setdefault((v.name, v.type), array)

    evaluate(integer, integers(integer, feeds), observe=keep)
    values: dict[Value, Array] = {v: feeds[v.name] for v in quantized.inputs}
    for v in quantized.order:
        if v not in values:
            values[v] = np.asarray(v.call(values.__getitem__))
        if isinstance(v, Quantize):
            twin = next(found[n, v.type] for n in names(quantized, v) if (n, v.type) in found)
            off = np.abs(values[v].astype(np.int64) - twin).max(initial=0)
            assert off <= 1, f"{v.x.op} %{v.x.name} is {off} steps off in\n{integer}"
            values[v] = twin


def names(graph: Graph, v: Quantize) -> Iterator[str]:
    """What the integer of a quantize may be called: as it, what reads it, or what it reads."""
    yield v.name
    yield from (u.name for u in graph.users[v] if isinstance(u, Dequantize))
    source: Value = v
    while isinstance(source, Quantize | Dequantize):
        source = source.x
        yield source.name
