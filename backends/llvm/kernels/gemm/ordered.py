"""Matrix products as in `layers`, each block of channels in an order of its own (`order`): most
words of most layers go two at a time through `vpmaddwd`, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from irc.backends.llvm.kernels.gemm.layers import (
    best_cut,
    best_tile,
    cost,
    layout_key,
    narrowed,
)
from irc.backends.llvm.kernels.gemm.loops import ChannelBlock, Gemm, Tile, Use, vectors_of
from irc.backends.llvm.kernels.gemm.order import SAVED, OrderedTile, Table, best_order
from irc.backends.llvm.kernels.gemm.product import Product, flatten, match
from irc.backends.llvm.kernels.vectors.dot import DotProduct, choose
from irc.backends.llvm.kernels.vectors.memory import at
from irc.backends.llvm.kernels.vectors.tile import RegisterTile
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work
from irc.types import Array

SAMPLES = 3
"""Blocks of channels by which it is judged how many words find a partner."""
VECTORS = 2
"""Of channels in a block: more of them would leave fewer pairs, and fewer registers."""
ENOUGH = 0.9
"""Of the words that find a partner: half as many channels would gain nothing."""
LOOPS = 6
"""Cycles of a tile for its two loops, whose rounds a block's table counts, over all taps."""
RESERVED = 8
"""Registers for weights of two words, the activations' and what is on the way."""


def ordered(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one convolution or linear layer on `vpmaddubsw`, where an order of its words
    pays."""
    found = _product(work, target)
    if found is None:
        return None
    product, dot = found
    plain = best_tile(product, dot, target.registers)[1]
    tile, cycles = _ways(product, dot, target.registers)[0]
    return _kernel(product, dot, tile, plain / cycles) if cycles < plain else None


def ordereds(work: Work, target: Target) -> Iterator[MicroKernel]:
    """The kernels, by blocks of either width, whether they pay or not."""
    found = _product(work, target)
    if found is None:
        return
    product, dot = found
    plain = best_tile(product, dot, target.registers)[1]
    for tile, cycles in _ways(product, dot, target.registers):
        yield _kernel(product, dot, tile, plain / cycles)


def _product(work: Work, target: Target) -> tuple[Product, DotProduct] | None:
    """The product of a work that `vpmaddubsw` multiplies exactly."""
    product = match(work)
    chosen = None if product is None else choose(target, product.packed)
    if product is None or chosen is None or chosen[0].kind != "maddubs":
        return None
    product = flatten(work, product)
    return product, narrowed(chosen[0], product.columns)


def direct_cycles(product: Product, target: Target) -> float:
    """Estimated cycles of the best direct kernel, in order or not."""
    chosen = choose(target, product.packed)
    if chosen is None:
        return float("inf")
    plain = best_tile(product, chosen[0], target.registers)[1]
    if chosen[0].kind != "maddubs":
        return plain
    dot = narrowed(chosen[0], product.columns)
    return min(plain, _ways(product, dot, target.registers)[0][1])


def _ways(p: Product, dot: DotProduct, registers: int) -> list[tuple[Tile, float]]:
    """Of either width of blocks the tile of fewest estimated cycles, and these; the best first. No
    narrower ones where nearly all words of wide ones find a partner."""
    found = []
    for vectors in range(min(VECTORS, vectors_of(p, dot)), 0, -1):
        paired = _paired(p, vectors * dot.lanes)
        part = 1 - SAVED * paired
        tiles = [Tile(rows, vectors) for rows in range(1, (registers - RESERVED) // vectors + 1)]
        costs = [(cost(p, dot, tile, part, LOOPS), -tile.rows, tile) for tile in tiles]
        cycles, _, best = min(costs, key=lambda c: c[:2])
        found.append((best, cycles))
        if paired > ENOUGH:
            break
    return sorted(found, key=lambda way: way[1])


def _paired(p: Product, channels: int) -> float:
    """Which part of the words finds a partner, in a few of the blocks."""
    blocks = [(g, c) for g in range(p.groups) for c in range(0, p.columns, channels)]
    packed, some = p.packed, blocks[:: max(1, len(blocks) // SAMPLES)][:SAMPLES]
    pairs = sum(best_order(packed[g, c : c + channels]).pairs for g, c in some)
    return 2 * pairs / (p.depth * len(some))


def _kernel(p: Product, dot: DotProduct, tile: Tile, gain: float) -> MicroKernel:
    cut, units = best_cut(p, dot, tile)
    packed, paired = pack(p, dot, tile.vectors)
    shape = f"{tile.rows}x{tile.vectors * dot.lanes}"
    return MicroKernel(
        name=f"qgemm_u8i8_{shape}_{dot.kind}_ordered_{dot.nbytes * 8}",
        key=layout_key(p, cut),
        emit=_Ordered(p, dot, tile, cut).emit,
        arrays=(packed,),
        replaces=(p.weights,),
        scratch=p.copy.nbytes if p.copy else 0,
        units=units,
        reason=f"tile of {tile.rows} pixels x {tile.vectors * dot.lanes} channels, {paired:.0%} of"
        f" the words two at a time: estimated {gain:.2f} times as fast as one at a time",
        proof="every vpmaddubsw pair fits 16 bits, and so does every sum of two that are added",
    )


def pack(p: Product, dot: DotProduct, vectors: int) -> tuple[Array, float]:
    """Per group and block of channels its table, then its weights in order, as `gemm` has them; and
    the part of the words that is paired."""
    size, parts, pairs = vectors * dot.lanes, list[Array](), 0
    places = offsets(p)
    table = Table.of(places)
    for group in p.packed:
        for start in range(0, p.columns, size):
            part = group[start : start + size]
            order = best_order(part)
            lanes = -(-len(part) // dot.lanes) * dot.lanes
            block = np.zeros((lanes, *part.shape[1:]), np.int8)
            block[: len(part)] = part
            words = block.transpose(1, 0, 2)[order.words]
            parts += [table.content(order, places), words.reshape(-1)]
            pairs += order.pairs
    return np.concatenate(parts), 4 * pairs / (len(parts) * p.depth)


def offsets(p: Product) -> Array:
    """Of every word of a pixel, in the order of `Product.packed`, bytes from the first."""
    found = np.zeros(1, np.int32)
    for extent, step in p.taps:
        found = (found[:, None] + np.arange(extent, dtype=np.int32) * step).reshape(-1)
    return (found[:, None] + 4 * np.arange(p.words, dtype=np.int32)).reshape(-1)


class _Ordered(Gemm):
    @property
    def header(self) -> int:
        """Bytes of the table."""
        return self._table.nbytes

    def sums(self, first: Any, block: ChannelBlock, tile: RegisterTile, use: Use) -> list[Any]:
        """By the block's table."""
        ahead = self.ahead(at(self.builder, block.weights, self.header), tile, use)
        begin = self.beginning(block, tile)
        return OrderedTile(tile, self._table).run(self.builder, first, block.weights, begin, ahead)

    @cached_property
    def _table(self) -> Table:
        return Table.of(offsets(self.p))
