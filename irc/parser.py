"""Graphs from IR text; the grammar stands in `irc/text.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irc.errors import IRCError, ParseError
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.plan import Buffer, Plan
from irc.printer import PRINTED, type_text
from irc.streams import State
from irc.types import Array, DType, Quant, TensorType
from irc.value import OPS, Value, attribute_fields, may_lack, operand_fields

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
    states: list[State] = field(default_factory=list)


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
        names, made = tuple(n for n, _ in outputs), tuple(v for _, v in outputs)
        states = tuple(scope.states)
        graph = self.built(lambda: Graph(name, inputs, made, names, states=states))
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
        if self.take("from"):
            scope.states.append(self.state(made))
        scope.places[made] = self.place()
        return made

    def state(self, v: Input) -> State:
        output = str(json.loads(self.expect_kind("string")))
        self.expect("=")
        given = self.array()
        return self.built(lambda: State(v.name, output, _filled(v, given)))  # type: ignore[no-any-return]

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
        missing = names[len(operands) :]
        if len(operands) > len(names) or not may_lack(cls, missing):
            raise self.wrong(f"{cls.op} takes {len(names)} operands, {len(operands)} given")
        fields |= dict(zip(names, operands, strict=False))
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
            found = PRINTED.get(key)
        if found is None:
            raise self.error("a constant that is not in the sidecar .npz, which irc show -o writes")
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
        more: dict[str, int] = {}
        while self.take(","):
            key = "missing" if self.token == "missing" or "axis" in more else "axis"
            self.expect(key)
            self.expect("=")
            more[key] = self.integer()
        self.expect(")")
        return self.built(lambda: Quant(scale, zero, **more))  # type: ignore[no-any-return]

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


def _filled(v: Input, given: Any) -> Array:
    """The numbers of an input, all or one for all."""
    numbers = np.asarray(given, v.type.dtype.numpy)
    whole = numbers.size == v.type.size
    return numbers.reshape(v.shape) if whole else np.full(v.shape, numbers)


def _label_name(label: str) -> str:
    body = re.sub(r"#\d+\Z", "", label[1:])
    if body.startswith('"'):
        return str(json.loads(body))
    return "" if body.isdigit() else body


def _number(token: str) -> int | float:
    return int(token) if re.fullmatch(r"-?\d+", token) else float(token)


def _planned(graph: Graph, arena: tuple[int, int], scope: _Scope) -> Graph:
    places = [scope.places.get(v, (None, None)) for v in graph.order]
    plan = Plan(*arena, tuple(p[0] for p in places), tuple(p[1] for p in places))
    return replace(graph, plan=plan)
