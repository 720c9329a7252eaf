"""Channels times gates (squeeze-and-excite), equation (7): x[.., c] * g[c] on vectors.

    f[c] = factors[g[c]]
    for each vector of channels
        for each pixel
            (x*f + half - z*f) >> shift, then what follows, as in gemm

Equation (6) multiplies `(x - z) * (g - z_g)` by 31 bits, which takes products of 64. But a gate is
one of 256 bytes, and so is x: for one gate, all factors within an interval give the results of (6)
for every x, and it is mostly so wide that one of 23 bits lies in it. `gate_factors` looks for them,
gate by gate; where one has none, generic loops do the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.address import flat_index, slope
from irc.backends.llvm.code.loop import I32, I64, counted, i64, splat
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.kernels.generic import best_cut
from irc.backends.llvm.kernels.results.epilogue import column_groups, finish, fixed
from irc.backends.llvm.kernels.results.narrow import AT_ONCE, loaded_zero, narrow_lanes, narrowing
from irc.backends.llvm.kernels.vectors.dot import multiply_pairs
from irc.backends.llvm.kernels.vectors.lanes import part
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.rows import rows
from irc.backends.llvm.kernels.vectors.wide_products import both_ends, factor_halves
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work
from irc.loops import Binary, Cast, Expr, Load, MulShift, walk
from irc.ops.qelementwise import QMul
from irc.plan import aligned
from irc.types import Array, DType, TensorType

GATES, LARGEST = 256, 2**23
"""So many gates, and what their factors are below."""
FEWEST = 16
"""Pixels for which it pays to look up a factor."""
CYCLES = 3
"""Estimated: of a vector of 32-bit lanes."""


@dataclass(frozen=True)
class Gate:
    """What is multiplied: the rescaled product in the result's expression, the loads in it, and
    the shift that belongs to `factors`."""

    product: MulShift
    x: Load
    gate: Load
    factors: Array
    shift: int
    zero: int
    """Of x."""


def gate(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for a product of pixels and one byte per channel, with its elementwise tail."""
    found = match(work) if target.vector_bytes >= 16 else None
    if found is None:
        return None
    cut, shape = best_cut(work.loops), work.kernel.shape
    lanes = target.vector_bytes // 4
    return MicroKernel(
        name=f"qmul_{found.x.dtype.value}_gates_{target.vector_bytes * 8}",
        key=f"{cut} {found.shift}",
        emit=_Gates(found, lanes, cut).emit,
        arrays=(np.array([*found.factors, found.zero], np.int32),),
        scratch=2 * _row_bytes(shape[-1]),
        units=1 if cut is None else shape[cut],
        cycles=prod(shape) / lanes * CYCLES,
        reason="one factor for each channel, of 32 bits with its product",
        proof=f"factors of {GATES} gates give equation (6) for each of 256 bytes",
    )


def match(work: Work) -> Gate | None:
    """The work as a product by gates; None for others."""
    nodes = [v for v in work.body.order if isinstance(v, QMul)]
    nest, shape = work.loops.result, work.kernel.shape
    products = [e for e in walk(nest.value) if isinstance(e, MulShift)]
    if len(nodes) != 1 or len(products) != 1 or len(work.loops.nests) != 1 or 0 in shape:
        return None
    (node,), (product,) = nodes, products
    if len(shape) < 2 or work.result_strides[-1] != 1 or prod(shape[:-1]) < FEWEST:
        return None
    match product.a:
        case Binary(kind="mul", a=a, b=b) if product.half and product.a.dtype is DType.I32:
            sides = [(_loaded(a), node.a.type), (_loaded(b), node.b.type)]
        case _:
            return None
    for (x, x_type), (g, g_type) in (sides, sides[::-1]):
        if x is None or g is None or not (_fits(x, x_type) and _fits(g, g_type)):
            return None
        if _of_channel(work, g) and _neighbours(work, x):
            found = gate_factors(node, x_type, g_type)
            return None if found is None else Gate(product, x, g, *found, x_type.zero)
    return None


def _loaded(e: Expr) -> Load | None:
    """What an operand's difference from its zero point loads."""
    match e:
        case Binary(kind="sub", a=x):
            e = x
    match e:
        case Cast(a=Load(fill=None) as x):
            return x
    return None


def _fits(e: Load, t: TensorType) -> bool:
    return e.dtype is t.dtype and t.dtype in (DType.U8, DType.I8)


