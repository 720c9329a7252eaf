"""Units of an input's columns: ages beside incomes beside ratios.

One scale for all of them leaves the small ones nothing, in 16 bits either. Where columns are that
unlike, each gets a scale and a zero point of its own, which the caller's integers have; from there
on they are numbers of like size, in one scale. What the network does to columns takes the units in:

    %y = linear(%x, %w, %b)   ->   %e = columns(%x, %t, %o)
                                   %y = linear(%e, %w * %t, %b + %w @ %o)

So do comparisons, chosen columns, sums and products with constants, and squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc.graph import Graph
from irc.ops.columns import Columns
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.logic import Less, LessOrEqual
from irc.ops.shape import Concat
from irc.ops.trees import TreeEnsemble
from irc.passes.calibration.data import Batch
from irc.passes.float.fold import Fold
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import HEADROOM, symmetric
from irc.passes.quantize.sites import from_outside
from irc.types import Array, DType, Shape
from irc.value import Value

SEEN = 64 << 20
"""Bytes of samples that are looked at, and held until calibration has read them."""
ALONE = 512
"""Bytes that a sample takes besides its elements."""
ENOUGH = 8
"""Rows of a table that tell what its columns are like."""
WIDEST = 256
"""Columns that have units of their own at most."""
STEPS = 64.0
"""Of one scale of 16 bits for all columns so many must lie within what each of them varies by."""
MIXED = 32.0
"""Units of columns that go on as they are, beside each other, differ by less."""
APART = 4.0
"""Columns that lie this many times as far from zero as they are wide have an offset."""
FARTHEST = 2.0**14
"""Offsets lie at most this many scales from zero: zero points have 32 bits, integers 16."""
WHOLE = frozenset({"cast", "floor", "ceil", "round", "equal"})
"""Readers that need whole numbers to be exactly that."""

Units = Mapping[str, Array]
"""By input, f32 [2, C]: the scale and the offset of each column."""


def ahead(feeds: Iterator[Batch]) -> list[Batch]:
    """The first feeds, as many as `SEEN` holds, taken from `feeds`: tables are seen whole."""
    seen: list[Batch] = []
    size = 0
    while size < SEEN and (feed := next(feeds, None)) is not None:
        seen.append(feed)
        size += ALONE + sum(array.nbytes for array in feed.values())
    return seen


def unlike_columns(graph: Graph, feeds: Sequence[Mapping[str, Array]], options: Options) -> Units:
    """The inputs whose columns need units of their own, by the first samples."""
    found: dict[str, Array] = {}
    for v in candidates(graph, options):
        rows = [feed[v.name].reshape(-1, v.shape[-1]) for feed in feeds]
        low = np.min([r.min(0) for r in rows], axis=0).astype(np.float64)
        high = np.max([r.max(0) for r in rows], axis=0).astype(np.float64)
        if sum(map(len, rows)) >= ENOUGH and _unlike(low, high):
            units = {v.name: _units(low, high)}
            found |= units if _taken_in(graph, units) else {}
    return found


def _taken_in(graph: Graph, units: Units) -> bool:
    """Whether no columns of unlike units stand side by side as they were, behind their own."""
    work = _Work(graph, units)
    work.graph()
    return not work.mixed


def candidates(graph: Graph, options: Options) -> list[Input]:
    """The inputs that may be tables: trees alone have scales of their own for theirs."""
    if str(options.activations) == "8" or not options.equalize:
        return []
    return [
        v for v in graph.inputs
        if from_outside(graph, v) and v.type.dtype is DType.F32 and v.type.rank > 1
        and 1 < v.shape[-1] <= WIDEST and v not in graph.outputs and not _counted(graph, v)
        and not all(isinstance(u, TreeEnsemble) for u in graph.users[v])
    ]  # fmt: skip


def _counted(graph: Graph, v: Value) -> bool:
    return any(u.op in WHOLE or (u.moves and _counted(graph, u)) for u in graph.users[v])


def _unlike(low: Array, high: Array) -> bool:
    spread = high - low
    step = symmetric(HEADROOM * float(np.maximum(-low, high).max())).tensor_scale
    return bool(np.any((spread > 0) & (spread < STEPS * step)))


def _units(low: Array, high: Array) -> Array:
    """Scales are powers of two, so that whole numbers stay what they are.

    What a column that was one number may be later is not known: it varies by as much as that
    number, or, where it was zero, by as much as the column that varies most.
    """
    middle = np.rint((low + high) / 2)
    near = middle * (1 - 1 / FARTHEST)
    offset = np.where(np.abs(middle) > FARTHEST * (high - low) / 2, near, middle)
    offset = np.where(np.abs(middle) > APART * (high - low), offset, 0.0)
    offset = offset.astype(np.float32).astype(np.float64)
    largest = np.maximum(np.abs(low - offset), np.abs(high - offset))
    largest = np.where(low == high, np.abs(low), largest)
    largest = np.where(largest > 0, largest, largest.max())
    return np.stack([2.0 ** np.ceil(np.log2(largest)), offset]).astype(np.float32)


def in_units(graph: Graph, units: Units) -> Graph:
    """The same function of the graph's inputs, some of them in units of their columns."""
    return Fold().run(_Work(graph, units).graph()) if units else graph


@dataclass(frozen=True)
class _Affine:
    """`even * scale + offset`, broadcast: what a value is; f64."""

    even: Value
    scale: Array
    offset: Array


