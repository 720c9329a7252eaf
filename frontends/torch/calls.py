"""The nodes of a torch program: each call by its handler, or by torch where all is known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc.errors import IRCError, ModelError
from irc.frontends.builder import Builder
from irc.frontends.torch.higher_order import Higher, higher
from irc.frontends.torch.names import node_names, where
from irc.frontends.torch.ops import FILLED, KEPT, Complex, Node, results_of
from irc.frontends.torch.program import is_tensor, operator_name, tensor_of, torch
from irc.frontends.torch.regions import Region, needed, regions, supported
from irc.frontends.torch.selected import Selected, Selection, chooses, is_chosen, number
from irc.frontends.torch.values import (
    Constants,
    Known,
    element_type,
    leaves,
    part_type,
    resolved,
    unwrapped,
    wrapped,
)
from irc.ops.core import Const
from irc.ops.selection import Where
from irc.types import Shape
from irc.value import Value

QUANTIZING = ("quantized_decomposed", "torchao")
"""Namespaces of operators whose results are called like their operands: they stand for the same."""


@dataclass
class Calls:
    """Imports the calls of one program."""

    builder: Builder = field(default_factory=Builder)
    constants: Constants = field(default_factory=Constants)
    names: dict[Any, str] = field(default_factory=dict)

    def run(self, fx: Any, env: dict[Any, Any]) -> Any:
        """Import the nodes of a graph; what its output node returns."""
        order = needed(fx.graph)
        self.names |= node_names(n for n in order if n.op == "call_function" and not _item(n))
        for node in order:
            if node.op == "output":
                return self.known(resolved(node.args[0], env))
            if node.op == "get_attr":
                env[node] = self.attribute(fx, node)
            elif node.op == "call_function":
                env[node] = self.placed(fx, node, env)
        raise ModelError("the program returns nothing")

    def known(self, tree: Any) -> Any:
        """What a graph returns or is given, whose shapes must not depend on data."""
        for v in leaves(tree):
            if isinstance(v, Selected):
                v.refuse()
        return tree

    def attribute(self, fx: Any, node: Any) -> Any:
        """A tensor that hangs on the graph; graphs of regions are looked up where they are run."""
        found = fx
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return Known(found, str(node.target)) if is_tensor(found) else None

    def placed(self, fx: Any, node: Any, env: dict[Any, Any]) -> Any:
        """The results of a call; errors name it."""
        try:
            return self.call(fx, node, env)
        except ModelError as error:
            at = where(node.args[0] if _item(node) else node)
            raise error if str(error).startswith(at) else ModelError(f"{at}: {error}") from None
        except IRCError as error:
            raise ModelError(f"{where(node)}: {error}") from None
        except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
            kind = type(error).__name__
            raise ModelError(f"{where(node)}: can't be imported ({kind}: {error})") from error

    def call(self, fx: Any, node: Any, env: dict[Any, Any]) -> Any:
        """The results: of Python's arithmetic on sizes, of torch's on constants, of a handler."""
        op = operator_name(node.target)
        if inner := regions(fx, node):
            runs = [self.run(r.graph, r.bound(resolved(r.given, env))) for r in inner]
            if len(runs) == 1:
                return runs[0]
            return self.chosen(node, resolved(node.args[0], env), runs)
        if several := higher(node):
            self.known(resolved(node.args, env))
            self.builder.name = self.names[node]
            return several(Higher(fx, node, env, self.builder, self.constants, self.inner))
        args, kwargs = resolved(node.args, env), resolved(dict(node.kwargs), env)
        flat = leaves((args, kwargs))
        if _item(node):
            return self.item(node, args)
        if op.startswith("aten.sym_"):
            return _size(node, op, args)
        if is_chosen((args, kwargs)) or chooses(op, args):
            return self.selection(node, op, args, kwargs)
        if not any(isinstance(v, Value | Complex) for v in flat) and op not in KEPT:
            return self.folded(node, args, kwargs)
        return self.handled(node, op, args, kwargs)

    def selection(self, node: Any, op: str, args: Any, kwargs: Any) -> Any:
        """The results of a call that has to do with rows that a mask chooses."""

        def call(args: Any, kwargs: Any) -> Any:
            return self.handled(node, op, args, kwargs)

        self.builder.name = self.names[node]
        args = self.constants.valued(args)
        return Selection(node, op, args, kwargs, self.builder, call).made()

    def inner(self, graph: Any, arguments: Sequence[Any]) -> Any:
        """What a graph returns for these arguments; values made afterwards are named as before."""
        name = self.builder.name
        found = self.run(graph, Region(graph, []).bound(list(arguments)))
        self.builder.name = name
        return found

    def chosen(self, node: Any, condition: Any, runs: list[Any]) -> Any:
        """The results of one of two graphs; where the condition is computed, both are, too."""
        if not isinstance(condition, Value):
            return runs[0] if bool(unwrapped(condition)) else runs[1]
        self.builder.name = self.names[node]
        condition = self.builder.reshape(condition, ())
        pairs = zip(*(map(self.constants.value, run) for run in runs), strict=True)
        return tuple(self.builder.add(Where(condition, a, b)) for a, b in pairs)

    def item(self, node: Any, args: Any) -> Any:
        """One of several results."""
        found = args[0][args[1]]
        if found is None:
            source = node.args[0]
            raise ModelError(
                f"{where(source)}: its output {args[1]} is not supported: use its first one alone"
            )
        return found

    def folded(self, node: Any, args: Any, kwargs: Any) -> Any:
        """A call over constants alone, by torch itself."""
        plain = [unwrapped(v) for v in (args, kwargs)]
        made = node.target(*plain[0], **plain[1])
        name = self.names[node]
        if isinstance(made, list | tuple):
            return tuple(wrapped(v, f"{name}.{i}") for i, v in enumerate(made))
        return wrapped(made, name)

    def handled(self, node: Any, op: str, args: Any, kwargs: Any) -> Any:
        """A call by its handler; the result gets the node's name unless it only passes through."""
        if not supported(op):
            raise ModelError(f"{where(node)}: the operator is not supported")
        name = self.builder.name = self.names[node]
        call = self.node(node, op, args, kwargs)
        made = results_of(call)
        call.refuse_unread()
        given = {id(v) for v in _tensors(list(call.arguments.values()))}
        if op.partition(".")[0] in QUANTIZING and isinstance(made, Value):
            return made.replace(name=_first(call).name)
        if isinstance(made, tuple):
            names = (name if i == 0 else f"{name}.{i}" for i in range(len(made)))
            return tuple(_named(v, n, given) for v, n in zip(made, names, strict=True))
        if made.shape != _shape_of(node, made.shape):
            expected = list(_shape_of(node, made.shape))
            raise ModelError(f"{where(node)}: {list(made.shape)} was made, torch says {expected}")
        if op in FILLED and isinstance(made, Const):
            return Known(tensor_of(made.array), name)
        return _named(made, name, given)

    def node(self, node: Any, op: str, args: Any, kwargs: Any) -> Node:
        """The call for its handler."""
        schema = node.target._schema.arguments
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        named = {a.name: v for a, v in zip(schema, args, strict=False)}
        arguments = {**defaults, **named, **kwargs}
        values = {key: self.constants.valued(v) for key, v in arguments.items()}
        fake = node.meta.get("val")
        dtype = element_type(part_type(fake.dtype), op) if is_tensor(fake) else None
        count = len(node.target._schema.returns)
        paired = is_tensor(fake) and fake.dtype.is_complex
        dense = _dense(node.args[0] if node.args else None)
        return Node(op, where(node), values, defaults, self.builder, dtype, count, paired, dense)


