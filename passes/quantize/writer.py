"""The QDQ form of a float graph, written by scales that are known: quantize/dequantize pairs where
values are quantized, weights and biases as integers behind a dequantize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.columns import Columns
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.linear import Linear
from irc.ops.normalization import RowNorm
from irc.ops.prelu import PRelu
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.recurrent import Recurrent
from irc.ops.resample import Resample
from irc.ops.trees import TreeEnsemble
from irc.passes.calibration.calibrate import Progress, Statistics
from irc.passes.calibration.moments import LayerMoments
from irc.passes.quantize import weights as weighting
from irc.passes.quantize.assignment import Scales
from irc.passes.quantize.bias_correction import Feeds, nearer
from irc.passes.quantize.coordinates import bound_between_steps
from irc.passes.quantize.options import Options
from irc.passes.quantize.rounding import compensated
from irc.passes.quantize.scales import asymmetric, stored_as, symmetric
from irc.passes.quantize.sensitivity import Known
from irc.passes.quantize.sites import Sites, from_reals, is_float, weighted
from irc.passes.quantize.states import merged, precise_operands, state_constant
from irc.progress import bar, silent
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value, operand_fields


@dataclass(frozen=True)
class Rounded:
    """A layer's quantized weights, and the least scales that they might have."""

    smallest: Array
    weights: weighting.Weights

    def suits(self, smallest: Array) -> bool:
        """Whether other least scales make the same weights: none comes near to what is tried."""
        lowest = self.weights.scales * weighting.SHARES.min() / 2
        return all(np.all(ends < lowest) for ends in (self.smallest, smallest))


