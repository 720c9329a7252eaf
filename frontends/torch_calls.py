"""The nodes of a torch program: each call by its handler, or by torch where all is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc.errors import IRCError, ModelError
from irc.ops.core import Const
from irc.types import Shape
from irc.value import Value

from .builder import Builder
from .torch_names import node_names, where
from .torch_ops import FILLED, HANDLERS, KEPT, Node
from .torch_program import is_random, is_tensor, operator_name, tensor_of
from .torch_reasons import NO_DATA
from .torch_values import Constants, Known, element_type, leaves, resolved, unwrapped, wrapped

READ = "aten._local_scalar_dense"
"""What `tensor.item()` becomes."""
QUANTIZING = ("quantized_decomposed", "torchao")
"""Namespaces of operators whose results are called like their operands: they stand for the same."""
REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""Operators that run a graph of their own under other settings of torch: they mean that graph."""


@dataclass
class Calls:
    """Imports the calls of one program."""

    builder: Builder = field(default_factory=Builder)
    constants: Constants = field(default_factory=Constants)
    names: dict[Any, str] = field(default_factory=dict)

    def check_supported(self, fx: Any, inputs: set[Any]) -> None:
        """Every operator that is not supported, at once, with the modules that use it."""
        missing: dict[str, list[str]] = {}
        self.find_missing(fx, inputs, missing)
        if not missing:
            return
        listed = "; ".join(
            f"{op} ({', '.join(dict.fromkeys(at[:3]))}{', …' if len(at) > 3 else ''})"
            for op, at in sorted(missing.items())
        )
        cure = f"; numbers are read out of tensors: {NO_DATA}" if READ in missing else ""
        raise ModelError(f"operators that are not supported: {listed}{cure}")

    def find_missing(self, fx: Any, dependent: set[Any], missing: dict[str, list[str]]) -> None:
        """Enter the unsupported operators of a graph that depend on its inputs, or on chance."""
        for node in needed(fx.graph):
            if node.op != "call_function":
                continue
            op = operator_name(node.target)
            if op.rpartition(".")[2] in REGIONS:
                inner, given = self.region(fx, node)
                holders = [n for n in inner.graph.nodes if n.op == "placeholder"]
                pairs = zip(holders, given, strict=True)
                self.find_missing(inner, {h for h, g in pairs if g in dependent}, missing)
                dependent.add(node)
            elif is_random(node.target) and op not in HANDLERS:
                missing.setdefault(op, []).append("random numbers")
            elif any(n in dependent for n in node.all_input_nodes) or op in KEPT:
                if op not in FILLED:
                    dependent.add(node)
                if op not in HANDLERS and not _plain(node.target):
                    missing.setdefault(op, []).append(where(node).removeprefix(f"{op} in "))

    def region(self, fx: Any, node: Any) -> tuple[Any, list[Any]]:
        """The graph that an operator of `REGIONS` runs, and its arguments."""
        at = next(i for i, a in enumerate(node.args) if getattr(a, "op", "") == "get_attr")
        return getattr(fx, node.args[at].target), list(node.args[at + 1 :])

    def run(self, fx: Any, env: dict[Any, Any]) -> Any:
        """Import the nodes of a graph; what its output node returns."""
        order = needed(fx.graph)
        self.names |= node_names(n for n in order if n.op == "call_function" and not _item(n))
        for node in order:
            if node.op == "output":
                return resolved(node.args[0], env)
            if node.op == "get_attr":
                env[node] = self.attribute(fx, node)
            elif node.op == "call_function":
                env[node] = self.placed(fx, node, env)
        raise ModelError("the program returns nothing")

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
            at = where(node)
            raise error if str(error).startswith(at) else ModelError(f"{at}: {error}") from None
        except IRCError as error:
            raise ModelError(f"{where(node)}: {error}") from None
        except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
            kind = type(error).__name__
            raise ModelError(f"{where(node)}: can't be imported ({kind}: {error})") from error

    def call(self, fx: Any, node: Any, env: dict[Any, Any]) -> Any:
        """The results: of Python's arithmetic on sizes, of torch's on constants, of a handler."""
        op = operator_name(node.target)
        if op.rpartition(".")[2] in REGIONS:
            inner, given = self.region(fx, node)
            holders = [n for n in inner.graph.nodes if n.op == "placeholder"]
            return self.run(inner, dict(zip(holders, resolved(given, env), strict=True)))
        args, kwargs = resolved(node.args, env), resolved(dict(node.kwargs), env)
        flat = leaves((args, kwargs))
        if _item(node):
            return self.item(node, args)
        if op.startswith("aten.sym_"):
            return _size(op, args)
        if not any(isinstance(v, Value) for v in flat) and op not in KEPT:
            return self.folded(node, args, kwargs)
        return self.handled(node, op, args, kwargs)

    def item(self, node: Any, args: Any) -> Any:
        """One of several results."""
        found = args[0][args[1]]
        if found is None:
            source = node.args[0]
            raise ModelError(f"{where(source)}: its output {args[1]} is not supported")
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
        if op not in HANDLERS:
            raise ModelError(f"{where(node)}: the operator is not supported")
        name = self.builder.name = self.names[node]
        call = self.node(node, op, args, kwargs)
        made = HANDLERS[op](call)
        call.refuse_unread()
        given = {id(v) for v in leaves(list(call.arguments.values()))}
        if op.partition(".")[0] in QUANTIZING and isinstance(made, Value):
            return made.replace(name=_first(call).name)
        if isinstance(made, tuple):
            return tuple(
                v if v is None or id(v) in given else _named(v, name if i == 0 else f"{name}.{i}")
                for i, v in enumerate(made)
            )
        if made.shape != _shape_of(node, made.shape):
            expected = list(_shape_of(node, made.shape))
            raise ModelError(f"{where(node)}: {made.type} was made, torch says {expected}")
        if op in FILLED and isinstance(made, Const):
            return Known(tensor_of(made.array), name)
        return made if id(made) in given else _named(made, name)

    def node(self, node: Any, op: str, args: Any, kwargs: Any) -> Node:
        """The call for its handler."""
        schema = node.target._schema.arguments
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        named = {a.name: v for a, v in zip(schema, args, strict=False)}
        arguments = {**defaults, **named, **kwargs}
        values = {key: self.constants.valued(v) for key, v in arguments.items()}
        fake = node.meta.get("val")
        dtype = element_type(fake.dtype, op) if is_tensor(fake) else None
        count = len(node.target._schema.returns)
        return Node(op, where(node), values, defaults, self.builder, dtype, count)


