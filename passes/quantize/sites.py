"""Where a float graph is quantized, and which values share one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.logic import Relation
from irc.ops.ranking import Ranking
from irc.ops.shape import Pad
from irc.passes.calibrate import Statistics
from irc.passes.pointwise import is_clamp, roots
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import asymmetric, choose_quant, stored_as
from irc.passes.quantize.states import States, state_quant
from irc.types import DType, Quant, TensorType
from irc.value import Value, operand_fields

NATURAL: Mapping[str, Quant] = {
    "softmax": Quant(1 / 256, 0),
    "sigmoid": Quant(1 / 256, 0),
    "hard_sigmoid": asymmetric(0.0, 1.0),
}
"""Ops whose range is known: [0, 1), or [0, 1] where 1 itself is common."""
STANDS_FOR_INFINITY = 1e4
"""Constants as large as this only say "less (or more) than any": they saturate."""
EIGHT_BITS = (DType.U8, DType.I8)
SHARED_RANGE = 0.5
"""A value that others read too gives up its own scale to a concat only if its range is at least
this share of the concat's."""


def is_float(v: Value) -> bool:
    """Whether a node computes reals at run time."""
    return v.type.dtype.is_float and not isinstance(v, Const)


def from_reals(v: Value) -> bool:
    """Whether a node that makes no reals of reals has an integer form: it compares, or ranks."""
    return isinstance(v, Ranking) or (isinstance(v, Relation) and v.kind is not None)


def weighted(v: Value) -> bool:
    """Whether the op multiplies by weights, operand `w` (and adds a bias, `b`)."""
    return "w" in operand_fields(type(v))


def has_integer_twin(v: Value) -> bool:
    """Whether the op says what it is over integers."""
    return v.moves or type(v).quantized is not Value.quantized


