"""Norms by rows where products of 32 bits are of neighbouring lanes, as Neon and WebAssembly have
them (`smull, smull2`; `i64x2.extmul`), and words are shifted by one amount."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, I64, splat
from irc.backends.llvm.code.rescale import kept, low_words, split
from irc.backends.llvm.kernels.rows.norm_rows import NormRows, Row, Rows
from irc.backends.llvm.kernels.vectors.lanes import parts
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.types import Array


class NormWords(NormRows):
    """Emits the same loops; what stands in registers is in order."""

    @staticmethod
    def constants(found: Rows, lanes: int) -> tuple[Array, Array]:
        """m, i32, and b, i64, filled up with 0 to whole vectors."""
        count = ceil(found.length / lanes) * lanes
        m, b = np.zeros(count, np.int32), np.zeros(count, np.int64)
        m[: found.length], b[: found.length] = found.m, found.b
        return m, b

    def _numbers(self, kept: Any) -> Row:
        """As scalars."""
        step = 8 * self.wide.count
        return Row(*(self.builder.load(at(self.builder, kept, i * step), typ=I64, align=8)
                     for i in range(4)))  # fmt: skip

    def _normalized(self, x: Any, column: Any, row: Row) -> Any:
        """`(p*m + b) >> s` of a vector of elements."""
        builder, lanes = self.builder, self.lanes
        if self.norm.centred:
            x = builder.mul(x, splat(builder, ir.Constant(I32, self.norm.count), lanes))
        r = splat(builder, builder.trunc(row.r, I32), lanes)
        c, first = (splat(builder, v, self.wide.count) for v in (row.c, row.first))
        shifted = [builder.lshr(builder.add(t, c), first) for t in self._products(x, r)]
        p = low_words(builder, shifted)
        if self.norm.shift > 32:
            p = builder.ashr(p, splat(builder, builder.trunc(row.second, I32), lanes))
        m = self._loaded(0, column, 4, self.words)
        bs = parts(builder, self._loaded(1, column, 8, ir.VectorType(I64, lanes)), lanes // 2)
        totals = zip(self._products(p, m), bs, strict=True)
        return self._shifted([builder.add(t, b) for t, b in totals])

    def _products(self, a: Any, b: Any) -> list[Any]:
        """Of lower and of upper lanes, 64 bits each."""
        builder = self.builder
        sides = (split(builder, v, x86=False) for v in (a, kept(builder, b)))
        return [builder.mul(x, y) for x, y in zip(*sides, strict=True)]

    def _loaded(self, array: int, column: Any, nbytes: int, vector: Any) -> Any:
        place = at(self.builder, self.f.arrays[array], times(self.builder, column, nbytes))
        return self.builder.load(place, typ=vector, align=16)

    def _shifted(self, products: list[Any]) -> Any:
        """Products behind `s` bits, as words."""
        builder, s = self.builder, self.node.s
        first = constant(self.wide, min(s, 32))
        y = low_words(builder, [builder.lshr(t, first) for t in products])
        return builder.ashr(y, constant(self.words, s - 32)) if s > 32 else y
