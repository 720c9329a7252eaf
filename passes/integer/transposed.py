"""Transposed convolutions as convolutions: every phase of the output is one, of some of the taps.

Output row `y = q*s + r` (stride s, phase r) sums the taps k with `(r + pad - k*dilation) % s == 0`,
each over input row `q + (r + pad - k*dilation) / s`. So a plain convolution with one set of output
channels per phase, in each of its groups, computes all of it, and moving its channels to space
gives the result. The sums are the same integers; taps that a phase does not have are zero weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irc.graph import Graph
from irc.ops.conv import QConv2d, QConvTranspose2d
from irc.ops.core import Const
from irc.ops.quantization import Folded, is_wide
from irc.ops.shape import Reshape, Slice, Transpose
from irc.ops.windows import Pair
from irc.pipeline import Pass
from irc.rewrite import rewrite
from irc.types import Array
from irc.value import Value


@dataclass(frozen=True)
class SplitTransposed(Pass):
    """Each integer transposed convolution as a convolution whose channels are moved to space, bit
    by bit the same."""

    name: ClassVar[str] = "split_transposed"

    def run(self, graph: Graph) -> Graph:
        """One rule."""
        return rewrite(graph, (split,))


@dataclass(frozen=True)
class Axis:
    """One spatial axis: for each phase the offset of each of its taps, and the plain
    convolution's extents."""

    offsets: tuple[dict[int, int], ...]
    first: int
    kernel: int
    pads: Pair
    count: int

    @classmethod
    def of(
        cls, extents: tuple[int, int, int], stride: int, dilation: int, pad: int
    ) -> Axis:
        """`extents`: of the input, the result and the kernel."""
        size, result, taps = extents
        offsets = tuple(
            {
                k: (r + pad - k * dilation) // stride
                for k in range(taps)
                if (r + pad - k * dilation) % stride == 0
            }
            for r in range(stride)
        )
        known = [at for phase in offsets for at in phase.values()]
        count = -(-result // stride)
        first = min(0, *known)
        # The last row that any phase reads must not lie before the last row that there is.
        last = max(size - count, *known)
        after = last + count - size
        return cls(offsets, first, last - first + 1, (-first, after), count)


def split(v: Value) -> Value | None:
    """A transposed convolution of constant weights as a convolution, reshapes and a transpose."""
    match v:
        case QConvTranspose2d(w=Const() as w, b=Const() as b) if max(v.strides) > 1:
            pass
        case _:
            return None
    rows, columns = _axes(v)
    parts = _phases(w.array, rows, columns)
    zero = v.x.type.zero
    offsets = [zero * (_sums(w.array) - _sums(part)) for part in parts]
    biases = [b.array + (offset << v.fraction) for offset in offsets]
    if max(np.abs(bias).max() for bias in biases) >= 2**31:
        return None
    weights = Const(_by_groups(parts, v.groups), name=w.name)
    bias = Const(_by_groups(biases, v.groups).astype(np.int32), name=b.name)
    m, s = (_repeated(c, len(parts), v.groups) for c in (v.m, v.s))
    folded = Folded(bias, m, s, v.fraction)
    made = QConv2d(
        v.x,
        weights,
        bias,
        m,
        s,
        strides=(1, 1),
        pads=(rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]),
        dilations=(1, 1),
        groups=v.groups,
        clamp=v.clamp,
        dtype=v.dtype,
        quant=v.quant,
        wide=v.wide or is_wide(v.x, weights.array, folded, v.type),
        fraction=v.fraction,
        name=f"{v.name}.phases",
    )
    return _to_space(made, v)


def _axes(v: QConvTranspose2d) -> tuple[Axis, Axis]:
    rows, columns = (
        Axis.of((v.x.shape[a], v.shape[a], v.w.shape[a]), v.strides[i], v.dilations[i], v.pads[i])
        for i, a in enumerate((1, 2))
    )
    return rows, columns


def _phases(w: Array, rows: Axis, columns: Axis) -> list[Array]:
    """The weights [O,kh,kw,C] of each phase, row phases outermost."""
    parts = []
    for vertical in rows.offsets:
        for horizontal in columns.offsets:
            part = np.zeros((len(w), rows.kernel, columns.kernel, w.shape[3]), w.dtype)
            for ky, y in vertical.items():
                for kx, x in horizontal.items():
                    part[:, y - rows.first, x - columns.first] = w[:, ky, kx]
            parts.append(part)
    return parts


def _sums(w: Array) -> Array:
    return np.asarray(w.reshape(len(w), -1).sum(1, dtype=np.int64))


def _by_groups(phases: list[Array], groups: int) -> Array:
    """What each phase has for its channels, beside what the others have for the same group."""
    apart = [p.reshape(groups, -1, *p.shape[1:]) for p in phases]
    return np.concatenate(apart, axis=1).reshape(-1, *phases[0].shape[1:])


def _repeated(c: Any, times: int, groups: int) -> Const:
    return Const(_by_groups([c.array] * times, groups), name=c.name)


def _to_space(made: QConv2d, v: QConvTranspose2d) -> Value:
    """[N, rows, columns, groups, phases of rows, phases of columns, O / groups] as an image, cut to
    its size."""
    n, _, _, channels = v.shape
    high, wide = v.strides
    _, rows, columns, _ = made.shape
    each = (v.groups, high, wide, channels // v.groups)
    apart = Reshape(made, (n, rows, columns, *each), name=f"{v.name}.apart")
    space = Transpose(apart, (0, 1, 4, 2, 5, 3, 6), name=f"{v.name}.space")
    whole = Reshape(space, (n, rows * high, columns * wide, channels), name=v.name)
    if whole.shape == v.shape:
        return whole
    return Slice(whole, (0, 0, 0, 0), v.shape, (1, 1, 1, 1), name=v.name)
