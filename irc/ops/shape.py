"""Moving elements: where each comes from is known at compile time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf, prod
from typing import Any, ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Kept, Tie, tie, tie_axes, tie_broadcast, tie_reshape
from irc.errors import TypeCheckError
from irc.loops import (
    Expr,
    Int,
    Loops,
    Select,
    clamp,
    elementwise,
    load,
    load_broadcast,
    maximum,
)
from irc.ops.moving import Joining, Moving, joined, moved, need_axis
from irc.types import Array, DType, Quant, Shape, TensorType, broadcast_shapes
from irc.value import Value, op

Pads = tuple[tuple[int, int], ...]
"""Elements before and after, per axis."""


@op("reshape")
class Reshape(Moving):
    """The same elements, row-major, in another shape of equal size."""

    x: Value
    dims: Shape
    declares: ClassVar[tuple[str, ...]] = ("dims",)

    def infer(self) -> TensorType:
        """As many elements before as after; a copy keeps all scales."""
        if prod(self.dims) != self.x.type.size:
            raise TypeCheckError(f"{self.x.type} does not fit shape {list(self.dims)}")
        return self.x.type if self.dims == self.x.shape else moved(self.x.type, self.dims)

    def evaluate(self, x: Array) -> Array:
        """NumPy's reshape."""
        return x.reshape(self.dims)

    def ties(self) -> Iterable[Tie]:
        """`tie_reshape`."""
        return tie_reshape(self.x, self)

    def narrowed(self, new: Callable[[Value], Value], kept: Kept) -> Value:
        """To what is left of each axis."""
        return self.replace(x=new(self.x), dims=remaining(self, kept))

    def loops(self) -> Loops:
        """One load; division and remainder only between axes that really merge or split."""

        def value(*i: Expr) -> Expr:
            return load(self.x, *regrouped(i, self.dims, self.x.shape))

        return elementwise(self.dims, value)


def with_shape(v: Value, dims: Shape, name: str = "") -> Value:
    """The elements of `v` in a shape of equal size; `v` itself where it has that."""
    return v if v.shape == dims else Reshape(v, dims, name=name)


def bare(v: Value) -> Value:
    """What is reshaped, once or more: the same elements in the same order."""
    while isinstance(v, Reshape):
        v = v.x
    return v


def remaining(v: Value, kept: Kept) -> Shape:
    """What is left of each axis of a result."""
    return tuple(int(kept(v, axis).sum()) for axis in range(len(v.shape)))


def regrouped(index: tuple[Expr, ...], dims: Shape, source: Shape) -> list[Expr]:
    """The index into `source` of the element at `index` of `dims`, both row-major."""
    if 0 in dims:
        return [Int(0, DType.I64) for _ in source]  # no element is ever asked for
    found: list[Expr] = []
    a = b = 0
    while b < len(source):
        a_end, b_end = a, b + 1
        have, need = 1, source[b]
        while have != need:
            if have < need:
                have, a_end = have * dims[a_end], a_end + 1
            else:
                need, b_end = need * source[b_end], b_end + 1
        found += _unravel(_ravel(index[a:a_end], dims[a:a_end]), source[b:b_end])
        a, b = a_end, b_end
    return found


def _ravel(index: tuple[Expr, ...], dims: Shape) -> Expr:
    flat: Expr = Int(0, DType.I64)
    for i, d in zip(index, dims, strict=True):
        flat = (flat * d if not isinstance(flat, Int) else flat) + (i if d > 1 else 0)
    return flat


def _unravel(flat: Expr, dims: Shape) -> list[Expr]:
    found: list[Expr] = []
    for axis, d in enumerate(dims):
        i = flat // prod(dims[axis + 1 :])
        outermost = all(before == 1 for before in dims[:axis])
        found.append(Int(0, DType.I64) if d == 1 else i if outermost else i % d)
    return found


@op("transpose")
class Transpose(Moving):
    """Axis `i` of the result is axis `perm[i]` of x."""

    x: Value
    perm: tuple[int, ...]

    def infer(self) -> TensorType:
        """`perm` names every axis once; scales along an axis move with it."""
        t = self.x.type
        if sorted(self.perm) != list(range(t.rank)):
            raise TypeCheckError(f"perm {list(self.perm)} does not permute the axes of {t}")
        quant = t.quant
        if quant is not None and quant.axis is not None:
            quant = replace(quant, axis=self.perm.index(quant.axis))
        return TensorType(t.dtype, tuple(t.shape[p] for p in self.perm), quant)

    def evaluate(self, x: Array) -> Array:
        """NumPy's transpose."""
        return np.asarray(x.transpose(self.perm), order="C")

    def ties(self) -> Iterable[Tie]:
        """Each axis where it comes from."""
        return (tie(self.x, p, self, axis) for axis, p in enumerate(self.perm))

    def loops(self) -> Loops:
        """One load."""
        order = np.argsort(self.perm)
        return elementwise(self.shape, lambda *i: load(self.x, *(i[a] for a in order)))


