"""ONNX models become graphs: `load`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from irc.errors import IRCError, ModelError, ShapeError
from irc.frontends.builder import Builder, check_size
from irc.frontends.infinities import without_infinities
from irc.frontends.onnx.control import CONTROL, Control
from irc.frontends.onnx.dynamic import without_dynamic
from irc.frontends.onnx.file import PACKED, SMALL_FLOATS, Tensors, element_type, read_model
from irc.frontends.onnx.inlining import inlined
from irc.frontends.onnx.lists import Entry, Listed, tensor
from irc.frontends.onnx.ops import HANDLERS, Node
from irc.frontends.onnx.ops.quantization import STATED, input_quant
from irc.frontends.onnx.pinned import with_values
from irc.frontends.onnx.scope import Scope
from irc.frontends.onnx.structure import (
    check_names,
    check_supported,
    check_text,
    key,
    needed_in_order,
    opset_of,
    subgraphs,
    where,
)
from irc.graph import Graph
from irc.history import chosen
from irc.names import identifier
from irc.ops.core import Input
from irc.types import Array, DType, Shape, TensorType

Source = str | os.PathLike[str] | bytes | onnx.ModelProto


def load(
    model: Source,
    shapes: Mapping[str, Shape] | None = None,
    name: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of an ONNX model: NHWC inside, constants folded, every shape known.

    `shapes` pins dynamic dimensions, input by input; a batch that alone is dynamic becomes 1.
    `values` turns inputs into constants.
    Inputs and outputs keep the model's names and shapes; float16, bfloat16 and float64 become f32.
    The graph is called `name`, or by the file, or by the model's own name. Raises `ModelError`
    for files that are no model, and for what is not supported, all operators at once.
    """
    proto = read_model(model)
    check_text(proto.graph)
    proto = without_dynamic(inlined(with_values(proto, values or {})))
    path = Path(model) if isinstance(model, str | os.PathLike) else None
    importer = _Importer(proto, Tensors(None if path is None else path.parent))
    title = name or (path.stem if path is not None else "") or proto.graph.name
    return importer.graph(identifier(title), shapes or {})


