"""A graph written as an ONNX model: operator by operator, transposes only where they are needed.

Images are NHWC in the IR and NCHW in ONNX. A value has a *plain* name (its shape in the IR), a
*planar* one (NCHW), or both: whichever an operator asks for is made by a Transpose if it isn't
there yet, and what nobody asks for is left out at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from irc.errors import GraphError, IRCError
from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant
from irc.value import Value

OPSET = 21
OPSETS = {"": OPSET, "ai.onnx.ml": 3}
"""The version of each domain's operators."""
IR_VERSION = 10
LARGEST = (1 << 31) - 1
"""Bytes of a protocol buffer."""
TO_PLANAR, TO_PLAIN = (0, 3, 1, 2), (0, 2, 3, 1)


class Layout(Enum):
    """How the axes of an image lie."""

    PLAIN = "NHWC"
    PLANAR = "NCHW"


Exporter = Callable[["Writer", Any], str]
"""Emits a node's operators in the writer's current layout; returns the name of the result."""

EXPORTERS: dict[type[Value], tuple[Exporter, frozenset[Layout]]] = {}
"""How each op is written, and in which layouts it can be."""


def exports(
    *ops: type[Value], layouts: tuple[Layout, ...] = (Layout.PLAIN,)
) -> Callable[[Exporter], Exporter]:
    """Register a function as what writes these ops."""

    def register(f: Exporter) -> Exporter:
        for each in ops:
            EXPORTERS[each] = (f, frozenset(layouts))
        return f

    return register


EITHER = (Layout.PLAIN, Layout.PLANAR)


class Writer:
    """The model under construction."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layout = Layout.PLAIN
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}
        self._known: dict[int, str] = {}
        self._public: dict[str, str] = {}
        self._names: dict[tuple[Value, Layout], str] = {}
        self._taken = {v.name for v in graph.inputs} | set(graph.output_names)
        for v in graph.inputs:
            self._names[v, Layout.PLAIN] = v.name

    def write(self, v: Value) -> None:
        """Emit one node of the graph."""
        if isinstance(v, Const) or v in self.graph.inputs:
            return
        if type(v) not in EXPORTERS:
            raise GraphError(f"{v.op} %{v.name} has no ONNX form that irc writes")
        f, layouts = EXPORTERS[type(v)]
        self.layout = self._choose(v, layouts)
        self._names[v, self.layout] = f(self, v)

    def _choose(self, v: Value, layouts: frozenset[Layout]) -> Layout:
        """Planar where it must be, or may be and costs no transpose."""
        if len(layouts) == 1:
            return next(iter(layouts))
        computed = [o for o in v.operands if not isinstance(o, Const)]
        ready = all((o, Layout.PLANAR) in self._names for o in computed)
        return Layout.PLANAR if v.type.rank == 4 and ready else Layout.PLAIN

    def read(self, v: Value, layout: Layout | None = None) -> str:
        """The name of an operand in the current layout, or in the one asked for."""
        layout = layout or self.layout
        if isinstance(v, Const):
            return self.constant(self._array(v, layout), v.name)
        if (v, layout) not in self._names:
            self._names[v, layout] = self._transposed(v, layout)
        return self._names[v, layout]

    def _array(self, v: Const, layout: Layout) -> Array:
        """A constant; beside planar images one of lower rank is filled up with axes in front."""
        if layout is Layout.PLAIN or v.type.rank == 0:
            return v.array
        full = v.array.reshape((1,) * (4 - v.type.rank) + v.shape)
        return np.ascontiguousarray(full.transpose(TO_PLANAR))

    def _transposed(self, v: Value, layout: Layout) -> str:
        other = Layout.PLAIN if layout is Layout.PLANAR else Layout.PLANAR
        perm = TO_PLANAR if layout is Layout.PLANAR else TO_PLAIN
        return self.emit("Transpose", [self._names[v, other]], perm=list(perm))

    def alias(self, v: Value, layout: Layout, name: str) -> None:
        """`name` is `v` in that layout too."""
        self._names[v, layout] = name

    def has(self, v: Value, layout: Layout) -> bool:
        """Whether a value is there in a layout already."""
        return (v, layout) in self._names

    def axis(self, axis: int) -> int:
        """Where an axis of the IR's image lies in the current layout."""
        return TO_PLANAR.index(axis) if self.layout is Layout.PLANAR else axis

    def emit(self, op: str, inputs: list[str], *, name: str = "", **attributes: Any) -> str:
        """A node of one result; absent attributes are None. Returns the result's name."""
        return self.emit_many(op, inputs, [name], **attributes)[0]

    def emit_many(
        self, op: str, inputs: list[str], names: list[str], **attributes: Any
    ) -> list[str]:
        """As `emit`, with several results, each with a name or an empty one."""
        given = {k: a for k, a in attributes.items() if a is not None}
        results = [self.fresh(name or op.lower()) for name in names]
        self.nodes.append(helper.make_node(op, inputs, results, name=results[-1], **given))
        return results

    def constant(self, array: Array, name: str = "constant") -> str:
        """An initializer; the same array twice is one."""
        if id(array) not in self._known:
            self._known[id(array)] = made = self.fresh(name or "constant")
            self.initializers[made] = array
        return self._known[id(array)]

    def integers(self, values: list[int]) -> str:
        """An initializer of indices."""
        return self.constant(np.array(values, np.int64))

    def fresh(self, name: str) -> str:
        """The name, or the name with a number if it is taken."""
        made, number = name, 1
        while made in self._taken:
            made, number = f"{name}_{number}", number + 1
        self._taken.add(made)
        return made

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        for v, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            self._name_output(self.read(v, Layout.PLAIN), name)
        nodes = _live(self.nodes, self.graph.output_names)
        read = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes, self.graph.name,
            [_info(v.name, v) for v in self.graph.inputs],
            [_info(n, v) for n, v in zip(self.graph.output_names, self.graph.outputs, strict=True)],
            [numpy_helper.from_array(a, n) for n, a in self.initializers.items() if n in read],
        )  # fmt: skip
        domains = dict.fromkeys(node.domain for node in nodes)
        imports = [helper.make_opsetid(d, OPSETS[d]) for d in {"": None, **domains}]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="irc"
        )

    def _name_output(self, inner: str, name: str) -> None:
        """Let an output have its name: its maker takes it, unless that has one already."""
        inner = self._public.get(inner, inner)
        made = any(inner in node.output for node in self.nodes)
        if not made or inner in self._public.values():
            self.nodes.append(helper.make_node("Identity", [inner], [name]))
            return
        self._public[inner] = name
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if n == inner else n for n in names]