def _dense(operand: Any) -> bool:
    """Whether a tensor of the program lies in memory in the order of its axes, without gaps."""
    fake: Any = getattr(operand, "meta", {}).get("val")
    if not is_tensor(fake) or fake.layout is not torch().strided:
        return False
    try:
        return bool(fake.is_contiguous()) and fake.storage_offset() == 0
    except RuntimeError:  # of sizes that torch knows by a name alone: read out of a tensor
        return False


def _item(node: Any) -> bool:
    return node.op == "call_function" and operator_name(node.target) == "getitem"


def _size(node: Any, op: str, args: Any) -> int:
    """The extent of an axis, or the number of elements."""
    x = args[0]
    if isinstance(x, Selected):
        return number(node, op, x, *args[1:])
    shape: Shape = x.shape if isinstance(x, Value) else tuple(x.tensor.shape)
    if op == "aten.sym_size":
        return int(shape[args[1]])
    if op == "aten.sym_numel":
        return int(np.prod(shape))
    raise ModelError(f"{op} is not supported")


def _tensors(arguments: list[Any]) -> Iterator[Any]:
    """The tensors among arguments, complex ones and their parts."""
    for leaf in leaves(arguments):
        yield leaf
        if isinstance(leaf, Complex):
            yield from (leaf.real, leaf.imag)


def _named(v: Any, name: str, given: Collection[int]) -> Any:
    """A result under the name of its node, unless it is one of the operands."""
    if isinstance(v, Complex):
        parts = ((v.real, "real"), (v.imag, "imag"))
        return Complex(*(_named(part, f"{name}.{kind}", given) for part, kind in parts))
    if v is None or id(v) in given or v.name == name:
        return v
    return v.replace(name=name)


def _first(call: Node) -> Value:
    return next(v for v in call.arguments.values() if isinstance(v, Value))


def _shape_of(node: Any, made: Shape) -> Shape:
    """What torch says of a result's shape, as far as it is fixed."""
    fake = node.meta.get("val")
    if not is_tensor(fake) or len(fake.shape) != len(made):
        return made
    return tuple(d if isinstance(d, int) else m for d, m in zip(fake.shape, made, strict=True))