class _Importer:
    """Imports one model."""

    def __init__(self, proto: onnx.ModelProto, tensors: Tensors) -> None:
        self.proto = proto
        self.tensors = tensors
        self.builder = Builder()
        self.opset = opset_of(proto)
        self.versions = {i.domain: i.version for i in proto.opset_import}

    def graph(self, name: str, shapes: Mapping[str, Shape]) -> Graph:
        """The whole model."""
        proto = self.proto.graph
        check_names(proto)
        nodes = needed_in_order(proto)
        self.check_supported(nodes)
        types = _input_types(proto, shapes)
        notes = _batch_of_one(_inputs(proto), shapes)
        scope = self.scope(proto)
        inputs = [self.input(v, types[v.name], nodes, scope) for v in _inputs(proto)]
        scope.update({v.name: v for v in inputs})
        scope.expect(nodes, (o.name for o in proto.output))
        self.run(nodes, scope)
        outputs = tuple(tensor(scope[o.name], f"output {o.name!r}") for o in proto.output)
        graph = Graph(name, tuple(inputs), outputs, tuple(o.name for o in proto.output))
        graph = without_infinities(graph)
        chosen(graph, notes)
        return graph

    def check_supported(self, nodes: Iterable[NodeProto]) -> None:
        """Every operator that is not supported, at once."""
        check_supported(nodes, {*HANDLERS, *CONTROL}, self.opset, self.versions)

    def scope(self, proto: GraphProto, outer: Scope | None = None) -> Scope:
        """What a graph stores, and the values around it."""
        for t in proto.initializer:
            self.note(t.name, t.data_type)
        for v in proto.input:
            self.note(v.name, v.type.tensor_type.elem_type)
        return Scope(proto.initializer, self.tensors.array, outer)

    def input(
        self, info: ValueInfoProto, type_: TensorType, nodes: Iterable[NodeProto], known: Scope
    ) -> Input:
        """An input of the graph; integers carry the scale that their first reader states."""
        plain = Input.of(type_, info.name)
        if type_.dtype.is_float:
            return plain
        for reader in nodes:
            if info.name in reader.input and key(reader) in STATED:
                names = ((n, plain if n == info.name else known.get(n)) for n in reader.input)
                found = tuple(value if name else None for name, value in names)
                quant = input_quant(self.node(reader, found), plain)
                if quant is not None:
                    return Input(type_.dtype, type_.shape, quant, name=info.name)
        return plain

    def node(self, proto: NodeProto, inputs: tuple[Entry | None, ...]) -> Node:
        """A node for its handler."""
        what = where(proto)

        def tensor(t: TensorProto) -> Array:
            self.note(proto.output[0], t.data_type)
            return self.tensors.array(t, f"{what}: tensor {t.name!r}")

        return Node(proto, inputs, self.builder, self.opset, tensor)

    def note(self, name: str, kind: int) -> None:
        """Remember an element type for which a wider dtype stands."""
        if kind in PACKED or kind in SMALL_FLOATS:
            self.builder.kinds[name] = kind

    def run(self, nodes: Iterable[NodeProto], scope: Scope) -> None:
        """Import nodes in order; their outputs enter the scope."""
        for proto in nodes:
            inputs = tuple(scope[name] if name else None for name in proto.input)
            try:
                results = self.results(proto, inputs, scope)
            except ModelError as error:
                placed = str(error).startswith(where(proto))
                raise error if placed else ModelError(f"{where(proto)}: {error}") from None
            except IRCError as error:
                raise ModelError(f"{where(proto)}: {error}") from None
            except (ValueError, ArithmeticError, LookupError, MemoryError, TypeError) as error:
                kind = type(error).__name__
                raise ModelError(f"{where(proto)}: can't be imported ({kind}: {error})") from error
            self.bind(proto, results, inputs, scope)
            scope.done(proto)

    def results(
        self, proto: NodeProto, inputs: tuple[Entry | None, ...], scope: Scope
    ) -> tuple[Entry, ...]:
        """The values of a node's outputs, as many as its handler makes."""
        self.builder.name = next((o for o in proto.output if o), "")
        node = self.node(proto, inputs)
        node.check_schema()
        if key(proto) in CONTROL:
            made = CONTROL[key(proto)](Control(self, node, scope))
            node.refuse_unread()
            return made
        results = HANDLERS[key(proto)](node)
        node.refuse_unread()
        return results if isinstance(results, tuple) else (results,)

    def bind(
        self,
        proto: NodeProto,
        results: tuple[Entry, ...],
        inputs: tuple[Entry | None, ...],
        scope: Scope,
    ) -> None:
        """Name the results and enter them; what only passes through keeps its name."""
        for name, value in zip(proto.output, results, strict=False):
            passes = any(value is v for v in inputs) or key(proto) in CONTROL
            if not (isinstance(value, Listed) or passes or value.name == name):
                value = value.replace(name=name)
            scope[name] = value
        missing = [o for o in list(proto.output)[len(results) :] if o]
        for name in missing:
            if self.is_read(name):
                raise ModelError(f"{where(proto)}: its output {name!r} is not supported")

    def is_read(self, name: str) -> bool:
        """Whether any node or output of the model reads a value, subgraphs included."""

        def read(graph: GraphProto) -> bool:
            return any(o.name == name for o in graph.output) or any(
                name in n.input or any(map(read, subgraphs(n))) for n in graph.node
            )

        return read(self.proto.graph)


# ---------------------------------------------------------------- inputs


