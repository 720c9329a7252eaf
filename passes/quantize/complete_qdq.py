"""A graph of which its author quantized only a part, quantized to the end.

Every scale that the graph states is kept. What a layer reads without a scale gets one by
calibration, weights that are reals become i8:

    %y = add(dequantize(%a), %x)   ->   %y = add(dequantize(%a), dequantize(quantize(%x)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from irc import fixedpoint
from irc.errors import IRCError
from irc.graph import Graph
from irc.names import by_keyword
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize
from irc.ops.quantization import Quantize as QuantizeOp
from irc.passes.calibration.calibrate import Progress, Statistics, Visible, calibrate, keys
from irc.passes.calibration.data import Source, batches
from irc.passes.calibration.moments import LayerMoments
from irc.passes.float.pointwise import only_clamps, roots
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.intervals import core, kept_type, output_type
from irc.passes.quantize.masks import finite, masked
from irc.passes.quantize.options import Options
from irc.passes.quantize.ranges import NATURAL
from irc.passes.quantize.scales import choose_quant, stored_as
from irc.passes.quantize.sites import (
    Sites,
    from_reals,
    has_integer_twin,
    is_float,
    refuse,
    weighted,
)
from irc.passes.quantize.writer import Writer, pair
from irc.progress import bar
from irc.types import DType, Quant, TensorType
from irc.value import Value


def complete(
    graph: Graph, data: Source, *, progress: Progress | None = None, **options: Any
) -> Graph:
    """The QDQ graph with a quantize/dequantize pair wherever one is missing; itself if none is.

    `data` and `options` as of `quantize`. Raises `CompileError` listing the nodes that have no
    integer form.
    """
    chosen = by_keyword(Options, "quantize", options)
    if chosen.min_sqnr:
        raise IRCError(f"{graph.name}: min_sqnr is for float models, this one states scales")
    islands = Islands(graph)
    islands.check()
    if not islands.open and not islands.real_weights:
        return graph
    seen = masked(graph)
    with bar("calibrate") as shown:
        feeds = batches(graph, data)
        layers = islands.real_weights if chosen.measures_layers else ()
        profile = calibrate(graph, feeds, islands.observed, progress or shown, seen, layers)
    names = keys(graph)
    statistics = {v: profile.values[names[v]] for v in islands.observed}
    moments = {v: profile.layers[names[v]] for v in layers if names[v] in profile.layers}
    completer = _Completer(islands, statistics, chosen, moments)
    return completer.writer.recentred(completer.graph(), profile.first)


@dataclass(frozen=True)
class Islands:
    """What a QDQ graph leaves unquantized."""

    graph: Graph

    @cached_property
    def types(self) -> Mapping[Value, TensorType]:
        """The integers that stand for a float value: behind a dequantize, and what is moved of
        it, or clamped at integers."""
        found: dict[Value, TensorType] = {}
        for v in self.graph.order:
            if isinstance(v, Dequantize):
                found[v] = v.x.type
            elif is_float(v) and (kept := kept_type(v, found.get)) is not None:
                found[v] = kept
        return found

    @cached_property
    def root(self) -> Mapping[Value, Value]:
        """What each value is a function of."""
        return roots(self.graph.order, lambda v: False)

    @cached_property
    def unbounded(self) -> frozenset[Value]:
        """The outputs that have no scale, and no interval that one could be made of."""
        return frozenset(v for v in self.graph.outputs if is_float(v) and not self._bounded(v))

    def _bounded(self, v: Value) -> bool:
        if v in self.types or weighted(core(v)):
            return True
        try:
            output_type(v, self._form, self.root)
        except IRCError:
            return False
        return True

    def _form(self, v: Value) -> Value | None:
        """Stands for the integers of a value, in what is asked of their type."""
        if isinstance(v, Dequantize):
            return v.x
        if v in self.read:
            return Input(DType.U8, v.shape, Quant(1.0), name=v.name)
        t = self.types.get(v)
        return None if t is None else Input(t.dtype, t.shape, t.quant, name=v.name)

    @cached_property
    def read(self) -> frozenset[Value]:
        """The values that a layer reads as reals and that have no scale."""
        walk = _Walk(self)
        for v in self.graph.order:
            if isinstance(v, QuantizeOp):
                walk.visit(v.x)
        for v in self.graph.outputs:
            walk.visit(v)
        return frozenset(walk.open)

    @cached_property
    def open(self) -> tuple[Value, ...]:
        """The values that have no scale and need one, in order: layers read them, or they are
        outputs of unknown range."""
        needed = self.read | self.unbounded
        return tuple(v for v in self.graph.order if v in needed)

    @cached_property
    def real_weights(self) -> tuple[Value, ...]:
        """The layers whose weights are reals."""
        layers = [v for v in self.graph.order if weighted(v)]
        return tuple(v for v in layers if isinstance(v.w, Const))  # type: ignore[attr-defined]

    @cached_property
    def observed(self) -> frozenset[Value]:
        """What calibration must measure."""
        return frozenset(self.open) | {v.operands[0] for v in self.real_weights}

    def stated(self, v: Value) -> TensorType | None:
        """The author's own type for a value that is quantized for some of its readers."""
        users = self.graph.users[v]
        return next((u.type for u in users if isinstance(u, QuantizeOp)), None)

    def check(self) -> None:
        """Raise `CompileError` listing the nodes between the islands without an integer form."""
        refuse(self.graph, map(self._problem, self.graph.order))

    def _problem(self, v: Value) -> str:
        edge = isinstance(v, Const | Input | QuantizeOp | Dequantize)
        if edge or not (is_float(v) or any(map(is_float, v.operands))):
            return ""
        at = f"{v.op} %{v.name}"
        if not is_float(v):
            known = from_reals(v) or self.root[v] is not v
            return "" if known else f"{at}: makes {v.type} from floats, which has no integer form"
        return "" if has_integer_twin(v) else f"{at}: the op has no integer form"


