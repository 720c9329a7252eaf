"""Float against integer, layer by layer: how much noise quantization adds to each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from irc import fixedpoint
from irc.edge import to_integers
from irc.errors import DataError
from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input
from irc.summary import VIEWS
from irc.types import Array, Shape, TensorType
from irc.value import Value

POOR = 15.0
"""An SQNR in dB below which a result is explained."""
REMEDY = (
    "Against that: --min-sqnr 20, which gives values 16 bits until every output has 20 dB; more"
    " calibration samples, as unlike as those in use."
)
MASKED, GAP = 5e8, 100.0
"""A magnitude that only stands for an infinity where all others are so many times smaller, as in
masks, by -1e9 and more: what is there saturates, by design."""
FACTORED = frozenset({"matmul", "add", "sub", "reduce_sum", "reduce_mean"})
"""Ops whose integer kernels take in a factor behind them."""
NAMED = 3
"""How many layers an explanation names."""


@dataclass(frozen=True)
class LayerError:
    """A layer's signal-to-quantization-noise ratio in dB over all samples, its largest absolute
    error and the largest magnitude of the float tensor. Infinite where there is no error.

    `alone` is the ratio that the layer would have if what it reads were exact: the float model's
    values, quantized.
    """

    name: str
    op: str
    type: TensorType
    sqnr: float
    error: float
    magnitude: float
    alone: float = math.inf
    outputs: tuple[str, ...] = ()
    """The outputs of the network that are this layer's result, moved perhaps."""

    def as_json(self) -> dict[str, Any]:
        """For JSON, which has no infinities: None in their place."""
        numbers = {"sqnr": self.sqnr, "alone": self.alone, "error": self.error,
                   "magnitude": self.magnitude}  # fmt: skip
        finite = {k: n if math.isfinite(n) else None for k, n in numbers.items()}
        return {"name": self.name, "op": self.op, "shape": list(self.type.shape), **finite}


@dataclass
class _Sums:
    """What accumulates over samples."""

    signal: float = 0.0
    noise: float = 0.0
    error: float = 0.0
    magnitude: float = 0.0

    def add(self, real: Array, ours: Array) -> None:
        """Take in one sample, but for what only masks."""
        meant = _meant(np.abs(real))
        if not meant.all():
            real, ours = real[meant], ours[meant]
        difference = ours.astype(np.float64) - real
        self.signal += float(np.square(real, dtype=np.float64).sum())
        self.noise += float(np.square(difference).sum())
        self.error = max(self.error, float(np.abs(difference).max(initial=0)))
        self.magnitude = max(self.magnitude, float(np.abs(real).max(initial=0)))

    @property
    def sqnr(self) -> float:
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def _meant(sizes: Array) -> Array:
    """Which elements are numbers, by their magnitudes, and which only mask."""
    small = sizes < MASKED
    if small.any() and sizes[small].max() * GAP < MASKED:
        return small
    return np.isfinite(sizes)


@dataclass
class _Comparison:
    """The tensors that both graphs have, and their sums."""

    twins: dict[Value, Value]
    """The float graph's tensor of each integer tensor that has one."""
    sums: dict[Value, _Sums]
    """Of the integer tensors that are compared."""
    alone: dict[Value, _Sums]
    real: dict[Value, Array] = field(default_factory=dict)
    """The float tensors of a sample."""
    integers: dict[Value, Array] = field(default_factory=dict)
    """The integer tensors of a sample: as if all before them were exact, as far as is known."""

    def keep(self, v: Value, array: Array) -> None:
        if v in self.wanted:
            self.real[v] = array

    @cached_property
    def wanted(self) -> frozenset[Value]:
        """The float graph's tensors that are looked at."""
        return frozenset(self.twins.values())

    def take(self, v: Value, array: Array) -> None:
        """Measure one integer tensor, as it is and as its layer would make it of exact ones."""
        alone = array
        if v.operands and all(o in self.integers for o in v.operands):
            alone = np.asarray(v.call(self.integers.__getitem__))
        twin, quant = self.twins.get(v), v.type.quant
        real = None if twin is None else self.real.get(twin)
        if v in self.sums and real is not None:
            self.sums[v].add(real, fixedpoint.dequantize(array, v.type))
            self.alone[v].add(real, fixedpoint.dequantize(alone, v.type))
        known = real is not None and quant is not None and quant.axis is None
        if known and real is not None and not isinstance(v, Const):
            alone = fixedpoint.quantize(real, v.type)
        self.integers[v] = alone

    def next_sample(self) -> None:
        """Forget the tensors of the sample before."""
        self.real.clear()
        self.integers.clear()


def compare(
    real: Graph,
    integer: Graph,
    samples: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None] | None = None,
) -> list[LayerError]:
    """The error of every tensor of the integer graph that the float graph has too, in the order of
    computation. Both graphs see the same float `samples`; errors include those of earlier layers.

    Raises `DataError` where there is no sample.
    """
    twins = _twins(real, integer)
    compared = _compared(integer, twins)
    found = _Comparison(twins, {v: _Sums() for v in compared}, {v: _Sums() for v in compared})
    count = 0
    for sample in samples:
        found.next_sample()
        evaluate(real, sample, observe=found.keep)
        integers, _ = to_integers(integer.input_types, sample)
        evaluate(integer, integers, observe=found.take)
        count += 1
        if progress is not None:
            progress(count)
    if not count:
        raise DataError("there is no sample to compare on")
    outputs = _outputs(real, {twins[v]: v for v in compared})
    return [
        replace(_error(v, found.sums[v], found.alone[v]), outputs=tuple(outputs.get(v, ())))
        for v in compared
    ]


