"""What AMX multiplies at one time: the choice, its cost, and weights in the order of their use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as cross
from math import ceil, prod

import numpy as np

from irc.backends.llvm.kernels.gemm.product import Product
from irc.backends.llvm.kernels.results.narrow import AT_ONCE
from irc.types import Array

TILE_ROWS, ROW_BYTES, LANES = 16, 64, 16
"""Of a tile register; and the accumulators in its row."""
REGISTERS = 8
ACCUMULATORS = 4
FEWEST_CYCLES = 10
"""Of a product, however few pixels it has; else one per pixel."""
EPILOGUE_CYCLES = {1: 6.0, 2: 5.0, 3: 5.5, 4: 4.5}
"""Per vector of results, by how many of a pixel are stored together."""
NEAR_BYTES = 24 * 1024
"""Weights of a block that stay in the first-level cache; of more, each row costs cycles"""
SECOND_LEVEL_CYCLES = 0.4
"""besides the one that it costs beside products."""
FAR_BYTES = 9.4
"""Per cycle, of weights from the last cache or memory."""
HIDDEN = 0.75
"""Of the lesser of products and results; of products and weights from far away"""
HIDDEN_STREAM, HIDDEN_FAR = 0.8, 0.5
"""where each weight serves one group, and where it serves several."""
GROUP_CYCLES = 60
"""Per group of tiles: addresses, and waiting for the last products."""
PAIRED_CHANNELS = 8
"""More fill a tile's rows as they lie."""
PAIR_CYCLES, WIDE_PAIR_CYCLES, PAIR_BYTES = 3, 30, 24
"""Per pixel of a copy of paired rows, more than a copy takes of rows as they are: of few channels,
and of many, with bytes per cycle besides."""
GATHERED_BYTES = 16
"""Per cycle, of pixels that lie apart."""


@dataclass(frozen=True)
class Tiling:
    """What is computed at one time: `tiles` tiles of `rows` pixels by `vectors` tiles of channels,
    `chunk` words of four bytes of each pixel in one product."""

    rows: int
    tiles: int
    vectors: int
    chunk: int

    @property
    def stored(self) -> int:
        """Bytes of the accumulators, stored."""
        return self.tiles * TILE_ROWS * self.vectors * ROW_BYTES

    def pools(self) -> tuple[range, range]:
        """Tile registers of activations and of weights; the first ones are accumulators."""
        used = self.tiles * self.vectors
        weights = min(self.vectors, REGISTERS - used - 1)
        end = min(used + self.tiles, REGISTERS - weights)
        return range(used, end), range(end, end + weights)


@dataclass(frozen=True)
class Blocks:
    """Blocks of channels of one width in each group of channels: how many, where their packed
    weights and their channels begin, and the vectors and channels of one."""

    count: int
    start: int
    first: int
    vectors: int
    channels: int

    @property
    def pixels(self) -> int:
        """Pixels that are finished together."""
        return AT_ONCE // min(2, self.vectors) if self.vectors < AT_ONCE else 1


def blocks_of(p: Product, tiling: Tiling, depth: int) -> list[Blocks]:
    """The whole blocks, then the rest. Packed weights take `depth` words per channel."""
    whole = p.columns // (tiling.vectors * LANES)
    rest = vectors(p) - whole * tiling.vectors
    channels = whole * tiling.vectors * LANES
    found = [
        Blocks(whole, 0, 0, tiling.vectors, tiling.vectors * LANES),
        Blocks(1, depth * channels * 4, channels, rest, p.columns - channels),
    ]
    return [b for b in found if b.count and b.vectors]