def _live(nodes: list[onnx.NodeProto], wanted: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes that the wanted names need."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def element_type(dtype: DType) -> int:
    """ONNX's number of an element type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype.numpy))


def _info(name: str, v: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type(v.type.dtype), v.shape)


def _settled(graph: Graph) -> Graph:
    """The graph in which i8 values of pairs that are moved have the same pair once more, which
    changes nothing: else onnxruntime puts one of its own there, and mixes i8 with u8."""
    new: dict[Value, Value] = {}
    for v in graph.order:
        made = v.map_operands(lambda o: new[o]) if v.operands else v
        quant = _quant_of_moved(made) if made.moves else None
        if quant is not None:
            made = Quantize(made, DType.I8, quant, name=f"{v.name}.q")
            made = Dequantize(made, name=f"{v.name}.dq")
        new[v] = made
    return graph.with_outputs(tuple(new[v] for v in graph.outputs))


def _quant_of_moved(v: Value) -> Quant | None:
    """The scale of what is moved, if that is computed i8 values of one scale."""
    types = {o.x.type for o in v.operands if isinstance(o, Dequantize) and o.x.operands}
    quants = {t.quant for t in types}
    if {t.dtype for t in types} != {DType.I8} or len(quants) != 1:
        return None
    (quant,) = quants
    return quant if quant is None or quant.axis is None else None


def export(graph: Graph) -> onnx.ModelProto:
    """A float or QDQ graph as an ONNX model with the same inputs and outputs.

    Raises `GraphError` for an op without an ONNX form, as all ops of integer graphs are.
    """
    graph = _settled(graph)
    writer = Writer(graph)
    for v in graph.order:
        writer.write(v)
    model = writer.model()
    if model.ByteSize() > LARGEST:
        raise GraphError(f"graph {graph.name}: over 2 GB of constants don't fit one ONNX file")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise IRCError(f"graph {graph.name}: ONNX's checker refuses the model: {reason}") from None
    return model
