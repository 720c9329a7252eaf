"""The generic tier: any nests as plain loops, on vectors where every load is of neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import Place, flat_index, slope
from irc.backends.llvm.code.loop import I64, Counter, counted, i64
from irc.backends.llvm.code.numbers import is_numbers
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.kernels.results.narrow import (
    BITS,
    loaded_zero,
    narrow,
    narrowing,
    register_bytes,
)
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.loops import (
    Binary,
    Expr,
    Load,
    Loops,
    MulShift,
    Nest,
    Numbering,
    Reduce,
    Source,
    Temp,
    Var,
    children,
    walk,
)
from irc.types import DType


def generic(work: Work) -> MicroKernel:
    """The kernel that does any work."""
    cut = best_cut(work.loops)
    units = work.loops.result.axes[cut].extent if cut is not None else 1
    return MicroKernel("generic loops", partial(emit_loops, cut=cut), units=units)


def best_cut(loops: Loops) -> int | None:
    """The axis along which threads may share the nests, the one of best balance: an outer one of
    the result, in step with which every temporary is written and read; None where there is none."""
    axes = loops.result.axes
    outer = [i for i in range(len(axes) - 1) if axes[i].extent > 1 and _in_step(loops, i)]
    return max(outer, key=lambda i: balance(axes[i].extent), default=None)


def _in_step(loops: Loops, axis: int) -> bool:
    """Whether each nest, at an index of its axis of that number, reads of temporaries only what
    nests before it wrote at the same index."""
    extent = loops.result.axes[axis].extent
    return all(
        len(nest.axes) > axis
        and nest.axes[axis].extent == extent
        and all(
            len(e.index) > axis and e.index[axis] is nest.axes[axis]
            for e in walk(nest.value)
            if isinstance(e, Load) and isinstance(e.source, Temp) and not is_numbers(e.source)
        )
        for nest in loops.nests
    )


def emit_loops(function: KernelFunction, cut: int | None = None) -> None:
    """Emit every nest of the work, in order; of the axis `cut` the function's units."""
    ranges = Ranges(function.work.facts)
    for nest in function.work.loops.nests:
        place = function.result if nest.target is None else function.places[nest.target]
        numbering = Numbering.of(nest)
        if numbering is None:
            _NestEmitter(function, nest, place, ranges, cut).emit()
            continue
        nothing = Nest(nest.axes, numbering.none, nest.target)
        _NestEmitter(function, nothing, place, ranges, cut).emit()
        _emit_numbers(function, numbering, (0, nest.axes[0].extent), place, ranges, cut)


def _emit_numbers(
    f: KernelFunction, found: Numbering, bounds: tuple[Any, Any], target: Place, ranges: Ranges,
    cut: int | None,
) -> None:  # fmt: skip
    """Each number written at its place, if that is among the elements that the function does."""
    builder = f.builder
    begin, end = map(i64, (f.begin, f.end) if cut == 0 and f.split else bounds)
    with counted(builder, found.number.extent, label=found.number.label) as loop:
        renderer = Renderer(
            builder, f.places, {found.number: loop.index}, ranges=ranges, target=f.target
        )
        place = renderer.render(found.place)
        inside = builder.icmp_unsigned("<", builder.sub(place, begin), builder.sub(end, begin))
        with builder.if_then(inside):
            builder.store(loop.index, target.address(builder, place), align=target.bytes)


