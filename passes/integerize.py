"""QDQ form to integers: the only pass that does it.

`quantize(op(dequantize(a), dequantize(b)))` becomes the op's integer twin; clamps in between
become the twin's clamp; chains of functions of one value become a table; ops that only move
elements work on the integers themselves.

    %y = quantize(clip(conv2d(dequantize(%x), dequantize(%w), dequantize(%b))))
 -> %y = qconv2d(%x, %w, %b', %m, %s) {clamp = [lo, hi]}

A float output that is not quantized (as other tools leave it) gets a type that loses nothing of
note: the accumulator, i32 with the coarsest channel's scale, after a convolution or linear layer;
the op's natural 8 bits after softmax or sigmoid; else 16 bits over the interval that it is proved
to lie in. A value that a model leaves float between two layers, as the sum of a residual block that
its author saw as one kernel, is computed in 16 bits where these are proved to be fine enough.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from irc import fixedpoint
from irc.errors import CompileError, IRCError
from irc.graph import Graph
from irc.loops import CompareKind
from irc.ops.bytewise import convolved, multiplied
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.interpolate import followed
from irc.ops.linear import Linear
from irc.ops.logic import Relation
from irc.ops.moving import in_type
from irc.ops.quantization import Dequantize, Quantize, constant, tabulated
from irc.ops.ranking import Ranking
from irc.ops.truth import QCompare, Truth
from irc.passes.conversions import as_tensor, centred, clamped, converted, moved_constant
from irc.passes.fitting import fitted
from irc.passes.intervals import inner_type, output_type
from irc.passes.pointwise import apply, is_clamp, roots, scaling
from irc.passes.quantize.complete import Islands
from irc.passes.roomy import with_room
from irc.passes.stepping import stepping
from irc.pipeline import Pass
from irc.rewrite import rebuild
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, differs, operand_fields

PARAMETERS = frozenset(
    {"w", "b", "scale", "bias", "slope", "row_weights", "column_weights"}
)
"""Operands that a twin takes as they are: weights, and reals that it makes its own integers of."""


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
    if work.narrow:
        count, first = len(work.narrow), ", ".join(work.narrow[:3])
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


Key = tuple[Value, DType, Quant | None]


@dataclass
class _Work:
    """The rewriting of one graph. `forms` are integers that stand for float values; `made` are
    float values computed in a quantization that was asked for."""

    source: Graph
    problems: list[str] = field(default_factory=list)
    narrow: list[str] = field(default_factory=list)
    forms: dict[Value, Value | None] = field(default_factory=dict)
    made: dict[Key, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = roots(self.source.order, lambda v: False)

    def graph(self) -> Graph:
        inputs = tuple(self.input(v) for v in self.source.inputs)
        self.forms.update(zip(self.source.inputs, inputs, strict=True))
        for v in self.source.order:
            if v not in self.forms:
                self.forms[v] = self.form(v)
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
            return self.compute(v, output_type(v, self.forms.__getitem__, self.root))
        except IRCError as error:
            self.problems.append(str(error))
            return _placeholder(v.type)

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
        if not v.moves:
            return None
        operands = [self.forms[o] for o in v.operands]
        known = [o for o in operands if o is not None]
        if len(known) < len(operands):
            return None
        if all(isinstance(o, Const) for o in known):
            return moved_constant(v, [constant(o, "a moved operand") for o in known])
        agreed = {(o.type.dtype, o.type.quant) for o in known if o.type.quant is not None}
        return _over(v, known) if len(agreed) == 1 else None

    def plain(self, v: Value) -> Value:
        """A node over plain integers (indices, booleans), or of the order of reals alone."""
        operands = [self.forms[o] for o in v.operands]
        known = [o for o in operands if o is not None]
        real = any(o.type.dtype.is_float for o in v.operands)
        if isinstance(v, Relation) and v.kind is not None and real:
            return self.comparison(v, v.kind)
        if len(known) == len(operands) and (isinstance(v, Ranking) or not real):
            return _over(v, known)
        self.problems.append(f"{v.op} %{v.name}: makes {v.type} from floats")
        return _placeholder(v.type)

    def predicate(self, v: Value) -> Value | None:
        """A function of one 8-bit value that gives booleans or whole numbers, a table; None where
        that has no integers yet. Of 16 bits one that is the same for all, as whether a number is
        none."""
        root = self.root[v]
        source = self.forms[root]
        if source is None:
            return None
        if source.type.dtype.bits == 16:
            table = predicate_table(v, root, source.type)
            if _uniform(table):
                return Const(np.broadcast_to(table[0], v.shape), name=v.name)
        if source.type.dtype.bits != 8:
            self.problems.append(f"{v.op} %{v.name}: a table needs an 8-bit operand, %{root.name}"
                                 f" is {source.type}")  # fmt: skip
            return _placeholder(v.type)
        return Truth(source, Const(predicate_table(v, root, source.type)), name=v.name)

    def comparison(self, v: Relation, kind: CompareKind) -> Value:
        """Two reals compared: their integers, where these have one scale."""
        a, b = (as_tensor(self.forms[o] or o) for o in v.operands)
        unknown = [o for o in (a, b) if o.type.dtype.is_float]
        if unknown:
            self.problems.append(f"{v.op} %{v.name}: compares %{unknown[0].name}, which has no"
                                 " scale")  # fmt: skip
            return _placeholder(v.type)
        if (a.type.dtype, a.type.quant) == (b.type.dtype, b.type.quant):
            return v.replace(a=a, b=b)
        return QCompare.of(kind, a, b, name=v.name)

    def quantized(self, q: Quantize) -> Value:
        """The integers of a quantize node."""
        if isinstance(q.x, Const):
            return Const(q.evaluate(q.x.array), q.quant, name=q.x.name)
        return self.compute(q.x, q.type, single=q.single)

    def compute(self, v: Value, target: TensorType, *, single: DType | None = None) -> Value:
        """The float value `v` in the quantization `target`; `single` as a quantize has it."""
        key = (v, target.dtype, target.quant)
        if key not in self.made:
            self.made[key] = self._compute(v, target, single)
        return self.made[key]

    def _compute(self, v: Value, target: TensorType, single: DType | None) -> Value:
        form = self.forms.get(v)
        if form is not None:
            made = converted(form, target)
            return made if made is form else stepping(made, v, (form,), single=single)
        source = self.forms.get(self.root[v])
        if source is not None and not isinstance(v, Const) and not _only_clamps(v, self.root[v]):
            return self.table(v, source, target)
        if is_clamp(v):
            (inner,) = v.operands
            return clamped(self.compute(inner, target, single=single), v, target)
        if (factor := scaling(v)) is not None and self.rescales(v):
            return self.scaled(v, factor, target)
        if v.moves:
            return _over(v, [self.part(o, target, single) for o in v.operands])
        return self.twin(v, target, single)

    def rescales(self, v: Value) -> bool:
        """Whether a factor can be a matter of its operand's scale: that is computed for it."""
        inner = v.operands[0]
        return self.forms.get(inner) is None and not inner.moves and not is_clamp(inner)

    def scaled(self, v: Value, factor: float, target: TensorType) -> Value:
        """The operand in a scale that makes its integers the result's."""
        quant = fixedpoint.quant_of(target)
        before = Quant(quant.tensor_scale / factor, quant.zero)
        made = self.compute(v.operands[0], TensorType(target.dtype, v.shape, before))
        if not hasattr(made, "quant") or isinstance(made, Const):
            return in_type(made, target)
        return made.replace(quant=quant, name=v.name)

    def part(self, o: Value, target: TensorType, single: DType | None) -> Value:
        """An operand of a moving op, computed straight into the result's quantization."""
        if not o.type.dtype.is_float:
            return self.forms[o] or o
        wanted = TensorType(target.dtype, o.shape, target.quant)
        if isinstance(o, Const):
            return Const(fixedpoint.quantize(o.array, wanted), wanted.quant, name=o.name)
        return self.compute(o, wanted, single=single)

    def table(self, v: Value, source: Value, target: TensorType) -> Value:
        """A chain of functions of one value, equation (8)."""
        root = self.root[v]
        looked_up = followed if source.type.dtype is DType.I16 else tabulated
        made = looked_up(source, lambda real: apply(v, root, real), target, f"{v.op} %{v.name}")
        return made.replace(name=v.name)

    def twin(self, v: Value, target: TensorType, single: DType | None) -> Value:
        """The op's integer twin over the integers of its operands."""
        known = self.read(v, target)
        if known is None:
            return _placeholder(target)
        operands = tuple(self.operands(v, known))
        try:
            twin = _twin(v, operands, target).replace(name=v.name)
            return stepping(twin, v, operands, single=single)
        except IRCError as error:
            made = self.fitted(v, operands, target)
            if made is None:
                self.problems.append(f"{v.op} %{v.name}: {error}")
            return made or _placeholder(target)

    def fitted(self, v: Value, operands: tuple[Value, ...], target: TensorType) -> Value | None:
        """The twin over other operands; noted where they don't say the same. None if none does."""
        for made, exact in fitted(v, operands, target):
            try:
                twin = _twin(v, made, target).replace(name=v.name)
            except IRCError:
                continue
            if not exact:
                self.narrow.append(f"{v.op} %{v.name}")
            return twin
        return None

    def read(self, v: Value, target: TensorType) -> dict[Value, Value] | None:
        """The integers of a twin's operands, computed in 16 bits where the model quantizes none;
        None where one can't be had, which is entered as a problem."""
        known, lacking = {o: self.forms[o] or o for o in v.operands}, False
        for o in known:
            if self.forms[o] is not None or isinstance(o, Const):
                continue
            type_ = inner_type(v, o, target, self.forms.__getitem__, self.root)
            if type_ is None:
                self.problems.append(f"{o.op} %{o.name}: {v.op} %{v.name} reads it unquantized")
                lacking = True
                continue
            known[o] = self.compute(o, type_)
        return None if lacking else known

    def operands(self, v: Value, known: dict[Value, Value]) -> Iterable[Value]:
        """The integer operands of a twin, weights as i8 around zero."""
        fields = [f for f in operand_fields(type(v)) if getattr(v, f) is not None]
        found = {f: known[getattr(v, f)] for f in fields}
        if "w" in found:
            x, w = centred(v, found["x"], constant(found["w"], "weights"))
            found["x"], found["w"] = x, with_room(x.type, w, found.get("b"))
        return [v if f in PARAMETERS else as_tensor(v) for f, v in found.items()]


