"""QDQ form to integers: the only pass that does it.

`quantize(op(dequantize(a), dequantize(b)))` becomes the op's integer twin; clamps in between
become the twin's clamp; chains of functions of one value become a table; ops that only move
elements work on the integers themselves.

    %y = quantize(clip(conv2d(dequantize(%x), dequantize(%w), dequantize(%b))))
 -> %y = qconv2d(%x, %w, %b', %m, %s) {clamp = [lo, hi]}

A float output that is not quantized (as other tools leave it) gets a type that loses nothing of
note: the accumulator, i32 with the coarsest channel's scale, after a convolution or linear layer
that does more than scale channels; the op's natural 8 bits after softmax or sigmoid; else 16 bits
over the interval that it is proved to lie in. A value that a model leaves float between two layers,
as the sum of a residual block that its author saw as one kernel, is computed in 16 bits where these
are proved to be fine enough.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from irc import fixedpoint
from irc.errors import CompileError, IRCError
from irc.graph import Graph
from irc.loops import CompareKind
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.logic import Less, LessOrEqual, Relation
from irc.ops.quantization import Dequantize, Quantize, constant
from irc.ops.ranking import Ranking
from irc.ops.shape import Concat, Pad, joined_columns
from irc.ops.truth import QCompare, Truth
from irc.passes.float.pointwise import evaluated, is_clamp, roots
from irc.passes.integer.conversions import moved_constant
from irc.passes.integer.lowering import Lowering, over, placeholder
from irc.passes.quantize.complete_qdq import Islands
from irc.passes.quantize.intervals import brings_integers, kept_type, output_type
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, differs


@dataclass(frozen=True)
class Integerize(Pass):
    """The pass; raises `CompileError` listing every node that is left without an integer form."""

    name = "integerize"
    requires = ("qdq",)
    ensures = ("integer",)

    def run(self, graph: Graph) -> Graph:
        """See the module."""
        return integerize(graph)


def integerize(graph: Graph) -> Graph:
    """The integer graph of a QDQ graph: inputs and outputs are integers that carry their scale.

    Raises `CompileError` that lists all float nodes without a quantize after them.
    """
    work = _Work(_share_dequantize(_with_states_as_read(graph)))
    result = work.graph()
    if work.problems:
        problems = list(dict.fromkeys((*work.problems, *_real_weights(graph))))
        listed = "\n  ".join(problems)
        stay = "1 node stays" if len(problems) == 1 else f"{len(problems)} nodes stay"
        raise CompileError(
            f"{graph.name}: {stay} float:\n  {listed}\n"
            "calibration quantizes them too: irc.quantize(graph, calibration=...) in Python, or"
            " --calibration DATA on the command line"
        )
    if narrow := work.lowering.narrow:
        count, first = len(narrow), ", ".join(narrow[:3])
        warnings.warn(
            f"{graph.name}: {count} nodes read values of 16 bits, of which 8 are taken, as their"
            f" products need more than the integers that there are: {first}"
            + (", …" if count > 3 else ""),
            stacklevel=2,
        )
    return result


def _real_weights(graph: Graph) -> list[str]:
    """The layers of a partly quantized graph that multiply by reals."""
    layers = Islands(graph).real_weights
    return [f"{v.op} %{v.name}: its weights are not quantized" for v in layers]


def _with_states_as_read(graph: Graph) -> Graph:
    """The graph whose states of reals come out in the type in which they are read, behind a
    quantize of their own; in the type in which they come out where nothing reads them."""
    read = {n: _first_quantize(graph, v) for n, v in graph.carried.items() if v.type.dtype.is_float}
    outputs = []
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        t = read.get(name)
        if t is not None and not (isinstance(v, Dequantize) and v.x.type == t):
            again = Quantize(v, t.dtype, fixedpoint.quant_of(t), name=v.name)
            v = Dequantize(again, name=v.name)
        outputs.append(v)
    return graph.with_outputs(tuple(outputs)) if differs(tuple(outputs), graph.outputs) else graph


def _share_dequantize(graph: Graph) -> Graph:
    """One dequantize per value: exporters write one per use."""
    known: dict[Value, Value] = {}

    def first(_: Value, made: Value) -> Value:
        return known.setdefault(made.x, made) if isinstance(made, Dequantize) else made

    return rebuild(graph, first)


@dataclass
class _Work:
    """The rewriting of one graph. `forms` are integers that stand for float values."""

    source: Graph
    problems: list[str] = field(default_factory=list)
    forms: dict[Value, Value | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = roots(self.source.order, lambda v: False)
        self.lowering = Lowering(self.root, self.forms, self.problems)

    def graph(self) -> Graph:
        inputs = tuple(self.input(v) for v in self.source.inputs)
        self.forms.update(zip(self.source.inputs, inputs, strict=True))
        for v in self.source.order:
            if v not in self.forms:
                self.forms[v] = self.form(v)
                self.keep(v)
        outputs = tuple(self.output(v) for v in self.source.outputs)
        names = self.source.output_names
        if self.problems:  # what stands in for the rest need not have the types of states
            return Graph(self.source.name, inputs, outputs, names)
        inputs = tuple(self.unread(v, outputs) for v in inputs)
        types = {v.name: v.type for v in inputs}
        states = tuple(s.in_type(types[s.input]) for s in self.source.states)
        return Graph(self.source.name, inputs, outputs, names, states=states)

    def input(self, v: Input) -> Input:
        """A float input in the type of the first quantize that reads it."""
        if not v.type.dtype.is_float:
            return v
        target = _first_quantize(self.source, v)
        if target is not None:
            return Input(target.dtype, v.dims, target.quant, name=v.name)
        if self.source.uses(v):
            self.problems.append(f"input %{v.name}: is not quantized")
        return Input(DType.U8, v.dims, Quant(1.0), name=v.name)

    def unread(self, v: Input, outputs: tuple[Value, ...]) -> Input:
        """A state that nothing reads has the type in which it comes out; any other input as it
        is."""
        after = dict(zip(self.source.output_names, outputs, strict=True))
        names = [s.output for s in self.source.states if s.input == v.name]
        old = next(i for i in self.source.inputs if i.name == v.name)
        return Input.of(after[names[0]].type, v.name) if names and not self.source.uses(old) else v

    def output(self, v: Value) -> Value:
        form = self.forms[v]
        if form is not None:
            return form
        try:
            return self.lowering.lower(v, output_type(v, self.forms.__getitem__, self.root))
        except IRCError as error:
            self.problems.append(str(error))
            return placeholder(v.type)

    def form(self, v: Value) -> Value | None:
        """What a node becomes: itself over integers, the integers behind a dequantize, or None
        for floats that have yet to be quantized."""
        match v:
            case Quantize():
                return self.quantized(v)
            case Dequantize():
                return self.forms[v.x]
        if self.root[v] is not v:
            return None if v.type.dtype.is_float else self.predicate(v)
        if not v.type.dtype.is_float:
            return self.plain(v)
        if not v.moves or self.pads_beyond(v):
            return None
        operands = [self.forms[o] for o in v.operands]
        known = [o for o in operands if o is not None]
        if len(known) < len(operands):
            return None
        if all(isinstance(o, Const) for o in known):
            return moved_constant(v, [constant(o, "a moved operand") for o in known])
        if isinstance(v, Concat) and joined_columns([o.type for o in known], v.axis) is not None:
            return over(v, known)
        agreed = {(o.type.dtype, o.type.quant) for o in known if o.type.quant is not None}
        return over(v, known) if len(agreed) == 1 else None

    def pads_beyond(self, v: Value) -> bool:
        """Whether what stands around integers is none of them."""
        type_ = self.known(v.x) if isinstance(v, Pad) else None
        return type_ is not None and not brings_integers(v, type_)

    def keep(self, v: Value) -> None:
        """Enter a float that integers before it can stand for."""
        if self.forms[v] is None and (kept := kept_type(v, self.known)) is not None:
            self.lowering.kept[v] = kept

    def known(self, v: Value) -> TensorType | None:
        """The type of the integers that stand for a float, or can."""
        form = self.forms[v]
        return self.lowering.kept.get(v) if form is None else form.type

    def plain(self, v: Value) -> Value:
        """A node over plain integers (indices, booleans), or of the order of reals alone."""
        operands = [self.forms[o] for o in v.operands]
        known = [o for o in operands if o is not None]
        real = any(o.type.dtype.is_float for o in v.operands)
        if isinstance(v, Relation) and v.kind is not None and real:
            return self.comparison(v, v.kind)
        if len(known) == len(operands) and (isinstance(v, Ranking) or not real):
            return over(v, known)
        self.problems.append(f"{v.op} %{v.name}: makes {v.type} from floats")
        return placeholder(v.type)

    def predicate(self, v: Value) -> Value | None:
        """A function of one value of 8 or 16 bits that gives booleans or whole numbers, a table, a
        comparison where the booleans change once; None where that has no integers yet."""
        root = self.root[v]
        source = self.forms[root]
        if source is None:
            return None
        if source.type.dtype.bits > 16:
            self.problems.append(f"{v.op} %{v.name}: a table needs an operand of 8 or 16 bits,"
                                 f" %{root.name} is {source.type}")  # fmt: skip
            return placeholder(v.type)
        return told(v, source, predicate_table(v, root, source.type))

    def comparison(self, v: Relation, kind: CompareKind) -> Value:
        """Two reals compared: their integers, where these have one scale; or one with constants."""
        a, b = (self.forms[o] or o for o in v.operands)
        if (a.type.dtype, a.type.quant) != (b.type.dtype, b.type.quant):
            a, b = (_real(o) for o in (a, b))
        unknown = [o for o in (a, b) if o.type.dtype.is_float]
        many = [o for o in (a, b) if o.type.quant is not None and o.type.quant.axis is not None]
        if many:
            self.problems.append(f"{v.op} %{v.name}: compares %{many[0].name}, which has a scale"
                                 " for each channel: quantize it with one")  # fmt: skip
            return placeholder(v.type)
        if len(unknown) == 1 and isinstance(c := unknown[0], Const):
            first = c is a
            return QCompare.with_constant(kind, b if first else a, c, first=first, name=v.name)
        if unknown:
            self.problems.append(f"{v.op} %{v.name}: compares %{unknown[0].name}, which has no"
                                 " scale")  # fmt: skip
            return placeholder(v.type)
        if (a.type.dtype, a.type.quant) == (b.type.dtype, b.type.quant):
            return v.replace(a=a, b=b)
        return QCompare.of(kind, a, b, name=v.name)

    def quantized(self, q: Quantize) -> Value:
        """The integers of a quantize node."""
        if isinstance(q.x, Const):
            return Const(q.evaluate(q.x.array), q.quant, name=q.x.name)
        return self.lowering.lower(q.x, q.type, single=q.single)


def _real(v: Value) -> Value:
    """The reals that constant integers stand for."""
    if isinstance(v, Const) and v.type.quant is not None:
        return Const(fixedpoint.dequantize(v.array, v.type), name=v.name)
    return v


def predicate_table(v: Value, root: Value, source: TensorType) -> Array:
    """Equation (8) for a function to booleans or whole numbers: a result for each integer. What
    lies on a threshold tells one from another, so that reals are what they are in the graph."""
    q = np.arange(source.dtype.min, source.dtype.max + 1)
    with np.errstate(all="ignore"):
        found = evaluated(v, root, fixedpoint.dequantize(q, source.with_shape(q.shape)))
    return np.broadcast_to(found, q.shape).astype(v.type.dtype.numpy)


def told(v: Value, source: Value, table: Array) -> Value:
    """What the integers `source` are by a table, in a way that needs none of 65,536 entries where
    that would be large: one result for all, or on either side of a step; whole numbers in as few
    bits as hold them."""
    if source.type.dtype.bits == 8:
        return Truth(source, Const(table), name=v.name)
    steps = np.flatnonzero(table[1:] != table[:-1])
    if not steps.size:
        return Const(np.broadcast_to(table[0], v.shape), name=v.name)
    if table.dtype == np.bool_ and steps.size == 1:
        last = np.asarray(source.type.dtype.min + steps[0], source.type.dtype.numpy)
        bound = Const(last, source.type.quant)
        made = Less(bound, source) if table[-1] else LessOrEqual(source, bound)
        return made.replace(name=v.name)
    fitting = (d for d in (DType.U8, DType.I8, DType.I16, DType.I32) if _holds(d, table))
    dtype = v.type.dtype if table.dtype == np.bool_ else next(fitting, v.type.dtype)
    found = Truth(source, Const(table.astype(dtype.numpy)), name=v.name)
    return found if dtype is v.type.dtype else Cast(found, v.type.dtype, name=v.name)


def _holds(dtype: DType, table: Array) -> bool:
    return bool(dtype.min <= table.min() and table.max() <= dtype.max)


def _first_quantize(graph: Graph, v: Value) -> TensorType | None:
    """The type of the first quantize that reads a value, directly, clamped or moved."""
    for user in graph.users[v]:
        if isinstance(user, Quantize):
            return user.type
    through = (u for u in graph.users[v] if u.moves or is_clamp(u))
    moved = (_first_quantize(graph, u) for u in through)
    return next((t for t in moved if t is not None), None)
