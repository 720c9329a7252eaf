"""IR text: printer, parser, and files with their sidecar of constants.

    graph    = "graph" "@" NAME "(" [input {"," input}] ")" [arena] "{" {node} return "}"
    input    = VALUE ":" type [place]
    node     = VALUE "=" OP "(" [operand {"," operand}] ")" [attributes] ":" type [place]
             | VALUE "=" "const" (list | HASH) ":" type
    operand  = VALUE | "-" | "[" [VALUE {"," VALUE}] "]"
    return   = "return" [STRING "="] VALUE {"," [STRING "="] VALUE}
    type     = DTYPE "[" [INT {"," INT}] "]" ["q" "(" numbers "," numbers ["," "axis" "=" INT] ")"]
    arena    = "arena" INT "align" INT
    place    = ["at" STRING INT "strides" list] ["scratch" INT]
    VALUE    = "%" (IDENTIFIER | STRING | INT) ["#" INT]

`%3` is a nameless value; `%y#2` is the second value that is called y. Long arrays print as
content hashes; `parse` finds them in the constants it is given, or among those still alive.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from irc.errors import IRCError, ParseError
from irc.graph import Graph
from irc.ops.core import Const, Input, digest
from irc.plan import Buffer, Plan
from irc.types import Array, DType, Quant, TensorType
from irc.value import OPS, Value, attribute_fields, operand_fields

INLINE = 8
"""Arrays of up to this many elements are printed in place."""

_printed: WeakValueDictionary[str, Array] = WeakValueDictionary()
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]*\Z")

# ---------------------------------------------------------------- printing


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
            f"{self.labels[v]}: {type_text(v.type)}{self.place(i)}" for i, v in enumerate(g.inputs)
        )
        arena = f" arena {g.plan.arena} align {g.plan.align}" if g.plan else ""
        lines = [f"graph @{_word(g.name)}({inputs}){arena} {{"]
        known = set(g.inputs)
        lines += [f"  {self.node(i, v)}" for i, v in enumerate(g.order) if v not in known]
        lines += [f"  return {', '.join(self.output(i) for i in range(len(g.outputs)))}", "}"]
        return f"\n{self.indent}".join(lines)

    def output(self, i: int) -> str:
        name, label = self.graph.output_names[i], self.labels[self.graph.outputs[i]]
        return label if label == f"%{_word(name)}" else f"{json.dumps(name)} = {label}"

    def node(self, index: int, v: Value) -> str:
        head = f"{self.labels[v]} = {v.op}"
        if isinstance(v, Const):
            return f"{head} {_array(v.array)} : {type_text(v.type)}"
        operands = ", ".join(self.operand(getattr(v, f)) for f in operand_fields(type(v)))
        shown = {k: a for k, a in v.attributes.items() if k not in v.declares}
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
    if q.axis is None:
        return f"q({_literal(float(q.tensor_scale))}, {q.zero_point})"
    scale = _array(np.asarray(q.scale, np.float64))
    zero = q.zero_point
    point = str(zero) if isinstance(zero, int) else _array(np.asarray(zero, np.int64))
    return f"q({scale}, {point}, axis = {q.axis})"


def _array(array: Array) -> str:
    if array.size <= INLINE:
        return _literal(tuple(array.reshape(-1).tolist()))
    key = digest(array)
    _printed[key] = array
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
    found: dict[str, Array] = {}
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


def write(graph: Graph, path: str | Path) -> None:
    """Write `path` and, next to it, the `.npz` of its long constants."""
    path = Path(path)
    path.write_text(print_graph(graph) + "\n")
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **constants(graph))


def read(path: str | Path) -> Graph:
    """Read what `write` wrote; raises `ParseError` naming the line at fault."""
    path = Path(path)
    sidecar = path.with_suffix(".npz")
    try:
        text = path.read_text()
        arrays = dict(np.load(sidecar, allow_pickle=False)) if sidecar.exists() else {}
    except (OSError, ValueError) as error:
        raise ParseError(f"can't read {path}: {error}") from None
    return parse(text, arrays)


# ---------------------------------------------------------------- parsing

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<value>%(?:[A-Za-z_][A-Za-z0-9_./\-]*|"(?:[^"\\]|\\.)*"|\d+)(?:\#\d+)?(?![\w"]))
  | (?P<hash>\#[0-9a-f]{12}\b)
  | (?P<number>-?(?:(?:inf|nan)(?![\w./\-])|\d+(?:\.\d+)?(?:e[+-]?\d+)?))
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<word>[A-Za-z_][A-Za-z0-9_./\-]*)
  | (?P<mark>[@(){}\[\],:=\-])
  | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_DTYPES = {d.value: d for d in DType}
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


@dataclass
class _Scope:
    values: dict[str, Value] = field(default_factory=dict)
    places: dict[Value, tuple[Buffer | None, int | None]] = field(default_factory=dict)


def parse(text: str, constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph that `print_graph` wrote. `constants` maps content hashes to arrays; hashes not
    in it are looked up among the arrays printed earlier and still alive.

    Raises `ParseError` with the line at fault.
    """
    parser = _Parser(text, constants or {})
    graph = parser.graph()
    parser.expect_kind("end")
    return graph


