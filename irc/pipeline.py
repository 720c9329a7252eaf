"""Passes and pipelines: each pass is checked, timed and, with IRC_DUMP=dir, written out."""

from __future__ import annotations

import dataclasses
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from irc.errors import GraphError, IRCError, ParseError
from irc.graph import Graph
from irc.names import there_are
from irc.properties import require
from irc.text import write

PASSES: dict[str, type[Pass]] = {}
"""Every named pass."""


@dataclass(frozen=True)
class Pass:
    """Base of passes: a function from graph to graph whose options are dataclass fields."""

    name: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    ensures: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            PASSES[cls.name] = cls

    @abstractmethod
    def run(self, graph: Graph) -> Graph:
        """The rewritten graph; the given one is left as it is."""

    def __call__(self, graph: Graph) -> Graph:
        """Run with the contract checked: what it requires, its ensures, the interface kept."""
        require(graph, self.requires, f"pass {self.name}")
        result = self.run(graph)
        require(result, self.ensures, f"after pass {self.name}")
        before = ([v.name for v in graph.inputs], graph.output_names)
        if before != ([v.name for v in result.inputs], result.output_names):
            raise GraphError(f"pass {self.name} changed the interface of {graph.name}")
        return result


@dataclass(frozen=True)
class Step:
    """What one pass of a pipeline did: its name, seconds, and nodes before and after."""

    name: str
    seconds: float
    before: int
    after: int

    @classmethod
    def since(cls, start: float, name: str, after: Graph, before: Graph | None = None) -> Step:
        """What began at `start`, of `time.perf_counter`, and made one graph of another, or of
        none."""
        seconds = time.perf_counter() - start
        return cls(name, seconds, 0 if before is None else len(before.order), len(after.order))


@dataclass
class Pipeline:
    """A list of passes, run in order. `steps` tells of the last run; `progress` is told how many
    passes are done."""

    passes: Sequence[Pass]
    steps: list[Step] = field(default_factory=list)
    progress: Callable[[int], None] | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Run every pass; errors name the passes that were already run."""
        self.steps = []
        dump(graph, 0, "import")
        for index, each in enumerate(self.passes, 1):
            start, before = time.perf_counter(), graph
            try:
                graph = each(graph)
            except IRCError as error:
                done = ", ".join(s.name for s in self.steps) or "none"
                error.add_note(f"passes already run: {done}")
                raise
            self.steps.append(Step.since(start, each.name, graph, before))
            dump(graph, index, each.name)
            if self.progress is not None:
                self.progress(index)
        return graph


def dump(graph: Graph, index: int, name: str) -> None:
    """Write `NN-name.irc` into the folder that IRC_DUMP names, if it is set."""
    folder = os.environ.get("IRC_DUMP")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write(graph, Path(folder) / f"{index:02d}-{name}.irc")


def parse_passes(text: str) -> list[Pass]:
    """`"fold,quantize{weights=8,pair_safe=true}"` as passes with their options set.

    Raises `ParseError` for a pass or option that does not exist or a value that can't be read.
    """
    return [_pass(item) for item in _split(text)]


def _split(text: str) -> Iterable[str]:
    depth, start = 0, 0
    for i, c in enumerate(text + ","):
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            if text[start:i].strip():
                yield text[start:i].strip()
            start = i + 1
    if depth:
        raise ParseError(f"unbalanced braces in passes {text!r}")


def _pass(item: str) -> Pass:
    name, brace, rest = item.partition("{")
    if name.strip() not in PASSES:
        known = there_are(name.strip(), sorted(PASSES))
        raise ParseError(f"pass {name.strip()!r} does not exist; {known}")
    cls = PASSES[name.strip()]
    pairs = rest.removesuffix("}").split(",") if brace and rest != "}" else []
    return cls(**dict(_option(cls, pair) for pair in pairs))


def _option(cls: type[Pass], pair: str) -> tuple[str, Any]:
    key, equals, text = (part.strip() for part in pair.partition("="))
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if not equals or key not in fields:
        raise ParseError(f"pass {cls.name} has no option {pair.strip()!r}; it has {sorted(fields)}")
    default = fields[key].default
    try:
        return key, _read(text, default)
    except ValueError:
        raise ParseError(f"pass {cls.name}: {key}={text!r} is not like {default!r}") from None


def _read(text: str, default: object) -> Any:
    """A value of an option's type, a number for one that is none so far; raises `ValueError` for
    any other."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(default, int):
        return int(text)
    return float(text) if isinstance(default, float | None) else text.strip("\"'")