def _inputs(proto: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller gives: those that no initializer stands for."""
    stored = {t.name for t in proto.initializer}
    return [v for v in proto.input if v.name not in stored]


def _input_types(proto: GraphProto, shapes: Mapping[str, Shape]) -> dict[str, TensorType]:
    inputs = _inputs(proto)
    names = [v.name for v in inputs]
    for name in shapes:
        if name not in names:
            raise ModelError(f"a shape is given for {name!r}, the model's inputs are {names}")
    symbols = _symbols(inputs, shapes)
    return {v.name: _input_type(v, shapes.get(v.name), symbols) for v in inputs}


def _batch_of_one(inputs: list[ValueInfoProto], shapes: Mapping[str, Shape]) -> list[str]:
    """What is said of inputs whose batch is dynamic and was not pinned: that it is 1."""
    pinned = _symbols(inputs, shapes)
    example = [
        f"--shape {v.name}={','.join(['N', *map(str, dims[1:])])}"
        for v in inputs
        if v.name not in shapes and (dims := _dims(v))
        and isinstance(dims[0], str) and dims[0] not in pinned
    ]  # fmt: skip
    if not example:
        return []
    return [f"the model's batch is dynamic, 1 was taken; for another: {' '.join(example)}"]


def _symbols(inputs: list[ValueInfoProto], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """What the pinned shapes say about symbolic dimensions, for the other inputs too."""
    known: dict[str, int] = {}
    for v in inputs:
        dims = v.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(v.name, ()), strict=False):
            symbol = dim.dim_param
            if symbol and symbol != "?" and known.setdefault(symbol, size) != size:
                raise ModelError(
                    f"input {v.name!r}: dimension {symbol!r} is pinned to {size} here and to"
                    f" {known[symbol]} elsewhere"
                )
    return known


def _input_type(v: ValueInfoProto, pinned: Shape | None, symbols: dict[str, int]) -> TensorType:
    what = f"input {v.name!r}"
    if not v.type.HasField("tensor_type"):
        raise ModelError(f"{what}: is no tensor; sequences, maps and optionals are not supported")
    tensor = v.type.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        raise ModelError(f"{what}: has no element type")
    dtype = DType.of(element_type(tensor.elem_type, what))
    shape = _pinned_shape(v, pinned) if pinned is not None else _own_shape(v, symbols)
    try:
        check_size(dtype.numpy.itemsize, shape)
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from None
    return TensorType(dtype, shape)


def _dims(v: ValueInfoProto) -> list[int | str] | None:
    """A number or a symbol for each axis, None where even their number is unknown."""
    if not v.type.tensor_type.HasField("shape"):
        return None
    dims = v.type.tensor_type.shape.dim
    return [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims]


def _pinned_shape(v: ValueInfoProto, pinned: Shape) -> Shape:
    """The shape that the user gives, which must fit the model's."""
    given, dims = tuple(int(d) for d in pinned), _dims(v)
    shown = f"input {v.name!r}: shape {list(given)} is given"
    if any(d < 1 for d in given):
        raise ModelError(f"{shown}; every dimension must be positive")
    if dims is None:
        return given
    fits = len(dims) == len(given) and all(
        isinstance(d, str) or d == g for d, g in zip(dims, given, strict=True)
    )
    if not fits:
        raise ModelError(f"{shown}, the model says [{', '.join(map(str, dims))}];"
                         " only dynamic dimensions can be pinned")
    return given


def _own_shape(v: ValueInfoProto, symbols: dict[str, int]) -> Shape:
    """The shape that the model states; a batch that alone is dynamic is 1."""
    dims = _dims(v)
    if dims is None:
        raise ShapeError(
            f"input {v.name!r}: the model does not state its shape; pin it:"
            f" --shape {v.name}=1,... (shapes={{{v.name!r}: (1, ...)}})",
            v.name,
            None,
        )
    known = [symbols.get(d, d) if isinstance(d, str) else d for d in dims]
    open_axes = [i for i, d in enumerate(known) if isinstance(d, str)]
    if open_axes == [0]:
        known[0] = 1
    elif open_axes:
        example = ",".join(str(d) if isinstance(d, int) else "N" for d in known)
        raise ShapeError(
            f"input {v.name!r}: shape [{', '.join(map(str, dims))}] has dynamic dimensions; pin"
            f" them: --shape {v.name}={example} with a number for each N"
            f" (shapes={{{v.name!r}: (...)}})",
            v.name,
            tuple(d if isinstance(d, int) else None for d in known),
        )
    return tuple(int(d) for d in known)
