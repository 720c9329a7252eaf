"""Where images are sampled, and what trees compare: 16 bits, since 8 tell 256 places apart."""

from __future__ import annotations

from irc.ops.columns import Columns
from irc.ops.core import Const
from irc.ops.grid import GridSample
from irc.ops.trees import TreeEnsemble
from irc.passes.quantize.options import Options
from irc.passes.quantize.precision import SUMS
from irc.passes.quantize.sites import Sites, is_float
from irc.value import Value

COMPOSED = SUMS | {"mul"}
"""Ops that read 16 bits, and pass their operands' rounding on."""


def coordinates(sites: Sites, options: Options) -> tuple[Value, ...]:
    """The values that say where images are sampled, those that trees compare, and what these are
    composed of."""
    if str(options.activations) == "8":
        return ()
    found: set[Value] = set()
    stack = [v.grid for v in sites.graph.order if isinstance(v, GridSample)]
    stack += [v.x for v in sites.graph.order if isinstance(v, TreeEnsemble)]
    while stack:
        for v in sites.parts(stack.pop()):
            if v not in found and not isinstance(v, Const):
                found.add(v)
                stack += _made_of(sites, v)
    return tuple(v for v in sites.own if v in found or isinstance(v, Columns))


def _made_of(sites: Sites, v: Value) -> tuple[Value, ...]:
    """What a value is computed from without loss."""
    if sites.root[v] is not v:
        return (sites.root[v],)
    through = v.op in COMPOSED or sites.absorbs(v)
    return tuple(o for o in v.operands if is_float(o)) if through else ()
