"""Operators of torch that run a graph of their own many times: `map`, `scan` and `while_loop`, turn
by turn, and `flex_attention`, whose graphs of one score are run over all scores at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from irc.errors import ModelError
from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.torch.ops import Complex
from irc.frontends.torch.ops.linear import MASKED, repeated
from irc.frontends.torch.program import array_of, operator_name, tensor_of
from irc.frontends.torch.values import Constants, Known, leaves, resolved, unwrapped
from irc.ops.core import Const
from irc.ops.linear import MatMul
from irc.ops.selection import Where
from irc.ops.softmax import Softmax
from irc.types import Array, DType
from irc.value import Value

MOST = 1000
"""Turns that are written out."""
GIVEN = 7
"""Arguments of `flex_attention` before what is given to its two graphs."""
PARTIAL, FULL = 2, 4
"""Where in its block mask the numbers and indices are of blocks of which the mask's graph chooses,
and of those of which all scores count."""


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
            raise ModelError(
                f"{count} turns are not supported, only 1 to {MOST}: give a call fewer rows, or let"
                " a turn take several of them"
            )
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
            raise ModelError(
                "complex results of each turn are not supported: let a turn return their real and"
                " imaginary parts (torch.view_as_real)"
            )
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
    raise ModelError(
        f"more than {MOST} turns are not supported: let a turn do several steps, or a call do a"
        " part of them, with what they carry as inputs and outputs"
    )


def flexible(call: Higher) -> Any:
    """`flex_attention`: attention whose scores a graph changes, and a graph says which count."""
    build, args = call.builder, call.args
    q, k, v = (_value(call.constants.value(a)) for a in args[:3])
    score = call.node.args[3]
    heads, batch = q.shape[1], q.shape[0]
    k, v = (_widened(build, x, batch, heads) for x in (k, v))
    columns = build.transpose(k, (0, 1, 3, 2))
    scores = forms.scaled(build, build.add(MatMul(q, columns)), float(args[5]))
    places = _places(scores.shape)
    more, others = [*args[GIVEN:], (), ()][:2]
    scores = _value(call.constants.value(call.run(call.graph(score), [scores, *places, *more])))
    counts = _counts(call, scores.shape, [*places, *others])
    weights = _weights(build, scores, counts)
    return (build.add(MatMul(weights, v)), None, None)


def _counts(call: Higher, shape: Sequence[int], arguments: Sequence[Any]) -> Value:
    """Which scores count, bool: in full blocks all do, in partial ones those of the mask's graph,
    in others none."""
    holder = call.node.args[4][-1]
    counts = _value(call.constants.value(call.run(call.graph(holder), arguments)))
    if call.args[4][PARTIAL] is None and call.args[4][FULL] is None:
        return counts
    if not all(isinstance(a, Known | None) for a in call.args[4][PARTIAL : FULL + 2]):
        if not isinstance(counts, Const) and _of_a_mask(call.node.args[4]):
            return counts
        raise ModelError(
            "blocks that depend on data are not supported: make the mask by create_block_mask in"
            " the module, or of constants, and say by its mask_mod which scores count"
        )
    partial, full = (_blocks(call.args[4], first, shape) for first in (PARTIAL, FULL))
    if not full.any() and partial.all():
        return counts
    if isinstance(counts, Const):
        return call.builder.const(np.where(full, True, partial & counts.array))
    counts = call.builder.expand(counts, tuple(shape))
    both = call.builder.const(np.broadcast_to(partial & ~full, shape).copy())
    return call.builder.add(Where(both, counts, call.builder.const(full)))


def _blocks(arguments: Sequence[Any], first: int, shape: Sequence[int]) -> Array:
    """Whether each score is in one of the blocks whose numbers in each row, and indices, are the
    arguments from `first` on: bool [samples or 1, heads or 1, queries, keys]."""
    found = [unwrapped(a) for a in arguments[first : first + 2]]
    if any(a is None for a in found):
        return np.zeros((1, 1, *shape[2:]), np.bool_)
    count, indices = (array_of(a) for a in found)
    high, wide = (int(size) for size in arguments[-3:-1])
    rows, columns = (ceil(n / size) for n, size in zip(shape[2:], (high, wide), strict=True))
    if indices.shape[2] < rows:
        raise ModelError(
            f"a block mask of {indices.shape[2]} rows of {high} queries each is not supported where"
            f" there are {shape[2]} of them: make the mask for as many"
        )
    used = np.arange(indices.shape[3]) < count[..., None]
    listed = [(used & (indices == column)).any(-1) for column in range(columns)]
    dense = np.stack(listed, -1).repeat(min(high, shape[2]), 2).repeat(min(wide, shape[3]), 3)
    return np.asarray(dense[:, :, : shape[2], : shape[3]])


def _of_a_mask(arguments: Sequence[Any]) -> bool:
    """Whether blocks are computed as `create_block_mask` does it, of what the mask's graph says of
    each score, cut into blocks [samples, heads, rows, height, columns, width]: then they add
    nothing to it."""
    indices, (high, wide) = arguments[PARTIAL + 1], arguments[-3:-1]
    rows, columns = indices.meta["val"].shape[2:]
    stack, seen = [indices], {indices}
    while stack:
        node = stack.pop()
        shape = tuple(getattr(node.meta.get("val"), "shape", ()))
        if shape[2:] == (rows, high, columns, wide):
            return True
        found = [n for n in node.all_input_nodes if n not in seen]
        stack += found
        seen.update(found)
    return False


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
        raise ModelError(
            "complex scores are not supported: give real queries, keys and values, and return real"
            " scores"
        )
    if entry.type.dtype not in (DType.F32, DType.BOOL):
        raise ModelError(
            f"scores of {entry.type.dtype.name.lower()} are not supported: return real ones"
            " (x.float()) from the function of scores, and bool from that of the mask"
        )
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
