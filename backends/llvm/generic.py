"""The generic tier: any nests as plain loops, on vectors where every load is of neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from llvmlite import ir

from irc.backends.llvm.loop import I64, counted
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.render import Place, Renderer, flat_index, slope
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, balance
from irc.loops import (
    Binary,
    Expr,
    Load,
    Loops,
    MulShift,
    Nest,
    Reduce,
    Source,
    Temp,
    Var,
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
            if isinstance(e, Load) and isinstance(e.source, Temp)
        )
        for nest in loops.nests
    )


def emit_loops(function: KernelFunction, cut: int | None = None) -> None:
    """Emit every nest of the work, in order; of the axis `cut` the function's units."""
    ranges = Ranges(function.work.facts)
    for nest in function.work.loops.nests:
        place = function.result if nest.target is None else function.places[nest.target]
        _NestEmitter(function, nest, place, ranges, cut).emit()


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
        if depth == len(axes):
            self._element(bound, 1)
        elif depth == len(axes) - 1 and self.lanes > 1:
            self._vectors(axes[-1], bound)
        else:
            end, begin = axes[depth].extent, 0
            if depth == self.cut:
                end, begin = self.f.end, self.f.begin
            with counted(self.builder, end, begin=begin, label=axes[depth].label) as loop:
                self._axes(depth + 1, {**bound, axes[depth]: loop.index})

    def _vectors(self, axis: Var, bound: Mapping[Expr, Any]) -> None:
        """Whole vectors, then the rest: one vector more that ends at the end and does some
        elements twice; one by one where doing them twice would read what was written."""
        whole = axis.extent // self.lanes * self.lanes
        with counted(self.builder, whole, step=self.lanes, label=axis.label) as loop:
            self._element({**bound, axis: loop.index}, self.lanes)
        if whole == axis.extent:
            return
        if not self.f.work.aliased:
            start = ir.Constant(I64, axis.extent - self.lanes)
            self._element({**bound, axis: start}, self.lanes)
            return
        with counted(self.builder, axis.extent - whole, label=axis.label) as loop:
            index = self.builder.add(loop.index, ir.Constant(I64, whole), flags=("nuw", "nsw"))
            self._element({**bound, axis: index}, 1)

    def _element(self, bound: Mapping[Expr, Any], lanes: int) -> None:
        renderer = Renderer(
            self.builder, self.f.places, bound, ranges=self.ranges, lanes=lanes,
            lane_var=self.nest.axes[-1] if lanes > 1 else None, x86=self.f.target.is_x86,
        )  # fmt: skip
        renderer.store(self.place, self.nest.axes, renderer.render(self.nest.value))


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