@dataclass
class _Work:
    source: Graph
    units: Units
    new: dict[Value, Value] = field(default_factory=dict)
    forms: dict[Value, _Affine] = field(default_factory=dict)
    mixed: bool = False
    """Whether columns that nothing was done to had to go back to what they were, together."""

    def graph(self) -> Graph:
        for v in self.source.order:
            if isinstance(v, Input) and v.name in self.units:
                scale, offset = self.units[v.name]
                parts = Const(scale, name=f"{v.name}.scale"), Const(offset, name=f"{v.name}.offset")
                even = Columns(v, *parts, name=f"{v.name}.even")
                self.forms[v] = _Affine(even, scale.astype(np.float64), offset.astype(np.float64))
                continue
            made = self.through(v) if any(o in self.forms for o in v.operands) else None
            if isinstance(made, _Affine):
                self.forms[v] = made
            else:
                self.new[v] = made or v.map_operands(self.real)
        return self.source.with_outputs(tuple(map(self.real, self.source.outputs)))

    def real(self, v: Value) -> Value:
        """A value as it was, of what it is in its units."""
        if v not in self.new:
            form = self.forms[v]
            untouched = form.even.moves or isinstance(form.even, Columns)
            sizes = np.abs(form.scale)
            self.mixed |= untouched and bool(sizes.max() > MIXED * sizes.min())
            made = _each(Mul, form.even, form.scale, 1.0, v.name)
            self.new[v] = _each(Add, made, form.offset, 0.0, v.name)
        return self.new[v]

    def through(self, v: Value) -> _Affine | Value | None:
        """What becomes of a node over values in units: a value in units, or a node that takes them
        in; None where these must go."""
        if isinstance(v, Less | LessOrEqual):
            return self.compared(v)
        x = v.operands[0]
        form = self.forms.get(x)
        if isinstance(v, Concat) or (v.moves and form is not None):
            return self.moved(v)
        if form is None:
            return None
        match v:
            case Add(b=Const() as c):
                return _Affine(form.even, form.scale, form.offset + c.array)
            case Mul(b=Const() as c) if np.all(c.array == 0):
                return Const(np.zeros(v.shape, np.float32), name=v.name)
            case Mul(b=Const() as c) if np.all(c.array != 0):
                return _Affine(form.even, form.scale * c.array, form.offset * c.array)
            case Mul(a=a, b=b) if a is b:
                return _squared(form, v)
            case Linear(w=Const(), b=None | Const()) if flat := _by_columns(form, x.shape):
                return _linear(v, *flat)
            case TreeEnsemble() if flat := _by_columns(form, x.shape):
                return _trees(v, *flat)
        return None

    def compared(self, v: Less | LessOrEqual) -> Value | None:
        """A comparison with constants, in units."""
        x, c = (v.b, v.a) if isinstance(v.a, Const) else (v.a, v.b)
        form = self.forms.get(x)
        if form is None or not isinstance(c, Const) or not np.all(form.scale > 0):
            return None
        most = np.finfo(np.float32).max
        real = (c.array.astype(np.float64) - form.offset) / form.scale
        bound = _const(np.clip(real, -most, most), c.name)
        return v.map_operands(lambda o: form.even if o is x else bound)

    def moved(self, v: Value) -> _Affine | None:
        """Elements and their units move together."""
        reals = [o for o in v.operands if o.type.dtype.is_float]
        forms = [self.forms.get(o) for o in reals]
        known = [f for f in forms if f is not None]
        others = [o for o in v.operands if o not in reals]
        if len(known) < len(reals) or not all(isinstance(o, Const) for o in others):
            return None
        if v.op == "pad" or any(f.even.shape != o.shape for f, o in zip(known, reals, strict=True)):
            return None
        of = dict(zip(reals, known, strict=True))

        def whole(part: str) -> Array:
            return np.asarray(v.call(
                lambda o: np.broadcast_to(getattr(of[o], part), o.shape) if o in of else o.array  # type: ignore[attr-defined]
            ))  # fmt: skip

        even = v.map_operands(lambda o: of[o].even if o in of else o)
        return _Affine(even, whole("scale"), whole("offset"))


def _each(op: Any, x: Value, by: Array, nothing: float, name: str) -> Value:
    """A sum or product with numbers, where these do anything."""
    return x if np.all(by == nothing) else op(x, _const(by, name), name=name)


def _const(array: Array, name: str) -> Const:
    return Const(np.asarray(array, np.float32), name=name)


def _squared(form: _Affine, v: Value) -> _Affine:
    """`(e*s + o)^2 = (e + o/s)^2 * s^2`."""
    centred = _each(Add, form.even, form.offset / form.scale, 0.0, f"{v.name}.centred")
    scale = form.scale**2
    return _Affine(Mul(centred, centred, name=v.name), scale, np.zeros(()))


def _by_columns(form: _Affine, dims: Shape) -> tuple[Value, Array, Array] | None:
    """A form whose units are its columns': both [C]."""
    parts = [np.broadcast_to(p, dims).reshape(-1, dims[-1]) for p in (form.scale, form.offset)]
    if form.even.shape != dims or any(np.any(p != p[0]) for p in parts):
        return None
    return form.even, parts[0][0], parts[1][0]


def _linear(v: Linear, even: Value, scale: Array, offset: Array) -> Value:
    w = v.w.array.astype(np.float64)  # type: ignore[attr-defined]
    bias = 0.0 if v.b is None else v.b.array.astype(np.float64)  # type: ignore[attr-defined]
    b = v.b if not np.any(offset) else _const(bias + w @ offset, f"{v.name}.bias")
    return v.replace(x=even, w=_const(w * scale, v.w.name), b=b)


def _trees(v: TreeEnsemble, even: Value, scale: Array, offset: Array) -> Value | None:
    feature, threshold = (p.array for p in (v.feature, v.threshold))  # type: ignore[attr-defined]
    if np.any(scale <= 0):
        return None
    moved = (threshold - offset[feature]) / scale[feature]
    return v.replace(x=even, threshold=_const(moved, v.threshold.name))