class _NestEmitter:
    def __init__(
        self, f: KernelFunction, nest: Nest, place: Place, ranges: Ranges, cut: int | None
    ) -> None:
        self.f = f
        self.cut = cut if f.split else None
        self.nest = nest
        self.place = place
        self.ranges = ranges
        self.builder = f.builder
        self.lanes = choose_lanes(nest, f.places, place, ranges, f.target)
        if self.cut == len(nest.axes) - 1:  # the last axis of a temporary
            self.lanes = 1

    def emit(self) -> None:
        if all(v.extent > 0 for v in self.nest.axes):
            self._axes(0, {})

    def _axes(self, depth: int, bound: Mapping[Expr, Any]) -> None:
        axes = self.nest.axes
        if depth == len(axes) - 2 and self._repeated:
            self._across(axes[-1], bound)
        elif depth == len(axes):
            self._element(bound, 1)
        elif depth == len(axes) - 1 and self.lanes > 1:
            for index, lanes in self._vectors(axes[-1].extent):
                self._element({**bound, axes[-1]: index}, lanes)
        else:
            with self._loop(depth) as loop:
                self._axes(depth + 1, {**bound, axes[depth]: loop.index})

    def _loop(self, depth: int) -> AbstractContextManager[Counter]:
        """The loop over an axis, of which the function may do a part."""
        axis = self.nest.axes[depth]
        end, begin = (self.f.end, self.f.begin) if depth == self.cut else (axis.extent, 0)
        return counted(self.builder, end, begin=begin, label=axis.label)

    @cached_property
    def _repeated(self) -> list[Expr]:
        """What vectors compute that is the same for all of the axis before theirs."""
        axes = self.nest.axes
        if self.lanes == 1 or len(axes) < 2 or axes[-2].extent < 2:
            return []
        return [e for e in invariant(self.nest.value, axes[-2]) if axes[-1] in walk(e)]

    def _across(self, axis: Var, bound: Mapping[Expr, Any]) -> None:
        """Vector by vector over all of the axis before: what repeats is computed once."""
        depth = len(self.nest.axes) - 2
        for index, lanes in self._vectors(axis.extent):
            inside = {**bound, axis: index}
            renderer = self._renderer(inside, lanes)
            known = {e: renderer.render(e) for e in self._repeated}
            with self._loop(depth) as loop:
                self._element({**inside, self.nest.axes[depth]: loop.index, **known}, lanes)

    def _vectors(self, extent: int) -> Iterator[tuple[Any, int]]:
        """First index and lanes of each vector: whole ones in a loop, then the rest: one vector
        more that ends at the end and does some elements twice; narrower ones where doing them
        twice would read what was written."""
        start = extent // self.lanes * self.lanes
        with counted(self.builder, start, step=self.lanes, label="lane") as loop:
            yield loop.index, self.lanes
        if start < extent and not self.f.work.aliased:
            yield ir.Constant(I64, extent - self.lanes), self.lanes
            return
        lanes = self.lanes
        while start < extent:
            while lanes > extent - start:
                lanes //= 2
            yield ir.Constant(I64, start), lanes
            start += lanes

    def _element(self, bound: Mapping[Expr, Any], lanes: int) -> None:
        renderer = self._renderer(bound, lanes)
        ends, nbytes = narrowing(self.nest.value), register_bytes(self.f.target, lanes)
        if ends is None or nbytes == 0 or lanes == 1:
            value = renderer.render(self.nest.value)
        else:
            wide, zero = renderer.render_bounded(ends.wide, BITS), loaded_zero(renderer, ends)
            (value,) = narrow(self.builder, ends, [wide], nbytes, zero)
        renderer.store(self.place, self.nest.axes, value)

    def _renderer(self, bound: Mapping[Expr, Any], lanes: int) -> Renderer:
        return Renderer(
            self.builder, self.f.places, bound, ranges=self.ranges, lanes=lanes,
            lane_var=self.nest.axes[-1] if lanes > 1 else None, target=self.f.target,
        )  # fmt: skip


def invariant(e: Expr, variable: Var) -> list[Expr]:
    """The largest parts of an expression that load something and don't depend on a variable."""
    found: dict[Expr, None] = {}
    seen: set[Expr] = set()
    stack = [e]
    while stack:
        x = stack.pop()
        if x in seen:
            continue
        seen.add(x)
        inside = walk(x)
        if variable in inside:  # what stands inside of a reduction has variables of its own
            stack.extend([] if isinstance(x, Reduce) else children(x))
        elif any(isinstance(y, Load) for y in inside):
            found[x] = None
    return list(found)


def choose_lanes(
    nest: Nest, places: Mapping[Source, Place], result: Place, ranges: Ranges, target: Target
) -> int:
    """Lanes for the innermost axis: a power of two, 1 where vectors don't pay.

    They do where the result and every load move by one element, or not at all, along that axis,
    so that nothing is gathered lane by lane; LLVM vectorizes reductions in scalar nests itself.
    """
    if not nest.axes or target.vector_bytes == 0:
        return 1
    axis = nest.axes[-1]
    if slope(flat_index(nest.axes, result.strides), axis) != 1:
        return 1
    if not all(_neighbours(e, axis, places, ranges) for e in walk(nest.value)):
        return 1
    lanes = target.vector_bytes // 2 if result.dtype.bits == 8 else target.vector_bytes // 4
    while lanes > axis.extent:
        lanes //= 2
    return lanes if lanes >= 4 else 1


def _neighbours(e: Expr, axis: Var, places: Mapping[Source, Place], ranges: Ranges) -> bool:
    match e:
        case Load(source=source, index=index):
            step = slope(flat_index(index, places[source].strides), axis)
            return step == 0 or (step == 1 and not _tested(e, axis, ranges))
        case Binary(kind="floordiv" | "mod"):
            return axis not in walk(e)
        case MulShift(a=a):
            return a.dtype is DType.I32
        case Reduce(axes=axes):
            return axis not in axes
    return True


def _tested(e: Load, axis: Var, ranges: Ranges) -> bool:
    """Whether a bounds test depends on the axis."""
    return e.fill is not None and any(
        axis in walk(i) and not ranges.within(i, 0, extent - 1)
        for i, extent in zip(e.index, e.source.shape, strict=True)
    )
