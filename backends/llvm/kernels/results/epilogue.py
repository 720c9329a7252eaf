"""What stands around a reduction, rendered on vectors of its results, and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import Place
from irc.backends.llvm.code.loop import I64
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.kernels.results.late_rounding import late
from irc.backends.llvm.kernels.results.narrow import (
    BITS,
    kept_bits,
    loaded_zero,
    narrow,
    narrow_late,
    narrowing,
    register_bytes,
)
from irc.backends.llvm.kernels.results.sums import bind_sums
from irc.backends.llvm.kernels.vectors.lanes import filled
from irc.backends.llvm.work import KernelFunction
from irc.loops import Binary, Expr, Load, children, walk
from irc.types import DType

Indices = tuple[Any, ...]


@dataclass(frozen=True)
class Kept:
    """Whether a vector is stored (i1), and the memory that takes it where it is not."""

    condition: Any
    sink: Any


@dataclass(frozen=True)
class KeptPlace(Place):
    """A tensor of which one element is written, or none."""

    kept: Kept

    def address(self, builder: Any, offset: Any) -> Any:
        """Pointer to the element, or to what is never read."""
        return builder.select(
            self.kept.condition, super().address(builder, offset), self.kept.sink
        )


def finish(
    f: KernelFunction,
    ranges: Ranges,
    reduce: Expr,
    totals: Sequence[tuple[Indices, Any]],
    width: int,
    known: Mapping[Expr, Any] | None = None,
    keep: Sequence[Kept | None] | None = None,
) -> None:
    """Render the results at places (the last indices of the result, the last one that of lane 0),
    each with its total, `width` lanes, for the reduction (or what else a kernel computes by
    itself), and store them; loads before stores. `known` are values that `fixed` gave, `keep` tells
    of each result whether it is one."""
    nest = f.work.loops.result
    renderers = [
        _renderer(f, ranges, place, {**(known or {}), reduce: total}, width)
        for place, total in totals
    ]
    values = _values(f, renderers, width)
    for renderer, value, kept in zip(renderers, values, keep or [None] * len(values), strict=True):
        to = f.result if kept is None else KeptPlace(**vars(f.result), kept=kept)
        renderer.store(to, nest.axes, value)


def _values(f: KernelFunction, renderers: Sequence[Renderer], width: int) -> list[Any]:
    """The expression's values, packed together where it ends in a byte."""
    root = f.work.loops.result.value
    ends, nbytes = narrowing(root), register_bytes(f.target, width)
    if ends is None or nbytes == 0 or width == 1:
        return [r.render(root) for r in renderers]
    for r in renderers:
        bind_sums(r, f.target, ends.wide)
    if f.target.rounds_words:
        words = [late(r, ends.wide, kept_bits(ends)) for r in renderers]
        if found := [w for w in words if w is not None]:
            return narrow_late(f.builder, ends, found, nbytes, loaded_zero(renderers[0], ends))
    wide = [r.render_bounded(ends.wide, BITS) for r in renderers]
    zero, together = loaded_zero(renderers[0], ends), f.target.rounds_words
    return narrow(f.builder, ends, wide, nbytes, zero, together=together)


@dataclass(frozen=True)
class Start:
    """What sums begin with: the expression that they then come to, and what it adds to the
    reduction, of the channel alone (None: nothing)."""

    total: Expr
    addend: Expr | None = None


def started(value: Expr, reduce: Expr, axes: Sequence[Expr]) -> Start:
    """Where all that is done with a reduction is to add something of the channel, the last of the
    axes, to it, as i32: a bias."""
    used = [e for e in walk(value) if reduce in children(e)]
    match used:
        case [Binary(kind="add", a=a, b=b, dtype=DType.I32) as total] if a is not b:
            addend = b if a is reduce else a
            if {reduce, *axes[:-1]}.isdisjoint(walk(addend)):
                return Start(total, addend)
    return Start(reduce)


def beginning(
    f: KernelFunction, ranges: Ranges, begin: Start, channel: Any, channels: int, lanes: int
) -> list[Any] | None:
    """What the sums of so many channels from one on begin with, in vectors of i32; None: with 0."""
    if begin.addend is None:
        return None
    found: list[Any] = []
    for first, _, width in column_groups(channels, lanes, 1):
        place = f.builder.add(channel, ir.Constant(I64, first * lanes))
        renderer = _renderer(f, ranges, (place,), {}, width)
        value = renderer.wide(renderer.render(begin.addend))
        found.append(value if width == lanes else filled(f.builder, value, lanes))
    return found


def fixed(
    f: KernelFunction, ranges: Ranges, reduce: Expr, channel: Any, width: int
) -> dict[Expr, Any]:
    """What is loaded and computed from the channel alone, `width` of them from `channel` on:
    rendered here, before a loop over pixels."""
    nest = f.work.loops.result
    renderer = _renderer(f, ranges, (channel,), {}, width)
    varying = {reduce, *nest.axes[:-1]}
    found: dict[Expr, Any] = {}
    seen: set[Expr] = set()
    stack = [nest.value]
    while stack:
        e = stack.pop()
        if e in seen or e is reduce:
            continue
        seen.add(e)
        inside = list(walk(e))
        if not varying.isdisjoint(inside):
            stack.extend(children(e))
        elif any(isinstance(x, Load) for x in inside):
            found[e] = renderer.render(e)
    return found


def _renderer(
    f: KernelFunction, ranges: Ranges, place: tuple[Any, ...], known: Mapping[Expr, Any], width: int
) -> Renderer:
    """A renderer of `width` channels at a place; what comes before it is at 0."""
    axes = f.work.loops.result.axes
    indices = ([ir.Constant(I64, 0)] * len(axes) + list(place))[-len(axes) :]
    bindings: dict[Expr, Any] = dict(zip(axes, indices, strict=True))
    return Renderer(
        f.builder, f.places, bindings | dict(known), ranges=ranges, lanes=width,
        lane_var=axes[-1] if width > 1 else None, target=f.target,
    )  # fmt: skip


def column_groups(channels: int, lanes: int, at_once: int) -> list[tuple[int, int, int]]:
    """Channels in groups of one, two or four vectors, a rest of less than a vector alone: the first
    vector, how many, and the channels of each group."""
    groups, start = [], 0
    for count in (4, 2, 1):
        while count <= at_once and channels - start * lanes >= count * lanes:
            groups.append((start, count, count * lanes))
            start += count
    rest = channels - start * lanes
    return [*groups, (start, 1, rest)] if rest else groups
