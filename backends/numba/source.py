"""Loop nests as plain Python: what a reader would write by hand, and what Numba compiles.

Everything is an int64, which is exact because expressions never overflow their own, narrower
dtype. A subexpression is computed once, in the outermost loop that knows its variables.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from irc.loops import (
    Binary,
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    Loops,
    MulShift,
    Nest,
    Numbering,
    Reduce,
    Select,
    Source,
    Temp,
    Var,
    children,
    walk,
)
from irc.types import DType
from irc.value import Value

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "shl": "<<", "shr": ">>",
    "and": "&", "or": "|", "xor": "^", "lt": "<", "le": "<=", "eq": "==",
    "wrap_add": "+", "wrap_sub": "-", "wrap_mul": "*",
}  # fmt: skip
_CALLED = ("int64", "max", "min", "prange", "range")
"""What the printed code calls: no variable may be named so."""


def python_source(name: str, loops: Loops, arguments: Mapping[Value, str], parallel: bool) -> str:
    """A Python function `name(out, *arguments, *temporaries)` that fills `out`.

    `arguments` names the arrays that are loaded; the temporaries follow in their order. With
    `parallel`, the outermost loop of some extent is a `prange`.
    """
    names: dict[Source, str] = {v: n for v, n in arguments.items()}
    names |= {temp: f"t{i}" for i, temp in enumerate(loops.temps)}
    lines = [f"def {name}({', '.join(['out', *names.values()])}):"]
    for nest in loops.nests:
        target = "out" if nest.target is None else names[nest.target]
        lines += [f"    {line}" for line in _printed(nest, target, names, parallel)]
    return "\n".join(lines) + "\n"


def _printed(nest: Nest, target: str, names: Mapping[Source, str], parallel: bool) -> list[str]:
    numbering = Numbering.of(nest)
    if numbering is None:
        return _NestPrinter(names, parallel).lines(nest, target)
    nothing = Nest(nest.axes, numbering.none, nest.target)
    (axis,) = nest.axes
    numbers = _NestPrinter(names, parallel).numbers(numbering, target, axis.extent)
    return [*_NestPrinter(names, parallel).lines(nothing, target), *numbers]


@dataclass(eq=False)
class _Block:
    """The body of a loop: the variables that it binds, its lines, what is computed in it."""

    binds: tuple[Var, ...]
    lines: list[str] = field(default_factory=list)
    known: dict[Expr, str] = field(default_factory=dict)


class _NestPrinter:
    def __init__(self, names: Mapping[Source, str], parallel: bool) -> None:
        self.names = names
        self.parallel = parallel
        self.taken: Counter[str] = Counter({n: 1 for n in [*names.values(), *_CALLED, "out"]})
        self.variables: dict[Var, str] = {}
        self.free: dict[Expr, frozenset[Var]] = {}
        self.shared: set[Expr] = set()
        self.blocks: list[_Block] = [_Block(())]

    def lines(self, nest: Nest, target: str) -> list[str]:
        self._measure(nest.value)
        for axis in nest.axes:
            self.blocks.append(_Block((axis,)))
        value = self.expr(nest.value)
        if _element(nest).value == "b1":
            value = f"({value}) != 0"
        self.blocks[-1].lines.append(f"{target}[{self._index(nest.axes)}] = {value}")
        spread = self._spread(nest.axes)
        for axis in reversed(nest.axes):
            self._close(axis, "prange" if axis is spread else "range")
        return self.blocks[0].lines

    def numbers(self, found: Numbering, target: str, extent: int) -> list[str]:
        """Each number at its place, the last one of several."""
        self._measure(found.place)
        self.blocks.append(_Block((found.number,)))
        place = self.expr(found.place)
        self.blocks[-1].lines += [
            f"if 0 <= {place} < {extent}:",
            f"    {target}[{place}] = {self.name(found.number)}",
        ]
        self._close(found.number, "range")
        return self.blocks[0].lines

    def _spread(self, axes: Sequence[Var]) -> Var | None:
        wide = [a for a in axes if a.extent > 1]
        return wide[0] if self.parallel and wide else None

    def _measure(self, root: Expr) -> None:
        """Free variables of every node, and which nodes are used more than once."""
        uses: Counter[Expr] = Counter()
        for e in walk(root):
            uses.update(children(e))
            free = frozenset().union(*(self.free[c] for c in children(e)))
            if isinstance(e, Var):
                free = frozenset((e,))
            elif isinstance(e, Reduce):
                free -= set(e.axes)
            self.free[e] = free
        self.shared = {e for e, n in uses.items() if n > 1 and not isinstance(e, Int | Var)}

    def _close(self, axis: Var, kind: str) -> None:
        block = self.blocks.pop()
        outer, name, lines = self.blocks[-1].lines, self.name(axis), block.lines
        if kind == "prange":  # its index is unsigned, and makes floats of sums with signed ones
            index = self._fresh(f"{name}_index")
            lines, name = [f"{name} = int64({index})", *lines], index
        outer.append(f"for {name} in {kind}({axis.extent}):")
        outer += [f"    {line}" for line in lines]

    def name(self, v: Var) -> str:
        if v not in self.variables:
            self.variables[v] = self._fresh(v.label)
        return self.variables[v]

    def _fresh(self, label: str) -> str:
        word = re.sub(r"\W", "_", label)
        if not word.isidentifier() or keyword.iskeyword(word):
            word = f"v_{word}"
        self.taken[word] += 1
        return word if self.taken[word] == 1 else self._fresh(f"{word}{self.taken[word]}")

    def _home(self, e: Expr) -> _Block:
        """The outermost block in which all variables of `e` are bound."""
        for block in reversed(self.blocks):
            if any(v in self.free[e] for v in block.binds):
                return block
        return self.blocks[0]

    def expr(self, e: Expr) -> str:
        if isinstance(e, Int):
            return str(e.value)
        if isinstance(e, Var):
            return self.name(e)
        for block in self.blocks:
            if e in block.known:
                return block.known[e]
        if isinstance(e, Reduce):
            return self._reduce(e)
        text = self._text(e)
        home = self._home(e)
        simple = isinstance(e, Cast)
        if (e not in self.shared and home is self.blocks[-1]) or simple:
            return text
        return self._assign(home, e, text)

    def _assign(self, home: _Block, e: Expr, text: str) -> str:
        label = self.names[e.source] + "_" if isinstance(e, Load) else "v"
        name = self._fresh(label)
        home.lines.append(f"{name} = {text.removeprefix('(').removesuffix(')')}"
                          if _wrapped(text) else f"{name} = {text}")  # fmt: skip
        home.known[e] = name
        return name

    def _reduce(self, e: Reduce) -> str:
        """An accumulator next to where its variables are known, and the loops that fill it."""
        home = self._home(e)
        depth = self.blocks.index(home)
        inner, self.blocks = self.blocks[depth + 1 :], self.blocks[: depth + 1]
        name = self._fresh({"add": "acc", "max": "largest", "min": "smallest"}[e.kind])
        home.lines.append(f"{name} = {_start(e)}")
        self.blocks += [_Block((axis,)) for axis in e.axes]
        body = self.expr(e.body)
        step = f"{name} += {body}" if e.kind == "add" else f"{name} = {e.kind}({name}, {body})"
        self.blocks[-1].lines.append(step)
        for axis in reversed(e.axes):
            self._close(axis, "range")
        home.known[e] = name
        self.blocks += inner
        return name

    def _text(self, e: Expr) -> str:
        match e:
            case Load():
                return self._load(e)
            case Binary(kind="min" | "max" as kind, a=a, b=b):
                return f"{kind}({self.expr(a)}, {self.expr(b)})"
            case Binary(kind=kind, a=a, b=b) | Compare(kind=kind, a=a, b=b):
                return f"({self.expr(a)} {_INFIX[kind]} {self.expr(b)})"
            case Select(condition=c, a=a, b=b):
                return f"({self.expr(a)} if {self.expr(c)} else {self.expr(b)})"
            case Cast(a=a):
                return f"int64({self.expr(a)})" if a.dtype is DType.BOOL else self.expr(a)
            case MulShift(a=a, m=m, s=s, half=False):
                return f"(({self.expr(a)} * {self.expr(m)}) >> {self.expr(s)})"
            case MulShift(a=a, m=m, s=s):
                shift = self.expr(s)
                half = str(1 << (int(shift) - 1)) if shift.isdigit() else f"(1 << ({shift} - 1))"
                return f"(({self.expr(a)} * {self.expr(m)} + {half}) >> {shift})"
        raise TypeError(f"no Python for {type(e).__name__}")

    def _index(self, index: Sequence[Expr]) -> str:
        return ", ".join(self.expr(i) for i in index) or "()"

    def _load(self, e: Load) -> str:
        text = f"int64({self.names[e.source]}[{self._index(e.index)}])"
        if e.fill is None:
            return text
        tests = [
            f"0 <= {self.expr(i)} < {extent}"
            for i, extent in zip(e.index, e.source.shape, strict=True)
            if not (isinstance(i, Var) and i.extent <= extent)
        ]
        return f"({text} if {' and '.join(tests) or 'True'} else {self.expr(e.fill)})"



def _start(e: Reduce) -> int:
    """The neutral element of a reduction."""
    return {"add": 0, "max": e.dtype.min, "min": e.dtype.max}[e.kind]


def _element(nest: Nest) -> DType:
    return nest.target.element if isinstance(nest.target, Temp) else nest.value.dtype


def _wrapped(text: str) -> bool:
    """Whether one pair of parentheses encloses the whole text."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1 and text.startswith("(")
    return False
