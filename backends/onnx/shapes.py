"""What moves and selects elements as ONNX."""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.writer import EITHER, TO_PLAIN, TO_PLANAR, Layout, Writer, exports
from irc.ops.selection import Gather
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose

BEFORE_ALL = -(1 << 62)
"""A stop in front of index 0, counted from the end."""


@exports(Reshape)
def _reshape(w: Writer, v: Reshape) -> str:
    dims = w.integers(list(v.dims))
    return w.emit("Reshape", [w.read(v.x), dims], name=v.name, allowzero=1 if 0 in v.dims else None)


@exports(Transpose)
def _transpose(w: Writer, v: Transpose) -> str:
    """Transposes between the layouts are names only."""
    if v.perm == TO_PLAIN and w.has(v.x, Layout.PLAIN):
        w.alias(v, Layout.PLANAR, w.read(v.x))
    if v.perm == TO_PLANAR and w.has(v.x, Layout.PLANAR):
        return w.read(v.x, Layout.PLANAR)
    return w.emit("Transpose", [w.read(v.x)], name=v.name, perm=list(v.perm))


@exports(Concat, layouts=EITHER)
def _concat(w: Writer, v: Concat) -> str:
    return w.emit("Concat", [w.read(x) for x in v.xs], name=v.name, axis=w.axis(v.axis))


@exports(Slice, layouts=EITHER)
def _slice(w: Writer, v: Slice) -> str:
    entries = enumerate(zip(v.starts, v.stops, v.steps, strict=True))
    taken = [
        (a, b if b >= 0 else BEFORE_ALL, w.axis(axis), step)
        for axis, (a, b, step) in entries
        if (a, b, step) != (0, v.x.shape[axis], 1)
    ]
    if not taken:
        return w.emit("Identity", [w.read(v.x)], name=v.name)
    parameters = [w.integers(list(column)) for column in zip(*taken, strict=True)]
    return w.emit("Slice", [w.read(v.x), *parameters], name=v.name)


@exports(Pad, layouts=EITHER)
def _pad(w: Writer, v: Pad) -> str:
    pairs = sorted((w.axis(axis), pair) for axis, pair in enumerate(v.pads))
    pads = w.integers([p[0] for _, p in pairs] + [p[1] for _, p in pairs])
    value = [w.constant(np.array(v.fill, v.type.dtype.numpy))] if v.mode == "constant" else []
    return w.emit("Pad", [w.read(v.x), pads, *value], name=v.name, mode=v.mode)


@exports(Expand)
def _expand(w: Writer, v: Expand) -> str:
    return w.emit("Expand", [w.read(v.x), w.integers(list(v.dims))], name=v.name)


@exports(Gather)
def _gather(w: Writer, v: Gather) -> str:
    return w.emit("Gather", [w.read(v.x), w.read(v.indices)], name=v.name, axis=v.axis)
