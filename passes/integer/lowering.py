"""Lowering: float values of a QDQ graph, computed over integers in the quantization that is asked
for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field

import numpy as np

from irc import fixedpoint
from irc.errors import IRCError
from irc.ops.activation import Tanh
from irc.ops.bytewise import convolved, multiplied
from irc.ops.conv import Conv2d
from irc.ops.core import Const
from irc.ops.interpolate import followed
from irc.ops.linear import Linear
from irc.ops.moving import in_type
from irc.ops.qrecurrent import tanh_state
from irc.ops.quantization import constant, tabulated
from irc.passes.float.pointwise import apply, is_clamp, only_clamps, scaling
from irc.passes.integer.author_rounding import with_author_rounding
from irc.passes.integer.bias_headroom import with_room
from irc.passes.integer.conversions import as_tensor, centred, clamped, converted
from irc.passes.integer.legalize import legalized
from irc.passes.quantize.intervals import inner_type
from irc.types import DType, Quant, TensorType
from irc.value import Value, operand_fields

PARAMETERS = frozenset(
    {"w", "b", "scale", "offset", "bias", "slope", "row_weights", "column_weights", "threshold",
     "leaves"}
)
"""Operands that a twin takes as they are: weights, and reals that it makes its own integers of."""


Key = tuple[Value, DType, Quant | None]


@dataclass
class Lowering:
    """Lowers float values: `root` says what each is a function of, `forms` are the integers that
    stand for those before it, None where it has none. What can't be computed is entered in
    `problems`, by name, and a placeholder given; `narrow` are nodes of which operands lost bits."""

    root: Mapping[Value, Value]
    forms: Mapping[Value, Value | None]
    problems: MutableSequence[str]
    narrow: list[str] = field(default_factory=list)
    kept: dict[Value, TensorType] = field(default_factory=dict)
    """The types of floats that the integers of what they are made of stand for, too."""
    made: dict[Key, Value] = field(default_factory=dict)
    """What was computed before."""

    def lower(self, v: Value, target: TensorType, *, single: DType | None = None) -> Value:
        """The float value `v` in the quantization `target`; `single` as a quantize has it."""
        key = (v, target.dtype, target.quant)
        if key not in self.made:
            self.made[key] = self._lower(v, target, single)
        return self.made[key]

    def _lower(self, v: Value, target: TensorType, single: DType | None) -> Value:
        form = self.forms.get(v)
        if form is not None:
            made = converted(form, target)
            return made if made is form else with_author_rounding(made, v, (form,), single=single)
        source = self.forms.get(self.root[v])
        if source is not None and not isinstance(v, Const) and not only_clamps(v, self.root[v]):
            return self.table(v, source, target)
        if is_clamp(v):
            (inner,) = v.operands
            return clamped(self.lower(inner, target, single=single), v, target)
        if (factor := scaling(v)) is not None and self.rescales(v):
            return self.scaled(v, factor, target)
        if v.moves:
            return over(v, [self.part(o, target, single) for o in v.operands])
        return self.twin(v, target, single)

    def rescales(self, v: Value) -> bool:
        """Whether a factor can be a matter of its operand's scale: that is computed for it."""
        inner = v.operands[0]
        return self.forms.get(inner) is None and not inner.moves and not is_clamp(inner)

    def scaled(self, v: Value, factor: float, target: TensorType) -> Value:
        """The operand in a scale that makes its integers the result's."""
        quant = fixedpoint.quant_of(target)
        before = Quant(quant.tensor_scale / factor, quant.zero)
        made = self.lower(v.operands[0], TensorType(target.dtype, v.shape, before))
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
        return self.lower(o, wanted, single=single)

    def table(self, v: Value, source: Value, target: TensorType) -> Value:
        """A chain of functions of one value, equation (8); tanh of states as recurrent layers'."""
        root = self.root[v]
        if isinstance(v, Tanh) and v.x is root and _is_state(source.type) and _is_state(target):
            return tanh_state(source, target, v.name)
        looked_up = followed if source.type.dtype is DType.I16 else tabulated
        made = looked_up(source, lambda real: apply(v, root, real), target, f"{v.op} %{v.name}")
        return made.replace(name=v.name)

    def twin(self, v: Value, target: TensorType, single: DType | None) -> Value:
        """The op's integer twin over the integers of its operands."""
        known = self.read(v, target)
        if known is None:
            return placeholder(target)
        try:
            operands = tuple(self.operands(v, known))
        except IRCError as error:
            self.problems.append(f"{v.op} %{v.name}: {error}")
            return placeholder(target)
        try:
            twin = _twin(v, operands, target).replace(name=v.name)
            return with_author_rounding(twin, v, operands, single=single)
        except IRCError as error:
            made = self.legalized(v, operands, target)
            if made is None:
                self.problems.append(f"{v.op} %{v.name}: {error}")
            return made or placeholder(target)

    def legalized(self, v: Value, operands: tuple[Value, ...], target: TensorType) -> Value | None:
        """The twin over other operands; noted where they don't say the same. None if none does."""
        for made, exact in legalized(v, operands, target):
            try:
                twin = _twin(v, made, target).replace(name=v.name)
            except IRCError:
                continue
            if not exact:
                self.narrow.append(f"{v.op} %{v.name}")
            return twin
        return None

    def read(self, v: Value, target: TensorType) -> dict[Value, Value] | None:
        """The integers of a twin's operands; where the model quantizes none, those of what they are
        clamped or moved of, else computed in 16 bits; None where one can't be had, which is entered
        as a problem."""
        known, lacking = {o: self.forms[o] or o for o in v.operands}, False
        for o in known:
            if self.forms[o] is not None or isinstance(o, Const):
                continue
            forms = self.forms.__getitem__
            type_ = inner_type(v, o, target, forms, self.root, self.kept)
            if type_ is None:
                self.problems.append(f"{o.op} %{o.name}: {v.op} %{v.name} reads it unquantized")
                lacking = True
                continue
            known[o] = self.lower(o, type_)
        return None if lacking else known

    def operands(self, v: Value, known: dict[Value, Value]) -> Iterable[Value]:
        """The integer operands of a twin, weights around zero: i8, or i16 (see `centred`)."""
        fields = [f for f in operand_fields(type(v)) if getattr(v, f) is not None]
        found = {f: known[getattr(v, f)] for f in fields}
        if "w" in found:
            x, w = centred(v, found["x"], constant(found["w"], "weights"))
            found["x"], found["w"] = x, with_room(x.type, w, found.get("b"))
        return [v if f in PARAMETERS else as_tensor(v) for f, v in found.items()]