def joined_columns(types: Sequence[TensorType], axis: int) -> Quant | None:
    """The scales of what is joined along an axis along which all parts have scales; None where some
    do not, or these are of different kinds."""
    quants = [t.quant for t in types if t.quant is not None and t.quant.axis == axis]
    kinds = {(t.dtype, q.missing) for t, q in zip(types, quants, strict=False)}
    if len(quants) < len(types) or len(kinds) != 1:
        return None
    points = [np.broadcast_to(np.asarray(q.zero_point), len(q.scales)).tolist() for q in quants]
    scales = tuple(s for q in quants for s in q.scales)
    return Quant(scales, tuple(z for p in points for z in p), axis, quants[0].missing)


@op("concat")
class Concat(Joining):
    """The operands one after another along `axis`; they must have one dtype and one scale, or each
    its own scales along that axis."""

    xs: tuple[Value, ...]
    axis: int

    def infer(self) -> TensorType:
        """Equal shapes but for the axis."""
        if not self.xs:
            raise TypeCheckError("concat needs at least one operand")
        first = self.xs[0].shape
        need_axis(self.axis, len(first))
        by_columns = joined_columns([v.type for v in self.xs], self.axis)
        common = joined(self.xs) if by_columns is None else None
        rests = {(*v.shape[: self.axis], -1, *v.shape[self.axis + 1 :]) for v in self.xs}
        if len(rests) > 1:
            listed = " and ".join(str(list(v.shape)) for v in self.xs)
            raise TypeCheckError(f"shapes {listed} differ in more than axis {self.axis}")
        total = sum(v.shape[self.axis] for v in self.xs)
        shape = (*first[: self.axis], total, *first[self.axis + 1 :])
        return TensorType(self.xs[0].type.dtype, shape, by_columns) if common is None else (
            common.with_shape(shape)
        )  # fmt: skip

    def evaluate(self, xs: tuple[Array, ...]) -> Array:
        """NumPy's concatenate."""
        return np.concatenate(xs, self.axis)

    def ties(self) -> Iterable[Tie]:
        """The operands one after another; the other axes of all of them."""
        others = [a for a in range(len(self.shape)) if a != self.axis]
        start = 0
        for v in self.xs:
            yield from tie_axes(v, self, others)
            stop = start + v.shape[self.axis]
            yield tie(v, self.axis, self, self.axis, None, np.arange(start, stop))
            start = stop

    def loops(self) -> Loops:
        """A chain of selections; loads that are not selected may lie outside."""
        return elementwise(self.shape, self._select)

    def _select(self, *i: Expr) -> Expr:
        start = self.shape[self.axis]
        made: Expr | None = None
        for v in reversed(self.xs):
            start -= v.shape[self.axis]
            here = i[self.axis] - start
            index = (*i[: self.axis], here, *i[self.axis + 1 :])
            part = load(v, *index, fill=0 if len(self.xs) > 1 else None)
            inside = i[self.axis] < start + v.shape[self.axis]
            made = part if made is None else Select(inside, part, made)
        assert made is not None, "infer asks for an operand"
        return made


@op("slice")
class Slice(Moving):
    """Elements `start, start + step, …` short of `stop`, per axis. Normalised: no index counts from
    the end; a stop of -1 with a negative step means that index 0 is still taken."""

    x: Value
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self) -> TensorType:
        """One normalised entry per axis."""
        shape = self.x.shape
        if not len(self.starts) == len(self.stops) == len(self.steps) == len(shape):
            raise TypeCheckError(f"one start, stop and step per axis of {self.x.type} are needed")
        entries = zip(self.starts, self.stops, self.steps, shape, strict=True)
        return moved(self.x.type, tuple(_slice_length(*e) for e in entries))

    def evaluate(self, x: Array) -> Array:
        """NumPy's slicing."""
        entries = zip(self.starts, self.stops, self.steps, strict=True)
        return x[tuple(slice(a, None if b < 0 else b, s) for a, b, s in entries)]

    def ties(self) -> Iterable[Tie]:
        """What is taken, of axes that are taken without gaps."""
        entries = zip(self.starts, self.stops, self.steps, strict=True)
        for axis, (start, stop, step) in enumerate(entries):
            if step == 1:
                yield tie(self.x, axis, self, axis, np.arange(start, stop), None)

    def narrowed(self, new: Callable[[Value], Value], kept: Kept) -> Value:
        """From and to where the remaining entries lie now."""
        starts, stops = list(self.starts), list(self.stops)
        for axis, step in enumerate(self.steps):
            if step == 1:
                before = np.concatenate([[0], np.cumsum(kept(self.x, axis))])
                starts[axis] = int(before[starts[axis]])
                stops[axis] = int(before[stops[axis]])
        return self.replace(x=new(self.x), starts=tuple(starts), stops=tuple(stops))

    def loops(self) -> Loops:
        """One load."""

        def value(*i: Expr) -> Expr:
            entries = zip(i, self.starts, self.steps, strict=True)
            return load(self.x, *(v * step + start for v, start, step in entries))

        return elementwise(self.shape, value)


