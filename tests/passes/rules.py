"""The harness of rewrite rules: what a rule's docstring draws is what it does.

A drawing is IR text without its frame, indented in the docstring: the inputs in parentheses, the
nodes (a long one goes on in a line of attributes, or of its type), `->`, and the nodes after the
rule came to rest. The last line's value is the output; a line that is a value alone stands for
that value. A rule may draw several, with empty lines between.

From them every rule is tested for: that it does what is drawn, in types, nodes and names; that
both sides have one interface and, on random inputs, equal results; and that it leaves alone what
it has made.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import irc.ops  # noqa: F401
from irc.graph import Graph, evaluate, same
from irc.parser import parse
from irc.rewrite import Rule, UseRule, rewrite
from irc.types import Array, DType, TensorType

AnyRule = Rule | UseRule


def drawn(rule: AnyRule) -> list[tuple[Graph, Graph]]:
    """The graphs before and after that the rule's docstring draws, a pair a paragraph."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(rule.__doc__ or ""))
    drawings = [p for p in paragraphs if re.match(r" *\([%)]", p)]
    assert drawings, f"{rule.__name__} draws no rewriting in its docstring"
    return [_sides(re.sub(r"\n\s*(?=[{:]|count_)", " ", p).splitlines()) for p in drawings]


def _sides(lines: list[str]) -> tuple[Graph, Graph]:
    lines = [line.strip() for line in lines]
    arrow = lines.index("->")
    return framed(lines[0], lines[1:arrow]), framed(lines[0], lines[arrow + 1 :])


def framed(inputs: str, lines: list[str]) -> Graph:
    """The graph of a drawing's side."""
    bare = re.fullmatch(r"%\S+", lines[-1])
    nodes = lines[:-1] if bare else lines
    value = lines[-1].split(" = ")[0]
    return parse(f'graph @rule{inputs} {{\n{chr(10).join(nodes)}\nreturn "out" = {value}\n}}')


def applied(rule: AnyRule, graph: Graph) -> Graph:
    """The graph with the rule, and nothing else, applied to its fixed point."""
    if len(inspect.signature(rule).parameters) == 2:
        return rewrite(graph, (), (rule,))  # type: ignore[arg-type]
    return rewrite(graph, (rule,))  # type: ignore[arg-type]


def check_rule(rule: AnyRule) -> None:
    """All that the harness asks of a rule; fails with what differs."""
    for before, wanted in drawn(rule):
        after = applied(rule, before)
        assert str(after) == str(wanted), f"it makes\n{after}\nand draws\n{wanted}"
        check_equal(before, after)
        assert same(applied(rule, after), after), "the rule does not leave alone what it made"


def check_equal(
    before: Graph, after: Graph, *, seed: int = 0, rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    """Fails unless both graphs have one interface and, on random inputs, equal results.

    `atol` is relative to the largest magnitude in each output.
    """
    assert before.input_types == after.input_types
    assert before.output_types == after.output_types
    feeds = random_inputs(before, seed)
    expected, found = evaluate(before, feeds), evaluate(after, feeds)
    for name, array in expected.items():
        largest = float(np.max(np.abs(array.astype(np.float64)), initial=0.0))
        np.testing.assert_allclose(
            found[name], array, rtol=rtol, atol=atol * max(1.0, largest), err_msg=name
        )


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """An array for every input: normal reals, or integers over the whole range of 8 bits."""
    rng = np.random.default_rng(seed)
    return {name: _random(rng, t) for name, t in graph.input_types.items()}


def _random(rng: np.random.Generator, t: TensorType) -> Array:
    if t.dtype.is_float:
        return np.asarray(rng.normal(0, 2, t.shape), t.dtype.numpy)
    if t.dtype is DType.BOOL:
        return np.asarray(rng.integers(0, 2, t.shape), np.bool_)
    low, high = max(t.dtype.min, -128), min(t.dtype.max, 255)
    return np.asarray(rng.integers(low, high, t.shape, endpoint=True), t.dtype.numpy)


def parametrize(rules: Iterable[AnyRule]) -> Callable[[Callable[..., Any]], Any]:
    """`pytest.mark.parametrize("rule", …)`, each under its own name."""
    return pytest.mark.parametrize("rule", list(rules), ids=lambda rule: rule.__name__)