@dataclass
class _Walk:
    """Goes from what is quantized to what must be, as `irc.passes.integer` computes it."""

    islands: Islands
    open: set[Value] = field(default_factory=set)
    seen: set[Value] = field(default_factory=set)

    def visit(self, v: Value) -> None:
        """Mark what must be quantized for `v` to be computed in integers."""
        stack = [v]
        while stack:
            top = stack.pop()
            known = top in self.seen or top in self.islands.types
            if known or isinstance(top, Const):
                continue
            self.seen.add(top)
            stack += self.reads(top)

    def reads(self, v: Value) -> list[Value]:
        """The operands that have to be computed for `v`; those that need a scale are marked."""
        root = self.islands.root[v]
        if not v.type.dtype.is_float:
            plain = [o for o in v.operands if not is_float(o)]
            read = [root] if root is not v else list(filter(is_float, v.operands))
            return [*plain, *self.mark(read)]
        clamps = only_clamps(v, root)
        if root is not v and not clamps:
            return self.mark([root])
        if v.moves or (clamps and root is not v):
            return list(v.operands)
        return self.mark([o for o in v.operands if is_float(o)])

    def mark(self, values: list[Value]) -> list[Value]:
        missing = [o for o in values if o not in self.islands.types]
        self.open.update(missing)
        return missing


@dataclass(frozen=True)
class _Completer:
    islands: Islands
    statistics: Mapping[Value, Statistics]
    options: Options
    moments: Mapping[Value, LayerMoments]

    def graph(self) -> Graph:
        graph = self.islands.graph
        real: dict[Value, Value] = {}  # as it is computed
        read: dict[Value, Value] = {}  # as layers read it
        for v in graph.order:
            source = real if isinstance(v, QuantizeOp) else read
            if v in self.islands.real_weights:
                made = self.writer.with_weights(v, read)
            else:
                made = v.map_operands(partial(self.operand, v, source))
            real[v] = made
            chosen = self.types.get(v)
            read[v] = made if chosen is None else pair(made, chosen, v.name)
        return graph.with_outputs(tuple(self.output(v, real[v]) for v in graph.outputs))

    def operand(self, reader: Value, known: Mapping[Value, Value], o: Value) -> Value:
        """An operand of a reader; of a constant that masks what a softmax sees, what that sees."""
        if isinstance(o, Const) and o.type.dtype.is_float and reader in self.visible:
            return Const(finite(o.array), name=o.name)
        return known[o]

    @cached_property
    def visible(self) -> Mapping[Value, Visible]:
        """Values of which their readers see a part only."""
        return masked(self.islands.graph)

    def output(self, v: Value, made: Value) -> Value:
        """Outputs stay as they are where their range is known; others are i8."""
        if v not in self.islands.unbounded:
            return made
        chosen = self.types[v]
        if chosen.dtype is not DType.U8:
            return pair(made, chosen, v.name)
        quant = stored_as(fixedpoint.quant_of(chosen), DType.I8)
        return pair(made, TensorType(DType.I8, v.shape, quant), v.name)

    @cached_property
    def types(self) -> Mapping[Value, TensorType]:
        """The type of each value that had none."""
        return {v: self.islands.stated(v) or self.chosen(v) for v in self.islands.open}

    def chosen(self, v: Value) -> TensorType:
        """By the op's nature, or by what calibration measured."""
        quant = NATURAL.get(v.op) or choose_quant([self.statistics[v]], self.options)
        return TensorType(DType.U8, v.shape, quant)

    @cached_property
    def writer(self) -> Writer:
        """What quantizes weights; it needs to know the scale of what they are multiplied with."""
        types = {**self.islands.types, **self.types}
        known = {v.operands[0]: types[v.operands[0]] for v in self.islands.real_weights}
        for t in known.values():
            fixedpoint.quant_of(t)
        sites = Sites(self.islands.graph)
        return Writer(sites, self.statistics, Scales(known), self.options, self.moments)