@dataclass(frozen=True)
class Writer:
    """Writes the QDQ form of a float graph: which values are quantized (`sites`), how (`scales`),
    and what was measured of them."""

    sites: Sites
    statistics: Mapping[Value, Statistics]
    scales: Scales
    options: Options
    moments: Mapping[Value, LayerMoments] = field(default_factory=dict)
    """What the weights of layers multiply."""
    progress: Progress = silent
    """Told how many layers have their weights."""
    bytes: dict[Value, Value] = field(default_factory=dict)
    """The 8-bit copies of wide values, by what is copied."""
    layers: dict[tuple[Value, Value | None], tuple[Value, Value | None]] = field(
        default_factory=dict
    )
    """Quantized weights and biases by the real ones."""
    written: dict[Value, Value] = field(default_factory=dict)
    """Layers by what they were."""
    precise: frozenset[Value] = frozenset()
    """Linear layers whose weights are sums of two of 8 bits."""
    known: dict[Value, Rounded] = field(default_factory=dict)
    """The weights of layers that other writers of the same graph rounded, and these."""

    def graph(self) -> Graph:
        """The whole graph, its interface kept."""
        old = self.sites.graph
        new: dict[Value, Value] = {}
        for v in old.order:
            new[v] = self.quantized(v, self.rebuilt(v, new))
        pairs = zip(old.output_names, old.outputs, strict=True)
        outputs = tuple(self.output(v, new[v], old.carried.get(name)) for name, v in pairs)
        inputs = tuple(self.input(v, new) for v in old.inputs)
        return Graph(old.name, inputs, outputs, old.output_names, states=old.states)

    def input(self, v: Input, new: Mapping[Value, Value]) -> Input:
        """Pixels become numbers with a scale; all others stay."""
        made = new.get(v)
        return made if isinstance(made, Input) else v

    def rebuilt(self, v: Value, new: Mapping[Value, Value]) -> Value:
        """The same op over what its operands have become."""
        if isinstance(v, Input) and v in self.sites.pixels:
            return Input(v.type.dtype, v.shape, Quant(1.0), name=v.name)
        if isinstance(v, Const | Input):
            return v
        if v.op == "cast" and v.operands[0] in self.sites.pixels:
            return Dequantize(new[v.operands[0]], name=v.name)
        if weighted(v):
            return self.with_weights(v, new)
        if self.sites.moving(v) and is_float(v):
            return v.map_operands(lambda o: self.moved(o, v, new))
        # Tables, factors, slopes, weights of taps and the parameters of norms take reals.
        if self.sites.root[v] is not v:
            made = v.map_operands(lambda o: self.inner(o, v, new))
            return made.map_operands(lambda o: self.compared(o, v))
        if isinstance(v, TreeEnsemble):
            made = v.map_operands(lambda o: self.read(o, v, new))
            return made.on_grid(self.scales.read_by(v, v.x, self.sites))
        if self.sites.absorbs(v) or isinstance(v, PRelu | RowNorm | Resample | Columns):
            return v.map_operands(lambda o: self.read(o, v, new))
        return v.map_operands(lambda o: self.operand(o, v, new))

    def inner(self, o: Value, reader: Value, new: Mapping[Value, Value]) -> Value:
        """An operand of a function of one value. What is quantized for others is computed anew
        where another operand is not: all of the function must start at one value."""
        root, sites = self.sites.root[reader], self.sites
        if sites.root[o] is not root or o is root or o in sites.fused:
            return self.read(o, reader, new)
        if not any(p in sites.fused for p in (reader, *reader.operands)):
            return self.read(o, reader, new)
        return o.map_operands(lambda p: self.inner(p, reader, new))

    def read(self, o: Value, reader: Value, new: Mapping[Value, Value]) -> Value:
        """An operand as its reader takes it: of 8 bits unless it reads wider ones."""
        if o not in self.scales.narrow:
            return new[o]
        type_ = self.scales.read_by(reader, o, self.sites)
        if type_ == self.scales[o]:
            return new[o]
        if o not in self.bytes:
            self.bytes[o] = pair(new[o], type_, f"{o.name}.narrow")
        return self.bytes[o]

    def quantized(self, v: Value, made: Value) -> Value:
        """The value behind its quantize/dequantize pair, if this is where it is quantized."""
        if not is_float(v) or self.sites.moving(v) or v in self.sites.fused:
            return made
        return pair(made, self.scales[v], v.name)

    def output(self, v: Value, made: Value, before: Input | None = None) -> Value:
        """Outputs are i8, states what they were `before`."""
        if before is not None:
            return self.carried(before, v, made)
        if isinstance(v, Const) and v.type.dtype.is_float:
            quant = asymmetric(float(v.array.min(initial=0)), float(v.array.max(initial=0)))
            return constant(v, TensorType(DType.I8, v.shape, stored_as(quant, DType.I8)))
        if not is_float(v) or self.scales[v].dtype in (DType.I8, DType.I16, DType.I32):
            return made
        quant = fixedpoint.quant_of(self.scales[v])
        return pair(made, TensorType(DType.I8, v.shape, stored_as(quant, DType.I8)), v.name)

    def carried(self, before: Input, v: Value, made: Value) -> Value:
        """A state in the type that it comes back in."""
        if not is_float(before) or self.scales.types.get(v) == self.scales[before]:
            return made
        return pair(made, self.scales[before], v.name)

    def operand(self, o: Value, reader: Value, new: Mapping[Value, Value]) -> Value:
        """An operand of a computing op; constants get a scale of their own."""
        if not isinstance(o, Const) or not o.type.dtype.is_float:
            return self.read(o, reader, new)
        if from_reals(reader):
            return self.compared(o, reader)
        if o in precise_operands(reader):
            return constant(o, state_constant(o.array))
        array = self.sites.seen_as(o, reader)
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        if self.scales.types.get(reader, reader.type).dtype is DType.I16:
            return constant(o, TensorType(DType.I16, o.shape, symmetric(max(-low, high))))
        return constant(o, TensorType(DType.U8, o.shape, asymmetric(low, high)))

    def compared(self, o: Value, reader: Value) -> Value:
        """A constant that values are to equal, rounded as these are; but where these are whole
        numbers, others equal none. A bound is as much as they can tell of it."""
        if not isinstance(o, Const) or reader.op not in ("equal", "less", "less_or_equal"):
            return o
        others = [x for x in reader.operands if x in self.scales.types]
        parts = [self.statistics.get(p) for x in others for p in self.sites.parts(x)]
        if not parts:
            return o
        whole = all(s is not None and s.whole for s in parts)
        type_ = self.scales.read_by(reader, others[0], self.sites)
        if reader.op != "equal":
            fine = type_.dtype is DType.I16 and not whole and o.type.dtype is DType.F32
            return bound_between_steps(o, reader, type_) if fine else o
        none = whole & (np.rint(o.array) != o.array)
        nearest = np.where(none, o.array, np.rint(o.array / type_.scale) * type_.scale)
        return Const(nearest.astype(o.array.dtype), name=o.name)

    def moved(self, o: Value, result: Value, new: Mapping[Value, Value]) -> Value:
        """An operand of a moving op; it takes the scale of the result."""
        quant = self.scales[result].quant
        if not o.type.dtype.is_float or (quant is not None and quant.axis is not None):
            return new[o]
        type_ = TensorType(self.scales[result].dtype, o.shape, quant)
        if isinstance(o, Const):
            return constant(o, type_)
        return new[o] if self.scales[o] == type_ else pair(new[o], type_, o.name)

    def with_weights(self, v: Value, new: Mapping[Value, Value]) -> Value:
        """The op over i8 weights and an i32 bias, both behind a dequantize."""
        node: Any = v
        if v in self.precise:
            return self.in_two(v, self.operand(node.x, v, new))
        key = (node.w, node.b)
        if not isinstance(v, Recurrent) or key not in self.layers:
            self.layers[key] = self.weights(v)
            self.progress(len(self.layers))
        w, b = self.layers[key]
        given = {f: getattr(v, f) for f in operand_fields(type(v)) if f not in ("w", "b")}
        others = {f: None if o is None else self.operand(o, v, new) for f, o in given.items()}
        self.written[v] = v.replace(w=w, b=b, **others)
        return self.written[v]

    def in_two(self, v: Value, x: Value) -> Value:
        """A linear layer as the sum of two, of which the second one's weights are what the rounding
        of the first one's left."""
        node: Any = v
        real = node.w.array.astype(np.float64)
        scale = self.scales.read_by(v, node.x, self.sites).scale
        matters = weighting.importance(self.statistics[node.x], real.shape, 1)
        offset = None if node.b is None else node.b.array.astype(np.float64)
        smallest = np.zeros(len(real))
        if offset is not None:
            smallest = np.abs(offset) / (scale * weighting.BIAS_LIMIT)
        coarse = weighting.quantize_weights(real, matters, smallest, self.options)
        left = weighting.quantize_weights(
            real - coarse.real, matters, np.zeros(len(real)), self.options
        )
        bias = None if offset is None else _bias(offset, coarse.scales * scale, f"{v.name}.bias")
        first, second = (Const(node.w.array, name=f"{node.w.name}{end}") for end in ("", ".rest"))
        rest = Linear(x, _weights(second, left), None, name=f"{v.name}.rest")
        statistics = self.statistics[node.x]
        largest = max(-statistics.low, statistics.high) * np.abs(left.real).sum(1).max()
        return Add(
            pair(Linear(x, _weights(first, coarse), bias), self.scales[v], f"{v.name}.coarse"),
            pair(rest, TensorType(DType.I16, v.shape, symmetric(float(largest))), rest.name),
            name=v.name,
        )

    def recentred(self, made: Graph, feeds: Feeds, run: Known | None = None) -> Graph:
        """The graph that was written, with biases that keep the means of channels in `feeds`, where
        that is asked for and brings its outputs nearer to float's; `run` learns what was
        computed."""
        if not self.options.bias_correction:
            return made
        found = {q: self.moments[v] for v, q in self.written.items() if v in self.moments}
        means = {q: np.array(m.means) for q, m in found.items()}
        with bar("biases", len(made.order)) as moved:
            return nearer(self.sites.graph, made, means, feeds, moved, run)

    def multiplied(self, v: Value) -> LayerMoments:
        """What a layer's weights multiply, at every step that shares them."""
        steps = self.sites.states.sharers(v)
        return reduce(add, (self.moments[s] for s in steps))

    def weights(self, v: Value) -> tuple[Value, Value | None]:
        """The weights and the bias of a layer, or of all the steps that share them."""
        node: Any = v
        x, w, bias = node.x, node.w, node.b
        groups = getattr(v, "groups", 1)
        real, x_scale = w.array.astype(np.float64), self.scales.read_by(v, x, self.sites).scale
        offset = np.zeros(len(real)) if bias is None else bias.array.astype(np.float64)
        statistics = merged([self.statistics[s] for s in self.sites.states.shared(v)])
        smallest = np.abs(offset) / (x_scale * weighting.BIAS_LIMIT)
        if v not in self.known or not self.known[v].suits(smallest):
            q = weighting.quantize_weights(
                real, weighting.importance(statistics, real.shape, groups), smallest, self.options
            )
            if self.options.compensate and v in self.moments:
                q = compensated(real, q, self.multiplied(v), self.options.pair_safe)
            self.known[v] = Rounded(smallest, q)
        q = self.known[v].weights
        if self.options.bias_correction and v.op in ("conv2d", "linear"):
            offset = weighting.corrected_bias(offset, real, q.real, statistics, groups)
        made = None
        if bias is not None or np.any(offset):
            made = _bias(offset, q.scales * x_scale, f"{v.name}.bias")
        return _weights(w, q), made


def pair(v: Value, type_: TensorType, name: str) -> Value:
    """`dequantize(quantize(v))`."""
    quant = fixedpoint.quant_of(type_)
    return Dequantize(Quantize(v, type_.dtype, quant, name=f"{name}.q"), name=f"{name}.dq")


def constant(c: Const, type_: TensorType) -> Value:
    """A float constant as `dequantize` of a quantized one."""
    array = fixedpoint.quantize(c.array, type_)
    return Dequantize(Const(array, type_.quant, name=f"{c.name}.q"), name=f"{c.name}.dq")


def _weights(w: Const, q: weighting.Weights) -> Value:
    scales = tuple(float(s) for s in q.scales)
    return Dequantize(Const(q.array, Quant(scales, 0, 0), name=f"{w.name}.q"), name=f"{w.name}.dq")


def _bias(offset: Array, scales: Array, name: str) -> Value:
    units = np.clip(np.rint(offset / scales), DType.I32.min, DType.I32.max).astype(np.int32)
    quant = Quant(tuple(float(s) for s in scales), 0, 0)
    return Dequantize(Const(units, quant, name=f"{name}.q"), name=f"{name}.dq")