def whole_rows(p: Product) -> Product | None:
    """The product over whole rows of what is read, as one row: so a tile goes on in the next row
    where rows are narrow. What lies between the rows of the result is computed for nothing."""
    _, rows, columns = p.pixels
    if rows == 1 or p.pixel[1] % p.pixel[2] or p.pixel[1] // p.pixel[2] < columns:
        return None
    extent = (rows - 1) * (p.pixel[1] // p.pixel[2]) + columns
    return dataclasses.replace(p, pixels=(p.pixels[0], 1, extent))


def paired_rows(p: Product) -> Product | None:
    """The product of stride 2 over a copy in which two rows by two columns of the image are one
    pixel. Few channels fill more of a tile's row so, and it takes half as many taps; a window of
    odd size gets weights 0 at its ends. Of many channels all taps stay, but a tile goes on in the
    next row."""
    if p.copy is None or p.groups > 1 or len(p.taps) != 1:
        return None
    _, columns, channels = p.copy.dense
    (height, down), width = p.taps[0], p.run // channels
    if down != columns * channels or p.pixel[1:] != (2 * down, 2 * channels):
        return None
    copy = dataclasses.replace(p.copy, paired=True)
    taps = p.matrix.reshape(p.columns, height, width, channels)
    step = prod(copy.padded[1:])
    paired = dataclasses.replace(p, copy=copy, pixel=(p.pixel[0], step, copy.padded[2]))
    if channels > PAIRED_CHANNELS:
        return _by_places(paired, taps, step) if channels % 4 == 0 else None
    taps = np.pad(taps, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    pairs = taps.reshape(p.columns, ceil(height / 2), 2, ceil(width / 2), 2, channels)
    matrix = pairs.transpose(0, 1, 3, 2, 4, 5).reshape(1, p.columns, ceil(height / 2), -1)
    return dataclasses.replace(
        paired, matrix=matrix, run=matrix.shape[-1], taps=((ceil(height / 2), step),)
    )


def _by_places(p: Product, taps: Array, step: int) -> Product:
    """A product over paired rows with each tap where it lies: [O, height, width, channels]."""
    _, height, width, channels = taps.shape
    places = tuple(
        y // 2 * step + (x // 2 * 4 + y % 2 * 2 + x % 2) * channels
        for y, x in np.ndindex(height, width)
    )
    matrix = taps.reshape(1, p.columns, height * width, channels)
    return dataclasses.replace(
        p, matrix=matrix, run=channels, taps=((height * width, 0),), places=places
    )


def best_tilings(p: Product) -> list[tuple[Tiling, float]]:
    """Every tiling with its estimated cycles, the one of fewest first."""
    rows = ceil(p.pixels[2] / ceil(p.pixels[2] / TILE_ROWS))
    chunk = ceil(p.words / _run_chunks(p))
    tiles = min(ACCUMULATORS, p.pixels[1] * ceil(p.pixels[2] / rows))
    options = (
        Tiling(rows, t, v, chunk)
        for t, v in cross(range(1, tiles + 1), range(1, min(ACCUMULATORS, vectors(p)) + 1))
        if t * v <= ACCUMULATORS
    )
    costs = [(_cost(p, option), -option.vectors, option) for option in options]
    return [(tiling, cycles) for cycles, _, tiling in sorted(costs, key=lambda c: c[:2])]


def _cost(p: Product, t: Tiling) -> float:
    """Products while the results before them are finished, and weights come from far away."""
    total, groups = 0.0, ceil(tiles(p, t.rows) / t.tiles)
    hidden = HIDDEN_STREAM if groups == 1 else HIDDEN_FAR
    for v, many in ((t.vectors, vectors(p) // t.vectors), (vectors(p) % t.vectors, 1)):
        if v and many:
            weights = chunks(p) * t.chunk * v * ROW_BYTES
            results = t.tiles * t.rows * v * EPILOGUE_CYCLES[v]
            group = _together(_products(p, t, v, weights), results, HIDDEN) + GROUP_CYCLES
            total += many * _together(groups * group, weights / FAR_BYTES, hidden)
    return (total * p.groups + _copying(p)) * p.pixels[0]


def _copying(p: Product) -> float:
    """Cycles of a copy of an image, more than one of whole rows takes: to put pairs of rows
    together, or pixels that lie apart."""
    if p.copy is None:
        return 0
    if not p.copy.paired:
        return p.copy.nbytes / GATHERED_BYTES if p.copy.gathers else 0
    rows, columns, nbytes = p.copy.padded
    each = WIDE_PAIR_CYCLES + nbytes / PAIR_BYTES if p.places else PAIR_CYCLES
    return rows * columns * each


def _products(p: Product, t: Tiling, v: int, weights: int) -> float:
    """Cycles of a group's products with `v` tiles of channels, whose weights take so many bytes."""
    multiply = t.tiles * v * max(t.rows, FEWEST_CYCLES)
    lines = t.tiles * t.rows + v * t.chunk
    second = v * t.chunk * SECOND_LEVEL_CYCLES if weights > NEAR_BYTES else 0
    return chunks(p) * (max(multiply, lines) + second)


def _together(a: float, b: float, hidden: float) -> float:
    """Cycles of two things at a time, where that part of the lesser is hidden."""
    return max(a, b) + (1 - hidden) * min(a, b)


def tiles(p: Product, rows: int) -> int:
    """Tiles of pixels in an image."""
    return p.pixels[1] * ceil(p.pixels[2] / rows)


def vectors(p: Product) -> int:
    """Tiles of channels in a group."""
    return ceil(p.columns / LANES)


def _run_chunks(p: Product) -> int:
    return ceil(p.words / TILE_ROWS)


def chunks(p: Product) -> int:
    """Products that each accumulator is the sum of."""
    return p.depth // p.words * _run_chunks(p)


def _starts(p: Product, chunk: int) -> list[int]:
    """First word of each chunk of a run; the last one ends with the run."""
    return [min(i * chunk, p.words - chunk) for i in range(_run_chunks(p))]


def chunk_offsets(p: Product, chunk: int) -> Array:
    """i64 [chunks]: bytes from a pixel to what each chunk reads of it."""
    return np.array(list(_offsets(p, chunk)), np.int64)


def _offsets(p: Product, chunk: int) -> Iterator[int]:
    for tap in p.places or _steps(p):
        yield from (tap + start * 4 for start in _starts(p, chunk))


def _steps(p: Product) -> Iterator[int]:
    """Bytes from a pixel to each tap."""
    for indices in np.ndindex(*(extent for extent, _ in p.taps)):
        yield sum(i * step for i, (_, step) in zip(indices, p.taps, strict=True))


def chunked(p: Product, chunk: int) -> Array:
    """The matrix as `Product.packed`, in chunks: what two chunks have in common is 0 in the later
    one."""
    groups, columns = p.packed.shape[:2]
    runs = p.packed.reshape(groups, columns, -1, p.words, 4)
    parts = []
    for number, start in enumerate(_starts(p, chunk)):
        part = runs[..., start : start + chunk, :].copy()
        part[..., : number * chunk - start, :] = 0
        parts.append(part)
    return np.concatenate(parts, axis=3).reshape(groups, columns, -1, 4)


def configuration(t: Tiling) -> Array:
    """The operand of `ldtilecfg`: palette 1, bytes of a row (u16) and rows of each register."""
    words, content = np.zeros(16, np.uint16), np.zeros(64, np.uint8)
    activations, weights = t.pools()
    words[: weights.stop] = ROW_BYTES
    words[activations.start : activations.stop] = t.chunk * 4
    content[0] = 1
    content[16:48] = words.view(np.uint8)
    content[48 : 48 + activations.stop] = t.rows
    content[48 + weights.start : 48 + weights.stop] = t.chunk
    return content