@dataclass(frozen=True)
class Sites:
    """The structure of a graph's quantization, before any range is known."""

    graph: Graph

    @cached_property
    def fused(self) -> frozenset[Value]:
        """Values that never exist as integers: they flow into a clamp, or into a table."""
        return frozenset(v for v in self.graph.order if self._clamped(v) or self._in_table(v))

    @cached_property
    def own(self) -> tuple[Value, ...]:
        """Values that are quantized where they are computed."""
        return tuple(
            v
            for v in self.graph.order
            if is_float(v) and not self.moving(v) and v not in self.fused
        )

    @cached_property
    def observed(self) -> frozenset[Value]:
        """What calibration must measure: these, and what weights are multiplied with."""
        multiplied = (v.operands[0] for v in self.graph.order if weighted(v))
        return frozenset(self.own) | {x for x in multiplied if is_float(x)}

    @cached_property
    def root(self) -> Mapping[Value, Value]:
        """What each value is a pointwise function of; clamps that fuse end a function."""
        return roots(self.graph.order, lambda v: is_clamp(v) and self._clamped(v.operands[0]))

    def moving(self, v: Value) -> bool:
        """Whether a node only moves elements; a choice between functions of one value is a
        function itself."""
        return v.moves and self.root[v] is v

    def _only_user(self, v: Value) -> Value | None:
        users = self.graph.users[v]
        return users[0] if len(users) == 1 and self.graph.uses(v) == 1 else None

    def _clamped(self, v: Value) -> bool:
        if not is_float(v) or v.moves or isinstance(v, Input):
            return False
        user = self._only_user(v)
        return user is not None and is_clamp(user)

    def _in_table(self, v: Value) -> bool:
        users, root = self.graph.users[v], self.root[v]
        if root is v or not users or self.graph.uses(v) > len(users):
            return False
        return all(self.root[u] is root for u in users)

    @cached_property
    def states(self) -> States:
        """What recurrent cells keep in 16 bits."""
        return States(self.graph)

    def read_narrow(self, v: Value) -> bool:
        """Whether an op reads a state that takes no 16 bits."""
        return any(
            not self.moving(u) and not self.states.reads_wide(u, v) for u in self.graph.users[v]
        )

    @cached_property
    def pixels(self) -> frozenset[Value]:
        """8-bit integer inputs that are only read as numbers, and what they are moved to."""
        found: set[Value] = set()
        for v in reversed(self.graph.order):
            if v.type.dtype not in EIGHT_BITS or isinstance(v, Const):
                continue
            users = self.graph.users[v]
            read = users and all(u in found or _to_float(u) for u in users)
            plain = isinstance(v, Input) or (v.moves and len(v.operands) == 1)
            if plain and read and v not in self.graph.outputs:
                found.add(v)
        return frozenset(found)

    def fills(self, v: Value) -> tuple[float, ...]:
        """The reals that a moving op brings in from elsewhere: constants, the value of a pad."""
        if not (self.moving(v) and is_float(v)):
            return ()
        arrays = [o.array for o in v.operands if isinstance(o, Const) and o.type.dtype.is_float]
        ends = [float(end(a)) for a in arrays if a.size for end in (np.min, np.max)]
        if isinstance(v, Pad) and v.mode == "constant":
            ends.append(v.value)
        return tuple(e for e in ends if abs(e) < STANDS_FOR_INFINITY)

    def parts(self, v: Value) -> tuple[Value, ...]:
        """The quantized values whose elements `v` holds: itself, or what it was moved from."""
        if not self.moving(v):
            return (v,) if is_float(v) else ()
        return tuple(p for o in v.operands for p in self.parts(o))

    def check(self) -> None:
        """Raise `CompileError` listing every node that can't be quantized."""
        problems = [p for v in self.graph.order if (p := self._problem(v))]
        if problems:
            raise CompileError(
                f"{self.graph.name}: {len(problems)} nodes can't be quantized to integers:\n  "
                + "\n  ".join(problems)
            )

    def _problem(self, v: Value) -> str:
        floats = [o for o in v.operands if is_float(o)]
        at = f"{v.op} %{v.name}"
        if isinstance(v, Const | Input) or not (floats or is_float(v)):
            return ""
        if v.op in ("quantize", "dequantize"):
            return f"{at}: the graph is quantized already (compile it as it is)"
        if not is_float(v):
            known = self._in_table(v) or from_reals(v)
            return "" if known else f"{at}: makes {v.type} from floats, which has no integer form"
        if not floats and not self._from_integers(v):
            return f"{at}: makes floats from {v.operands[0].type if v.operands else 'nothing'}"
        if weighted(v) and not isinstance(v.w, Const):  # type: ignore[attr-defined]
            return f"{at}: its weights are computed at run time"
        return "" if has_integer_twin(v) else f"{at}: the op has no integer form"

    def _from_integers(self, v: Value) -> bool:
        """Whether an op makes reals of integers in a way that is known: picks them from a
        constant, or takes whole numbers or booleans as numbers."""
        if _to_float(v):
            return True
        return v.moves and any(o.type.dtype.is_float for o in v.operands)


def _to_float(v: Value) -> bool:
    return v.op == "cast" and v.type.dtype.is_float and not v.operands[0].type.dtype.is_float


@dataclass(frozen=True)
class Scales:
    """The type of each quantized value: u8, i8 where only outputs read it, i16 for states; `narrow`
    is the u8 type in which 8-bit kernels read such a value."""

    types: Mapping[Value, TensorType]
    narrow: Mapping[Value, TensorType] = field(default_factory=dict)

    def __getitem__(self, v: Value) -> TensorType:
        return self.types[v]

    def read_by(self, reader: Value, v: Value, sites: Sites) -> TensorType:
        """The type in which an op reads a value."""
        wide = v not in self.narrow or sites.states.reads_wide(reader, v)
        return self.types[v] if wide else self.narrow[v]


