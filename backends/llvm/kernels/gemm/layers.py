"""Convolutions and linear layers as an implicit matrix product, u8 activations by i8 weights.

A tile is `rows` pixels by `vectors` vectors of output channels; its accumulators stay in
registers. Per step of four products a word of each pixel is broadcast and meets each vector of
packed weights; nothing is gathered into columns first: a pixel's taps are read where they lie.

`loops` emits them; here a tile is chosen and weights are packed for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from irc.backends.llvm.kernels.gemm.loops import Gemm, Tile, scratch_bytes, vectors_of
from irc.backends.llvm.kernels.gemm.product import Product, flatten, match, widened
from irc.backends.llvm.kernels.vectors.dot import DotProduct, choose
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work, balance
from irc.types import Array

EPILOGUE_CYCLES = 10
"""Per vector of results, roughly: bias, multiply, shift, clamp, pack, store."""
COPY_CYCLES = 4
"""Per vector of bytes that are copied as 16 bits."""


def gemm(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for one convolution or linear layer with its elementwise tail."""
    return next(gemms(work, target), None)


def gemms(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it, by tiles of any width, the one of fewest estimated cycles first, on vectors
    half as wide too where these are as fast; then one on those, which some CPUs run at a higher
    clock."""
    product = match(work)
    chosen = None if product is None else choose(target, product.packed)
    if product is None or chosen is None:
        return
    dot, proof = chosen
    dot = narrowed(dot, product.columns)
    product = flatten(work, product)
    if dot.widens:
        product = widened(work, product)
    half = dataclasses.replace(dot, nbytes=dot.nbytes // 2)
    found = [_Way(product, d, *t, proof) for d in ((dot, half) if dot.turns > 1 else (dot,))
             for t in best_tiles(product, d, target.registers)]  # fmt: skip
    if dot.kind == "split":
        found += _in_words(work, product, dot, target.registers)
    for way in sorted(found, key=lambda way: way.cycles):
        yield _kernel(way)
    if half.nbytes >= 16:
        yield _kernel(_Way(product, half, *best_tile(product, half, target.registers), proof))


@dataclass(frozen=True)
class _Way:
    """A product, by which instructions and tiles, its estimated cycles, and what was proved."""

    product: Product
    dot: DotProduct
    tile: Tile
    cycles: float
    proof: str


def _in_words(
    work: Work, product: Product, dot: DotProduct, registers: int
) -> Iterator[_Way]:
    """The ways over a copy of the activations as 16 bits."""
    wide, dot = widened(work, product), dataclasses.replace(dot, kind="maddwd")
    assert wide.copy is not None, "what is widened is copied"
    copied = prod(wide.copy.padded) * product.pixels[0] / dot.nbytes * COPY_CYCLES
    for tile, cycles in best_tiles(wide, dot, registers):
        yield _Way(wide, dot, tile, cycles + copied, "bytes are multiplied as 16 bits: exact")


def _kernel(way: _Way) -> MicroKernel:
    product, dot, tile = way.product, way.dot, way.tile
    name = f"qgemm_u8i8_{tile.rows}x{tile.vectors * dot.lanes}_{dot.kind}_{dot.nbytes * 8}"
    cut, units = best_cut(product, dot, tile)
    ideal = products_cycles(product, dot)
    return MicroKernel(
        name=name,
        key=layout_key(product, cut),
        emit=Gemm(product, dot, tile, cut).emit,
        arrays=(pack(product.packed, dot, tile.vectors),),
        replaces=(product.weights,),
        scratch=scratch_bytes(product, tile),
        units=units,
        reason=f"tile of {tile.rows} pixels x {tile.vectors * dot.lanes} channels:"
        f" {100 * ideal / max(way.cycles, 1):.0f} % of its cycles multiply",
        proof=way.proof,
    )


def layout_key(p: Product, cut: str) -> str:
    """What the code depends on besides the tile."""
    return f"{p.pixels} {p.pixel} {p.taps} {p.run} {p.copy} {cut}"


def narrowed(dot: DotProduct, columns: int) -> DotProduct:
    """Narrower vectors where the channels don't fill wide ones."""
    while dot.nbytes > 16 and columns <= dot.lanes // 2:
        dot = dataclasses.replace(dot, nbytes=dot.nbytes // 2)
    return dot


# ------------------------------------------------------------ choice


def best_tile(p: Product, dot: DotProduct, registers: int) -> tuple[Tile, float]:
    """The tile of fewest estimated cycles, and these."""
    return best_tiles(p, dot, registers)[0]


def best_tiles(p: Product, dot: DotProduct, registers: int) -> list[tuple[Tile, float]]:
    """Of each width the tile of fewest estimated cycles, and these; the best first."""
    found = []
    for vectors in range(1, min(4, vectors_of(p, dot)) + 1):
        left = registers - vectors * dot.streams - 1 - dot.temporaries
        most = left // (vectors + dot.by_lane)
        tiles = [Tile(rows, vectors) for rows in range(1, min(14, most) + 1)]
        costs = [(cost(p, dot, tile), -tile.rows * tile.vectors, tile) for tile in tiles]
        found += [min(costs, key=lambda c: c[:2])] if costs else []
    return [(tile, cycles) for cycles, _, tile in sorted(found, key=lambda c: c[:2])]


def products_cycles(p: Product, dot: DotProduct) -> float:
    """Cycles of the products alone."""
    return p.depth * dot.cycles * float(np.prod(p.pixels)) * p.groups * vectors_of(p, dot)


def best_cut(p: Product, dot: DotProduct, tile: Tile) -> tuple[str, int]:
    """Along which loop the work is cut for threads, and into how many units: the one of best
    balance; of equal ones that which leaves each thread the larger operand's part alone."""
    blocks = ceil(vectors_of(p, dot) / tile.vectors)
    channels = ("groups", p.groups) if p.groups > 1 else ("channels", blocks)
    tiles = ceil(p.pixels[2] / tile.rows)
    pixels = ("rows", p.pixels[1]) if p.pixels[1] > 1 else ("tiles", tiles)
    read = p.pixels[0] * p.pixels[1] * p.pixels[2] * p.run * p.groups
    wide = p.matrix.nbytes > read and p.copy is None
    choices = (channels, pixels) if wide else (pixels, channels)
    return max(choices, key=lambda choice: balance(choice[1]) + (choice is choices[0]) * 0.05)


def cost(
    p: Product, dot: DotProduct, tile: Tile, part: float = 1, loops: float | None = None
) -> float:
    """Estimated cycles by a tile, where products take this part of their instructions, and the
    loops around them so many cycles; default those over rows of taps."""
    if loops is None:
        loops = dot.tap * (p.taps[0][0] - 1)
    columns = sum(
        (_tile_cycles(p.depth, rows, vectors, dot, part) + loops) * many_rows * many_vectors
        for rows, many_rows in _split(p.pixels[2], tile.rows)
        for vectors, many_vectors in _split(vectors_of(p, dot), tile.vectors)
    )
    return columns * p.groups * p.pixels[0] * p.pixels[1]


def _tile_cycles(depth: int, rows: int, vectors: int, dot: DotProduct, part: float) -> float:
    """Two multiply ports, two load ports, some instructions a cycle, and the latency of a chain of
    dot products; some of the loads are not hidden, and so is some of every tile. What is done in
    two turns takes twice a port, also in the epilogue, which is quicker where there are halves.
    Where products take a `part` of their instructions, tables of words are read for it."""
    multiply = rows * vectors * dot.cycles * part
    loads = rows + vectors * dot.streams + (part < 1)
    issue = (rows * vectors * dot.instructions * part + loads + 3) / dot.width
    latency = 5.0 if dot.kind == "vpdpbusd" else 1.0
    loading = (rows + vectors * dot.streams * dot.turns) / 2
    word = max(multiply, loading, issue, latency) + loads * dot.exposed
    epilogue = EPILOGUE_CYCLES * (dot.turns / 2 if dot.halves else 1)
    behind = rows * (vectors * epilogue + vectors % 2 * dot.alone) + vectors * dot.constants
    return depth * word + behind + 5


def _split(extent: int, step: int) -> list[tuple[int, int]]:
    """(size, how many): whole steps, and what is left."""
    parts = [(step, extent // step), (extent % step, 1)]
    return [(size, count) for size, count in parts if size and count]


def pack(packed: Array, dot: DotProduct, vectors: int) -> Array:
    """Weights, as `Product.packed` has them, in the order of use: per group and block of channels
    what its sums begin with, if that is not 0; per word, per stream, the channels of the block with
    four bytes each. Missing channels are 0."""
    blocks: list[Array] = []
    for group in packed:
        for start in range(0, len(group), vectors * dot.lanes):
            part = group[start : start + vectors * dot.lanes]
            block = np.zeros((ceil(len(part) / dot.lanes) * dot.lanes, *part.shape[1:]), np.int8)
            block[: len(part)] = part
            if dot.signed:
                beginning = np.zeros(vectors * dot.lanes, np.int32)
                beginning[: len(block)] = dot.beginning(block)
                blocks.append(beginning.view(np.int8))
            blocks.append(_streams(block, dot).reshape(-1))
    return np.concatenate(blocks)


def _streams(block: Array, dot: DotProduct) -> Array:
    """[words, streams, lanes, 4]."""
    words = dot.arranged(np.ascontiguousarray(block.transpose(1, 0, 2)))
    if dot.kind == "maddwd":
        return words.astype(np.int16)[:, None].view(np.int8)
    if dot.streams == 1:
        return words[:, None]
    even, odd = words.copy(), words.copy()
    even[..., 1::2] = 0
    odd[..., 0::2] = 0
    return np.stack([even, odd], axis=1)
