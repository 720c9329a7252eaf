"""Recurrent networks from floats to integers: scales of states, accuracy over many steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.ops.bytewise import JoinBytes
from irc.types import Array, DType
from tests.backends.harness import agree
from tests.frontends.test_onnx_recurrent import layer
from tests.passes.nets import sqnr

STEPS = 12


def network(
    op: str, direction: str = "forward", **given: Any
) -> tuple[Graph, list[dict[str, Array]]]:
    """A layer, and calibration data: states that the network itself reaches."""
    proto, first = layer(op, direction, hidden=9, **given)
    graph = irc.load(proto)
    rng = np.random.default_rng(0)
    feeds, feed = [], {n: np.zeros_like(a) for n, a in first.items()}
    for _ in range(STEPS):
        feed = {**feed, "x": rng.normal(0, 1, first["x"].shape).astype(np.float32)}
        feeds.append(feed)
        out = evaluate(graph, feed)
        feed = {**feed, **{n: out[f"y{n}"] for n in ("h", "c") if n in feed}}
    return graph, feeds


def integers(graph: Graph, feeds: list[dict[str, Array]]) -> Graph:
    return driver.integerize(irc.quantize(graph, calibration=feeds))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_states_keep_their_scale(op: str, direction: str) -> None:
    """What comes out of one run goes into the next as it is."""
    made = integers(*network(op, direction))
    for state in ("h", "c") if op == "LSTM" else ("h",):
        before, after = made.input_types[state], made.output_types[f"y{state}"]
        assert before == after
        assert before.dtype is DType.I16


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_all_steps_share_one_scale(op: str) -> None:
    made = integers(*network(op, steps=5))
    types = {v.type for v in made.order if isinstance(v, JoinBytes)}
    assert len(types) == (2 if op == "GRU" else 1)  # a GRU's gates and its candidate


@pytest.mark.parametrize(("op", "least"), [("LSTM", 30.0), ("GRU", 30.0), ("RNN", 30.0)])
def test_a_run_with_fed_back_states(op: str, least: float) -> None:
    graph, feeds = network(op, steps=1)
    made = integers(graph, feeds)
    real = {n: a for n, a in feeds[0].items() if n != "x"}
    state = edge.to_integers(made.input_types, feeds[0])[0]
    expected, found = [], []
    for feed in feeds:
        out = evaluate(graph, {**real, "x": feed["x"]})
        x = edge.to_integers(made.input_types, feed)[0]["x"]
        got = evaluate(made, {**state, "x": x})
        real = {n: out[f"y{n}"] for n in real}
        state = {n: got[f"y{n}"] for n in state if n != "x"}
        expected.append(out["y"])
        found.append(edge.to_reals(made.output_types, got)["y"])
    assert sqnr(np.stack(expected), np.stack(found)) > least


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_backends_agree(op: str, direction: str) -> None:
    graph, feeds = network(op, direction, steps=3, lengths=(2, 3))
    made = integers(graph, feeds)
    agree(made, edge.to_integers(made.input_types, feeds[-1])[0], ["host"])


@pytest.mark.slow
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_backends_agree_as_a_library(op: str) -> None:
    graph, feeds = network(op, "bidirectional", steps=3)
    made = integers(graph, feeds)
    agree(made, edge.to_integers(made.input_types, feeds[-1])[0], numba=True, library="host")