def _outputs(real: Graph, compared: Mapping[Value, Value]) -> Mapping[Value, list[str]]:
    """The outputs' names by the integer tensors that hold them."""
    found: dict[Value, list[str]] = {}
    for name, v in zip(real.output_names, real.outputs, strict=True):
        while v not in compared and v.op in VIEWS:
            v = v.operands[0]
        if v in compared:
            found.setdefault(compared[v], []).append(name)
    return found


def _twins(real: Graph, integer: Graph) -> dict[Value, Value]:
    """The float tensor of the same name and shape for each integer one. What an operator is
    decomposed into may have one name: of several it is the last that is of the same op, which an
    integer op's name tells, or else the last that is no view of another, as a transposed square."""
    floats: dict[tuple[str, Shape], list[Value]] = {}
    for v in real.order:
        if v.type.dtype.is_float and v.name:
            floats.setdefault((v.name, v.shape), []).append(v)
    twins: dict[Value, Value] = {}
    for v in integer.order:
        if several := floats.get((v.name, v.shape)):
            alike = [f for f in several if f.op == v.op.removeprefix("q")]
            made = [f for f in several if f.op not in VIEWS]
            twins[v] = _with_its_factor(real, (alike or made or several)[-1])
    return twins


def _with_its_factor(real: Graph, v: Value) -> Value:
    """What a sum or product becomes by a factor of the same name, which is part of its integer
    kernel: the scores of an attention."""
    users = real.users[v]
    if v.op not in FACTORED or len(users) != 1 or real.uses(v) != 1:
        return v
    (user,) = users
    constant = user.op in ("mul", "div") and isinstance(user.operands[1], Const)
    factor = constant and user.operands[1].type.size == 1
    return user if factor and (user.name, user.shape) == (v.name, v.shape) else v


def _compared(integer: Graph, twins: Mapping[Value, Value]) -> list[Value]:
    """The last integer tensor of each float one, views, constants and inputs aside."""
    last: dict[Value, Value] = {}
    for v in integer.order:
        computed = not isinstance(v, Const | Input) and v.op not in VIEWS
        if v in twins and computed and v.type.quant is not None:
            last[twins[v]] = v
    return list(last.values())


def _error(v: Value, s: _Sums, alone: _Sums | None = None) -> LayerError:
    by_itself = math.inf if alone is None else alone.sqnr
    return LayerError(v.name, v.op, v.type, s.sqnr, s.error, s.magnitude, by_itself)


def compare_outputs(
    real: Graph, other: Graph, samples: Iterable[Mapping[str, Array]]
) -> list[LayerError]:
    """The error of each output of `other` against that of `real`, both float, of one interface.

    Raises `DataError` where there is no sample.
    """
    sums = {name: _Sums() for name in real.output_names}
    count = 0
    for sample in samples:
        a, b = evaluate(real, sample), evaluate(other, sample)
        for name, s in sums.items():
            s.add(a[name], b[name])
        count += 1
    if not count:
        raise DataError("there is no sample to compare on")
    named = zip(real.outputs, sums.items(), strict=True)
    return [_error(v.replace(name=name), s) for v, (name, s) in named]


def worst_first(errors: Iterable[LayerError]) -> list[LayerError]:
    """Sorted by SQNR, the lowest first."""
    return sorted(errors, key=lambda e: e.sqnr)


def poor_results(errors: Sequence[LayerError]) -> list[LayerError]:
    """The layers below POOR that make outputs; the last layer, in the order of computation, where
    it is not known which do."""
    measured = [e for e in errors if math.isfinite(e.sqnr)]
    made = [e for e in measured if e.outputs] or measured[-1:]
    return [e for e in made if e.sqnr < POOR]


def explanation(errors: Sequence[LayerError]) -> str:
    """Where a poor result loses its accuracy: empty where there is none.

    Names the layers that add most noise by themselves, and the first whose result is poor.
    """
    poor = poor_results(errors)
    if not poor:
        return ""
    measured = [e for e in errors if math.isfinite(e.sqnr)]
    first = next(e for e in measured if e.sqnr < POOR)
    worst = sorted(measured, key=lambda e: e.alone)[:NAMED]
    named = ", ".join(f"{e.name} ({e.op}, {e.alone:.1f} dB)" for e in worst)
    have = ", ".join(f"{_called(e)} has {e.sqnr:.1f} dB" for e in poor)
    text = (
        f"{have}. Of exact operands, these layers lose most: {named}."
        f" The first result below {POOR:.0f} dB is {first.name} ({first.op})."
    )
    if worst[0].alone >= POOR + 10:
        median = sorted(e.alone for e in measured)[len(measured) // 2]
        text += (
            f" No layer is poor by itself: half of all {len(measured)} layers have less than"
            f" {median:.1f} dB, and the net amplifies what they add up to."
        )
    return f"{text} {REMEDY}"


def _called(e: LayerError) -> str:
    """A layer by the outputs that it makes."""
    return " and ".join(f"output {name}" for name in e.outputs) or e.name
