"""IR text from graphs; the grammar stands in `irc/text.py`."""

from __future__ import annotations

import json
import re
from collections import Counter
from weakref import WeakValueDictionary

import numpy as np

from irc.errors import IRCError
from irc.graph import Graph
from irc.ops.core import Const, digest
from irc.plan import Buffer
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, may_lack, operand_fields

INLINE = 8
"""Arrays of up to this many elements are printed in place."""
PRINTED: WeakValueDictionary[str, Array] = WeakValueDictionary()
"""The arrays that were printed as content hashes and are still alive, by hash."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]*\Z")


def print_graph(graph: Graph, indent: str = "") -> str:
    """The graph as text."""
    return _Printer(graph, indent).graph_text()


class _Printer:
    def __init__(self, graph: Graph, indent: str) -> None:
        self.graph = graph
        self.indent = indent
        self.labels = _labels(graph)

    def graph_text(self) -> str:
        g = self.graph
        inputs = ", ".join(
            f"{self.labels[v]}: {type_text(v.type)}{self.state(v.name)}{self.place(i)}"
            for i, v in enumerate(g.inputs)
        )
        arena = f" arena {g.plan.arena} align {g.plan.align}" if g.plan else ""
        lines = [f"graph @{_word(g.name)}({inputs}){arena} {{"]
        known = set(g.inputs)
        lines += [f"  {self.node(i, v)}" for i, v in enumerate(g.order) if v not in known]
        lines += [f"  return {', '.join(self.output(i) for i in range(len(g.outputs)))}", "}"]
        return f"\n{self.indent}".join(lines)

    def state(self, name: str) -> str:
        """Where an input that is a state comes from, and what it begins with."""
        found = next((s for s in self.graph.states if s.input == name), None)
        if found is None:
            return ""
        initial = _array(found.initial) if found.fill is None else _literal((found.fill,))
        return f" from {json.dumps(found.output)} = {initial}"

    def output(self, i: int) -> str:
        name, label = self.graph.output_names[i], self.labels[self.graph.outputs[i]]
        return label if label == f"%{_word(name)}" else f"{json.dumps(name)} = {label}"

    def node(self, index: int, v: Value) -> str:
        head = f"{self.labels[v]} = {v.op}"
        if isinstance(v, Const):
            return f"{head} {_array(v.array)} : {type_text(v.type)}"
        names = list(operand_fields(type(v)))
        while names and getattr(v, names[-1]) is None and may_lack(type(v), names[-1:]):
            names.pop()
        operands = ", ".join(self.operand(getattr(v, f)) for f in names)
        shown = {
            k: a for k, a in v.attributes.items()
            if k not in v.declares and (a or k not in v.flags)
        }  # fmt: skip
        pairs = ", ".join(f"{k} = {self.attribute(a)}" for k, a in shown.items())
        attributes = f" {{{pairs}}}" if pairs else ""
        return f"{head}({operands}){attributes} : {type_text(v.type)}{self.place(index)}"

    def operand(self, entry: Value | tuple[Value, ...] | None) -> str:
        if entry is None:
            return "-"
        if isinstance(entry, Value):
            return self.labels[entry]
        return f"[{', '.join(self.labels[v] for v in entry)}]"

    def attribute(self, a: object) -> str:
        if isinstance(a, Graph):
            return print_graph(a, self.indent + "  ")
        return _literal(a)

    def place(self, index: int) -> str:
        plan = self.graph.plan
        if plan is None:
            return ""
        buffer, scratch = plan.buffers[index], plan.scratch[index]
        at = "" if buffer is None else f" at {_buffer(buffer)}"
        return at if scratch is None else f"{at} scratch {scratch}"


def _buffer(b: Buffer) -> str:
    return f"{json.dumps(b.base)} {b.offset} strides {list(b.strides)}"


def _labels(graph: Graph) -> dict[Value, str]:
    labels: dict[Value, str] = {}
    seen: Counter[str] = Counter()
    for v in graph.order:
        if not v.name:
            labels[v] = f"%{len(labels)}"
            continue
        seen[v.name] += 1
        count = f"#{seen[v.name]}" if seen[v.name] > 1 else ""
        labels[v] = f"%{_word(v.name)}{count}"
    return labels


def _word(name: str) -> str:
    plain = _IDENTIFIER.match(name) and name not in ("inf", "nan")
    return name if plain else json.dumps(name)


def type_text(t: TensorType) -> str:
    """A type as IR text, scales along an axis included."""
    dense = f"{t.dtype.value}[{','.join(map(str, t.shape))}]"
    return dense if t.quant is None else f"{dense} {_quant(t.quant)}"


def _quant(q: Quant) -> str:
    code = "" if q.missing is None else f", missing = {q.missing}"
    if q.axis is None:
        return f"q({_literal(float(q.tensor_scale))}, {q.zero_point}{code})"
    scale = _array(np.asarray(q.scale, np.float64))
    zero = q.zero_point
    point = str(zero) if isinstance(zero, int) else _array(np.asarray(zero, np.int64))
    return f"q({scale}, {point}, axis = {q.axis}{code})"


def _array(array: Array) -> str:
    if array.size <= INLINE:
        return _literal(tuple(array.reshape(-1).tolist()))
    key = digest(array)
    PRINTED[key] = array
    return f"#{key}"


def _literal(a: object) -> str:
    match a:
        case None:
            return "none"
        case bool():
            return "true" if a else "false"
        case int():
            return str(int(a))
        case float():
            return repr(float(a)) if np.isfinite(a) else {"inf": "inf", "-inf": "-inf"}.get(
                str(float(a)), "nan"
            )
        case str():
            return json.dumps(a)
        case DType():
            return a.value
        case Quant():
            return _quant(a)
        case tuple():
            return f"[{', '.join(_literal(x) for x in a)}]"
    raise IRCError(f"an attribute of type {type(a).__name__} has no text")


def constants(graph: Graph) -> dict[str, Array]:
    """Every array that the text names by hash (bodies included), by that hash."""
    begun = (s.initial for s in graph.states if s.fill is None)
    found: dict[str, Array] = {digest(a): a for a in begun if a.size > INLINE}
    for v in graph.order:
        arrays = [v.array] if isinstance(v, Const) else []
        for quant in (v.type.quant, *(a for a in v.attributes.values() if isinstance(a, Quant))):
            if quant is not None and quant.axis is not None:
                arrays.append(np.asarray(quant.scale, np.float64))
                arrays.append(np.asarray(quant.zero_point, np.int64))
        found |= {digest(a): a for a in arrays if a.size > INLINE}
        for body in v.attributes.values():
            if isinstance(body, Graph):
                found |= constants(body)
    return found
