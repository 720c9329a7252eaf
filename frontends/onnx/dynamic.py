"""Layers that are quantized dynamically, as onnxruntime's quantize_dynamic writes them, become
float layers over quantized weights: calibration then chooses the scales that they would compute.

    q, s, z = DynamicQuantizeLinear(x)
    y = Mul(Cast(ConvInteger(q, w, z, wz)), Mul(s, ws))
 -> y = Conv(x, DequantizeLinear(w, ws, wz))

and MatMulInteger likewise. A bias may be added to the sums, rounded to their units as it runs:

    b' = Reshape(Cast(Floor(Div(b, Mul(s, ws)))), ...)
    y = Mul(Cast(Add(ConvInteger(q, w, z, wz), b')), Mul(s, ws))
 -> y = Conv(x, DequantizeLinear(w, ws, wz), b)
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from irc.frontends.onnx.structure import DOMAINS, reads, subgraphs

LAYERS = {"ConvInteger": ("Conv", 0), "MatMulInteger": ("MatMul", -1)}
"""What a layer becomes, and the axis of its weights' scales."""


def without_dynamic(model: ModelProto) -> ModelProto:
    """The model with float layers in the place of dynamically quantized ones, in bodies too."""
    if not _quantizes(model.graph):
        return model
    made = ModelProto()
    made.CopyFrom(model)
    _rewrite(made.graph, _Layers({}, {}, {}, frozenset()))
    return made


def _quantizes(graph: GraphProto) -> bool:
    return any(
        n.op_type == "DynamicQuantizeLinear" or any(map(_quantizes, subgraphs(n)))
        for n in graph.node
    )


def _rewrite(graph: GraphProto, around: _Layers) -> None:
    """Replace the layers of a graph, which sees what is `around` it."""
    before = GraphProto()
    before.CopyFrom(graph)
    layers = around.inner(before)
    graph.ClearField("node")
    for node in before.node:
        graph.node.extend(layers.rewritten(node) or [node])
    for node in graph.node:
        for body in subgraphs(node):
            _rewrite(body, layers)


@dataclass(frozen=True)
class _Sums:
    """The integer sums of a layer; the real bias that was added to them in units of `scales`."""

    layer: NodeProto
    bias: str = ""
    scales: tuple[str, ...] = ()

    def scaled_by(self, scales: list[str]) -> bool:
        """Whether these are the scales that the bias was divided by, too."""
        return not self.bias or sorted(self.scales) == sorted(scales)