def _twin(v: Value, operands: tuple[Value, ...], target: TensorType) -> Value:
    """The integer twin; layers over 16 bits multiply their bytes."""
    if not isinstance(v, Conv2d | Linear) or operands[0].type.dtype is not DType.I16:
        return v.quantized(operands, target)
    x, w, *bias = operands
    b = bias[0] if bias else None
    if isinstance(v, Conv2d):
        return convolved(v, x, constant(w, "weights"), b, target)
    return multiplied(x, constant(w, "weights"), b, None, target, v.name)


def _is_state(t: TensorType) -> bool:
    """Whether values are stored as a recurrent layer's states are."""
    return t.dtype is DType.I16 and t.quant is not None and (t.quant.axis, t.quant.zero_point) == (
        None, 0
    )  # fmt: skip


def over(v: Value, operands: list[Value]) -> Value:
    """The same node over other operands."""
    given = iter(operands)
    return v.map_operands(lambda _: next(given))


def placeholder(t: TensorType) -> Value:
    """Stands in for what could not be made, so that all problems are found at once."""
    dtype = DType.I8 if t.dtype.is_float else t.dtype
    quant = None if dtype is DType.BOOL else t.quant or Quant(1.0)
    return Const(np.zeros(t.shape, dtype.numpy), quant)
