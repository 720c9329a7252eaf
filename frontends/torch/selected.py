"""Rows that a computed mask chooses: `x[m]`, `x[torch.where(m)[0]]`.

How many there are depends on data, but what is made of each row by itself, and put back where it
came from or summed up, does not need to know: all rows are computed, and those that were chosen are
put back. So mixtures of experts come in that pick each expert's tokens:

    y[m] = f(x[m])                   y = where(m, f(x), y)
    y[t] += f(x[t])                  the same, once for each column of m where its rows are t
    y.index_add_(0, t, f(x[t]))      y[t] += where(m, f(x[t]), 0), t the places of all of m
    y = x[m].mean(0)                 y = where(m, x, 0).sum(0) / m.sum()
"""

from __future__ import annotations

import math
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
from irc.ops.elementwise import Add, Div, Mul
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Where
from irc.ops.shape import Slice
from irc.types import Array, DType, Shape
from irc.value import Value

Axes = tuple[int, ...]

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
        "min", "argmax", "argmin", "topk", "sort", "argsort", "cumsum", "glu", "gather", "cat",
        "var", "std", "linalg_vector_norm",
    )
})  # fmt: skip
"""Operators along an axis: rows stay apart where it is not the first, and all operands are rows."""
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
COLUMNS = 64
"""A mask of more columns than this puts no rows back one column after the other."""
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


class Count(int):
    """How many rows a mask chooses, as long as all stand for them."""

    rows: Selected

    @classmethod
    def of(cls, rows: Selected) -> Count:
        """That of these."""
        made = cls(rows.mask.type.size)
        made.rows = rows
        return made


