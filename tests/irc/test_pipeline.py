from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import irc.passes  # registers the passes  # noqa: F401
from irc.errors import GraphError, IRCError, ParseError
from irc.graph import Graph, same
from irc.ops.activation import Relu
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.pipeline import PASSES, Pass, Pipeline, parse_passes
from irc.text import read
from irc.types import DType

X = Input(DType.F32, (2,), name="x")


def graph() -> Graph:
    c = Add(Const(np.ones(2, np.float32)), Const(np.zeros(2, np.float32)))
    return Graph("g", (X,), (Relu(Add(X, c)),), ("y",))


@dataclass(frozen=True)
class Rename(Pass):
    name: ClassVar[str] = ""

    def run(self, graph: Graph) -> Graph:
        return Graph(graph.name, graph.inputs, graph.outputs, ("renamed",))


@dataclass(frozen=True)
class NeedsIntegers(Pass):
    name: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ("integer",)

    def run(self, graph: Graph) -> Graph:
        return graph


@dataclass(frozen=True)
class Broken(Pass):
    name: ClassVar[str] = ""
    ensures: ClassVar[tuple[str, ...]] = ("scheduled",)

    def run(self, graph: Graph) -> Graph:
        return graph


def test_a_pass_checks_what_it_is_given_and_what_it_gives() -> None:
    with pytest.raises(GraphError, match=r"pass .*: graph g is not integer: input %x is f32"):
        NeedsIntegers()(graph())
    with pytest.raises(GraphError, match=r"after pass .*: graph g is not scheduled"):
        Broken()(graph())
    with pytest.raises(GraphError, match="changed the interface of g"):
        Rename()(graph())


def test_a_pipeline_tells_of_its_steps_and_errors_name_them() -> None:
    told: list[int] = []
    pipeline = Pipeline([*parse_passes("fold,canonicalize"), NeedsIntegers()], progress=told.append)
    with pytest.raises(IRCError) as caught:
        pipeline(graph())
    assert caught.value.__notes__ == ["passes already run: fold, canonicalize"]
    assert [s.name for s in pipeline.steps] == ["fold", "canonicalize"]
    assert (pipeline.steps[0].before, pipeline.steps[0].after) == (6, 4)
    assert all(s.seconds >= 0 for s in pipeline.steps)
    assert told == [1, 2]
    with pytest.raises(IRCError) as caught:
        Pipeline([NeedsIntegers()])(graph())
    assert caught.value.__notes__ == ["passes already run: none"]


def test_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "made" / "here"
    monkeypatch.setenv("IRC_DUMP", str(folder))
    result = Pipeline(parse_passes("fold,canonicalize"))(graph())
    names = sorted(p.name for p in folder.glob("*.irc"))
    assert names == ["00-import.irc", "01-fold.irc", "02-canonicalize.irc"]
    assert same(read(folder / "02-canonicalize.irc"), result)
    assert same(read(folder / "00-import.irc"), graph())


def test_nothing_is_dumped_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRC_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    Pipeline(parse_passes("fold"))(graph())
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- passes as text


def test_passes_by_name_with_options() -> None:
    made = parse_passes("fold, plan{in_place=false} ,fuse_kernels{}")
    assert [p.name for p in made] == ["fold", "plan", "fuse_kernels"]
    assert made[1] == PASSES["plan"](in_place=False)  # type: ignore[call-arg]
    assert parse_passes("plan{ in_place = true }") == [PASSES["plan"]()]
    assert parse_passes("") == []
    assert parse_passes("fold,") == [PASSES["fold"]()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folt", "pass 'folt' does not exist; did you mean fold[?] there are"),
        ("plan{in_plaice=true}", "plan has no option 'in_plaice=true'; it has .*in_place"),
        ("plan{in_place}", "plan has no option 'in_place'"),
        ("plan{in_place=maybe}", "plan: in_place='maybe' is not like True"),
        ("plan{in_place=1}", "in_place='1' is not like True"),
        ("plan{in_place=true", "unbalanced braces"),
        ("plan}", "unbalanced braces|does not exist"),
        ("plan{in_place=true}}", "unbalanced braces|is not like"),
        ("plan{in_place=true}x", "does not exist|is not like|after"),
        ("quantize{weights=eight}", "weights='eight' is not like 8"),
        ("quantize{percentile=high}", "percentile='high' is not like"),
        ("{}", "pass '' does not exist"),
    ],
)
def test_what_cant_be_read_is_said(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_passes(text)


def test_every_pass_has_a_name_of_its_own_and_a_docstring() -> None:
    for name, cls in PASSES.items():
        assert cls.name == name
        assert cls.__doc__
