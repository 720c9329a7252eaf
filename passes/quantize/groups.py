"""Which values share one scale: what moves elements has the scale of what it moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.sites import Sites, is_float
from irc.value import Value

SHARED_RANGE = 0.5
"""A value that others read too gives up its own scale to a concat only if its range is at least
this share of the concat's."""


def groups(sites: Sites, statistics: Mapping[Value, Statistics]) -> list[list[Value]]:
    """Union of each moving op with the operands that give it their scale."""
    parent: dict[Value, Value] = {v: v for v in sites.own}
    for v in sites.graph.order:
        if not (is_float(v) and sites.moving(v)):
            continue
        parent[v] = v
        for operand in filter(is_float, v.operands):
            apart = (operand in sites.states.packed) != (v in sites.states.packed)
            if not apart and _shares(sites, statistics, operand, v):
                parent[_find(parent, operand)] = _find(parent, v)
    carried = ((before, after) for before, after in sites.graph.links if is_float(before))
    for a, b in (*sites.states.edges(), *carried):
        if a in parent and b in parent:
            parent[_find(parent, a)] = _find(parent, b)
    found: dict[Value, list[Value]] = {}
    for v in parent:
        found.setdefault(_find(parent, v), []).append(v)
    return list(found.values())


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