def assign(sites: Sites, statistics: Mapping[Value, Statistics], options: Options) -> Scales:
    """Group the values that share a scale, and choose each group's."""
    types: dict[Value, TensorType] = {}
    narrow: dict[Value, TensorType] = {}
    for group in _groups(sites, statistics):
        parts = list(dict.fromkeys(p for v in group for p in sites.parts(v)))
        fills = [f for v in group for f in sites.fills(v)]
        if not sites.states.roots.isdisjoint(group):
            for v in filter(sites.read_narrow, group):
                quant = choose_quant([statistics[p] for p in sites.parts(v)], options, fills)
                narrow[v] = TensorType(DType.U8, v.shape, quant)
            quant = state_quant([statistics[p] for p in parts], fills)
            types |= {v: TensorType(DType.I16, v.shape, quant) for v in group}
            continue
        quant = _quant(parts, fills, statistics, options)
        dtype = DType.I8 if _only_outputs(sites, group) else DType.U8
        types |= {v: TensorType(dtype, v.shape, stored_as(quant, dtype)) for v in group}
    return Scales(types, narrow)


def _quant(
    parts: list[Value],
    fills: list[float],
    statistics: Mapping[Value, Statistics],
    options: Options,
) -> Quant:
    natural = {_natural(p) for p in parts}
    fixed = natural.pop() if len(natural) == 1 else None
    if fixed is not None and all(_holds(fixed, f) for f in fills):
        return fixed
    return choose_quant([statistics[p] for p in parts], options, fills)


def _natural(v: Value) -> Quant | None:
    if _to_float(v) and v.operands[0].type.dtype in EIGHT_BITS:  # numbers as they are
        return Quant(1.0, -v.operands[0].type.dtype.min)
    return NATURAL.get(v.op)


def _holds(quant: Quant, real: float) -> bool:
    """Whether a real is within the range of a u8 quantization."""
    return 0 <= real / quant.tensor_scale + quant.zero <= DType.U8.max


def _only_outputs(sites: Sites, group: list[Value]) -> bool:
    return all(
        not isinstance(v, Input) and all(map(sites.moving, sites.graph.users[v]))
        for v in group
    )


def _groups(sites: Sites, statistics: Mapping[Value, Statistics]) -> list[list[Value]]:
    """Union of each moving op with the operands that give it their scale."""
    parent: dict[Value, Value] = {v: v for v in sites.own}
    for v in sites.graph.order:
        if not (is_float(v) and sites.moving(v)):
            continue
        parent[v] = v
        for operand in filter(is_float, v.operands):
            if _shares(sites, statistics, operand, v):
                parent[_find(parent, operand)] = _find(parent, v)
    for a, b in sites.states.edges():
        if a in parent and b in parent:
            parent[_find(parent, a)] = _find(parent, b)
    groups: dict[Value, list[Value]] = {}
    for v in parent:
        groups.setdefault(_find(parent, v), []).append(v)
    return list(groups.values())


def _find(parent: dict[Value, Value], v: Value) -> Value:
    while parent[v] is not v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


def _shares(
    sites: Sites, statistics: Mapping[Value, Statistics], operand: Value, result: Value
) -> bool:
    """Whether an operand takes the scale of what it is moved into, or is requantized for it."""
    if sum(map(is_float, result.operands)) == 1 or _only_moved_to(sites, operand):
        return True
    whole = _extent(sites, statistics, result)
    return _extent(sites, statistics, operand) >= SHARED_RANGE * whole


def _only_moved_to(sites: Sites, v: Value) -> bool:
    """Whether nothing else reads the value, nor what its elements were moved from."""
    sources = filter(is_float, v.operands) if sites.moving(v) else ()
    return sites.graph.uses(v) == 1 and all(_only_moved_to(sites, o) for o in sources)


def _extent(sites: Sites, statistics: Mapping[Value, Statistics], v: Value) -> float:
    low, high = _ends(sites, statistics, v)
    return high - low


def _ends(
    sites: Sites, statistics: Mapping[Value, Statistics], v: Value
) -> tuple[float, float]:
    """The least and the largest real that a value holds; (inf, -inf) if it has no element."""
    if not sites.moving(v):
        return statistics[v].low, statistics[v].high
    ends = [_ends(sites, statistics, o) for o in v.operands if is_float(o)]
    ends += [(f, f) for f in sites.fills(v)]
    return min((e[0] for e in ends), default=np.inf), max((e[1] for e in ends), default=-np.inf)
