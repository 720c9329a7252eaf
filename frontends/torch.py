"""PyTorch modules become graphs: `load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irc.errors import IRCError, ModelError, TypeCheckError
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.types import Array, DType, Shape
from irc.value import Value

from .builder import Builder, check_size
from .torch_names import node_names, where
from .torch_ops import FILLED, HANDLERS, KEPT, Node
from .torch_program import (
    CURES,
    array_of,
    call_arguments,
    decomposed,
    exported,
    is_random,
    is_tensor,
    opened,
    operator_name,
    output_names,
    tensor_of,
)

FLOATS = ("float16", "bfloat16", "float32", "float64")
READ = "aten._local_scalar_dense"
"""What `tensor.item()` becomes."""
QUANTIZING = ("quantized_decomposed", "torchao")
"""Namespaces of operators whose results are called like their operands: they stand for the same."""
REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""Operators that run a graph of their own under other settings of torch: they mean that graph."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that does not depend on the inputs: torch computes with it. `name` is that of the
    parameter, or of the node that made it."""

    tensor: Any
    name: str


def load(
    module: Any, example_inputs: Any = None, dynamic: Any = None, name: str | None = None
) -> Graph:
    """The graph of an `nn.Module` or `ExportedProgram`: NHWC inside, constants folded.

    `example_inputs` are the arguments of one call: a tensor, a tuple, or a dictionary by name.
    Their shapes are the graph's; `dynamic` goes to torch.export as `dynamic_shapes`, for modules
    that it takes no other way. float16, bfloat16 and float64 become f32. Raises `ModelError` for
    what can't be exported and for what is not supported, all operators at once.
    """
    program = exported(module, example_inputs, dynamic)
    title = name or _title(module)
    shapes = None if example_inputs is None else _shapes(program, example_inputs)
    return _Importer(decomposed(program), shapes or {}).graph(title)


def load_file(path: Path, shapes: Mapping[str, Shape]) -> Graph:
    """The graph of a `.pt2` file; `shapes` pins dynamic dimensions by input name."""
    return _Importer(decomposed(opened(path)), shapes).graph(identifier(path.stem))


def identifier(text: str) -> str:
    """A name that C and file systems take: letters, digits, underscores."""
    made = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text)
    made = made.strip("_") or "model"
    return f"m_{made}" if made[0].isdigit() else made


def _title(module: Any) -> str:
    kind = type(module).__name__
    return "model" if kind in ("ExportedProgram", "GraphModule") else identifier(kind.lower())


def _shapes(program: Any, example_inputs: Any) -> dict[str, Shape]:
    """The shapes of the examples by the names of the program's inputs, in order."""
    args, kwargs = call_arguments(example_inputs)
    names = [s.arg.name for s in program.graph_signature.input_specs if _is_input(s)]
    leaves = [v for v in _leaves((args, kwargs)) if is_tensor(v)]
    if len(leaves) != len(names):
        raise ModelError(f"{len(leaves)} example tensors are given, the program takes {names}")
    return {n: tuple(int(d) for d in v.shape) for n, v in zip(names, leaves, strict=True)}


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for entry in tree.values() for leaf in _leaves(entry)]
    if isinstance(tree, list | tuple):
        return [leaf for entry in tree for leaf in _leaves(entry)]
    return [tree]


def _is_input(spec: Any) -> bool:
    """Whether an input of the program is a tensor that the caller gives."""
    return spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"


