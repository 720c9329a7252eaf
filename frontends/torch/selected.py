"""Rows that a computed mask chooses: `x[m]`, `x[torch.where(m)[0]]`.

How many there are depends on data, but what is made of each row by itself, and put back where it
came from or summed up, does not need to know: all rows are computed, and those that were chosen are
put back. So mixtures of experts come in that pick each expert's tokens:

    y[m] = f(x[m])                   y = where(m, f(x), y)
    y.index_add_(0, t, f(x[t]))      y[t] += where(m, f(x[t]), 0), t the places of all of m
    y = x[m].mean(0)                 y = where(m, x, 0).sum(0) / m.sum()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.frontends.torch.names import where
from irc.frontends.torch.ops.table import DATA_SHAPED
from irc.frontends.torch.program import operator_name, torch
from irc.frontends.torch.values import leaves
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Where
from irc.types import Array, DType
from irc.value import Value

LAYERS = {
    "aten.linear": ("input",),
    "aten.addmm": ("mat1",),
    "aten.mm": ("self",),
    "aten.matmul": ("self",),
    "aten.layer_norm": ("input",),
    "aten.rms_norm": ("input",),
    "aten.conv1d": ("input",),
    "aten.conv2d": ("input",),
    "aten.embedding": ("indices",),
}
"""Operators that make of each row one row, and the operands whose rows these are."""
ALONG = frozenset({
    f"aten.{op}" for op in (
        "softmax", "_softmax", "log_softmax", "_log_softmax", "sum", "mean", "amax", "amin", "max",
        "min", "argmax", "argmin", "topk", "cumsum", "glu", "gather", "cat",
    )
})  # fmt: skip
"""Operators along an axis: rows stay apart where it is not the first."""
MOVED = frozenset({
    f"aten.{op}" for op in (
        "view", "reshape", "_unsafe_view", "flatten", "unsqueeze", "squeeze", "permute",
        "transpose", "select", "slice", "expand", "split", "split_with_sizes", "chunk", "unbind",
        "clone", "alias", "detach", "_to_copy",
    )
})  # fmt: skip
"""Operators that keep the order of elements: rows stay apart where there are as many after it."""
SHAPED = frozenset({"aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand"})
"""Operators that may be told how many rows there are."""
CHECKED = frozenset({"aten._assert_scalar", "aten.sym_constrain_range_for_size"})
CHOSEN = ("aten.index", "aten._unsafe_index")
PLACES = ("aten.where", "aten.nonzero", "aten.nonzero_numpy")


@dataclass(frozen=True, eq=False)
class Selected:
    """What stands for the rows that a mask chooses: one for each of its places, chosen or not, in
    order."""

    rows: Value
    mask: Value
    origin: Any

    def refuse(self) -> NoReturn:
        """Raise `ModelError` that names what chose the rows."""
        raise ModelError(f"{where(self.origin)}: {DATA_SHAPED}")


def is_chosen(entry: Any) -> bool:
    """Whether an argument is of rows that a mask chooses, or holds such."""
    return any(isinstance(v, Selected) for v in leaves(entry))


def chooses(op: str, args: Any) -> bool:
    """Whether a call chooses by a mask that is computed."""
    if op in PLACES:
        return len(args) == 1 and _computed(args[0])
    return op in CHOSEN and any(map(_mask, args[1]))


def _computed(entry: Any) -> bool:
    return isinstance(entry, Value) and not isinstance(entry, Const)


def _mask(entry: Any) -> bool:
    return _computed(entry) and entry.type.dtype is DType.BOOL


@dataclass(frozen=True)
class Selection:
    """One call that has to do with chosen rows; `call` has its handler make values of values."""

    node: Any
    op: str
    args: Any
    kwargs: Any
    builder: Builder
    call: Callable[[Any, Any], Any]

    def made(self) -> Any:
        """The results. Raises `ModelError` where they depend on how many rows there are."""
        if not is_chosen((self.args, self.kwargs)):
            return self.chosen()
        if self.op in ("aten.index_put", "aten._unsafe_index_put"):
            return self.put()
        if self.op == "aten.index_add":
            return self.added(*self.args[:4])
        if self.op in ("aten.sum", "aten.mean") and self.args[1:2] in ([[0]], ([0],)):
            x, _, *keepdims = self.args
            if x.rows.type.dtype.is_float and not self.kwargs:
                return self.total(x, bool(keepdims and keepdims[0]))
        return self.row_by_row()

    # ---------------------------------------------------------------- choosing

    def chosen(self) -> Any:
        """The rows of a mask, or their places."""
        if self.op in PLACES:
            return self.places(self.args[0])
        x, indices = self.args
        mask, *others = indices
        if others or not isinstance(x, Value) or not _mask(mask):
            self.refuse()
        rows = self.builder.reshape(x, (mask.type.size, *x.shape[mask.type.rank :]))
        return Selected(rows, mask, self.node)

    def places(self, mask: Value) -> Any:
        """Of all elements of a mask: along each axis, or together."""
        if not mask.type.rank:
            self.refuse()
        if mask.type.dtype is not DType.BOOL:
            mask = self.builder.add(Cast(mask, DType.BOOL))
        along = [Selected(self.builder.const(p), mask, self.node) for p in _places(mask)]
        if self.op != "aten.nonzero":
            return tuple(along)
        return Selected(self.builder.const(np.stack(_places(mask), 1)), mask, self.node)

    # ---------------------------------------------------------------- putting back

    def put(self) -> Value:
        """`x[m] = rows`, by the mask or by its places, and `x[t] += rows`."""
        x, indices, values = self.args[:3]
        accumulate = self.args[3] if len(self.args) > 3 else False
        mask = self.whole(indices)
        if isinstance(values, Selected) and mask is not None and isinstance(x, Value):
            if not same(mask, values.mask):
                self.refuse()
            rest = x.shape[mask.type.rank :]
            if values.rows.type.rank != len(rest) + 1:
                self.refuse()
            every = self.builder.expand(values.rows, (mask.type.size, *rest))
            new = self.builder.reshape(every, x.shape)
            if accumulate:
                new = self.builder.add(Add(x, new))
            return self.builder.add(Where(self.wide(mask, x.type.rank), new, x))
        if accumulate and len(indices) == 1:
            return self.added(x, 0, indices[0], values)
        return self.refuse()

    def whole(self, indices: Any) -> Value | None:
        """The mask whose places these are, all of them."""
        first = indices[0]
        if len(indices) == 1 and _mask(first):
            return first  # type: ignore[no-any-return]
        if not isinstance(first, Selected) or first.mask.type.rank != len(indices):
            return None
        for i, places in zip(indices, _places(first.mask), strict=True):
            if not isinstance(i, Selected) or not same(i.mask, first.mask):
                return None
            at = _known(i.rows)
            if at is None or not np.array_equal(at, places):
                return None
        return first.mask

    def wide(self, mask: Value, rank: int) -> Value:
        """A mask that broadcasts over the axes behind its own."""
        return self.builder.reshape(mask, (*mask.shape, *(1,) * (rank - mask.type.rank)))

    def added(self, x: Any, axis: int, at: Any, rows: Any) -> Value:
        """Rows added to those at their places: zeros where none was chosen."""
        both = isinstance(at, Selected) and isinstance(rows, Selected)
        if not both or axis != 0 or not same(at.mask, rows.mask):
            self.refuse()
        kept = self.kept(rows)
        if self.op == "aten.index_add":
            return self.call((x, axis, at.rows, kept), self.kwargs)  # type: ignore[no-any-return]
        return self.call((x, [at.rows], kept, True), self.kwargs)  # type: ignore[no-any-return]

    def kept(self, x: Selected) -> Value:
        """All rows, zeros where they are not chosen."""
        build, flat = self.builder, x.rows
        mask = build.reshape(x.mask, (x.mask.type.size, *(1,) * (flat.type.rank - 1)))
        return build.add(Where(mask, flat, build.const(np.zeros((), flat.type.dtype.numpy))))

    def total(self, x: Selected, keepdims: bool) -> Value:
        """The sum of the rows, or their mean."""
        build = self.builder
        total = build.add(ReduceSum(self.kept(x), (0,), keepdims))
        if self.op == "aten.sum":
            return total
        chosen = build.reshape(build.add(Cast(x.mask, x.rows.type.dtype)), (x.mask.type.size,))
        return build.add(Div(total, build.add(ReduceSum(chosen, (0,), False))))

    # ---------------------------------------------------------------- row by row

    def row_by_row(self) -> Any:
        """What is made of each row by itself."""
        given = [v for v in leaves((self.args, self.kwargs)) if isinstance(v, Selected)]
        first = given[0]
        if not self.apart() or not all(same(v.mask, first.mask) for v in given):
            self.refuse()
        count = first.mask.type.size
        made = self.call(_plain(self.args), _plain(self.kwargs))
        fakes = self.node.meta.get("val")
        sizes = {str(f.shape[0]) for f in self.fakes()}
        results = made if isinstance(made, tuple) else (made,)
        listed = fakes if isinstance(fakes, list | tuple) else (fakes,)
        for v, fake in zip(results, listed, strict=True):
            if v is not None and (
                _rows_of(fake) not in sizes or not isinstance(v, Value) or v.shape[0] != count
            ):
                self.refuse()
        chosen = tuple(v if v is None else Selected(v, first.mask, first.origin) for v in results)
        return chosen if isinstance(made, tuple) else chosen[0]

    def fakes(self) -> Iterator[Any]:
        """What torch knows of the operands that are rows."""
        pairs = zip(leaves((self.node.args, dict(self.node.kwargs))),
                    leaves((self.args, self.kwargs)), strict=True)  # fmt: skip
        return (n.meta["val"] for n, v in pairs if isinstance(v, Selected))

    def apart(self) -> bool:
        """Whether the operator keeps rows apart."""
        schema = self.node.target._schema.arguments
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        given = {a.name: v for a, v in zip(schema, self.args, strict=False)}
        named = {**defaults, **given, **self.kwargs}
        if self.op in LAYERS:
            others = {k: v for k, v in named.items() if k not in LAYERS[self.op]}
            return not is_chosen(list(others.values()))
        if torch().Tag.pointwise in self.node.target.tags:
            return True
        if self.op in CHOSEN:  # rows of something else, whose numbers were chosen
            return not is_chosen(named["self"])
        if self.op not in ALONG:
            return self.op in MOVED
        ranks = [v.rows.type.rank for v in leaves(list(named.values())) if isinstance(v, Selected)]
        axes = leaves(named.get("dim", 0))
        return all(isinstance(a, int) and a % max(ranks) for a in axes)

    def refuse(self) -> NoReturn:
        """Raise `ModelError` that names this call."""
        raise ModelError(
            f"{where(self.node)}: of rows that a mask chooses, each can only be computed by itself,"
            f" put back where it came from and summed up; here {DATA_SHAPED}"
        )


def number(node: Any, op: str, x: Selected, axis: int = 0) -> int:
    """The extent of an axis of chosen rows. How many rows there are is told to what needs a shape
    alone."""
    users = [operator_name(u.target) for u in node.users if not _checks(u)]
    if op != "aten.sym_size" or (axis == 0 and not SHAPED.issuperset(users)):
        raise ModelError(f"{where(node)}: how many rows a mask chooses depends on data")
    return x.rows.shape[axis]


def _checks(node: Any) -> bool:
    """Whether a node only makes sure of something."""
    asserts = operator_name(node.target) in CHECKED
    return asserts or (bool(node.users) and all(map(_checks, node.users)))


def _rows_of(fake: Any) -> str | None:
    """What torch calls the number of rows, where it is that of the first axis and of no other."""
    shape = getattr(fake, "shape", ())
    first = str(shape[0]) if shape else None
    fixed = all(isinstance(d, int) for d in shape[1:])
    return first if fixed and shape and not isinstance(shape[0], int) else None


def _plain(entry: Any) -> Any:
    """Arguments with all rows in place of those that are chosen."""
    if isinstance(entry, list | tuple):
        return type(entry)(_plain(v) for v in entry)
    if isinstance(entry, dict):
        return {key: _plain(v) for key, v in entry.items()}
    return entry.rows if isinstance(entry, Selected) else entry


def _places(mask: Value) -> list[Array]:
    """The places of all elements of a mask, along each axis."""
    return list(np.unravel_index(np.arange(mask.type.size), mask.shape))


def _known(v: Value) -> Array | None:
    """What a value is that is computed of constants alone."""
    if isinstance(v, Const):
        return v.array
    known: dict[Value, Array] = {}
    for o in v.operands:
        if (array := _known(o)) is None:
            return None
        known[o] = array
    return np.asarray(v.call(known.__getitem__)) if known else None


def same(a: Any, b: Any) -> bool:
    """Whether two values are one, or computed alike of the same."""
    if a is b:
        return True
    if isinstance(a, Const) and isinstance(b, Const):
        return a.type == b.type and np.array_equal(a.array, b.array)
    if not isinstance(a, Value) or type(a) is not type(b):
        return not isinstance(a, Value) and bool(a == b)
    if not a.operands:
        return False
    names = (f.name for f in fields(a) if f.name != "name")
    return a.type == b.type and all(same(getattr(a, n), getattr(b, n)) for n in names)