@dataclass(frozen=True)
class _Layers:
    """Who makes each value, how often it is read, how many scales each tensor holds, and which
    are vectors."""

    makers: dict[str, NodeProto]
    uses: dict[str, int]
    sizes: dict[str, int]
    vectors: frozenset[str]

    def inner(self, graph: GraphProto) -> _Layers:
        """What a graph knows that sees all of this."""
        makers = {o: n for n in graph.node for o in n.output if o}
        uses: dict[str, int] = {}
        for name in [name for n in graph.node for name in reads(n)]:
            uses[name] = uses.get(name, 0) + 1
        for output in graph.output:
            uses[output.name] = uses.get(output.name, 0) + 1
        sizes = {t.name: max([1, *t.dims]) for t in graph.initializer}
        vectors = frozenset(t.name for t in graph.initializer if len(t.dims) == 1)
        return _Layers(
            {**self.makers, **makers}, {**self.uses, **uses}, {**self.sizes, **sizes},
            self.vectors | vectors,
        )  # fmt: skip

    def maker(self, name: str, op: str) -> NodeProto | None:
        node = self.makers.get(name)
        found = node is not None and node.op_type == op and node.domain in DOMAINS
        return node if found else None

    def rewritten(self, scaled: NodeProto) -> list[NodeProto] | None:
        """The float layer that ends in the multiplication `scaled`, or is an attention over one;
        None where there is none."""
        if scaled.op_type == "QAttention":
            return self.attention(scaled)
        if scaled.op_type != "Mul" or len(scaled.input) != 2:
            return None
        for a, b in (tuple(scaled.input), tuple(scaled.input)[::-1]):
            sums, scales = self.sums(a), self.maker(b, "Mul")
            if sums is not None and scales is not None and sums.scaled_by(list(scales.input)):
                return self.float_layer(sums, list(scales.input), scaled)
        return None

    def attention(self, node: NodeProto) -> list[NodeProto] | None:
        """onnxruntime's attention over a dynamically quantized input, as it was before."""
        given = [*node.input, *[""] * 9][:9]
        source = self.maker(given[0], "DynamicQuantizeLinear")
        if source is None or len(source.output) < 3:
            return None
        if (given[3], given[6]) != (source.output[1], source.output[2]):
            return None
        name = f"{node.output[0]}.weights"
        quantized = [given[1], given[4], *filter(None, [given[7]])]
        weights = helper.make_node("DequantizeLinear", quantized, [name], name=name)
        if self.sizes.get(given[4], 1) > 1:
            weights.attribute.append(helper.make_attribute("axis", 1))
        inputs = [source.input[0], name, given[2], given[5], given[8]]
        while not inputs[-1]:
            inputs.pop()
        real = helper.make_node(
            "Attention", inputs, list(node.output), name=node.name, domain=node.domain
        )
        real.attribute.extend(node.attribute)
        return [weights, real]

    def sums(self, name: str) -> _Sums | None:
        """The layer whose sums are cast to floats as `name`, if nothing else reads them."""
        cast = self.maker(name, "Cast")
        if cast is None or self.uses[name] > 1 or self.uses[cast.input[0]] > 1:
            return None
        if _target(cast) != TensorProto.FLOAT:
            return None
        layer, added = self.layer(cast.input[0]), self.maker(cast.input[0], "Add")
        if layer is not None:
            return _Sums(layer)
        if added is None:
            return None
        for a, b in (tuple(added.input), tuple(added.input)[::-1]):
            layer, bias = self.layer(a), self.bias(b)
            if layer is not None and bias is not None and self.uses[a] == 1:
                return _Sums(layer, *bias)
        return None

    def layer(self, name: str) -> NodeProto | None:
        found = [self.maker(name, op) for op in LAYERS]
        return next((n for n in found if n is not None), None)

    def bias(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """The vector that `name` is in whole units, and the scales that make the unit."""
        shaped = self.maker(name, "Reshape")
        cast = self.maker(name if shaped is None else shaped.input[0], "Cast")
        floor = None if cast is None else self.maker(cast.input[0], "Floor")
        divided = None if floor is None else self.maker(floor.input[0], "Div")
        unit = None if divided is None else self.maker(divided.input[1], "Mul")
        if divided is None or unit is None or divided.input[0] not in self.vectors:
            return None
        return divided.input[0], tuple(unit.input)

    def float_layer(
        self, sums: _Sums, scales: list[str], scaled: NodeProto
    ) -> list[NodeProto] | None:
        layer = sums.layer
        source = self.maker(layer.input[0], "DynamicQuantizeLinear")
        if source is None or len(source.output) < 3 or source.output[1] not in scales:
            return None
        if len(layer.input) < 3 or layer.input[2] != source.output[2]:
            return None
        scales.remove(source.output[1])
        (scale,) = scales
        zeros = [name for name in list(layer.input)[3:4] if name]
        op, axis = LAYERS[layer.op_type]
        y = scaled.output[0]
        weights = helper.make_node(
            "DequantizeLinear", [layer.input[1], scale, *zeros], [f"{y}.weights"],
            name=f"{layer.name}.weights",
        )  # fmt: skip
        if self.sizes.get(scale, 1) > 1:
            weights.attribute.append(helper.make_attribute("axis", axis))
        given = [source.input[0], f"{y}.weights"]
        if not sums.bias or op == "Conv":
            given += [sums.bias] if sums.bias else []
            real = helper.make_node(op, given, [y], name=layer.name)
            real.attribute.extend(layer.attribute)
            return [weights, real]
        real = helper.make_node(op, given, [f"{y}.product"], name=layer.name)
        added = helper.make_node("Add", [f"{y}.product", sums.bias], [y], name=scaled.name)
        return [weights, real, added]


def _target(cast: NodeProto) -> int:
    return next((a.i for a in cast.attribute if a.name == "to"), TensorProto.UNDEFINED)
