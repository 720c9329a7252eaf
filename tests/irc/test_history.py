"""Graphs remember where they come from, beside themselves."""

import gc
from pathlib import Path

import irc
from irc import driver, history
from irc.history import history_of
from irc.text import write

TEXT = "graph @g(%x: f32[1,6]) {\n  %y = relu(%x) : f32[1,6]\n  return %y\n}"


def test_a_history_follows_the_passes(tmp_path: Path) -> None:
    write(irc.parse(TEXT), tmp_path / "g.irc")
    graph = irc.load(tmp_path / "g.irc")
    assert [s.name for s in history_of(graph).steps] == ["import"]
    quantized = irc.quantize(graph, "random:2")
    history = history_of(driver.integerize(quantized))
    names = [s.name for s in history.steps]
    assert names[0] == "import"
    assert names.index("quantize") < names.index("integerize")
    assert history.source is not None
    assert (history.source.name, history.source.nbytes) == ("g.irc", len(TEXT) + 1)
    assert "random noise" in history.warnings[0]
    assert history_of(irc.quantize(graph, [{"x": [[1.0] * 6]}])).warnings == ()


def test_graphs_built_by_hand_have_none() -> None:
    assert history_of(irc.parse(TEXT)).steps == ()


def test_histories_keep_no_graph_alive(tmp_path: Path) -> None:
    write(irc.parse(TEXT), tmp_path / "g.irc")
    gc.collect()
    before = len(history._histories)
    irc.load(tmp_path / "g.irc")
    gc.collect()
    assert len(history._histories) == before


def test_what_a_frontend_chose_is_passed_on() -> None:
    graph = irc.parse(TEXT)
    history.chosen(graph, ["1 was taken"])
    assert history_of(irc.quantize(graph, "random:2")).notes == ("1 was taken",)