def _of_channel(work: Work, e: Load) -> bool:
    """Whether it is the same for all pixels."""
    inside = {x for i in e.index for x in walk(i)}
    return not any(v.extent > 1 and v in inside for v in work.loops.result.axes[:-1])


def _neighbours(work: Work, e: Load) -> bool:
    """Whether channels lie side by side."""
    strides = next(
        (s for v, s in zip(work.body.inputs, work.strides, strict=True) if v is e.source), None
    )
    axis = work.loops.result.axes[-1]
    return strides is not None and slope(flat_index(e.index, strides), axis) == 1


def gate_factors(node: QMul, x: TensorType, gates: TensorType) -> tuple[Array, int] | None:
    """A factor for each byte of a gate, i32, and their shift: for every byte x,
    `((x - z)*f + 2^(shift-1)) >> shift` is what (6) makes of `(x - z)*(g - z_g)`, and
    `x*f + 2^(shift-1) - z*f` fits 32 bits. None where there are no such."""
    u = np.arange(x.dtype.min, x.dtype.max + 1) - x.zero
    d = np.arange(gates.dtype.min, gates.dtype.max + 1) - gates.zero
    results = (u[:, None] * d * node.m + (1 << (node.s - 1))) >> node.s
    largest = max(abs(int(v)) for v in (d[0] * node.m, d[-1] * node.m)) / 2.0**node.s
    reach = max(map(abs, (x.dtype.min, x.dtype.max, int(u[0]), int(u[-1]))))
    for shift in range(30, 0, -1):
        factor = largest * 2.0**shift + 1
        if factor < LARGEST and factor * reach + 2.0 ** (shift - 1) < 2**31:
            factors = _between(u, results, shift, int(factor))
            return None if factors is None else (factors.astype(np.int32), shift)
    return None