class _Importer:
    """Imports one program."""

    def __init__(self, program: Any, shapes: Mapping[str, Shape]) -> None:
        self.program = program
        self.shapes = shapes
        self.builder = Builder()
        self.constants: dict[int, tuple[Known, Const]] = {}
        self.names: dict[Any, str] = {}

    def graph(self, name: str) -> Graph:
        """The whole program."""
        self.check_pure()
        fx = self.program.graph_module
        env, inputs = self.placeholders()
        self.check_supported(fx, set(inputs))
        results = self.run(fx, env)
        outputs, names = self.outputs(results)
        made = Graph(name, tuple(inputs.values()), outputs, names)
        _check_constants(made)
        return made

    def check_pure(self) -> None:
        """No state that a call changes."""
        signature = self.program.graph_signature
        changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
        if changed:
            raise ModelError(
                f"the module changes {', '.join(map(repr, changed[:5]))} when it is called, which"
                " is not supported; call .eval() on it first, if that is its training mode"
            )

    # ---------------------------------------------------------------- inputs and outputs

    def placeholders(self) -> tuple[dict[Any, Any], dict[Any, Input]]:
        """What the program's inputs stand for: parameters, constants, and inputs of the graph."""
        env: dict[Any, Any] = {}
        inputs: dict[Any, Input] = {}
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        pairs = list(zip(nodes, self.program.graph_signature.input_specs, strict=True))
        self.check_shapes([n.name for n, spec in pairs if _is_input(spec)])
        for node, spec in pairs:
            if _is_input(spec):
                inputs[node] = env[node] = self.input(node)
            elif spec.kind.name == "USER_INPUT":
                env[node] = spec.arg.value
            else:
                env[node] = Known(self.stored(spec), spec.target)
        return env, inputs

    def check_shapes(self, names: list[str]) -> None:
        """Shapes are given for inputs alone."""
        for name in self.shapes:
            if name not in names:
                raise ModelError(f"a shape is given for {name!r}, the program's inputs are {names}")

    def stored(self, spec: Any) -> Any:
        """The tensor of a parameter, buffer or constant."""
        for place in (self.program.state_dict, self.program.constants):
            if spec.target in place:
                return place[spec.target]
        raise ModelError(f"{spec.target!r} is no tensor of the program ({spec.kind.name})")

    def input(self, node: Any) -> Input:
        """An input of the graph; dynamic dimensions are those of the shape that is given."""
        fake = node.meta["val"]
        dtype = element_type(fake.dtype, f"input {node.name!r}")
        given = self.shapes.get(node.name)
        dims = [d if isinstance(d, int) else None for d in fake.shape]
        if given is None:
            given = self.own_shape(node, dims)
        if len(given) != len(dims) or any(
            d not in (None, g) for d, g in zip(dims, given, strict=True)
        ):
            raise ModelError(
                f"input {node.name!r}: shape {list(given)} is given, the program says"
                f" [{', '.join(map(str, fake.shape))}]"
            )
        check_size(dtype.numpy.itemsize, given)
        return Input(dtype, given, name=node.name)

    def own_shape(self, node: Any, dims: list[int | None]) -> Shape:
        """The shape that the program states."""
        known = tuple(d for d in dims if d is not None)
        if len(known) == len(dims):
            return known
        example = ",".join("N" if d is None else str(d) for d in dims)
        raise ModelError(
            f"input {node.name!r}: shape [{example}] has dynamic dimensions; pin them by example"
            f" inputs, or --shape {node.name}={example} with a number for each N"
        )

    def outputs(self, results: Any) -> tuple[tuple[Value, ...], tuple[str, ...]]:
        """The graph's outputs and their names; what is no tensor is left out."""
        names = output_names(self.program, len(results))
        found: list[tuple[Value, str]] = []
        for entry, name in zip(results, names, strict=True):
            if isinstance(entry, Known | Value):
                found.append((self.value(entry), name))
        if not found:
            raise ModelError("the program has no tensor as its result")
        return tuple(v for v, _ in found), tuple(n for _, n in found)

    # ---------------------------------------------------------------- nodes

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
        cure = f"; numbers are read out of tensors: {CURES}" if READ in missing else ""
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
                return _resolved(node.args[0], env)
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
            return self.run(inner, dict(zip(holders, _resolved(given, env), strict=True)))
        args, kwargs = _resolved(node.args, env), _resolved(dict(node.kwargs), env)
        flat = _leaves((args, kwargs))
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
        plain = [_unwrapped(v) for v in (args, kwargs)]
        made = node.target(*plain[0], **plain[1])
        name = self.names[node]
        if isinstance(made, list | tuple):
            return tuple(_wrapped(v, f"{name}.{i}") for i, v in enumerate(made))
        return _wrapped(made, name)

    def handled(self, node: Any, op: str, args: Any, kwargs: Any) -> Any:
        """A call by its handler; the result gets the node's name unless it only passes through."""
        if op not in HANDLERS:
            raise ModelError(f"{where(node)}: the operator is not supported")
        name = self.builder.name = self.names[node]
        call = self.node(node, op, args, kwargs)
        made = HANDLERS[op](call)
        call.refuse_unread()
        given = {id(v) for v in _leaves(list(call.arguments.values()))}
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
        values = {key: self.valued(v) for key, v in arguments.items()}
        fake = node.meta.get("val")
        dtype = element_type(fake.dtype, op) if is_tensor(fake) else None
        count = len(node.target._schema.returns)
        return Node(op, where(node), values, defaults, self.builder, dtype, count)

    # ---------------------------------------------------------------- constants

    def valued(self, entry: Any) -> Any:
        """An argument whose constants are values of the graph."""
        if isinstance(entry, Known):
            return self.value(entry)
        if isinstance(entry, list | tuple):
            return [self.valued(v) for v in entry]
        return entry

    def value(self, entry: Known | Value) -> Value:
        """A value; a tensor becomes one constant, however often it is used."""
        if isinstance(entry, Value):
            return entry
        if id(entry) not in self.constants:
            array: Array = array_of(entry.tensor)
            self.constants[id(entry)] = entry, Const(array, name=entry.name)
        return self.constants[id(entry)][1]


# ---------------------------------------------------------------- nodes and arguments


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


def _resolved(entry: Any, env: Mapping[Any, Any]) -> Any:
    """Arguments with nodes replaced by what they stand for."""
    if isinstance(entry, list | tuple):
        return [_resolved(v, env) for v in entry]
    if isinstance(entry, dict):
        return {key: _resolved(v, env) for key, v in entry.items()}
    if hasattr(entry, "all_input_nodes"):
        return env[entry]
    return entry


def _unwrapped(entry: Any) -> Any:
    if isinstance(entry, list | tuple):
        return [_unwrapped(v) for v in entry]
    if isinstance(entry, dict):
        return {key: _unwrapped(v) for key, v in entry.items()}
    return entry.tensor if isinstance(entry, Known) else entry


def _wrapped(made: Any, name: str) -> Any:
    return Known(made, name) if is_tensor(made) else made


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


def element_type(dtype: Any, what: str) -> DType:
    """The element type of a torch dtype; floats are all f32."""
    name = str(dtype).removeprefix("torch.")
    if name in FLOATS:
        return DType.F32
    try:
        return DType.of(name)
    except (TypeCheckError, TypeError):
        raise ModelError(f"{what}: element type {name} is not supported") from None


def _check_constants(graph: Graph) -> None:
    """No NaN, no infinity in what is left of the weights."""
    for c in graph.constants:
        if c.array.dtype.kind == "f" and not np.isfinite(c.array).all():
            raise ModelError(
                f"constant {c.name!r}: NaN or infinite values; the module's weights are broken"
            )
