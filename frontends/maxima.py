"""Where the maxima of a pool's windows are, and elements put back there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder, check_size
from irc.frontends.volumes import ends, window_places
from irc.ops.elementwise import Add
from irc.ops.ranking import ArgMax
from irc.ops.scatter import Scatter
from irc.ops.selection import Gather
from irc.types import Array, Shape
from irc.value import Value


def window_taps(
    sizes: Shape, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> list[Array]:
    """Which elements the windows read, axis by axis: `[windows, kernel]` each."""
    axes = zip(sizes, kernel, strides, dilations, strict=True)
    return [window_places(size, k, s, ends(pads, i), d) for i, (size, k, s, d) in enumerate(axes)]


def places(build: Builder, x: Value, taps: Sequence[Array], *, by_column: bool = False) -> Value:
    """The place of the maximum of each window within its plane of x `[N, C, *sizes]`, seen as flat:
    i64 `[N*C, windows]`. `by_column` counts the spatial axes from the last one."""
    sizes = x.shape[2:]
    windows, count = (prod(t.shape[axis] for t in taps) for axis in (0, 1))
    check_size(8, (windows, count))
    if prod(x.shape) == 0 or not windows:
        raise ModelError(f"{x.type} has no maxima")
    order = list(range(len(sizes)))[:: -1 if by_column else 1]
    strides = {axis: prod(sizes[o] for o in order[i + 1 :]) for i, axis in enumerate(order)}
    row_major = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    flat = _combined([t * s for t, s in zip(taps, row_major, strict=True)])
    named = _combined([t * strides[i] for i, t in enumerate(taps)])
    inside = _combined([(t >= size).astype(np.int64) for t, size in zip(taps, sizes, strict=True)])
    first = np.argmax(inside == 0, 1)[:, np.newaxis]
    # Padding is never the largest: the first element that is there stands for it.
    flat = np.where(inside == 0, flat, np.take_along_axis(flat, first, 1))
    named = np.where(inside == 0, named, np.take_along_axis(named, first, 1))
    planes = build.reshape(x, (prod(x.shape[:2]), prod(sizes)))
    seen = build.add(Gather(planes, build.const(flat, name=f"{build.name}.windows"), 1))
    best = build.add(ArgMax(seen, 2, False))
    at = build.add(Add(best, build.const(np.arange(windows) * count)))
    return build.add(Gather(build.const(named.reshape(-1)), at, 0))


def _combined(parts: Sequence[Array]) -> Array:
    """Sums of one number of each axis: `[windows, taps]`, both row-major."""
    total = np.zeros((1, 1), np.int64)
    for p in parts:
        both = total[:, np.newaxis, :, np.newaxis] + p[np.newaxis, :, np.newaxis, :]
        total = both.reshape(total.shape[0] * p.shape[0], -1)
    return total


def from_plane(build: Builder, at: Value, size: int) -> Value:
    """Places within planes of so many elements, `[planes, …]`, as places in all of them."""
    start = np.arange(at.shape[0]) * size
    return build.add(Add(at, build.const(start.reshape(-1, *(1,) * (at.type.rank - 1)))))


def unpooled(build: Builder, x: Value, at: Value, shape: Shape) -> Value:
    """Zeros of a shape, seen as flat, with the elements of x at their places."""
    check_size(x.type.dtype.numpy.itemsize, shape)
    zeros = build.const(np.zeros(prod(shape), x.type.dtype.numpy), name=f"{build.name}.zeros")
    flat, where = (build.reshape(v, (x.type.size,)) for v in (x, at))
    return build.reshape(build.add(Scatter(zeros, flat, where)), shape)
