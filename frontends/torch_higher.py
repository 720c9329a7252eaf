"""Operators of torch that run a graph of their own many times: `map`, `scan` and `while_loop`, turn
by turn, and `flex_attention`, whose graphs of one score are run over all scores at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc.errors import ModelError
from irc.ops.core import Const
from irc.ops.linear import MatMul
from irc.ops.selection import Where
from irc.ops.softmax import Softmax
from irc.types import DType
from irc.value import Value

from . import normal_forms as forms
from .builder import Builder
from .torch_ops import Complex
from .torch_ops.linear import MASKED, repeated
from .torch_program import operator_name, tensor_of
from .torch_values import Constants, Known, leaves, resolved, unwrapped

MOST = 1000
"""Turns that are written out."""
GIVEN = 7
"""Arguments of `flex_attention` before what is given to its two graphs."""


@dataclass
class Higher:
    """One call: `run(graph, arguments)` imports a graph of it."""

    fx: Any
    node: Any
    env: dict[Any, Any]
    builder: Builder
    constants: Constants
    run: Callable[[Any, Sequence[Any]], Any]
    op: str = field(init=False)

    def __post_init__(self) -> None:
        self.op = operator_name(self.node.target)

    @property
    def args(self) -> Any:
        """The arguments, graphs aside."""
        return resolved(self.node.args, self.env)

    def graph(self, holder: Any) -> Any:
        """The graph that an argument names."""
        return getattr(self.fx, holder.target)

    def turns(self, rows: Sequence[Any]) -> int:
        """How many there are: the extent of the first axis of what is gone through."""
        count = int(_shape(rows[0])[0])
        if not 0 < count <= MOST:
            raise ModelError(f"{count} turns are not supported, only 1 to {MOST}")
        return count

    def row(self, entry: Any, i: int) -> Any:
        """Element i of the first axis."""
        if isinstance(entry, Known):
            return Known(entry.tensor[i], f"{entry.name}.{i}")
        ends = (entry.shape[0] - i - 1, *(0,) * (entry.type.rank - 1))
        one = forms.crop(self.builder, entry, (i, *(0,) * (entry.type.rank - 1)), ends)
        return self.builder.reshape(one, entry.shape[1:])

    def stacked(self, entries: Sequence[Any]) -> Value:
        """The results of all turns along a new first axis."""
        values = [self.constants.value(e) for e in entries]
        if any(isinstance(v, Complex) for v in values):
            raise ModelError("complex results of each turn are not supported")
        rows = [self.builder.reshape(v, (1, *v.shape)) for v in values if isinstance(v, Value)]
        return forms.concat(self.builder, rows, 0)


def mapped(call: Higher) -> Any:
    """`map`: the same of each row."""
    graph, (_, rows, rest) = call.graph(call.node.args[0]), call.args
    found = [
        call.run(graph, [*(call.row(r, i) for r in rows), *rest]) for i in range(call.turns(rows))
    ]
    return tuple(call.stacked(each) for each in zip(*found, strict=True))


def scanned(call: Higher) -> Any:
    """`scan`: each turn takes what the one before left; what is left, and a row of each turn."""
    graph, (_, carried, rows, rest) = call.graph(call.node.args[0]), call.args
    made: list[Sequence[Any]] = []
    for i in range(call.turns(rows)):
        results = call.run(graph, [*carried, *(call.row(r, i) for r in rows), *rest])
        carried = results[: len(carried)]
        made.append(results[len(carried) :])
    return (*carried, *(call.stacked(each) for each in zip(*made, strict=True)))


def looped(call: Higher) -> Any:
    """`while_loop`, as often as can be told at import."""
    first, second = (call.graph(a) for a in call.node.args[:2])
    carried, rest = call.args[2:4]
    for _ in range(MOST + 1):
        condition = leaves(call.run(first, [*carried, *rest]))[0]
        if isinstance(condition, Value):
            raise ModelError(
                "how often it is computed depends on data: let it run a number of times that is"
                " known, and keep what it has found by torch.where"
            )
        if not bool(unwrapped(condition)):
            return tuple(carried)
        carried = call.run(second, [*carried, *rest])
    raise ModelError(f"more than {MOST} turns are not supported")


def flexible(call: Higher) -> Any:
    """`flex_attention`: attention whose scores a graph changes, and a graph says which count."""
    build, args = call.builder, call.args
    q, k, v = (_value(call.constants.value(a)) for a in args[:3])
    score, mask = call.node.args[3], call.node.args[4][-1]
    heads, batch = q.shape[1], q.shape[0]
    k, v = (_widened(build, x, batch, heads) for x in (k, v))
    columns = build.transpose(k, (0, 1, 3, 2))
    scores = forms.scaled(build, build.add(MatMul(q, columns)), float(args[5]))
    places = _places(scores.shape)
    more, others = [*args[GIVEN:], (), ()][:2]
    scores = _value(call.constants.value(call.run(call.graph(score), [scores, *places, *more])))
    counts = call.constants.value(call.run(call.graph(mask), [*places, *others]))
    weights = _weights(build, scores, _value(counts))
    return (build.add(MatMul(weights, v)), None, None)


def _weights(build: Builder, scores: Value, counts: Value) -> Value:
    """Softmax of the scores that count; rows of which none does are zeros."""
    axis = scores.type.rank - 1
    if isinstance(counts, Const) and counts.array.all():
        return build.add(Softmax(scores, axis))
    counts = build.expand(counts, scores.shape) if counts.type.rank != axis + 1 else counts
    least, zero = (build.const(np.asarray(n, np.float32)) for n in (MASKED, 0))
    weights = build.add(Softmax(build.add(Where(counts, scores, least)), axis))
    if isinstance(counts, Const) and counts.array.any(axis).all():
        return weights
    return build.add(Where(counts, weights, zero))


def _widened(build: Builder, x: Value, batch: int, heads: int) -> Value:
    """Keys or values for each head, and each sample."""
    return build.expand(repeated(build, x, heads), (batch, heads, *x.shape[2:]))


def _places(shape: Sequence[int]) -> list[Known]:
    """The index of each score along each axis, as tensors that broadcast."""
    rank = len(shape)
    found = []
    for axis, extent in enumerate(shape):
        at = np.arange(extent).reshape(-1, *(1,) * (rank - 1 - axis))
        found.append(Known(tensor_of(at), f"axis{axis}"))
    return found


def _value(entry: Value | Complex) -> Value:
    if isinstance(entry, Complex):
        raise ModelError("complex scores are not supported")
    if entry.type.dtype not in (DType.F32, DType.BOOL):
        raise ModelError(f"scores of {entry.type.dtype.name.lower()} are not supported")
    return entry


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(entry.tensor.shape) if isinstance(entry, Known) else entry.shape


HIGHER: dict[str, Callable[[Higher], Any]] = {
    "map_impl": mapped,
    "scan": scanned,
    "while_loop": looped,
    "flex_attention": flexible,
}
"""By the operators' names."""


def higher(node: Any) -> Callable[[Higher], Any] | None:
    """What imports a call, if it is one of these."""
    return HIGHER.get(operator_name(node.target)) if node.op == "call_function" else None


def graphs(fx: Any, node: Any) -> list[Any]:
    """The graphs of such a call."""
    holders = [n for n in leaves(list(node.args)) if getattr(n, "op", "") == "get_attr"]
    found = [getattr(fx, n.target) for n in holders]
    return [g for g in found if hasattr(g, "graph")]