def _between(u: Array, results: Array, shift: int, largest: int) -> Array | None:
    """Integers f, of each column of `results` one, with `(u*f + 2^(shift-1)) >> shift` as results,
    u being the rows', and none beyond `largest`; None where a column has none."""
    low = (results << shift) - (1 << (shift - 1))
    high = low + (1 << shift) - 1
    above, below = u > 0, u < 0
    least = np.concatenate([-(-low[above] // u[above, None]), -(-high[below] // u[below, None])])
    most = np.concatenate([high[above] // u[above, None], low[below] // u[below, None]])
    first = np.maximum(least.max(axis=0), -largest)
    last = np.minimum(most.min(axis=0), largest)
    return None if np.any(first > last) else (first + last) >> 1


def _row_bytes(channels: int) -> int:
    """Of a row of scratch."""
    return aligned(channels * 4, 64)


@dataclass(frozen=True)
class _Gates:
    found: Gate
    lanes: int
    cut: int | None

    def emit(self, f: KernelFunction) -> None:
        """Emit the loops of the module's docstring."""
        _Emitter(f, self.found, self.lanes, self.cut).emit()


class _Emitter:
    def __init__(self, f: KernelFunction, found: Gate, lanes: int, cut: int | None) -> None:
        self.f, self.found, self.lanes, self.cut = f, found, lanes, cut
        self.builder = f.builder
        self.ranges = Ranges(f.work.facts)
        self.axes = f.work.loops.result.axes
        self.ends = narrowing(f.work.loops.result.value)

    def emit(self) -> None:
        """Channels without, pixels within."""
        self._look_up()
        for channel, width in self._columns():
            factor, offset = (self._vector(row, channel, width) for row in range(2))
            if self._whole(width):
                self._registers(channel, factor, offset)
                continue
            known = fixed(self.f, self.ranges, self.found.product, channel, width)
            for pixel in rows(self.f, self.f.work.kernel.shape, self.cut):
                place = (*pixel, channel)
                x = self._renderer(place, width).render_vector(Cast(DType.I32, self.found.x))
                y = self._shifted(self.builder.add(self.builder.mul(x, factor), offset))
                finish(self.f, self.ranges, self.found.product, [(place, y)], width, known)

    # ------------------------------------------------------------ factors

    def _look_up(self) -> None:
        """The factor of each channel into scratch, and what is added to its products: half a unit,
        less the zero point's own product."""
        builder, f = self.builder, self.f
        zero = builder.load(at(builder, f.arrays[0], GATES * 4), typ=I32, align=4)
        half = ir.Constant(I32, 1 << (self.found.shift - 1))
        with counted(builder, self.axes[-1].extent, label="gate") as loop:
            place = (*[i64(0)] * (len(self.axes) - 1), loop.index)
            value = self._renderer(place, 1).render(self.found.gate)
            if self.found.gate.dtype is DType.I8:
                value = builder.xor(value, ir.Constant(value.type, -0x80))
            entry = times(builder, builder.zext(value, I64), 4)
            factor = builder.load(at(builder, f.arrays[0], entry), typ=I32, align=4)
            offset = builder.sub(half, builder.mul(zero, factor))
            for row, number in enumerate((factor, offset)):
                builder.store(number, self._slot(row, loop.index), align=4)

    def _slot(self, row: int, channel: Any) -> Any:
        first = at(self.builder, self.f.scratch, times(self.builder, channel, 4))
        return at(self.builder, first, row * _row_bytes(self.axes[-1].extent))

    def _vector(self, row: int, channel: Any, width: int) -> Any:
        kind = I32 if width == 1 else ir.VectorType(I32, width)
        return self.builder.load(self._slot(row, channel), typ=kind, align=4)

    # ------------------------------------------------------------ pixels

    def _columns(self) -> Iterator[tuple[Any, int]]:
        """First channel and width of each group of vectors; whole groups in a loop."""
        channels, whole = self.axes[-1].extent, AT_ONCE * self.lanes
        rest = channels % whole
        if channels >= whole:
            with counted(self.builder, channels - rest, step=whole, label="channel") as loop:
                yield loop.index, whole
        for start, _, width in column_groups(rest, self.lanes, AT_ONCE):
            yield i64(channels - rest + start * self.lanes), width

    def _renderer(self, place: tuple[Any, ...], width: int) -> Renderer:
        return Renderer(
            self.builder, self.f.places, dict(zip(self.axes, place, strict=True)),
            ranges=self.ranges, lanes=width, lane_var=self.axes[-1] if width > 1 else None,
            target=self.f.target,
        )  # fmt: skip

    def _shifted(self, total: Any) -> Any:
        shift = ir.Constant(I32, self.found.shift)
        vector = isinstance(total.type, ir.VectorType)
        shift = splat(self.builder, shift, total.type.count) if vector else shift
        return self.builder.ashr(total, shift)

    # ------------------------------------------------------------ whole registers by vpdpwssd

    def _whole(self, width: int) -> bool:
        """Whether bytes are spread and packed within 16 of them, and multiplied by `vpdpwssd`."""
        fills = width == AT_ONCE * self.lanes and self.f.target.dot is Dot.VPDPBUSD
        return fills and self.ends is not None and self.ends.wide is self.found.product

    def _registers(self, channel: Any, factor: Any, offset: Any) -> None:
        """All pixels of as many channels as there are bytes in a register."""
        builder, f = self.builder, self.f
        assert self.ends is not None
        dtype = self.found.x.dtype
        pair, missing = factor_halves(builder, factor, dtype)
        offsets = self._spread(builder.add(offset, missing))
        halves = ir.VectorType(ir.IntType(16), 2 * self.lanes)
        pairs = [builder.bitcast(p, halves) for p in self._spread(pair)]
        line_type = ir.VectorType(ir.IntType(8), AT_ONCE * self.lanes)
        source = f.places[self.found.x.source]
        for pixel in rows(f, f.work.kernel.shape, self.cut):
            place = (*pixel, channel)
            scalars = self._renderer(place, 1)
            first = scalars.render(flat_index(self.found.x.index, source.strides))
            line = builder.load(source.address(builder, first), typ=line_type, align=1)
            values = []
            for k, (pair, offset) in enumerate(zip(pairs, offsets, strict=True)):
                x = both_ends(builder, line, [4 * k + i % 4 for i in range(self.lanes)], dtype)
                values.append(
                    self._shifted(multiply_pairs(builder, offset, x, pair, Dot.VPDPBUSD))
                )
            zero = loaded_zero(scalars, self.ends)
            result = narrow_lanes(builder, self.ends, values, zero)
            self._renderer(place, result.type.count).store(f.result, self.axes, result)

    def _spread(self, vector: Any) -> list[Any]:
        """A vector's elements in the order in which bytes are spread over registers."""
        lines = range(0, vector.type.count, 16)
        return [
            part(self.builder, vector, [i + 4 * k + j for i in lines for j in range(4)])
            for k in range(AT_ONCE)
        ]
