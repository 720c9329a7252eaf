"""Checks of an ONNX graph's form that come before any meaning: names, order, known ops."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

import onnx
from onnx import GraphProto, NodeProto

from irc.errors import ModelError
from irc.frontends.onnx.refused import DOMAIN_REASONS, NO_OPERATOR, REASONS

OLDEST_OPSET = 6
DOMAINS = ("", "ai.onnx")
"""The two spellings of the standard domain."""


def key(node: NodeProto) -> str:
    """An operator's name, behind its domain unless that is the standard's."""
    return f"{node.domain}.{node.op_type}" if node.domain not in DOMAINS else node.op_type


def where(node: NodeProto) -> str:
    """A node as messages name it: op, own name if it has one, first output."""
    op = key(node)
    named = f" {node.name!r}" if node.name else ""
    outputs = [o for o in node.output if o]
    return f"{op}{named}" + (f" (output {outputs[0]!r})" if outputs else "")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators; raises `ModelError` where it is missing or beyond
    what is supported."""
    versions = [i.version for i in model.opset_import if i.domain in DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if not versions and any(n.domain in DOMAINS for n in model.graph.node):
        raise ModelError("the model imports no standard operators (domain ai.onnx)")
    opset = max(versions, default=newest)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"the model uses opset {opset}, {OLDEST_OPSET} is the oldest that is supported;"
            " convert it with onnx.version_converter"
        )
    if opset > newest:
        raise ModelError(
            f"the model uses opset {opset}, the installed onnx knows up to {newest}; update onnx"
        )
    return opset


def check_text(graph: GraphProto) -> None:
    """Raise `ModelError` where a name is no text (protobuf hands out such fields as bytes)."""
    names: list[str | bytes] = [graph.name, *_definitions(graph)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input]
        names += [a.name for a in node.attribute]
        for inner in subgraphs(node):
            check_text(inner)
    for info in (*graph.input, *graph.output):
        names += [info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim)]
    for tensor in graph.initializer:
        names += [text for entry in tensor.external_data for text in (entry.key, entry.value)]
    broken = [name for name in names if isinstance(name, bytes)]
    if broken:
        raise ModelError(f"the file is damaged: {broken[0]!r} should be a name")


def check_names(graph: GraphProto, outer: Collection[str] = ()) -> None:
    """Raise `ModelError` for values defined twice, read but never defined, or outputs that
    nothing makes. `outer` are the names that an enclosing graph defines."""
    defined = _definitions(graph)
    if "" in defined:
        raise ModelError(f"graph {graph.name!r} has an input or initializer without a name")
    twice = [name for name, times in Counter(defined).items() if times > 1]
    if twice:
        raise ModelError(f"value {twice[0]!r} is defined twice in graph {graph.name!r}")
    known = {*defined, *outer}
    for node in graph.node:
        for name in reads(node):
            if name not in known:
                raise ModelError(
                    f"{where(node)} reads {name!r}, which no input, initializer or node defines"
                )
    names = [output.name for output in graph.output]
    if len(set(names)) < len(names):
        raise ModelError(f"outputs {names} of graph {graph.name!r}: one stands there twice")
    for output in graph.output:
        if output.name not in known:
            raise ModelError(f"output {output.name!r} of the graph is made by no node")


def _definitions(graph: GraphProto) -> list[str]:
    """Every definition; an initializer that is also listed as an input counts once."""
    inputs = [i.name for i in graph.input]
    initializers = [t.name for t in graph.initializer]
    listed = set(initializers)
    plain = [name for name in inputs if name not in listed]
    return plain + initializers + [o for node in graph.node for o in node.output if o]


def reads(node: NodeProto) -> list[str]:
    """The values that a node reads, those that its subgraphs take from outside included."""
    found = [name for name in node.input if name]
    for graph in subgraphs(node):
        inner = set(_definitions(graph))
        names = [name for n in graph.node for name in reads(n)]
        names += [o.name for o in graph.output]
        found += [name for name in names if name not in inner]
    return found


def subgraphs(node: NodeProto) -> Iterable[GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def needed_in_order(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs reach, each after those that it reads.

    Raises `ModelError`, naming the cycle, where there is no such order.
    """
    makers = {o: i for i, node in enumerate(graph.node) for o in node.output if o}
    before = [
        sorted({makers[name] for name in reads(node) if name in makers}) for node in graph.node
    ]
    order = _sorted(before)
    if len(order) < len(before):
        stuck = sorted(set(range(len(before))) - set(order))
        names = ", ".join(where(graph.node[i]) for i in stuck[:3])
        raise ModelError(f"the graph has a cycle: {len(stuck)} nodes wait for each other: {names}")
    needed = {makers[o.name] for o in graph.output if o.name in makers}
    for i in reversed(order):
        if i in needed:
            needed.update(before[i])
    return [graph.node[i] for i in order if i in needed]


def _sorted(before: list[list[int]]) -> list[int]:
    """Kahn's order; what lies on a cycle, or behind one, is left out."""
    after: dict[int, list[int]] = defaultdict(list)
    left = [len(b) for b in before]
    for i, earlier in enumerate(before):
        for j in earlier:
            after[j].append(i)
    order = [i for i, count in enumerate(left) if count == 0]
    for i in order:
        for j in after[i]:
            left[j] -= 1
            if left[j] == 0:
                order.append(j)
    return order


def check_supported(
    nodes: Iterable[NodeProto], supported: Collection[str], opset: int, versions: dict[str, int]
) -> None:
    """Raise one `ModelError` that lists every op of `nodes` that is not among `supported`."""
    unsupported: dict[str, list[NodeProto]] = defaultdict(list)
    for node in nodes:
        if key(node) not in supported:
            standard = node.domain in DOMAINS
            domain = "opset" if standard else f"domain {node.domain}, version"
            version = opset if standard else versions.get(node.domain, "not imported")
            reason = DOMAIN_REASONS.get(node.domain) or REASONS.get(node.op_type)
            if standard and not reason and not onnx.defs.has(node.op_type):
                reason = NO_OPERATOR
            why = f": {reason}" if reason else ""
            unsupported[f"{node.op_type}{why} ({domain} {version})"].append(node)
    if unsupported:
        lines = [f"  {op}: {_listed(found)}" for op, found in sorted(unsupported.items())]
        raise ModelError("the model uses unsupported operators:\n" + "\n".join(lines))


def _listed(nodes: list[NodeProto], shown: int = 5) -> str:
    names = [repr(n.name or next((o for o in n.output if o), "")) for n in nodes]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    times = "node" if len(names) == 1 else "nodes"
    return f"{len(names)} {times}: {', '.join(names[:shown])}{more}"
