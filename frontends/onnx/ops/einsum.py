"""Einsum: sums, transposes and one matrix product for each pair of operands."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from string import ascii_letters

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import is_weight
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Gather
from irc.ops.shape import Expand
from irc.value import Value


@dataclass(frozen=True)
class _Term:
    """An operand and the label of each of its axes, all different."""

    x: Value
    labels: str

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.labels, self.x.shape, strict=True))


@handles("Einsum")
def einsum(node: Node) -> Results:
    """Any equation over one type; operands are joined from the left."""
    inputs = [node.x(i) for i in range(len(node.inputs))]
    parts, output = _parsed(node, inputs)
    terms = [_term(node, x, labels) for x, labels in zip(inputs, parts, strict=True)]
    while len(terms) > 1:
        a, b, *rest = terms
        needed = set(output).union(*(t.labels for t in rest))
        terms = [_product(node, _summed(node, a, needed | set(b.labels)),
                          _summed(node, b, needed | set(a.labels)), needed), *rest]  # fmt: skip
    last = _summed(node, terms[0], set(output))
    return _ordered(node, last, output).x


def _parsed(node: Node, inputs: list[Value]) -> tuple[list[str], str]:
    """Labels of each operand and of the result; an ellipsis becomes labels of its own."""
    equation = node.text("equation").replace(" ", "")
    left, arrow, output = equation.partition("->")
    parts = left.split(",")
    used = set(equation)
    free = [c for c in ascii_letters if c not in used]
    if len(parts) != len(inputs) or any(p.count("...") > 1 for p in (*parts, output)):
        node.fail(f"equation {equation!r} does not go with {len(inputs)} operands")
    hidden = [x.type.rank - len(p.replace("...", "")) if "..." in p else 0
              for x, p in zip(inputs, parts, strict=True)]  # fmt: skip
    if min(hidden) < 0 or max(hidden) > len(free):
        node.fail(f"equation {equation!r} does not fit {[str(x.type) for x in inputs]}")
    dots = "".join(free[: max(hidden)])
    named = [p.replace("...", dots[len(dots) - h :]) for p, h in zip(parts, hidden, strict=True)]
    if not arrow:
        counts = "".join(parts).replace(".", "")
        output = ("..." if dots else "") + "".join(
            sorted(c for c in set(counts) if counts.count(c) == 1)
        )
    result = output.replace("...", dots)
    letters = set("".join(named))
    if not set(result) <= letters or len(set(result)) < len(result) or not letters <= set(
        ascii_letters
    ):
        node.fail(f"equation {equation!r}: the result's labels must stand on the left, each once")
    return named, result


def _term(node: Node, x: Value, labels: str) -> _Term:
    """An operand with its axes named; of a label that stands twice, the diagonal."""
    if len(labels) != x.type.rank:
        node.fail(f"its equation names axes {labels!r} of an operand {x.type}")
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = _diagonal(node, x, first, second)
            labels = labels[:second] + labels[second + 1 :]
    return _Term(x, labels)


def _diagonal(node: Node, x: Value, first: int, second: int) -> Value:
    """The elements whose indices along two axes are the same, kept along the first."""
    n = x.shape[first]
    if x.shape[second] != n:
        node.fail(f"its equation takes a diagonal of {x.type}")
    rest = [a for a in range(x.type.rank) if a not in (first, second)]
    front = node.builder.transpose(x, (first, second, *rest))
    flat = node.builder.reshape(front, (n * n, *(x.shape[a] for a in rest)))
    at = node.builder.const(np.arange(n, dtype=np.int64) * (n + 1), name=f"{x.name}.diagonal")
    picked = node.builder.add(Gather(flat, at, 0))
    order = [first, *rest]
    return node.builder.transpose(picked, tuple(order.index(a) for a in sorted(order)))


def _summed(node: Node, t: _Term, needed: set[str]) -> _Term:
    """Without the axes that nothing needs any more."""
    gone = tuple(i for i, label in enumerate(t.labels) if label not in needed)
    if not gone:
        return t
    kept = "".join(label for label in t.labels if label in needed)
    return _Term(node.builder.add(ReduceSum(t.x, gone, False)), kept)


def _ordered(node: Node, t: _Term, labels: str) -> _Term:
    return _Term(node.builder.transpose(t.x, tuple(map(t.labels.index, labels))), labels)


def _product(node: Node, a: _Term, b: _Term, needed: set[str]) -> _Term:
    """Axes of both that are needed are a batch, those that are not are summed over."""
    sizes = {**b.sizes, **{k: v for k, v in a.sizes.items() if v != 1 or k not in b.labels}}
    both = [label for label in a.labels if label in b.labels]
    for label in both:
        if {a.sizes[label], b.sizes[label]} - {1, sizes[label]}:
            node.fail(f"its operands differ along {label!r}: {a.x.type} and {b.x.type}")
    batch = "".join(label for label in both if label in needed)
    depth = "".join(label for label in both if label not in needed)
    rows = "".join(label for label in a.labels if label not in both)
    columns = "".join(label for label in b.labels if label not in both)

    def matrix(t: _Term, one: str, two: str) -> Value:
        x = _ordered(node, t, batch + one + two).x
        wide = tuple(sizes[label] for label in batch + one + two)
        if wide != x.shape:
            x = node.builder.add(Expand(x, wide))
        groups = (prod(sizes[c] for c in part) for part in (batch, one, two))
        merged = tuple(groups)
        return node.builder.reshape(x, merged if batch else merged[1:])

    left, right = matrix(a, rows, depth), matrix(b, depth, columns)
    y = forms.matmul(node.builder, left, right, is_weight(right))
    labels = batch + rows + columns
    return _Term(node.builder.reshape(y, tuple(sizes[label] for label in labels)), labels)
