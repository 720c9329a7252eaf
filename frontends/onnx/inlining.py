"""Functions become what they are made of: a model's own, and the standard's operators that have a
body but no handler here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx.inliner
import onnx.shape_inference
from google.protobuf.message import EncodeError
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto
from onnx.shape_inference import InferenceError

from irc.errors import ModelError
from irc.frontends.onnx.ops import HANDLERS
from irc.frontends.onnx.structure import DOMAINS, OLDEST_OPSET, key, subgraphs

MAX_DEPTH = 8
"""How deeply operators may be defined by others."""
BODIES = "irc.bodies"
"""The domain of bodies that depend on which optional inputs a node has."""


def inlined(proto: ModelProto) -> ModelProto:
    """The model without functions of its own, and without operators that we know by their bodies
    alone. Raises `ModelError` where onnx can't inline them."""
    try:
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        for _ in range(MAX_DEPTH):
            known = _with_bodies(proto)
            if not known:
                break
            proto = _with_own_bodies(_typed(_with_defaults(proto, known)), known)
            proto = onnx.inliner.inline_selected_functions(
                proto, sorted(known), exclude=False, inline_schema_functions=True
            )
    except (RuntimeError, ValueError, TypeError, EncodeError, InferenceError) as error:
        said = str(error).rpartition("failed: ")[2] or error
        raise ModelError(f"the model's functions can't be inlined: {said}") from None
    return proto


def _typed(proto: ModelProto) -> ModelProto:
    """With the types of values, which some bodies depend on, as far as onnx can tell them."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except InferenceError:
        return proto


def _with_bodies(proto: ModelProto) -> set[tuple[str, str]]:
    """The standard operators, as (domain, name), that have no handler but a body in onnx."""
    opset = max((i.version for i in proto.opset_import if i.domain in DOMAINS), default=0)
    if not OLDEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        return set()
    found = set()
    for node in _nodes(proto.graph):
        if node.domain in DOMAINS and key(node) not in HANDLERS and _has_body(node, opset):
            found.add((node.domain, node.op_type))
    return found


def _with_defaults(proto: ModelProto, ops: set[tuple[str, str]]) -> ModelProto:
    """Attributes that are left out written down: a body would find nothing in their place."""
    made = ModelProto()
    made.CopyFrom(proto)
    opset = max(i.version for i in proto.opset_import if i.domain in DOMAINS)
    for node in _nodes(made.graph):
        if (node.domain, node.op_type) not in ops:
            continue
        given = {a.name for a in node.attribute}
        for name, declared in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
            if name not in given and declared.default_value.type:
                node.attribute.append(declared.default_value)
    return made


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)


def _has_body(node: NodeProto, opset: int) -> bool:
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # its stub lacks these
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


# ---------------------------------------------------------------- left-out inputs


def _with_own_bodies(proto: ModelProto, ops: set[tuple[str, str]]) -> ModelProto:
    """Operators with an input left out before others call a function of the model, made for them:
    onnx's inliner asks for the type of every input, and "" has none."""
    types = _types(proto.graph)
    opset = max(i.version for i in proto.opset_import if i.domain in DOMAINS)
    found = False
    for node in proto.graph.node:
        if (node.domain, node.op_type) not in ops or "" not in node.input:
            continue
        body = _own_body(node, types, opset)
        if body is None:
            continue
        body.domain, body.name = BODIES, f"{node.op_type}_{len(proto.functions)}"
        proto.functions.append(body)
        node.domain, node.op_type = BODIES, body.name
        found = True
    if not found:
        return proto
    proto.opset_import.append(onnx.helper.make_opsetid(BODIES, 1))
    return onnx.inliner.inline_local_functions(proto)


def _types(graph: GraphProto) -> dict[str, TypeProto]:
    found = {v.name: v.type for v in (*graph.input, *graph.value_info, *graph.output)}
    for t in graph.initializer:
        found.setdefault(t.name, onnx.helper.make_tensor_type_proto(t.data_type, t.dims))
    return found


def _own_body(
    node: NodeProto, types: dict[str, TypeProto], opset: int
) -> FunctionProto | None:
    """The body that a node's inputs ask for; None where it is the same for all, or a type is
    unknown."""
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if not versions or any(name and name not in types for name in node.input):
        return None
    given = [types[n].SerializeToString() if n else b"" for n in node.input]
    body = FunctionProto()
    body.ParseFromString(
        schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), given
        )
    )
    return body
