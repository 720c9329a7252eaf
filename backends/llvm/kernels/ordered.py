"""Matrix products as in `gemm`, each block of channels in an order of its own (`order`): most words
of most layers go two at a time through `vpmaddwd`, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from irc.backends.llvm.kernels.dot import DotProduct, choose
from irc.backends.llvm.kernels.gemm import (
    best_cut,
    best_tile,
    cost,
    layout_key,
    narrowed,
    products_cycles,
)
from irc.backends.llvm.kernels.gemm_loops import ChannelBlock, Gemm, Tile, Use
from irc.backends.llvm.kernels.memory import at
from irc.backends.llvm.kernels.order import SAVED, OrderedTile, best_order, table, table_bytes
from irc.backends.llvm.kernels.product import Product, flatten, match
from irc.backends.llvm.kernels.tile import RegisterTile
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work
from irc.types import Array

SAMPLES = 3
"""Blocks of channels by which it is judged how many words find a partner."""
VECTORS = 2
"""Of channels in a block: more of them would leave fewer pairs, and fewer registers."""
RESERVED = 8
"""Registers for weights of two words, the activations' and what is on the way."""


def ordered(work: Work, target: Target, *, always: bool = False) -> MicroKernel | None:
    """A kernel for one convolution or linear layer on `vpmaddubsw`, where an order of its words
    pays (or `always`)."""
    product = match(work)
    chosen = None if product is None else choose(target, product.packed)
    if product is None or chosen is None or chosen[0].kind != "maddubs":
        return None
    product = flatten(work, product)
    dot = narrowed(chosen[0], product.columns)
    tile, cycles = _best(product, dot, target.registers)
    plain = best_tile(product, dot, target.registers)[1]
    return _kernel(product, dot, tile, plain / cycles) if always or cycles < plain else None


def ordereds(work: Work, target: Target) -> Iterator[MicroKernel]:
    """The kernel, whether it pays or not."""
    made = ordered(work, target, always=True)
    if made is not None:
        yield made


def direct_cycles(product: Product, target: Target) -> float:
    """Estimated cycles of the best direct kernel, in order or not."""
    chosen = choose(target, product.packed)
    if chosen is None:
        return float("inf")
    plain = best_tile(product, chosen[0], target.registers)[1]
    if chosen[0].kind != "maddubs":
        return plain
    return min(plain, _best(product, narrowed(chosen[0], product.columns), target.registers)[1])


def _best(p: Product, dot: DotProduct, registers: int) -> tuple[Tile, float]:
    """The tile and its estimated cycles."""
    vectors = min(VECTORS, -(-p.columns // dot.lanes))
    most = (registers - RESERVED) // vectors
    saved = SAVED * _paired(p, vectors * dot.lanes) * products_cycles(p, dot)
    tiles = [Tile(rows, vectors) for rows in range(1, most + 1)]
    best = min(tiles, key=lambda tile: (cost(p, dot, tile), -tile.rows))
    return best, cost(p, dot, best) - saved


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
    for group in p.packed:
        for start in range(0, p.columns, size):
            part = group[start : start + size]
            order = best_order(part)
            lanes = -(-len(part) // dot.lanes) * dot.lanes
            block = np.zeros((lanes, *part.shape[1:]), np.int8)
            block[: len(part)] = part
            words = block.transpose(1, 0, 2)[order.words]
            parts += [table(order, offsets(p)), words.reshape(-1)]
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
        return table_bytes(self.p.depth)

    def sums(self, first: Any, block: ChannelBlock, tile: RegisterTile, use: Use) -> list[Any]:
        """By the block's table."""
        ahead = self.ahead(at(self.builder, block.weights, self.header), tile, use)
        return OrderedTile(tile).run(self.builder, first, block.weights, self.p.depth, ahead)
