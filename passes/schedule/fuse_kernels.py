"""Group the integer graph into kernels: what does the work, the elementwise tail behind it, and
transposes around products of activations, which read and write in any order just as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from irc.compose import has_reduction, pointwise
from irc.graph import Graph
from irc.ops.core import Const, Input, Kernel
from irc.ops.linear import QMatMul
from irc.ops.resize import ResizeNearest
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.pipeline import Pass
from irc.value import Value


def is_view(v: Value) -> bool:
    """Whether a node can be no more than another way to look at memory: whether it then really
    is one, or must be copied after all, the memory plan decides."""
    return isinstance(v, Reshape | Concat) or (isinstance(v, Slice) and min(v.steps, default=1) > 0)


@dataclass
class Group:
    """The nodes of one kernel, in order; the last one is its result."""

    nodes: list[Value] = field(default_factory=list)

    @property
    def root(self) -> Value:
        """The result."""
        return self.nodes[-1]


@dataclass(frozen=True)
class FuseKernels(Pass):
    """Every node that computes goes into a kernel. An elementwise node whose operand has no other
    user joins that operand's kernel: conv + bias + requantize + table + residual add are one."""

    name: ClassVar[str] = "fuse_kernels"
    requires: ClassVar[tuple[str, ...]] = ("integer",)
    ensures: ClassVar[tuple[str, ...]] = ("integer",)

    def run(self, graph: Graph) -> Graph:
        """The same graph, its work inside of kernels."""
        groups = group_nodes(graph)
        new: dict[Value, Value] = {}
        for v in graph.order:
            if v not in groups:
                new[v] = v.map_operands(new.__getitem__)
            elif groups[v].root is v:
                new[v] = make_kernel(groups[v].nodes, new)
        return graph.with_outputs(tuple(new[v] for v in graph.outputs))


def group_nodes(graph: Graph) -> dict[Value, Group]:
    """The group of every node that computes; views, inputs, constants and kernels have none."""
    position = {v: i for i, v in enumerate(graph.order)}
    groups: dict[Value, Group] = {}
    for v in graph.order:
        if isinstance(v, Input | Const | Kernel) or is_view(v):
            continue
        host = _host(v, graph, groups, position)
        if host is None:
            group = Group(_transposed(v, graph, groups))
        else:
            group = groups[host]
            group.nodes += _enlarged(v, graph, group)
        group.nodes.append(v)
        groups |= dict.fromkeys(group.nodes, group)
    return groups


def _transposed(v: Value, graph: Graph, groups: Mapping[Value, Group]) -> list[Value]:
    """The transposes that a product reads through: only it reads them, and what lies side by side
    is k on the left, k or the columns on the right."""
    if not isinstance(v, QMatMul):
        return []
    sides = ((v.a, (-1,)), (v.b, (-1, -2)))
    return [
        x
        for x, near in sides
        if isinstance(x, Transpose)
        and graph.uses(x) == 1
        and groups[x].nodes == [x]
        and any(x.perm[axis] == len(x.perm) - 1 for axis in near)
    ]


def _host(
    v: Value, graph: Graph, groups: Mapping[Value, Group], position: Mapping[Value, int]
) -> Value | None:
    """The operand whose kernel `v` joins, of those that are their group's result and that only `v`
    reads: the widest, which is then never stored, one that is no mere choice of pixels, the latest
    of several; None where `v` starts a kernel."""
    if has_reduction(v.loops()):
        return None
    fit = [
        operand
        for operand in v.operands
        if operand in groups
        and graph.uses(operand) == 1
        and (pointwise(v, operand) or _reorders(v, groups[operand]))
    ]
    order = {o: (o.type.dtype.bits, not isinstance(o, ResizeNearest), position[o]) for o in fit}
    return max(fit, key=order.__getitem__, default=None)


def _enlarged(v: Value, graph: Graph, group: Group) -> list[Value]:
    """The nearest resizes that an elementwise kernel reads through: only `v` reads them, so that
    storing every pixel four times would be for nothing."""
    if any(has_reduction(n.loops()) for n in group.nodes):
        return []
    return [
        x
        for x in dict.fromkeys(v.operands)
        if isinstance(x, ResizeNearest) and graph.uses(x) == 1 and x not in group.nodes
    ]


def _reorders(v: Value, group: Group) -> bool:
    """Whether `v` only puts the rows of a product elsewhere."""
    product = any(isinstance(x, QMatMul) for x in group.nodes)
    return product and isinstance(v, Transpose) and v.perm[-1] == len(v.perm) - 1


def make_kernel(nodes: list[Value], new: Mapping[Value, Value]) -> Kernel:
    """The kernel of `nodes` (operands first); `new` maps the graph's values to those that the
    kernel is to read. Constants become operands too, so that equal bodies can share code."""
    inside = set(nodes)
    args: list[Value] = []
    formals: dict[Value, Value] = {}
    inner: dict[Value, Value] = {}
    for v in nodes:
        for operand in v.operands:
            if operand not in inside and operand not in formals:
                args.append(new[operand])
                formals[operand] = Input.of(operand.type, f"a{len(formals)}")
        inner[v] = v.map_operands(lambda o: inner[o] if o in inside else formals[o])
    root = nodes[-1]
    inputs = tuple(f for f in formals.values() if isinstance(f, Input))
    body = Graph(root.name or root.op, inputs, (inner[root],), ("result",))
    return Kernel(tuple(args), body, name=root.name)


def copy_kernel(v: Value) -> Kernel:
    """A kernel that copies one value densely."""
    formal = Input.of(v.type, "a0")
    copied = Reshape(formal, v.shape, name=v.name)
    body = Graph(f"copy {v.name}", (formal,), (copied,), ("result",))
    return Kernel((v,), body, name=v.name)


def wrap(v: Value) -> Kernel:
    """A single node as a kernel of its own."""
    return make_kernel([v], {o: o for o in v.operands})