def needed(graph: Any) -> list[Any]:
    """The nodes that the output needs, in order; assertions about sizes are not among them."""
    found: set[Any] = set()
    stack = [n for n in graph.nodes if n.op == "output"]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return [n for n in graph.nodes if n in found]


def _plain(target: Any) -> bool:
    """Whether a target is Python's: indexing, arithmetic of sizes."""
    return getattr(target, "_schema", None) is None or operator_name(target).startswith("aten.sym_")


def _item(node: Any) -> bool:
    return node.op == "call_function" and operator_name(node.target) == "getitem"


def _size(op: str, args: Any) -> int:
    """The extent of an axis, or the number of elements."""
    x = args[0]
    shape: Shape = x.shape if isinstance(x, Value) else tuple(x.tensor.shape)
    if op == "aten.sym_size":
        return int(shape[args[1]])
    if op == "aten.sym_numel":
        return int(np.prod(shape))
    raise ModelError(f"{op} is not supported")


def _named(v: Value, name: str) -> Value:
    return v if v.name == name else v.replace(name=name)


def _first(call: Node) -> Value:
    return next(v for v in call.arguments.values() if isinstance(v, Value))


def _shape_of(node: Any, made: Shape) -> Shape:
    """What torch says of a result's shape, as far as it is fixed."""
    fake = node.meta.get("val")
    if not is_tensor(fake) or len(fake.shape) != len(made):
        return made
    return tuple(d if isinstance(d, int) else m for d, m in zip(fake.shape, made, strict=True))