def _slice_length(start: int, stop: int, step: int, extent: int) -> int:
    last = extent if step > 0 else max(0, extent - 1)
    low = 0 if step > 0 else -1
    if step == 0 or not 0 <= start <= last or not low <= stop <= extent:
        raise TypeCheckError(f"slice {start}:{stop}:{step} is not normal for {extent} elements")
    return len(range(start, stop, step))


@op("pad")
class Pad(Moving):
    """Elements around x: `value` (a real; on a quantized tensor its quantized form), the nearest
    element ("edge"), or the mirrored ones without the edge itself ("reflect")."""

    x: Value
    pads: Pads
    value: float = 0.0
    mode: str = "constant"

    def infer(self) -> TensorType:
        """A pair of pads per axis, not negative; a mirror must be large enough."""
        if len(self.pads) != self.x.type.rank or any(len(p) != 2 or min(p) < 0 for p in self.pads):
            raise TypeCheckError(
                f"pads {self.pads} are no pairs of sizes per axis of {self.x.type}"
            )
        if self.mode not in ("constant", "edge", "reflect"):
            raise TypeCheckError(f"mode {self.mode!r} is none of constant, edge, reflect")
        for d, pair in zip(self.x.shape, self.pads, strict=True):
            room = {"constant": inf, "edge": inf if d else 0, "reflect": max(0, d - 1)}
            if max(pair) > room[self.mode]:
                raise TypeCheckError(f"{d} elements can't be padded by {pair} ({self.mode})")
        grown = (d + a + b for d, (a, b) in zip(self.x.shape, self.pads, strict=True))
        return moved(self.x.type, tuple(grown))

    @property
    def fill(self) -> Any:
        """`value` as an element: quantized by equation (2) where x is quantized."""
        t = self.x.type
        if t.quant is not None:
            return int(fixedpoint.quantize(self.value, t.with_shape(())))
        return t.dtype.numpy.type(self.value).item()

    def evaluate(self, x: Array) -> Array:
        """NumPy's pad."""
        if self.mode == "constant":
            return np.pad(x, self.pads, constant_values=self.fill)
        return np.pad(x, self.pads, mode="edge" if self.mode == "edge" else "reflect")

    def ties(self) -> Iterable[Tie]:
        """Axes that are not padded."""
        inner = (axis for axis, pair in enumerate(self.pads) if pair == (0, 0))
        return tie_axes(self.x, self, inner)

    def loops(self) -> Loops:
        """One load at a clamped or mirrored index, or one that may lie outside."""
        fill = int(self.fill) if self.mode == "constant" else None

        def value(*i: Expr) -> Expr:
            entries = zip(i, self.pads, self.x.shape, strict=True)
            return load(self.x, *(self._source(v, p, d) for v, p, d in entries), fill=fill)

        return elementwise(self.shape, value)

    def _source(self, i: Expr, pads: tuple[int, int], extent: int) -> Expr:
        here = i - pads[0]
        if self.mode == "constant" or pads == (0, 0):
            return here
        if self.mode == "edge":
            return clamp(here, 0, extent - 1)
        mirrored = (extent - 1) - maximum(here, 0 - here)
        return (extent - 1) - maximum(mirrored, 0 - mirrored)


@op("expand")
class Expand(Moving):
    """NumPy's broadcasting of x to a shape."""

    x: Value
    dims: Shape
    declares: ClassVar[tuple[str, ...]] = ("dims",)

    def infer(self) -> TensorType:
        """The shape must be what x broadcasts to."""
        if broadcast_shapes(self.x.shape, self.dims) != self.dims:
            raise TypeCheckError(f"{self.x.type} does not broadcast to {list(self.dims)}")
        return moved(self.x.type, self.dims)

    def evaluate(self, x: Array) -> Array:
        """NumPy's broadcast."""
        return np.array(np.broadcast_to(x, self.dims))

    def ties(self) -> Iterable[Tie]:
        """Axes that are not widened."""
        return tie_broadcast(self.x, self)

    def narrowed(self, new: Callable[[Value], Value], kept: Kept) -> Value:
        """To what is left of each axis."""
        return self.replace(x=new(self.x), dims=remaining(self, kept))

    def loops(self) -> Loops:
        """One load."""
        return elementwise(self.dims, lambda *i: load_broadcast(self.x, i))