class _Parser:
    def __init__(self, text: str, constants: Mapping[str, Array]) -> None:
        self.text = text
        self.constants = constants
        self.at = 0
        self.kind = self.token = ""
        self.next_at = self.last_at = 0
        self.advance()

    def error(self, what: str) -> ParseError:
        line = self.text.count("\n", 0, self.at) + 1
        return ParseError(f"line {line}: {what}, found {self.token or 'the end'!r}")

    def wrong(self, what: str) -> ParseError:
        """An error in what was just read."""
        line = self.text.count("\n", 0, self.last_at) + 1
        return ParseError(f"line {line}: {what}")

    def advance(self) -> str:
        token, self.last_at = self.token, self.at
        found = _TOKEN.match(self.text, self.next_at)
        if found is None or found.lastgroup is None:
            self.token = self.text[self.next_at : self.next_at + 20].strip()
            raise self.error("text that is no IR")
        self.kind, self.token = found.lastgroup, found.group(found.lastgroup)
        self.at, self.next_at = found.start(found.lastgroup), found.end()
        return token

    def take(self, token: str) -> bool:
        if self.token != token or self.kind == "string":
            return False
        self.advance()
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"{token!r} wanted")

    def expect_kind(self, kind: str) -> str:
        if self.kind != kind:
            raise self.error(f"a {kind} wanted")
        return self.advance() if kind != "end" else ""

    def items(self, close: str, item: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        while not self.take(close):
            if found:
                self.expect(",")
            found.append(item())
        return found

    def integer(self) -> int:
        try:
            return int(self.expect_kind("number"))
        except ValueError:
            raise self.error("a whole number wanted") from None

    def name(self) -> str:
        if self.kind == "string":
            return str(json.loads(self.advance()))
        return self.expect_kind("word")

    def graph(self) -> Graph:
        self.expect("graph")
        self.expect("@")
        name = self.name()
        scope = _Scope()
        self.expect("(")
        inputs = tuple(self.items(")", lambda: self.input(scope)))
        arena = self.arena()
        self.expect("{")
        while not self.take("return"):
            self.node(scope)
        outputs = [self.output(scope)]
        while self.take(","):
            outputs.append(self.output(scope))
        self.expect("}")
        graph = self.built(
            lambda: Graph(
                name, inputs, tuple(v for _, v in outputs), tuple(n for n, _ in outputs)
            )
        )
        return graph if arena is None else _planned(graph, arena, scope)

    def built(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ParseError:
            raise
        except (IRCError, TypeError, ValueError) as error:
            raise self.wrong(str(error)) from None

    def arena(self) -> tuple[int, int] | None:
        if not self.take("arena"):
            return None
        size = self.integer()
        self.expect("align")
        return size, self.integer()

    def input(self, scope: _Scope) -> Input:
        label = self.expect_kind("value")
        self.expect(":")
        t = self.type()
        made = Input.of(t, _label_name(label))
        scope.values[label] = made
        scope.places[made] = self.place()
        return made

    def output(self, scope: _Scope) -> tuple[str, Value]:
        if self.kind == "string":
            name = str(json.loads(self.advance()))
            self.expect("=")
            return name, self.value(scope)
        label = self.token
        return _label_name(label), self.value(scope)

    def value(self, scope: _Scope) -> Value:
        if self.kind == "value" and self.token not in scope.values:
            raise self.error("a value that is defined above is wanted")
        return scope.values[self.expect_kind("value")]

    def node(self, scope: _Scope) -> None:
        label = self.expect_kind("value")
        if label in scope.values:
            raise self.error(f"{label} is defined twice")
        self.expect("=")
        op = self.expect_kind("word")
        cls = OPS.get(op)
        if cls is None:
            raise self.error(f"op {op!r} does not exist")
        make = self.const if cls is Const else self.compute
        v, declared = make(cls, _label_name(label), scope)
        if v.type != declared:
            raise self.wrong(f"{label} is {type_text(v.type)}, the text says {type_text(declared)}")
        scope.values[label] = v
        scope.places[v] = self.place()

    def const(self, cls: type[Value], name: str, scope: _Scope) -> tuple[Value, TensorType]:
        data = self.array()
        self.expect(":")
        t = self.type()
        array = self.built(lambda: np.asarray(data, t.dtype.numpy).reshape(t.shape))
        return self.built(lambda: Const(array, t.quant, name=name)), t

    def compute(self, cls: type[Value], name: str, scope: _Scope) -> tuple[Value, TensorType]:
        self.expect("(")
        operands = self.items(")", lambda: self.operand(scope))
        fields: dict[str, Any] = {"name": name}
        names = operand_fields(cls)
        if len(operands) != len(names):
            raise self.wrong(f"{cls.op} takes {len(names)} operands, {len(operands)} given")
        fields |= dict(zip(names, operands, strict=True))
        if self.take("{"):
            fields |= dict(self.items("}", self.attribute))
        self.expect(":")
        t = self.type()
        carried = {"dtype": t.dtype, "dims": t.shape, "quant": t.quant}
        fields |= {key: carried[key] for key in cls.declares}
        unknown = set(fields) - {*names, *attribute_fields(cls), "name"}
        if unknown:
            raise self.wrong(f"{cls.op} has no attribute {sorted(unknown)}")
        return self.built(lambda: cls(**fields)), t

    def operand(self, scope: _Scope) -> Value | tuple[Value, ...] | None:
        if self.take("-"):
            return None
        if self.take("["):
            return tuple(self.items("]", lambda: self.value(scope)))
        return self.value(scope)

    def attribute(self) -> tuple[str, Any]:
        key = self.expect_kind("word")
        self.expect("=")
        return key, self.literal()

    def literal(self) -> Any:
        if self.kind == "string":
            return json.loads(self.advance())
        if self.kind == "number":
            return _number(self.advance())
        if self.take("["):
            return tuple(self.items("]", self.literal))
        if self.token == "graph":
            return self.graph()
        if self.token == "q":
            return self.quant()
        if self.token in _DTYPES:
            return _DTYPES[self.advance()]
        if self.token in _WORDS:
            return _WORDS[self.advance()]
        raise self.error("an attribute's value wanted")

    def array(self) -> Any:
        if self.kind != "hash":
            self.expect("[")
            return self.items("]", self.literal)
        key = self.token[1:]
        found = self.constants.get(key)
        if found is None:
            found = _printed.get(key)
        if found is None:
            raise self.error("a constant that is not in the sidecar .npz")
        self.advance()
        return found

    def type(self) -> TensorType:
        if self.token not in _DTYPES:
            raise self.error("a type wanted")
        dtype = _DTYPES[self.advance()]
        self.expect("[")
        shape = tuple(self.items("]", self.integer))
        quant = self.quant() if self.token == "q" else None
        return self.built(lambda: TensorType(dtype, shape, quant))  # type: ignore[no-any-return]

    def quant(self) -> Quant:
        self.expect("q")
        self.expect("(")
        scale = self.number_or_array(float)
        self.expect(",")
        zero = self.number_or_array(int)
        axis = None
        if self.take(","):
            self.expect("axis")
            self.expect("=")
            axis = self.integer()
        self.expect(")")
        return self.built(lambda: Quant(scale, zero, axis))  # type: ignore[no-any-return]

    def number_or_array(self, kind: Callable[[Any], Any]) -> Any:
        if self.kind == "number":
            return kind(_number(self.advance()))
        return tuple(kind(x) for x in np.asarray(self.array()).tolist())

    def place(self) -> tuple[Buffer | None, int | None]:
        buffer = scratch = None
        if self.take("at"):
            base = str(json.loads(self.expect_kind("string")))
            offset = self.integer()
            self.expect("strides")
            buffer = Buffer(offset, tuple(self.literal()), base)
        if self.take("scratch"):
            scratch = self.integer()
        return buffer, scratch


def _label_name(label: str) -> str:
    body = re.sub(r"#\d+\Z", "", label[1:])
    if body.startswith('"'):
        return str(json.loads(body))
    return "" if body.isdigit() else body


def _number(token: str) -> int | float:
    return int(token) if re.fullmatch(r"-?\d+", token) else float(token)


def _planned(graph: Graph, arena: tuple[int, int], scope: _Scope) -> Graph:
    import dataclasses

    places = [scope.places.get(v, (None, None)) for v in graph.order]
    plan = Plan(*arena, tuple(p[0] for p in places), tuple(p[1] for p in places))
    return dataclasses.replace(graph, plan=plan)
