"""What stands around a reduction, rendered on vectors of its results, and the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from irc.backends.llvm.loop import I32, I64
from irc.backends.llvm.ranges import Ranges
from irc.backends.llvm.render import Renderer
from irc.backends.llvm.work import KernelFunction
from irc.loops import Expr, Reduce


def finish(
    f: KernelFunction,
    ranges: Ranges,
    reduce: Reduce,
    place: tuple[Any, ...],
    total: Any,
    width: int,
) -> Callable[[], None]:
    """Render the result at `place` (the last indices of the result, the last one that of lane 0)
    with `total`, `width` lanes, for the reduction; returns what emits the store."""
    nest = f.work.loops.result
    indices = ([ir.Constant(I64, 0)] * len(nest.axes) + list(place))[-len(nest.axes) :]
    bindings: dict[Expr, Any] = {v: i for v, i in zip(nest.axes, indices, strict=True)}
    renderer = Renderer(
        f.builder, f.places, bindings | {reduce: total}, ranges=ranges, lanes=width,
        lane_var=nest.axes[-1] if width > 1 else None, x86=f.target.is_x86,
    )  # fmt: skip
    value = renderer.render(nest.value)
    return lambda: renderer.store(f.result, nest.axes, value)


def join(builder: Any, vectors: list[Any], width: int) -> Any:
    """The first `width` lanes of vectors side by side; a scalar if that is one."""
    if width == 1:
        return builder.extract_element(vectors[0], ir.Constant(I32, 0))
    first, second = vectors[0], vectors[-1]
    if len(vectors) == 1 and first.type.count == width:
        return first
    mask = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    return builder.shuffle_vector(first, second, mask)
