"""Recurrent networks from floats to integers: scales of states, accuracy over many steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.ops.bytewise import JoinBytes
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.recurrent import LstmCell, LstmHidden, Recurrent
from irc.ops.shape import Concat, Slice
from irc.types import Array, DType, TensorType
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


def packed(cell: float) -> tuple[Graph, list[dict[str, Array]]]:
    """An LSTM whose states travel in one tensor, and a run of it; `cell` is its forget gate's
    argument, so how long the cell state adds up."""
    rng = np.random.default_rng(0)
    x = Input.of(TensorType(DType.F32, (1, 4)), "x")
    state = Input.of(TensorType(DType.F32, (2, 4)), "state")
    h, c = (Slice(state, (i, 0), (i + 1, 4), (1, 1)) for i in (0, 1))
    w, r = (Const(rng.normal(0, 1, (16, 4)).astype(np.float32)) for _ in range(2))
    bias = Const(np.repeat(np.asarray([0, cell, 0, 0], np.float32), 4))
    gates = Recurrent(h, r, None, Linear(x, w, bias))
    new = LstmCell(gates, c)
    hidden = LstmHidden(gates, new)
    graph = Graph("packed", (x, state), (Concat((hidden, new), 0),), ("next",))
    feeds, now = [], np.zeros((2, 4), np.float32)
    for _ in range(100):
        feeds.append({"x": rng.normal(1, 1, (1, 4)).astype(np.float32), "state": now})
        now = evaluate(graph, feeds[-1])["next"]
    return graph, feeds


def test_states_in_one_tensor_have_32_bits() -> None:
    graph, feeds = packed(2.0)
    made = integers(graph, feeds)
    assert made.input_types["state"] == made.output_types["next"]
    assert made.input_types["state"].dtype is DType.I32
    feed = edge.to_integers(made.input_types, feeds[-1])[0]
    agree(made, feed, ["host"])
    found = edge.to_reals(made.output_types, evaluate(made, feed))["next"]
    assert sqnr(evaluate(graph, feeds[-1])["next"], found) > 35


def test_cells_that_add_up_saturate() -> None:
    """One that counts does not take the steps of the others."""
    graph, feeds = packed(9.0)
    assert max(float(np.abs(f["state"]).max()) for f in feeds) > 32
    made = integers(graph, feeds)
    (cell,) = (v for v in made.order if v.op == "qlstm_cell")
    assert cell.type.scale == 32 / 2**15
    wanted = evaluate(graph, feeds[-1])["next"][0]
    got = evaluate(made, edge.to_integers(made.input_types, feeds[-1])[0])
    assert sqnr(wanted, edge.to_reals(made.output_types, got)["next"][0]) > 30
