"""States of graphs: their checks, their text, what keeps them between runs, data that leaves them
out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import irc
from irc.cli import app
from irc.driver import integerize, samples
from irc.edge import to_integers
from irc.errors import DataError, GraphError
from irc.graph import Graph, same
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.shape import Concat, Slice
from irc.streams import State, linked
from irc.text import read, write
from irc.types import Array, DType

ALPHA = np.float32(0.125)


def average(initial: float | Array = 0.0) -> Graph:
    """`m_next = m + (x - m) / 8`, which it gives; `m` is the state."""
    x, m = (Input(DType.F32, (1, 4), name=n) for n in ("x", "m"))
    kept = Mul(m, Const(np.array([1 - ALPHA], np.float32)), name="kept")
    new = Add(kept, Mul(x, Const(np.array([ALPHA], np.float32)), name="new"), name="m_next")
    begins = np.broadcast_to(np.float32(initial), (1, 4)).copy()
    return Graph("average", (x, m), (new, new), ("y", "m_next"),
                 states=(State("m", "m_next", begins),))  # fmt: skip


def shifted() -> Graph:
    """A line of the last six numbers."""
    x, line = Input(DType.F32, (1, 2), name="x"), Input(DType.F32, (1, 6), name="line")
    whole = Concat((line, x), 1, name="whole")
    kept = Slice(whole, (0, 2), (1, 8), (1, 1), name="kept")
    doubled = Add(whole, whole, name="doubled")
    return Graph("line", (x, line), (doubled, kept), ("y", "line_next"),
                 states=(State("line", "line_next", np.zeros((1, 6), np.float32)),))  # fmt: skip


def steps(count: int, width: int = 4, seed: int = 0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(-2, 2, (1, width)).astype(np.float32)} for _ in range(count)]


def test_a_stream_keeps_the_states() -> None:
    stream = irc.Stream(average(1.0))
    m: Array = np.ones((1, 4), np.float32)
    for feed in steps(5):
        found = stream(feed)
        m = (1 - ALPHA) * m + ALPHA * feed["x"]
        assert list(found) == ["y"]
        np.testing.assert_allclose(found["y"], m, rtol=1e-6)
    stream.reset()
    np.testing.assert_array_equal(stream.states["m"], np.ones((1, 4)))


@pytest.mark.parametrize("initial", [0.0, 0.25, np.arange(4, dtype=np.float32)])
def test_text_tells_states(initial: float | Array, tmp_path: Path) -> None:
    graph = average(initial)
    assert same(irc.parse(str(graph)), graph)
    write(graph, tmp_path / "g.irc")
    again = read(tmp_path / "g.irc")
    assert same(again, graph)
    assert not same(again, dataclasses.replace(graph, states=()))


def test_states_that_do_not_fit_are_refused() -> None:
    graph = dataclasses.replace(average(), states=())
    with pytest.raises(GraphError, match="no input 'h' that could be a state"):
        linked(graph, {"h": "m_next"})
    with pytest.raises(GraphError, match="no state goes from 'h' to 'm'"):
        linked(graph, {"m": "h"})
    with pytest.raises(GraphError, match="two states share one output"):
        linked(graph, {"m": "m_next", "x": "m_next"})
    with pytest.raises(GraphError, match=r"state 'line' is f32\[1,6\], but 'y'.* is f32\[1,8\]"):
        linked(dataclasses.replace(shifted(), states=()), {"line": "y"})


def test_a_run_without_states_says_what_is_missing() -> None:
    with pytest.raises(DataError, match=r"states begin .* irc\.Stream"):
        irc.evaluate(average(), steps(1)[0])


@pytest.mark.parametrize("graph", [average(0.5), shifted()], ids=lambda g: g.name)
def test_data_without_states_are_steps(graph: Graph) -> None:
    feeds = steps(6, graph.inputs[0].shape[1])
    stream = irc.Stream(graph)
    for feed, given in zip(feeds, samples(graph, feeds), strict=True):
        for name, array in stream.states.items():
            np.testing.assert_array_equal(given[name], array)
        stream(feed)
    stacked = {"x": np.concatenate([f["x"] for f in feeds])}
    assert len(list(samples(graph, stacked))) == 6
    assert len(list(samples(graph, "random:3"))) == 3


def test_a_sample_with_states_begins_a_sequence() -> None:
    graph, feeds = average(), steps(3)
    feeds[1] = {**feeds[1], "m": np.full((1, 4), 7, np.float32)}
    given = list(samples(graph, feeds))
    np.testing.assert_array_equal(given[1]["m"], np.full((1, 4), 7))
    expected = irc.evaluate(graph, feeds[1])["m_next"]
    np.testing.assert_array_equal(given[2]["m"], expected)


def test_what_is_computed_of_itself_has_16_bits_and_what_is_moved_8() -> None:
    """In 8 bits an average stands still as soon as its steps are below half a unit."""
    graph = average()
    integer = integerize(irc.quantize(graph, steps(40)))
    assert integer.input_types["m"].dtype is DType.I16
    assert integer.output_types["m_next"] == integer.input_types["m"]
    assert integer.output_types["y"].quant is not None
    line = integerize(irc.quantize(shifted(), steps(40, 2)))
    assert line.input_types["line"].dtype is DType.U8
    assert line.output_types["line_next"] == line.input_types["line"]
    assert line.input_types["x"].quant == line.input_types["line"].quant


@pytest.mark.parametrize("backend", ["llvm", "numba", "reference"])
def test_states_are_fed_back_as_integers(backend: str) -> None:
    graph = average(0.5)
    model = irc.compile(irc.quantize(graph, steps(40)), backend=backend)
    integer, real = irc.Stream(model.graph), irc.Stream(graph)
    ours = irc.Stream(model)
    for feed in steps(60, seed=1):
        found = ours(feed)
        integer(to_integers({"x": model.graph.input_types["x"]}, feed)[0])
        np.testing.assert_array_equal(ours.states["m"], integer.states["m"])
        assert ours.states["m"].dtype == np.int16
        assert np.abs(found["y"] - real(feed)["y"]).max() < 0.02


def test_states_given_as_reals_come_back_so() -> None:
    model = irc.compile(irc.quantize(average(), steps(40)), backend="reference")
    zeros = np.zeros((1, 4), np.float32)
    assert model({**steps(1)[0], "m": zeros})["m_next"].dtype == np.float32
    (state,) = model.states
    assert model({**steps(1)[0], "m": state.initial})["m_next"].dtype == np.int16


def test_a_library_tells_its_states(tmp_path: Path) -> None:
    graph = average(np.array([0.5, -1, 0, 1.25], np.float32))
    model = irc.compile(irc.quantize(graph, steps(40)))
    model.save(tmp_path, "net")
    library = irc.open_library(tmp_path / "libnet.so")
    (state,) = library.states
    np.testing.assert_array_equal(state.initial, model.states[0].initial)
    manifest = json.loads((tmp_path / "net.json").read_text())
    assert manifest["states"] == [{"input": "m", "output": "m_next"}]
    ours, saved = irc.Stream(model), irc.Stream(library)
    for feed in steps(20):
        np.testing.assert_array_equal(ours(feed)["y"], saved(feed)["y"])
    assert library.self_test()


def test_run_carries_states_over_steps(tmp_path: Path) -> None:
    model = irc.compile(irc.quantize(average(), steps(40)))
    model.save(tmp_path, "net", emit=("so",))
    x = np.stack([f["x"] for f in steps(5)])
    np.savez(tmp_path / "x.npz", x=x)
    command = ["run", str(tmp_path / "libnet.so"), str(tmp_path / "x.npz"), "-o"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "y.npz")]).exit_code == 0
    found = np.load(tmp_path / "y.npz")["y"]
    stream = irc.Stream(model)
    np.testing.assert_array_equal(found, [stream({"x": step})["y"] for step in x])
    np.savez(tmp_path / "x.npz", x=x[:0])
    assert CliRunner().invoke(app, [*command, str(tmp_path / "y.npz")]).exit_code == 1