def is_chosen(entry: Any) -> bool:
    """Whether an argument is of rows that a mask chooses, or their number, or holds such."""
    return any(isinstance(v, Selected | Count) for v in leaves(entry))


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
        if self.op in ("aten.sum", "aten.mean") and not self.kwargs:
            x, axes, keepdims = [*self.args, None, False][:3]
            axes = sorted(a % x.rows.type.rank for a in axes or range(x.rows.type.rank))
            if 0 in axes and x.rows.type.dtype.is_float:
                return self.total(x, tuple(axes), bool(keepdims))
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
        if not isinstance(x, Value):
            self.refuse()
        if mask is not None:
            rest = x.shape[mask.type.rank :]
            if mask.shape != x.shape[: mask.type.rank]:
                self.refuse()
            new = self.builder.reshape(self.each(values, mask, rest), x.shape)
            if accumulate:
                new = self.builder.add(Add(x, new))
            return self.builder.add(Where(self.wide(mask, x.type.rank), new, x))
        if accumulate and len(indices) == 1:
            return self.added(x, 0, indices[0], values)
        if not accumulate and len(indices) == 1:
            return self.by_columns(x, indices[0], values)
        return self.refuse()

    def each(self, values: Any, mask: Value, rest: Shape) -> Value:
        """What is put into each place of a mask: the rows of the same, or one for all."""
        rows, rank = values, 1 + len(rest)
        if isinstance(values, Selected):
            rows = values.rows if same(mask, values.mask) else None
        elif isinstance(values, Value):
            one = (1,) * max(0, rank - values.type.rank) + values.shape
            rows = self.builder.reshape(values, one) if one[0] == 1 else None
        if not isinstance(rows, Value) or rows.type.rank != rank:
            self.refuse()
        return self.builder.expand(rows, (mask.type.size, *rest))

    def by_columns(self, x: Value, at: Any, values: Any) -> Value:
        """`x[t] = rows`, t the places along one axis of a mask of several: of rows that come to
        the same place the last one stays, as in torch."""
        mask = at.mask if isinstance(at, Selected) else None
        places = _known(at.rows) if isinstance(at, Selected) else None
        axes = [] if mask is None else _axes_of(places, mask)
        if mask is None or len(axes) != 1 or mask.shape[axes[0]] != x.shape[0]:
            self.refuse()
        build, rest, (axis,) = self.builder, x.shape[1:], axes
        perm = (*(a for a in range(mask.type.rank) if a != axis), axis)
        columns = mask.type.size // x.shape[0]
        if columns > COLUMNS:
            self.refuse()
        rows = build.reshape(self.each(values, mask, rest), (*mask.shape, *rest))
        behind = range(len(perm), len(perm) + len(rest))
        rows = build.reshape(build.transpose(rows, (*perm, *behind)), (columns, *x.shape))
        chosen = build.reshape(build.transpose(mask, perm), (columns, x.shape[0]))
        for c in range(columns):
            here = self.wide(build.reshape(_at(build, chosen, c), x.shape[:1]), x.type.rank)
            x = build.add(Where(here, build.reshape(_at(build, rows, c), x.shape), x))
        return x

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

    def total(self, x: Selected, axes: Axes, keepdims: bool) -> Value:
        """The sum of the rows, or their mean."""
        build = self.builder
        total = build.add(ReduceSum(self.kept(x), axes, keepdims))
        if self.op == "aten.sum":
            return total
        chosen = build.reshape(build.add(Cast(x.mask, x.rows.type.dtype)), (x.mask.type.size,))
        count = build.add(ReduceSum(chosen, (0,), False))
        each = math.prod(x.rows.shape[a] for a in axes[1:])
        if each != 1:
            count = build.add(Mul(count, build.const(np.array(each, x.rows.type.dtype.numpy))))
        return build.add(Div(total, count))

    # ---------------------------------------------------------------- row by row

    def row_by_row(self) -> Any:
        """What is made of each row by itself."""
        given = [
            v.rows if isinstance(v, Count) else v
            for v in leaves((self.args, self.kwargs))
            if isinstance(v, Selected | Count)
        ]
        first = given[0]
        if not self.apart() or not all(same(v.mask, first.mask) for v in given):
            self.refuse()
        count = first.mask.type.size
        made = self.call(_plain(self.args), _plain(self.kwargs))
        fakes = self.node.meta.get("val")
        sizes = set(self.sizes())
        results = made if isinstance(made, tuple) else (made,)
        listed = fakes if isinstance(fakes, list | tuple) else (fakes,)
        for v, fake in zip(results, listed, strict=True):
            if v is not None and (
                _rows_of(fake) not in sizes or not isinstance(v, Value) or v.shape[0] != count
            ):
                self.refuse()
        chosen = tuple(v if v is None else Selected(v, first.mask, first.origin) for v in results)
        return chosen if isinstance(made, tuple) else chosen[0]

    def sizes(self) -> Iterator[str]:
        """What torch calls the number of rows of the operands."""
        pairs = zip(leaves((self.node.args, dict(self.node.kwargs))),
                    leaves((self.args, self.kwargs)), strict=True)  # fmt: skip
        for n, v in pairs:
            if isinstance(v, Selected | Count):
                fake = n.meta["val"]
                yield str(fake if isinstance(v, Count) else fake.shape[0])

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
        flat = leaves(list(named.values()))
        if self.op in MOVED:  # of others, only what repeats one row says how many there are
            x = named["self"]
            if isinstance(x, Selected):
                return True
            one = x.type.rank < len(named.get("size", ())) or x.shape[:1] == (1,)
            return one and self.op == "aten.expand"
        if self.op not in ALONG or any(isinstance(v, Value) for v in flat):
            return False
        ranks = [v.rows.type.rank for v in flat if isinstance(v, Selected)]
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
    axis %= x.rows.type.rank
    if op != "aten.sym_size" or (axis == 0 and not SHAPED.issuperset(users)):
        raise ModelError(f"{where(node)}: how many rows a mask chooses depends on data")
    return x.rows.shape[axis] if axis else Count.of(x)


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
    if isinstance(entry, Count):
        return int(entry)
    return entry.rows if isinstance(entry, Selected) else entry


def _at(builder: Builder, x: Value, i: int) -> Value:
    """Element `i` along the first axis, which stays."""
    starts, stops = (i, *(0,) * (x.type.rank - 1)), (i + 1, *x.shape[1:])
    return builder.add(Slice(x, starts, stops, (1,) * x.type.rank))


def _axes_of(places: Array | None, mask: Value) -> Axes:
    """The axes of a mask along which these are the places of all its elements."""
    known = enumerate(_places(mask))
    return () if places is None else tuple(a for a, p in known if np.array_equal(p, places))


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
    pairs: list[tuple[Any, Any]] = [(a, b)]
    seen = set[tuple[int, int]]()
    while pairs:
        a, b = pairs.pop()
        if a is b or (id(a), id(b)) in seen:
            continue
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, Const) and isinstance(b, Const):
            if a.type != b.type or not np.array_equal(a.array, b.array):
                return False
        elif not isinstance(a, Value) or not isinstance(b, Value):
            if isinstance(a, Value) or not bool(a == b):
                return False
        elif type(a) is not type(b) or not a.operands or a.type != b.type:
            return False
        else:
            seen.add((id(a), id(b)))
            names = [f.name for f in fields(a) if f.name != "name"]
            pairs.extend((getattr(a, n), getattr(b, n)) for n in names)
    return True
