"""What stands around a reduction, rendered on vectors of its results, and the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

from irc.backends.llvm.loop import I32, I64
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.render import Renderer
from irc.backends.llvm.work import KernelFunction
from irc.loops import Expr, Load, Reduce, children, walk


def finish(
    f: KernelFunction,
    ranges: Ranges,
    reduce: Reduce,
    place: tuple[Any, ...],
    total: Any,
    width: int,
    known: Mapping[Expr, Any] | None = None,
) -> Callable[[], None]:
    """Render the result at `place` (the last indices of the result, the last one that of lane 0)
    with `total`, `width` lanes, for the reduction; returns what emits the store. `known` are
    values that `fixed` gave."""
    renderer = _renderer(f, ranges, place, {**(known or {}), reduce: total}, width)
    nest = f.work.loops.result
    value = renderer.render(nest.value)
    return lambda: renderer.store(f.result, nest.axes, value)


def fixed(
    f: KernelFunction, ranges: Ranges, reduce: Reduce, channel: Any, width: int
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
        lane_var=axes[-1] if width > 1 else None, x86=f.target.is_x86,
    )  # fmt: skip


def join(builder: Any, vectors: list[Any], width: int) -> Any:
    """The first `width` lanes of vectors side by side; a scalar if that is one."""
    if width == 1:
        return builder.extract_element(vectors[0], ir.Constant(I32, 0))
    first, second = vectors[0], vectors[-1]
    if len(vectors) == 1 and first.type.count == width:
        return first
    mask = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    return builder.shuffle_vector(first, second, mask)
