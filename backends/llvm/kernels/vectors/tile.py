"""A tile of accumulators in registers: rows of activations by vectors of output channels.

Per step a word of four bytes of each row is broadcast and meets each vector of packed weights: four
u8, or two i16. What a word holds is the business of the dot product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, I64, i64, splat
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.kernels.vectors.lanes import part
from irc.backends.llvm.kernels.vectors.memory import at, beyond, prefetch, times

I8 = ir.IntType(8)
LINE = 64
"""Bytes of a line of the cache."""
BUSY = 6
"""Accumulators whose products outweigh a loop's own instructions."""


@dataclass(frozen=True)
class Ahead:
    """What is asked for, of the second-level cache, while words are multiplied: for each of them
    `step` bytes more from `pointer` on."""

    pointer: Any
    step: int

    def after(self, builder: Any, words: Any) -> Ahead:
        """What is left when so many words are done."""
        return Ahead(beyond(builder, self.pointer, times(builder, words, self.step)), self.step)

    def fetch(self, builder: Any, words: int) -> None:
        """Ask for what is due in so many words; more often than once for lines that take longer."""
        for offset in range(0, words * self.step, LINE):
            prefetch(builder, self.pointer, offset)


@dataclass(frozen=True)
class RegisterTile:
    """`rows` rows, `row_bytes` apart, by `vectors` vectors of channels. Packed weights lie word by
    word, in a word stream by stream, in a stream vector by vector."""

    dot: DotProduct
    rows: int
    vectors: int
    row_bytes: int

    @property
    def step(self) -> int:
        """Bytes of packed weights per word."""
        return self.dot.streams * self.vectors * self.dot.weight_bytes

    def zeros(self) -> list[Any]:
        """Accumulators, row by row, all 0."""
        zero = constant(ir.VectorType(I32, self.dot.lanes), 0)
        return [zero] * (self.rows * self.vectors)

    def packed_beginning(self, builder: Any, begin: Any) -> list[Any]:
        """Accumulators of a row as they lie at `begin`."""
        vector = ir.VectorType(I32, self.dot.lanes)
        places = (at(builder, begin, i * self.dot.nbytes) for i in range(self.vectors))
        loaded = [builder.load(place, typ=vector, align=16) for place in places]
        return [self.dot.begun(builder, value) for value in loaded]

    def run(
        self, builder: Any, x: Any, w: Any, words: int, sums: list[Any],
        ahead: Ahead | None = None,
    ) -> list[Any]:  # fmt: skip
        """The accumulators after `words` words that lie side by side from `x` and `w` on."""
        unroll = self._unroll(words)

        def body(index: Any, carried: list[Any]) -> list[Any]:
            source = at(builder, x, times(builder, index, 4))
            weights = at(builder, w, times(builder, index, self.step))
            if ahead is not None:
                ahead.after(builder, index).fetch(builder, unroll)
            if self.dot.by_lane and unroll == self.dot.lanes:
                return self._lanes(builder, source, weights, carried)
            for word in range(unroll):
                carried = self._word(builder, source, weights, word, carried)
            return carried

        whole = words // unroll * unroll
        sums = carrying(builder, whole, unroll, sums, body)
        for word in range(whole, words):
            sums = self._word(builder, x, w, word, sums)
        return sums

    def _unroll(self, words: int) -> int:
        """Words in a round of the loop: those in the lanes of a vector, where they are multiplied
        there. Where a product needs temporaries, LLVM starts several words at once and spills:
        there a round is one word, unless that is too short."""
        if self.dot.by_lane:
            return min(self.dot.lanes, words)
        if self.dot.temporaries and self.rows * self.vectors >= BUSY:
            return 1
        unroll = next(u for u in (4, 3, 2, 1) if words % u == 0 or words > 4 * u)
        return min(unroll, words)

    def _word(self, builder: Any, x: Any, w: Any, word: int, sums: list[Any]) -> list[Any]:
        """One word of every row on every accumulator."""
        addresses = (at(builder, x, word * 4 + r * self.row_bytes) for r in range(self.rows))
        words = (builder.load(address, typ=I32, align=1) for address in addresses)
        rows = (self._prepared(builder, splat(builder, v, self.dot.lanes)) for v in words)
        return self._products(builder, rows, w, word, sums)

    def _lanes(self, builder: Any, x: Any, w: Any, sums: list[Any]) -> list[Any]:
        """As many words of every row as a vector has lanes."""
        lanes = self.dot.lanes
        whole = ir.VectorType(I32, lanes)
        addresses = (at(builder, x, r * self.row_bytes) for r in range(self.rows))
        rows = [
            self._prepared(builder, builder.load(a, typ=whole, align=1)) for a in addresses
        ]
        for word in range(lanes):
            spread = (self._lane(builder, row, word) for row in rows)
            sums = self._products(builder, spread, w, word, sums)
        return sums

    def _lane(self, builder: Any, row: Any, word: int) -> Any:
        """A word of a vector in every lane."""
        words = builder.bitcast(row, ir.VectorType(I32, self.dot.lanes))
        return builder.bitcast(part(builder, words, [word] * self.dot.lanes), row.type)

    def _prepared(self, builder: Any, words: Any) -> Any:
        return self.dot.prepared(builder, builder.bitcast(words, self._bytes))

    @property
    def _bytes(self) -> Any:
        return ir.VectorType(I8, self.dot.nbytes)

    def _products(
        self, builder: Any, rows: Iterable[Any], w: Any, word: int, sums: list[Any]
    ) -> list[Any]:
        """A word of every row, spread, on every accumulator."""
        dot = self.dot
        places = (word * self.step + i * dot.weight_bytes
                  for i in range(dot.streams * self.vectors))  # fmt: skip
        weights = [dot.weights(builder, at(builder, w, p)) for p in places]
        result = list(sums)
        for r, row in enumerate(rows):
            for i, weight in enumerate(weights):
                at_sum = r * self.vectors + i % self.vectors
                result[at_sum] = dot.accumulate(builder, result[at_sum], row, weight)
        return result


def carrying(
    builder: Any,
    extent: Any,
    step: int,
    values: list[Any],
    body: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """A counted loop that carries several values in phis; returns the last round's. The extent is
    a number, or an i64, which may be 0."""
    known = isinstance(extent, int)
    if known and extent <= step:
        return body(ir.Constant(I64, 0), values)
    before = builder.block
    inside, after = builder.append_basic_block("k"), builder.append_basic_block("k.end")
    extent = i64(extent)
    if known:
        builder.branch(inside)
    else:
        some = builder.icmp_unsigned("!=", extent, ir.Constant(I64, 0))
        builder.cbranch(some, inside, after)
    builder.position_at_end(inside)
    index = builder.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), before)
    phis = _phis(builder, values, before)
    results = body(index, list(phis))
    last = builder.block
    following = builder.add(index, ir.Constant(I64, step), flags=("nuw", "nsw"))
    index.add_incoming(following, last)
    _continue(phis, results, last)
    again = builder.icmp_unsigned("<", following, extent)
    builder.cbranch(again, inside, after)
    builder.position_at_end(after)
    if known:
        return results
    outcomes = _phis(builder, values, before)
    _continue(outcomes, results, last)
    return outcomes


def _phis(builder: Any, values: list[Any], block: Any) -> list[Any]:
    """A phi for each value that comes from a block."""
    phis = [builder.phi(v.type) for v in values]
    _continue(phis, values, block)
    return phis


def _continue(phis: list[Any], values: list[Any], block: Any) -> None:
    for phi, v in zip(phis, values, strict=True):
        phi.add_incoming(v, block)
