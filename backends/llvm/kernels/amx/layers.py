"""Convolutions and linear layers on AMX: `tdpbusd` multiplies tiles of 16 pixels and 16 channels.

A tile of pixels is up to 16 neighbours in one row of the result; `tileloadd` reads their bytes with
the stride from pixel to pixel, so that, as in `gemm`, nothing is gathered into columns first. Up to
four tiles of accumulators are multiplied together, then stored to scratch. While the next ones are
multiplied, the expression around the reduction takes them up from there, some pixels at a time.

    for each image, part of its tiles of pixels  (the part stays in the cache)
        for each block of channels               (its weights stay in the cache)
            for each group of tiles of pixels
                for each tap, for each chunk
                    acc[i][j] += x[i] * w[j]
                    for some pixels of the group before:  epilogue

The last tile of a row and the last group of an image reach back over the ones before, so that all
are of one size; only new pixels are stored. Chunks of a run reach back likewise, over weights 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from irc.backends.llvm.kernels.amx.pipeline import AmxLoops
from irc.backends.llvm.kernels.amx.results import SINK_BYTES
from irc.backends.llvm.kernels.amx.tiling import (
    FAR_BYTES,
    LANES,
    ROW_BYTES,
    TILE_ROWS,
    Tiling,
    best_tilings,
    chunk_offsets,
    chunked,
    chunks,
    configuration,
    paired_rows,
    tiles,
    vectors,
    whole_rows,
)
from irc.backends.llvm.kernels.gemm.layers import best_tile, pack
from irc.backends.llvm.kernels.gemm.loops import Tile
from irc.backends.llvm.kernels.gemm.product import Product, flatten, gather, match
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import OTHERS_BYTES, MicroKernel, Work, shared_cycles

TILINGS = 3
"""Of how many there are kernels."""
MUCH = 0.9
"""Time, as a part of another, that is much better."""


def amx(work: Work, target: Target, *, always: bool = False) -> MicroKernel | None:
    """A kernel for one convolution or linear layer, where the CPU has AMX and it pays (or
    `always`)."""
    found = match(work) if target.tiles else None
    if found is None:
        return None
    (choice, *_), by_vectors = _choices(work, found, target)
    return _kernel(choice, by_vectors) if always or choice.cycles < by_vectors[1] else None


def amxs(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it by a few tilings, the one of fewest estimated cycles first, whether it pays or
    not."""
    found = match(work) if target.tiles else None
    if found is None:
        return
    choices, by_vectors = _choices(work, found, target)
    for choice in choices[:TILINGS]:
        yield _kernel(choice, by_vectors)


@dataclass(frozen=True)
class Choice:
    """A tiling, its cycles, the product in a form of it, and the columns of the result's rows."""

    tiling: Tiling
    cycles: float
    p: Product
    columns: int


def _choices(
    work: Work, found: Product, target: Target
) -> tuple[list[Choice], tuple[Tile, float]]:
    """The tilings of a product as its pixels lie, over pairs of rows, over both's whole rows, and
    over a dense copy, the best first; and the tile and cycles of vectors."""
    narrow = flatten(work, found)
    forms = [p for p in (narrow, paired_rows(narrow)) if p is not None]
    forms += [p for p in map(whole_rows, forms) if p is not None]
    of_row = [(p, narrow.pixels[2]) for p in forms]
    if (gathered := gather(work, found)) is not None:
        of_row.append((gathered, gathered.pixels[2]))
    choices = [Choice(t, c, p, columns) for p, columns in of_row for t, c in best_tilings(p)]
    dot = DotProduct("vpdpbusd", target.vector_bytes)
    best = best_tile(narrow, dot, target.registers)
    return sorted(choices, key=lambda c: c.cycles), best


def _kernel(choice: Choice, by_vectors: tuple[Tile, float]) -> MicroKernel:
    """The kernel; `by_vectors` is what would do without."""
    p, tiling, cycles = choice.p, choice.tiling, choice.cycles
    tile, without = by_vectors
    dot = DotProduct("vpdpbusd", ROW_BYTES)
    cut, units = best_cut(p, tiling, cycles)
    kind = "pairs_amx" if p.copy is not None and p.copy.paired else "amx"
    ideal = p.groups * np.prod(p.pixels) * vectors(p) * chunks(p) * tiling.chunk / TILE_ROWS
    return MicroKernel(
        name=f"qgemm_u8i8_{tiling.tiles * tiling.rows}x{tiling.vectors * LANES}_{kind}",
        key=f"{p.pixels} {p.pixel} {p.taps} {p.places} {p.run} {p.copy} {tiling} {cut}",
        emit=AmxLoops(p, tiling, cut, choice.columns).emit,
        arrays=(
            pack(chunked(p, tiling.chunk), dot, tiling.vectors),
            configuration(tiling),
            chunk_offsets(p, tiling.chunk),
        ),
        replaces=(p.weights,),
        scratch=2 * tiling.stored + SINK_BYTES + (p.copy.nbytes if p.copy else 0),
        units=units,
        reason=f"{tiling.tiles} tiles of {tiling.rows} pixels x {tiling.vectors * LANES} channels,"
        f" {tiling.chunk * 4} bytes at a time: {100 * ideal / cycles:.0f} % of its cycles multiply;"
        f" {without / cycles:.1f} times as fast as vectors, tile of {tile.rows} pixels",
        proof="tdpbusd wraps in 32 bits: exact",
    )


def best_cut(p: Product, t: Tiling, cycles: float) -> tuple[str, int]:
    """Along which loop the work of so many cycles is cut for threads, and into how many units: by
    groups of tiles of pixels, if blocks of channels aren't much better. By pixels each thread reads
    all weights, but of the image what it wrote itself, if neighbouring layers are cut alike; by
    channels it reads, and copies, all of the image, most of which others wrote."""
    pixels = ceil(tiles(p, t.rows) / t.tiles)
    image = p.pixels[0] * min(p.image_bytes, int(np.prod(p.pixels[1:])) * p.depth * 4)
    by_pixels = shared_cycles(pixels, cycles, p.matrix.nbytes / FAR_BYTES)
    kind, blocks = "channels", ceil(vectors(p) / t.vectors)
    if p.groups > 1:
        kind, blocks, image = "groups", p.groups, 0
    again = image * (1 if p.copy is None else 2)
    by_channels = shared_cycles(blocks, cycles, again / OTHERS_BYTES)
    return (kind, blocks) if by_channels < MUCH * by_pixels else ("tiles", pixels)
