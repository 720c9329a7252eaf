"""NHWC inside: transposes sink towards the outputs, cancel, and vanish into weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.elementwise import Binary
from irc.ops.linear import Linear
from irc.ops.logic import Relation
from irc.ops.prelu import PRelu
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.selection import Where
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.ops.unary import Unary
from irc.passes.float.constants import rewritten, weights
from irc.passes.float.fold import RULES as FOLDING
from irc.passes.float.fold import share
from irc.passes.float.grouping import grouped
from irc.passes.float.sink_transposes import RULES as SINKING
from irc.passes.float.sink_transposes import Perm, inverse, is_free, moved, over, sink_reshape
from irc.pipeline import Pass
from irc.rewrite import Uses, rewrite
from irc.types import Quant, Shape
from irc.value import Value


@dataclass(frozen=True)
class Layout(Pass):
    """No transposes between image ops: at most one is left at each input and output.

    Sinking comes to rest because every step moves a transpose towards the outputs, or takes one
    away; hoisting, because every step leaves fewer.
    """

    name: ClassVar[str] = "layout"

    def run(self, graph: Graph) -> Graph:
        """Sink and cancel; then raise what is left at the inputs; then turn transposes that
        move nothing into reshapes."""
        graph = share(rewrite(graph, (*FOLDING, *MERGING, *SINKING), (hoist,)))
        graph = rewrite(graph, FOLDING, (raise_to_input,))
        return share(rewrite(graph, (*FOLDING, transpose_is_reshape)))


def transpose_around_reshape(v: Value) -> Value | None:
    """Two transposes around a reshape are one before it, where the second moves whole groups.

        (%x: f32[2,2,3,8])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[2,8,2,3]
        %r = reshape(%t) : f32[2,2,4,2,3]
        %y = transpose(%r) {perm = [0, 3, 4, 1, 2]} : f32[2,2,3,2,4]
        ->
        %y = reshape(%x) : f32[2,2,3,2,4]

        (%x: f32[1,2,2,3,2,2])
        %t = transpose(%x) {perm = [0, 3, 1, 4, 2, 5]} : f32[1,3,2,2,2,2]
        %r = reshape(%t) : f32[1,3,4,4]
        %y = transpose(%r) {perm = [0, 2, 3, 1]} : f32[1,4,4,3]
        ->
        %0 = transpose(%x) {perm = [0, 1, 4, 2, 5, 3]} : f32[1,2,2,2,2,3]
        %y = reshape(%0) : f32[1,4,4,3]
    """
    match v:
        case Transpose(x=Reshape(x=Transpose(x=x, perm=first) as inner) as reshape, perm=second):
            axes = _axes_before(inner.shape, reshape.shape, second)
        case _:
            return None
    if axes is None:
        return None
    made = Reshape(Transpose(x, tuple(first[a] for a in axes)), v.shape)
    # What would sink through the reshape again must not be merged above it.
    sunk = sink_reshape(made)
    if isinstance(sunk, Transpose) and isinstance(sunk.x, Reshape):
        return None if isinstance(sunk.x.x, Transpose) else sunk
    return made if sunk is None else sunk


def _axes_before(shape: Shape, dims: Shape, perm: Perm) -> Perm | None:
    """The transpose of `shape` that `transpose(reshape(x, dims), perm)` does before its reshape;
    None where it tears a group of the reshape apart."""
    groups = grouped(shape, dims)
    axes: list[int] = []
    at = 0
    while at < len(perm):
        found = [g for g in groups if perm[at : at + len(g.after)] == g.after]
        if not found:
            return None
        axes += found[0].before
        at += len(found[0].after)
    return tuple(axes)


def reshape_below(v: Value) -> Value | None:
    """Functions of one element act before a reshape, next to what made their operand.

        (%x: f32[1,1,4,3])
        %r = reshape(%x) : f32[1,4,3]
        %y = tanh(%r) : f32[1,4,3]
        ->
        %y = tanh(%x) : f32[1,1,4,3]
        %y#2 = reshape(%y) : f32[1,4,3]

        (%x: f32[1,1,4,3], %y: f32[1,1,4,3])
        %r = reshape(%x) : f32[1,4,3]
        %s = reshape(%y) : f32[1,4,3]
        %z = add(%r, %s) : f32[1,4,3]
        ->
        %z = add(%x, %y) : f32[1,1,4,3]
        %z#2 = reshape(%z) : f32[1,4,3]
    """
    match v:
        case Quantize(x=Reshape(x=x)) if v.quant.axis is None:
            return Reshape(v.replace(x=x), v.shape)
        case Dequantize(x=Reshape(x=x)) | Unary(x=Reshape(x=x)):
            return Reshape(v.replace(x=x), v.shape)
        case Binary(a=Reshape(x=x) as a, b=Reshape(x=y) as b):
            if x.shape == y.shape and a.shape == b.shape:
                return Reshape(v.replace(a=x, b=y), v.shape)
        case Binary(a=Reshape(x=x) as a, b=Const() as c) if a.shape == v.shape:
            if c.type.size == 1 and c.type.rank <= x.type.rank:
                return Reshape(v.replace(a=x), v.shape)
            last = x.shape[-1:] == v.shape[-1:] == c.shape
            return Reshape(v.replace(a=x), v.shape) if last else None
    return None


def linear_takes_order(v: Value) -> Value | None:
    """A linear map of flattened, transposed axes permutes its weights instead.

        (%x: f32[1,2,1,2])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[1,4]
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,2,2,1]
        %f = reshape(%t) : f32[1,4]
        %y = linear(%f, %w, -) : f32[1,1]
        ->
        %f = reshape(%x) : f32[1,4]
        %w = const [1.0, 3.0, 2.0, 4.0] : f32[1,4]
        %y = linear(%f, %w, -) : f32[1,1]
    """
    match v:
        case Linear(x=Reshape(x=Transpose(x=x, perm=perm) as t) as flat, w=w):
            groups, stored = grouped(t.shape, flat.shape), weights(w)
        case _:
            return None
    if not groups or stored is None or len(groups[-1].after) != 1:
        return None
    start = groups[-1].before[0]
    if perm[:start] != tuple(range(start)):
        return None
    if stored.quant is not None and stored.quant.axis == 1:
        return None
    columns = stored.array.reshape(-1, *t.shape[start:])
    turned = columns.transpose(0, *(1 + p - start for p in inverse(perm)[start:]))
    flipped = rewritten(w, turned.reshape(stored.shape), stored.quant)
    return v.replace(x=Reshape(x, flat.shape, name=flat.name), w=flipped)


def hoist(v: Value, uses: Uses) -> Value | None:
    """A transpose goes above an op of several operands where that leaves fewer of them.

        (%x: f32[1,2,2,3], %y: f32[1,3,2,2])
        %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,3,2,2]
        %s = add(%t, %y) : f32[1,3,2,2]
        %z = transpose(%s) {perm = [0, 2, 3, 1]} : f32[1,2,2,3]
        ->
        %y#2 = transpose(%y) {perm = [0, 2, 3, 1]} : f32[1,2,2,3]
        %s = add(%x, %y#2) : f32[1,2,2,3]

        (%x: f32[1,4,2], %y: f32[1,2,4])
        %t = transpose(%x) {perm = [0, 2, 1]} : f32[1,2,4]
        %s = add(%t, %y) : f32[1,2,4]
        %r = reshape(%s) : f32[1,2,1,4]
        %z = transpose(%r) {perm = [0, 2, 3, 1]} : f32[1,1,4,2]
        ->
        %y#2 = transpose(%y) {perm = [0, 2, 1]} : f32[1,4,2]
        %s = add(%x, %y#2) : f32[1,4,2]
        %z = reshape(%s) : f32[1,1,4,2]
    """
    match v:
        case Transpose(x=Reshape(x=op) as reshape, perm=perm):
            axes = _axes_before(op.shape, reshape.shape, perm) if uses.single(reshape) else None
            made = None if axes is None else _hoisted(op, axes, uses)
            return None if made is None else Reshape(made, v.shape)
        case Transpose(x=op, perm=perm):
            return _hoisted(op, perm, uses)
    return None


def _hoisted(op: Value, perm: Perm, uses: Uses) -> Value | None:
    """`transpose(op, perm)` with the transpose above op, where that leaves fewer of them."""
    if not isinstance(op, Binary | Relation | Where | PRelu | Concat) or not uses.single(op):
        return None
    operands = dict.fromkeys(op.operands)
    if any(o.type.rank > len(perm) for o in operands):
        return None
    turned = {o: moved(o, perm) for o in operands}
    spared = sum(isinstance(o, Transpose) and uses.single(o) for o in operands)
    if sum(m.cost for m in turned.values()) >= 1 + spared:
        return None
    if not any(isinstance(o, Transpose) and turned[o].cost == 0 for o in operands):
        return None
    return over(op, lambda o: turned[o].value, inverse(perm))


def raise_to_input(v: Value, uses: Uses) -> Value | None:
    """A transpose of what is made from one input by elementwise work, slices and concats goes to
    the input itself, so that scales and offsets there meet the convolution.

        (%x: f32[1,3,2,2])
        %c = const [1.0, 2.0, 3.0] : f32[3,1,1]
        %s = add(%x, %c) : f32[1,3,2,2]
        %y = transpose(%s) {perm = [0, 2, 3, 1]} : f32[1,2,2,3]
        ->
        %x#2 = transpose(%x) {perm = [0, 2, 3, 1]} : f32[1,2,2,3]
        %c = const [1.0, 2.0, 3.0] : f32[1,1,1,3]
        %s = add(%x#2, %c) : f32[1,2,2,3]

        (%x: f32[1,1,4,4])
        %s = slice(%x)
            {starts = [0, 0, 0, 0], stops = [1, 1, 4, 4], steps = [1, 1, 2, 1]} : f32[1,1,2,4]
        %y = transpose(%s) {perm = [0, 2, 3, 1]} : f32[1,2,4,1]
        ->
        %x#2 = transpose(%x) {perm = [0, 2, 3, 1]} : f32[1,4,4,1]
        %s = slice(%x#2)
            {starts = [0, 0, 0, 0], stops = [1, 4, 4, 1], steps = [1, 2, 1, 1]} : f32[1,2,4,1]

        (%x: f32[1,2,4])
        %r = reshape(%x) : f32[1,2,1,4]
        %y = transpose(%r) {perm = [0, 2, 3, 1]} : f32[1,1,4,2]
        ->
        %x#2 = transpose(%x) {perm = [0, 2, 1]} : f32[1,4,2]
        %y = reshape(%x#2) : f32[1,1,4,2]
    """
    match v:
        case Transpose(x=Reshape(x=Input() as x, dims=dims), perm=perm):
            axes = _axes_before(x.shape, dims, perm)
            return None if axes is None else Reshape(_turned(x, axes), v.shape)
        case Transpose(x=op, perm=perm):
            pass
        case _:
            return None
    sources = _sources(op, uses)
    if sources is None or len(sources) != 1:
        return None
    if isinstance(op, Slice):
        starts, stops, steps = (tuple(e[p] for p in perm) for e in (op.starts, op.stops, op.steps))
        return op.replace(x=_turned(op.x, perm), starts=starts, stops=stops, steps=steps)
    return over(op, lambda o: _turned(o, perm), inverse(perm))


def _turned(o: Value, perm: Perm) -> Value:
    return moved(o, perm).value if isinstance(o, Const) else Transpose(o, perm, name=o.name)


def _sources(v: Value, uses: Uses) -> set[Input] | None:
    """The inputs that v is made of by work that any layout can do, for v's one user; None where
    there is other work, or somebody else reads what is between."""
    if not uses.single(v):
        return None
    match v:
        case Unary() | Binary() | Slice() | Concat() | Dequantize():
            pass
        case Quantize(quant=Quant(axis=None)):
            pass
        case _:
            return None
    found: set[Input] = set()
    for o in v.operands:
        if isinstance(o, Const):
            continue
        inner = {o} if isinstance(o, Input) else _sources(o, uses)
        if inner is None or o.type.rank != v.type.rank:
            return None
        found |= inner
    return found


def transpose_is_reshape(v: Value) -> Value | None:
    """A transpose that only moves axes of extent 1 moves nothing in memory.

        (%x: f32[1,1,1,6])
        %y = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,6,1,1]
        ->
        %y = reshape(%x) : f32[1,6,1,1]
    """
    match v:
        case Transpose(x=x, perm=perm) if is_free(x.shape, perm):
            return Reshape(x, v.shape)
    return None


MERGING = (transpose_around_reshape, linear_takes_order, reshape_below)
USE_RULES = (hoist, raise_to_input)
