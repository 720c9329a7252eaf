"""Where images are sampled, what trees compare, and what comes from outside to be compared: 16
bits, since 8 tell 256 places apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irc.ops.columns import Columns
from irc.ops.core import Const
from irc.ops.grid import GridSample
from irc.ops.tree_integers import BESIDE, DIGITS
from irc.ops.trees import TreeEnsemble
from irc.passes.calibration.calibrate import Statistics
from irc.passes.quantize.options import Options
from irc.passes.quantize.precision import SUMS
from irc.passes.quantize.scales import choose_input, whole_steps
from irc.passes.quantize.signals import reaches_layer
from irc.passes.quantize.sites import Sites, from_outside, is_float
from irc.types import DType, TensorType
from irc.value import Value

COUNTING = frozenset({"less", "less_or_equal", "equal", "floor", "ceil"})
"""Ops that tell whole numbers from what lies beside them."""
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


def compared_inputs(
    sites: Sites, statistics: Mapping[Value, Statistics], options: Options
) -> tuple[Value, ...]:
    """The inputs that are compared, or become whole numbers, unless layers read them too; whole
    numbers that 8 bits hold keep these."""
    if str(options.activations) == "8":
        return ()
    known = (v for v in sites.graph.inputs if v in statistics and from_outside(sites.graph, v))
    return tuple(
        v for v in known
        if counted(sites, v) and not reaches_layer(sites, v) and not _whole(statistics[v])
    )  # fmt: skip


def _whole(s: Statistics) -> bool:
    """Whether 8 bits hold whole numbers like these."""
    return s.whole and whole_steps(choose_input([s])).tensor_scale <= 1


def counted(sites: Sites, v: Value) -> bool:
    """Whether a value, a function of it or what it is moved to, is compared or becomes a whole
    number: categories and thresholds, which must not lie beside those of calibration."""
    for u in sites.graph.users[v]:
        whole = u.op == "cast" and u.type.dtype in (DType.I32, DType.I64)
        whole = whole or (sites.root[u] is v and is_float(u) and sites.tells(u))
        if whole or u.op in COUNTING or (sites.moving(u) and counted(sites, u)):
            return True
    return False


def bound_between_steps(bound: Const, reader: Value, type_: TensorType) -> Const:
    """A bound of a comparison, moved between two of the reals that a value of 16 bits can be: what
    is nearest to it is as the value there likely is, 0 or what the bound itself is in few digits,
    which single precision may have beside it. Bounds beyond all of these reals stay."""
    scale, given = type_.scale, bound.array.astype(np.float64)
    inside = np.abs(given) <= (type_.dtype.max - type_.dtype.min) * scale
    real = np.where(inside, given, 0.0)
    steps = np.rint(real / scale)
    short = np.asarray([float(f"{c:.{DIGITS}g}") for c in real.reshape(-1)]).reshape(real.shape)
    beside = np.abs(short - real) <= BESIDE * np.spacing(np.abs(real).astype(np.float32))
    likely = np.where(steps == 0, 0.0, np.where(beside, short, real)).astype(np.float32)
    first = reader.operands[0] is bound
    pair = (bound.array, likely) if first else (likely, bound.array)
    met = pair[0] < pair[1] if reader.op == "less" else pair[0] <= pair[1]
    moved = np.where(inside, (steps + np.where(met == first, -0.5, 0.5)) * scale, given)
    return Const(moved.astype(np.float32), name=bound.name)