def predicate_table(v: Value, root: Value, source: TensorType) -> Array:
    """Equation (8) for a function to booleans or whole numbers: its 256 results."""
    q = np.arange(source.dtype.min, source.dtype.max + 1)
    with np.errstate(all="ignore"):
        found = apply(v, root, fixedpoint.dequantize(q, source.with_shape(q.shape), DType.F64))
    return np.broadcast_to(found, q.shape).astype(v.type.dtype.numpy)


def _uniform(table: Array) -> bool:
    return bool((table == table[0]).all())


def _twin(v: Value, operands: tuple[Value, ...], target: TensorType) -> Value:
    """The integer twin; layers over 16 bits multiply their bytes."""
    if not isinstance(v, Conv2d | Linear) or operands[0].type.dtype is not DType.I16:
        return v.quantized(operands, target)
    x, w, *bias = operands
    b = bias[0] if bias else None
    if isinstance(v, Conv2d):
        return convolved(v, x, constant(w, "weights"), b, target)
    return multiplied(x, constant(w, "weights"), b, None, target, v.name)


def _first_quantize(graph: Graph, v: Value) -> TensorType | None:
    """The type of the first quantize that reads a value, directly, clamped or moved."""
    for user in graph.users[v]:
        if isinstance(user, Quantize):
            return user.type
    through = (u for u in graph.users[v] if u.moves or is_clamp(u))
    moved = (_first_quantize(graph, u) for u in through)
    return next((t for t in moved if t is not None), None)


def _over(v: Value, operands: list[Value]) -> Value:
    given = iter(operands)
    return v.map_operands(lambda _: next(given))


def _placeholder(t: TensorType) -> Value:
    """Stands in for what could not be made, so that all problems are found at once."""
    dtype = DType.I8 if t.dtype.is_float else t.dtype
    quant = None if dtype is DType.BOOL else t.quant or Quant(1.0)
    return Const(np.zeros(t.shape, dtype.numpy), quant)


def _only_clamps(v: Value, root: Value) -> bool:
    while v is not root and is_clamp(v):
        (v,) = v.operands
    return v is root
