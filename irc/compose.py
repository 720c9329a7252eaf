"""Fusion by substitution: a kernel's body becomes one list of loop nests.

A node's single result expression is put in place of the loads of its users, so that only the
body's inputs, its constants and temporaries are loaded. `describe` writes nests down in a
canonical form: kernels whose descriptions are equal do equal work and may share one function.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from irc.graph import Graph
from irc.loops import (
    Binary,
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    Loops,
    Nest,
    Reduce,
    Select,
    Source,
    Temp,
    Var,
    binary,
    children,
    clamp,
    element,
    substitute,
    transform,
    walk,
)
from irc.ops.core import Const, Input
from irc.types import DType
from irc.value import Value

_composed: WeakKeyDictionary[Graph, Loops] = WeakKeyDictionary()


def compose(body: Graph) -> Loops:
    """The body as nests that load only inputs, constants and temporaries of the body."""
    if body not in _composed:
        _composed[body] = _compose(body)
    return _composed[body]


def _compose(body: Graph) -> Loops:
    results: dict[Value, Nest] = {}
    nests: list[Nest] = []
    for v in body.order:
        if isinstance(v, Input | Const):
            continue
        loops = v.loops()
        nests += [inline(nest, results) for nest in loops.nests[:-1]]
        results[v] = inline(loops.result, results)
    (output,) = body.outputs
    return Loops((*nests, results[output]))


def inline(nest: Nest, results: Mapping[Value, Nest]) -> Nest:
    """The nest with every load of a value in `results` replaced by what computes the element."""
    made: dict[tuple[Source, tuple[Expr, ...]], Expr] = {}

    def replace(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or isinstance(e.source, Temp) or e.source not in results:
            return None
        key = (e.source, e.index)
        if key not in made or e.fill is not None:
            made[key] = _computed(e, results[e.source])
        return made[key]

    return Nest(nest.axes, transform(nest.value, replace), nest.target)


def _computed(e: Load, producer: Nest) -> Expr:
    if e.fill is None:
        return substitute(producer.value, dict(zip(producer.axes, e.index, strict=True)))
    inside: Expr = Int(1, DType.BOOL)
    safe: dict[Expr, Expr] = {}
    for axis, i in zip(producer.axes, e.index, strict=True):
        low, high = Compare("le", Int(0, DType.I64), i), Compare("lt", i, Int(axis.extent, i.dtype))
        inside = binary("and", inside, binary("and", low, high))
        safe[axis] = clamp(i, 0, axis.extent - 1)
    return Select(inside, substitute(producer.value, safe), e.fill)


def pointwise(v: Value, operand: Value) -> bool:
    """Whether each element of `v` needs just the element of `operand` at the same index."""
    loops = v.loops()
    return (
        len(loops.nests) == 1 and v.shape == operand.shape and reads_in_step(loops.result, operand)
    )


def reads_in_step(nest: Nest, source: Source) -> bool:
    """Whether a nest reads `source` only at the index that it writes."""
    return all(
        e.fill is None and all(_follows(i, a) for i, a in zip(e.index, nest.axes, strict=True))
        for e in walk(nest.value)
        if isinstance(e, Load) and e.source is source
    )


def _follows(index: Expr, axis: Var) -> bool:
    """Whether an index is the axis, or the only index that the axis has."""
    return index is axis or (axis.extent == 1 and isinstance(index, Int) and index.value == 0)


def has_reduction(loops: Loops) -> bool:
    """Whether any nest reduces."""
    return any(isinstance(e, Reduce) for nest in loops.nests for e in walk(nest.value))


def describe(loops: Loops, names: Mapping[Source, str]) -> str:
    """Canonical text of the nests: one line per expression node, numbered in order of use.

    `names` says how the values that are loaded are called; equal texts mean equal work.
    """
    writer = _Writer(dict(names))
    for nest in loops.nests:
        writer.nest(nest)
    return "\n".join(writer.lines)


class _Writer:
    def __init__(self, names: dict[Source, str]) -> None:
        self.names = names
        self.numbers: dict[Expr, int] = {}
        self.lines: list[str] = []

    def nest(self, nest: Nest) -> None:
        for axis in nest.axes:
            self.expr(axis)
        target = "result"
        if nest.target is not None:
            target = self.names[nest.target] = f"t{len(self.names)}"
            target += f" {nest.target.element.value}{list(nest.target.shape)}"
        value = self.expr(nest.value)
        axes = " ".join(f"${self.numbers[a]}" for a in nest.axes)
        self.lines.append(f"{target} [{axes}] = {value}")

    def expr(self, e: Expr) -> str:
        if e not in self.numbers:
            if isinstance(e, Reduce):
                for axis in e.axes:
                    self.expr(axis)
            arguments = " ".join(self.expr(c) for c in children(e))
            self.numbers[e] = len(self.numbers)
            self.lines.append(f"${self.numbers[e]} = {self.head(e)} {arguments}".rstrip())
        return f"${self.numbers[e]}"

    def head(self, e: Expr) -> str:
        kind = f"{type(e).__name__.lower()}.{e.dtype.value}"
        match e:
            case Int(value=value):
                return f"{kind} {value}"
            case Var(extent=extent):
                return f"{kind} {extent}"
            case Load(source=source):
                shape = list(source.shape)
                return f"{kind} {self.names[source]} {element(source).value}{shape}"
            case Binary(kind=k) | Compare(kind=k):
                return f"{kind} {k}"
            case Reduce(kind=k, axes=axes):
                return f"{kind} {k} [{' '.join(f'${self.numbers[a]}' for a in axes)}]"
            case Cast(a=a):
                return f"{kind} {a.dtype.value}"
        return kind


def work_key(body: Graph) -> str:
    """Canonical text of a kernel's work: operands by position, names and scales dropped.

    Constants inside of the body are named by content.
    """
    names: dict[Source, str] = {v: f"arg{i}" for i, v in enumerate(body.inputs)}
    names |= {v: f"const#{v.digest}" for v in body.constants}
    return describe(compose(body), names)
