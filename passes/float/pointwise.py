"""Functions of one value: chains and small DAGs of elementwise ops with scalar constants, which
equation (8) turns into one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from irc.errors import IRCError
from irc.ops.cast import Cast
from irc.ops.core import Const, is_number
from irc.ops.elementwise import Binary, Div, Mul
from irc.ops.logic import Relation
from irc.ops.selection import Where
from irc.ops.unary import Unary
from irc.types import Array
from irc.value import Value


def is_clamp(v: Value) -> bool:
    """Whether the op is a clamp, which integer kernels do for free."""
    return v.op in ("clip", "relu")


def only_clamps(v: Value, root: Value) -> bool:
    """Whether nothing but clamps lies between a value and its root."""
    while v is not root and is_clamp(v):
        (v,) = v.operands
    return v is root


def scaling(v: Value) -> float | None:
    """The positive number that a node multiplies by, which is a matter of scales alone."""
    match v:
        case Mul(a=x, b=Const() as c) | Div(a=x, b=Const() as c) if c.type.size == 1:
            number = float(c.array.reshape(())) if c.quant is None else 0.0
        case _:
            return None
    if not (np.isfinite(number) and number > 0 and v.type.dtype.is_float and x.shape == v.shape):
        return None
    return number if isinstance(v, Mul) else 1 / number


def pointwise(v: Value) -> bool:
    """Whether each element depends on the same element of its operands alone, scalars aside."""
    if isinstance(v, Unary):
        return v.type.dtype.is_float
    if isinstance(v, Binary):
        return v.type.dtype.is_float and _alike(v)
    if isinstance(v, Cast):  # to a boolean: what is not zero; to whole numbers: truncated
        return v.x.type.dtype.is_float and not v.dtype.is_float
    return isinstance(v, Relation | Where) and _alike(v)


def _alike(v: Value) -> bool:
    return all(o.shape == v.shape or is_number(o) for o in v.operands)


def roots(order: Iterable[Value], stop: Callable[[Value], bool]) -> dict[Value, Value]:
    """For each value, the one value that it is a function of: itself unless it is pointwise and
    all its operands (scalars aside) have one root. `stop(v)` keeps v its own root, unless what it
    reads is a function already, of which it becomes a part."""
    root: dict[Value, Value] = {}
    for v in order:
        sources = {root[o] for o in v.operands if not is_number(o)}
        inner = any(root[o] is not o for o in v.operands)
        through = pointwise(v) and len(sources) == 1 and (inner or not stop(v))
        source = sources.pop() if through else v
        root[v] = source if source.type.dtype.is_float else v
    return root


def apply(v: Value, root: Value, real: Array) -> Array:
    """`v` as a function of its root, in float64, elementwise over any array of reals."""
    return _filled(v, {root: real}, _compute)


def evaluated(v: Value, root: Value, real: Array) -> Array:
    """The same as the graph computes it, in its own dtypes: reals of single precision."""
    return _filled(v, {root: real}, _evaluate)


def _filled(
    v: Value, known: dict[Value, Array], compute: Callable[[Value, list[Array]], Array]
) -> Array:
    stack = [v]
    while stack:
        top = stack[-1]
        missing = [o for o in top.operands if o not in known] if top not in known else []
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if top not in known:
            known[top] = compute(top, [known[o] for o in top.operands])
    return known[v]


def _evaluate(v: Value, operands: list[Array]) -> Array:
    if isinstance(v, Const):
        return v.array.reshape(())
    return np.asarray(v.evaluate(*operands))


def _compute(v: Value, operands: list[Array]) -> Array:
    if isinstance(v, Const):
        return np.asarray(v.array.reshape(-1)[0], np.float64)
    if isinstance(v, Unary | Binary):
        return np.asarray(v.fn(*operands), np.float64)
    if isinstance(v, Relation | Where | Cast):
        return v.evaluate(*operands)
    raise IRCError(f"{v.op} %{v.name} is no function of one value")
