"""The order in which words of weights are multiplied, so that two at a time fit 16 bits.

`vpmaddubsw` leaves sums of two products in i16, `vpmaddwd` widens them. Where the like-signed
weights of two words add up to 128 at most, in every lane of a block of channels, the sums of both
are added as i16 first, exactly: five instructions for two words instead of six, three of them on
the multiply ports instead of four. Which words those are is in the weights: each block of channels
has an order of its own, pairs first, and a table of where in the activations its words lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.loop import I32, I64, splat
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.tile import Ahead, RegisterTile, carrying
from irc.plan import aligned
from irc.types import Array

I8 = ir.IntType(8)
LIMIT = 128
"""Of like-signed weights whose products with bytes are added in an i16: 255 * 128 < 2^15."""
ROUNDS, MATCHED = 24, 256
"""Attempts to find partners where words are many; words that are matched one by one."""
LINE = 64
COUNTS = 8
"""Bytes of two numbers."""
SAVED = 1 / 6
"""Of the instructions of two words' products, where they are added in 16 bits."""


@dataclass(frozen=True)
class Order:
    """Indices of words: `pairs` pairs that fit 16 bits together, then the others."""

    words: Array
    pairs: int


def best_order(block: Array) -> Order:
    """An order with many pairs of the words of a block of channels, i8 [channels, words, 4]."""
    sums = like_signed(block)
    left = np.argsort(-sums.max(1, initial=0), kind="stable")
    found: list[Array] = []
    for turn in range(ROUNDS):
        if len(left) <= MATCHED:
            break
        half = len(left) // 2
        large, small = left[:half], np.roll(left[half : 2 * half], turn)
        fit = (sums[large] <= LIMIT - sums[small]).all(1)
        found.append(np.stack([large[fit], small[fit]], axis=1).reshape(-1))
        left = left[~np.isin(left, found[-1])]
    rest = left[matching(sums[left])].reshape(-1)
    paired = np.concatenate([*found, rest])
    others = left[~np.isin(left, rest)]
    return Order(np.concatenate([paired, others]).astype(np.int32), len(paired) // 2)


def like_signed(block: Array) -> Array:
    """Sums of the positive, and of the negative, weights that each lane of an i16 takes of a word:
    u8 [words, lanes]."""
    halves = block.astype(np.int16).reshape(*block.shape[:2], 2, 2)
    signs = (np.maximum(halves, 0).sum(3), np.maximum(-halves, 0).sum(3))
    sums = np.concatenate(signs, axis=2).transpose(1, 0, 2)
    return sums.reshape(block.shape[1], 4 * len(block)).astype(np.uint8)


def matching(sums: Array) -> Array:
    """Pairs [pairs, 2] of rows that fit together in every lane, by a greedy matching: the row with
    fewest partners first, with that of its partners that has fewest."""
    fits = np.ones((len(sums), len(sums)), bool)
    for lane in sums.T:
        fits &= lane[:, None] <= (LIMIT - lane)[None, :]
    np.fill_diagonal(fits, val=False)
    order = np.argsort(fits.sum(1), kind="stable")
    rows = np.packbits(fits[order][:, order], axis=1, bitorder="little")
    partners = [int.from_bytes(row.tobytes(), "little") for row in rows]
    free, pairs = (1 << len(order)) - 1, list[tuple[int, int]]()
    for first, fitting in enumerate(partners):
        available = fitting & free & -(1 << first)
        if free >> first & 1 and available:
            second = (available & -available).bit_length() - 1
            free &= ~(1 << first | 1 << second)
            pairs.append((first, second))
    return np.asarray(order[np.array(pairs, np.int64).reshape(-1, 2)])


@dataclass(frozen=True)
class Table:
    """What stands in front of the weights of a block of channels: how many pairs and others there
    are, then the offset of each of `depth` words in order, in `size` bytes."""

    depth: int
    size: int

    @classmethod
    def of(cls, offsets: Array) -> Table:
        """For these offsets."""
        return cls(len(offsets), 2 if offsets.max(initial=0) < 2**16 else 4)

    @property
    def nbytes(self) -> int:
        """Of a whole one."""
        return aligned(COUNTS + self.size * self.depth, LINE)

    def content(self, order: Order, offsets: Array) -> Array:
        """As i8."""
        made = np.zeros(self.nbytes, np.int8)
        counts = np.array([order.pairs, len(order.words) - 2 * order.pairs], np.int32)
        made[:COUNTS] = counts.view(np.int8)
        sorted_ = offsets[order.words].astype(f"u{self.size}").view(np.int8)
        made[COUNTS : COUNTS + len(sorted_)] = sorted_
        return made


@dataclass(frozen=True)
class OrderedTile:
    """A tile of accumulators, its words taken in a block's order."""

    tile: RegisterTile
    table: Table

    def run(
        self, builder: Any, x: Any, block: Any, begin: list[Any], ahead: Ahead | None = None
    ) -> list[Any]:
        """The accumulators of pixels from `x` on, which begin with `begin`, after all words of a
        block, whose table and weights lie at `block`."""
        pairs, others = (self._count(builder, block, i) for i in range(2))
        offsets, weights = at(builder, block, COUNTS), at(builder, block, self.table.nbytes)
        sums = self._loop(builder, x, (offsets, weights), pairs, 2, begin, ahead)
        done = builder.shl(pairs, ir.Constant(I64, 1))
        offsets = at(builder, offsets, times(builder, done, self.table.size))
        weights = at(builder, weights, times(builder, done, self.tile.step))
        left = ahead and ahead.after(builder, done)
        return self._loop(builder, x, (offsets, weights), others, 1, sums, left)

    def _count(self, builder: Any, block: Any, index: int) -> Any:
        return builder.zext(builder.load(at(builder, block, 4 * index), typ=I32, align=4), I64)

    def _loop(
        self, builder: Any, x: Any, rest: tuple[Any, Any], count: Any, words: int, sums: list[Any],
        ahead: Ahead | None,
    ) -> list[Any]:  # fmt: skip
        """So many rounds of one word or two."""
        offsets, weights = rest

        def body(index: Any, carried: list[Any]) -> list[Any]:
            table = at(builder, offsets, times(builder, index, self.table.size * words))
            packed = at(builder, weights, times(builder, index, self.tile.step * words))
            if ahead is not None:
                ahead.after(builder, times(builder, index, words)).fetch(builder, words)
            return self._words(builder, x, table, packed, words, carried)

        return carrying(builder, count, 1, sums, body)

    def _words(
        self, builder: Any, x: Any, table: Any, packed: Any, count: int, sums: list[Any]
    ) -> list[Any]:
        """One word of every row, or two, on every accumulator."""
        tile, dot = self.tile, self.tile.dot
        vector = ir.VectorType(I8, dot.nbytes)
        sources = []
        for word in range(count):
            size = self.table.size
            place = at(builder, table, size * word)
            offset = builder.load(place, typ=ir.IntType(8 * size), align=size)
            sources.append(at(builder, x, builder.zext(offset, I64)))
        weights = [
            builder.load(at(builder, packed, i * dot.nbytes), typ=vector, align=16)
            for i in range(count * tile.vectors)
        ]
        result = list(sums)
        for r in range(tile.rows):
            pixels = [self._spread(builder, s, r) for s in sources]
            for v in range(tile.vectors):
                place = r * tile.vectors + v
                result[place] = dot.accumulate_all(
                    builder, result[place], pixels, weights[v :: tile.vectors]
                )
        return result

    def _spread(self, builder: Any, source: Any, row: int) -> Any:
        """A word of a row on all lanes."""
        address = at(builder, source, row * self.tile.row_bytes)
        spread = splat(builder, builder.load(address, typ=I32, align=1), self.tile.dot.lanes)
        return builder.bitcast(spread, ir.VectorType(I8, self.tile.dot.nbytes))
