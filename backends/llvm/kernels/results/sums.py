"""Sums of few values times factors (`QAdd`), by the instructions that multiply 16 bits.

`vpmulld` takes two turns of the multiplier. `vpmaddwd` and `vpdpwssd` take one, for two products of
16 bits, whose sum is a lane's:

1. A value clamped to 16 bits. A pack saturates two vectors at once; unpacked with itself, a
   vector's lanes hold their value twice, in order: `v*f = v*(f >> 1) + v*(f - (f >> 1))`.
2. A loaded byte, where there is `vpdpwssd`: `both_ends`. What its zero point brings in is added
   once: `(x - z)*f = x*f - z*f`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import flat_index, slope
from irc.backends.llvm.code.constants import shuffle_mask
from irc.backends.llvm.code.loop import I32, i64, splat
from irc.backends.llvm.code.numbers import LARGEST, LARGEST_OF_WORDS, is_number, is_small
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.kernels.results.narrow import register_bytes, saturated
from irc.backends.llvm.kernels.vectors.dot import multiply_pairs
from irc.backends.llvm.kernels.vectors.lanes import join, parts
from irc.backends.llvm.kernels.vectors.wide_products import both_ends, factor_halves
from irc.backends.llvm.target import Dot, Target
from irc.loops import Binary, Cast, Expr, Int, Load, terms, walk
from irc.types import DType

I8, I16 = ir.IntType(8), ir.IntType(16)


@dataclass(frozen=True)
class _Word:
    """`clamp(value, low, high) * factor`, bounds of 16 bits."""

    value: Expr
    low: int
    high: int
    factor: Expr


@dataclass(frozen=True)
class _Byte:
    """`(load - zero) * factor`, neighbouring bytes."""

    load: Load
    factor: Expr
    zero: Expr | None = None


def bind_sums(renderer: Renderer, target: Target, root: Expr) -> None:
    """Compute the sum in an expression that has such terms, and bind it."""
    nbytes = register_bytes(target, renderer.lanes)
    if nbytes == 0 or not target.is_x86:
        return
    sums = _Sums(renderer, nbytes, target.dot)
    for e in reversed(walk(root)):  # a sum before the sums in it
        if isinstance(e, Binary) and e.kind == "add" and e.dtype is DType.I32:
            found = [(t, sums.product(t)) for t in terms(e)]
            products = [p for _, p in found if p is not None]
            if products:
                rest = [t for t, p in found if p is None]
                renderer.memo[e] = sums.emit(products, rest)
                return


def _uncast(e: Expr) -> Expr:
    """What is widened."""
    while isinstance(e, Cast):
        e = e.a
    return e


def _fits(factor: Expr, limit: int) -> bool:
    """Whether a factor is below a limit; a number is below that of what it multiplies."""
    return is_number(factor) or (isinstance(factor, Int) and abs(factor.value) < limit)


@dataclass(frozen=True)
class _Sums:
    """The instructions, on vectors of `nbytes`; `dot` says which multiply pairs."""

    renderer: Renderer
    nbytes: int
    dot: Dot

    @property
    def lanes(self) -> int:
        """Results in a vector."""
        return self.nbytes // 4

    # ------------------------------------------------------------ what they can do

    def product(self, e: Expr) -> _Word | _Byte | None:
        """A term as a product that they compute; None for others."""
        match e:
            case Binary(kind="mul", a=a, b=(Int() | Load()) as factor):
                a = _uncast(a)
            case _:
                return None
        zero = None
        match a:
            case Binary(kind="sub", a=x, b=z) if isinstance(z, Int) or is_number(z):
                a, zero = _uncast(x), z
        match a:
            case Binary(
                kind="min", a=Binary(kind="max", a=x, b=Int(value=low)), b=Int(value=high)
            ) if zero is None:
                words = DType.I16.min <= low <= high <= DType.I16.max and x.dtype is DType.I32
                words = words and not is_small((low, high)) and _fits(factor, LARGEST_OF_WORDS)
                return _Word(x, low, high, factor) if words else None
            case Load() if self.dot is Dot.VPDPBUSD and _fits(factor, LARGEST) and self._near(a):
                return _Byte(a, factor, zero)
        return None

    def _near(self, e: Load) -> bool:
        """Whether a load is of bytes side by side, without a test."""
        axis, place = self.renderer.lane_var, self.renderer.places[e.source]
        if axis is None or e.dtype not in (DType.U8, DType.I8) or e.fill is not None:
            return False
        return slope(flat_index(e.index, place.strides), axis) == 1

    # ------------------------------------------------------------ what they do

    def emit(self, products: Sequence[_Word | _Byte], rest: Sequence[Expr]) -> Any:
        """The sum of products and of other terms, i32."""
        builder, renderer = self.renderer.builder, self.renderer
        others = [*map(renderer.render, rest), *map(self._missing, products)]
        total = reduce(builder.add, map(renderer.wide, others))
        sums = parts(builder, total, self.lanes)
        for p in sorted(products, key=lambda p: isinstance(p, _Word)):  # what is there sooner first
            pairs = self._pairs(p)
            sums = [
                multiply_pairs(builder, s, x, pairs, self.dot)
                for s, x in zip(sums, self._words(p), strict=True)
            ]
        return join(builder, sums, renderer.lanes)

    def _number(self, value: int) -> Any:
        return ir.Constant(I32, value)

    def _missing(self, p: _Word | _Byte) -> Any:
        """What a product lacks, a scalar."""
        if isinstance(p, _Word):
            return self._number(0)
        builder, factor = self.renderer.builder, self.renderer.render(p.factor)
        missing = factor_halves(builder, factor, p.load.dtype)[1]
        if p.zero is None:
            return missing
        return builder.sub(missing, builder.mul(self.renderer.render(p.zero), factor))

    def _pairs(self, p: _Word | _Byte) -> Any:
        """The factor in two parts, in the halves of each lane."""
        builder, factor = self.renderer.builder, self.renderer.render(p.factor)
        if isinstance(p, _Byte):
            pair, _ = factor_halves(builder, factor, p.load.dtype)
        else:
            high = builder.ashr(factor, self._number(1))
            low = builder.and_(builder.sub(factor, high), self._number(0xFFFF))
            pair = builder.or_(builder.shl(high, self._number(16)), low)
        halves = ir.VectorType(I16, 2 * self.lanes)
        return builder.bitcast(splat(builder, pair, self.lanes), halves)

    def _words(self, p: _Word | _Byte) -> list[Any]:
        """What the parts are multiplied with, vector by vector."""
        builder, renderer = self.renderer.builder, self.renderer
        if isinstance(p, _Word):
            values = parts(builder, renderer.render_vector(p.value), self.lanes)
            return saturated(builder, values, p.low, p.high)
        place = renderer.places[p.load.source]
        assert renderer.base is not None
        first = renderer.base.render(flat_index(p.load.index, place.strides))
        return [
            self._both_ends(place.address(builder, builder.add(first, i64(i))), p.load.dtype)
            for i in range(0, renderer.lanes, self.lanes)
        ]

    def _both_ends(self, pointer: Any, dtype: DType) -> Any:
        """Bytes from a pointer on, each in both ends of a lane, as two words."""
        builder, count = self.renderer.builder, self.lanes
        few = builder.load(pointer, typ=ir.VectorType(I8, count), align=1)
        mask = shuffle_mask(list(range(count)) * 4)
        return both_ends(builder, builder.shuffle_vector(few, few, mask), range(count), dtype)
