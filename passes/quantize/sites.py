"""Where a float graph is quantized, and which values share one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.passes.calibrate import Statistics
from irc.passes.pointwise import is_clamp, roots
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import choose_quant, stored_as
from irc.types import DType, Quant, TensorType
from irc.value import Value, operand_fields

NATURAL: Mapping[str, Quant] = {
    "softmax": Quant(1 / 256, 0),
    "sigmoid": Quant(1 / 256, 0),
    "hard_sigmoid": Quant(1 / 255, 0),
}
"""Ops whose range is known: [0, 1), or [0, 1] where 1 itself is common."""
SHARED_RANGE = 0.5
"""A value that others read too gives up its own scale to a concat only if its range is at least
this share of the concat's."""


def is_float(v: Value) -> bool:
    """Whether a node computes reals at run time."""
    return v.type.dtype.is_float and not isinstance(v, Const)


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
            v for v in self.graph.order if is_float(v) and not v.moves and v not in self.fused
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

    def parts(self, v: Value) -> tuple[Value, ...]:
        """The quantized values whose elements `v` holds: itself, or what it was moved from."""
        if not v.moves:
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
            return f"{at}: makes {v.type} from floats, which has no integer form"
        if not floats:
            return f"{at}: makes floats from {v.operands[0].type if v.operands else 'nothing'}"
        if weighted(v) and not isinstance(v.w, Const):  # type: ignore[attr-defined]
            return f"{at}: its weights are computed at run time"
        return "" if has_integer_twin(v) else f"{at}: the op has no integer form"


@dataclass(frozen=True)
class Scales:
    """The type of each quantized value: u8, or i8 where only outputs read it."""

    types: Mapping[Value, TensorType]

    def __getitem__(self, v: Value) -> TensorType:
        return self.types[v]


def assign(sites: Sites, statistics: Mapping[Value, Statistics], options: Options) -> Scales:
    """Group the values that share a scale, and choose each group's."""
    types: dict[Value, TensorType] = {}
    for group in _groups(sites, statistics):
        parts = list(dict.fromkeys(p for v in group for p in sites.parts(v)))
        quant = _quant(parts, statistics, options)
        dtype = DType.I8 if _only_outputs(sites.graph, group) else DType.U8
        types |= {v: TensorType(dtype, v.shape, stored_as(quant, dtype)) for v in group}
    return Scales(types)


def _quant(
    parts: list[Value], statistics: Mapping[Value, Statistics], options: Options
) -> Quant:
    natural = {NATURAL.get(p.op) for p in parts}
    fixed = natural.pop() if len(natural) == 1 else None
    return fixed or choose_quant([statistics[p] for p in parts], options)


def _only_outputs(graph: Graph, group: list[Value]) -> bool:
    return all(
        not isinstance(v, Input) and all(u.moves for u in graph.users[v]) for v in group
    )


def _groups(sites: Sites, statistics: Mapping[Value, Statistics]) -> list[list[Value]]:
    """Union of each moving op with the operands that give it their scale."""
    parent: dict[Value, Value] = {v: v for v in sites.own}
    for v in sites.graph.order:
        if not (is_float(v) and v.moves):
            continue
        parent[v] = v
        for operand in filter(is_float, v.operands):
            if _shares(sites, statistics, operand, v):
                parent[_find(parent, operand)] = _find(parent, v)
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
    if sum(map(is_float, result.operands)) == 1 or sites.graph.uses(operand) == 1:
        return True
    whole = _extent(statistics, sites.parts(result))
    return _extent(statistics, sites.parts(operand)) >= SHARED_RANGE * whole


def _extent(statistics: Mapping[Value, Statistics], parts: tuple[Value, ...]) -> float:
    return max(statistics[p].high for p in parts) - min(statistics[p].low for p in parts)
