"""How a convolution by Winograd's minimal filtering is cut up, where its intermediate results lie,
and how many cycles that takes by estimate."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from irc.backends.llvm.kernels.anchor import Anchor
from irc.backends.llvm.kernels.halo import Copy
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.kernels.winograd.minimal import Filter
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.target_names import SMALL_CACHES
from irc.backends.llvm.work import balance
from irc.plan import aligned
from irc.types import Array

LINE = 64
"""Bytes between streams that would otherwise fall on one set of the cache."""
INPUT_BYTES, WEIGHT_BYTES = 512 * 1024, 160 * 1024
"""Transformed inputs of a block and weights of a chunk: parts of the second-level cache."""
WIDE_WEIGHT_BYTES = 320 * 1024
"""Weights of a chunk on CPUs with AVX512-VNNI on 64 bytes at once: but for `SMALL_CACHES` they have
1 MB or more of it."""
FEW_TILES, FEW_WEIGHT_BYTES = 8, 40 * 1024
"""With so few tiles in a block weights are read once only: from the first-level cache."""
KEPT_BYTES = 320 * 1024
"""Transformed weights of a whole layer that are kept for all blocks of tiles: a part of the
second-level cache."""
TILES = 64
"""Tiles of a block at most, where a row of tiles is not more."""
VECTORS = 2
"""Of channels, in a block."""
WEIGHT_CYCLES = {"maddwd": 2.0, "vpdpwssd": 6.0}
"""Per vector of transformed weights: measured, caches included; wider ones take more of them."""
EPILOGUE_CYCLES = 12
"""Per vector of results."""


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut up: `tiles` rows and columns of tiles, `block` rows of them at a
    time; `channels` and `chunk` of inputs, filled up; `rows` of a register tile."""

    f: Filter
    dot: DotProduct
    copy: Copy
    tiles: tuple[int, int]
    block: int
    channels: int
    chunk: int
    rows: int
    kept: int
    """Blocks of outputs whose weights are transformed before all images; 0: each where it is
    used."""
    cycles: float

    @property
    def q(self) -> int:
        """Products of a tile."""
        return self.f.size**2

    @property
    def count(self) -> int:
        """Tiles of a block."""
        return self.block * self.tiles[1]

    @property
    def width(self) -> int:
        """Bytes of the accumulators of a tile for one product."""
        return VECTORS * self.dot.nbytes

    @property
    def v_step(self) -> int:
        """Bytes of V from one product to the next."""
        return self.count * self.channels * 2 + LINE

    @property
    def u_step(self) -> int:
        """Bytes of U from one product to the next."""
        return self.chunk // 2 * self.width + LINE

    @property
    def u_bytes(self) -> int:
        """Bytes of U of a block of outputs."""
        return self.q * self.u_step

    @property
    def offsets(self) -> tuple[int, int, int, int, int]:
        """Where V, U and M begin in scratch, behind the copied image; then where results go that
        lie outside of it, and the end."""
        weights, sums = max(1, self.kept) * self.u_bytes, self.q * self.count * self.width
        sizes = (self.q * self.v_step, weights, sums, self.width)
        starts = [aligned(self.copy.nbytes, LINE)]
        for size in sizes:
            starts.append(aligned(starts[-1] + size, LINE))
        v, u, m, outside, end = starts
        return v, u, m, outside, end

    @property
    def scratch(self) -> int:
        """Bytes of scratch."""
        return self.offsets[-1]


def tiling(anchor: Anchor, f: Filter, target: Target) -> Tiling:
    """How to cut up a convolution, and its estimated cycles."""
    node: Any = anchor.node
    _, height, width, outputs = node.shape
    kind = "vpdpwssd" if target.dot is Dot.VPDPBUSD else "maddwd"
    dot = DotProduct(kind, target.vector_bytes, target.halves)
    step = target.vector_bytes // 2
    channels = aligned(node.x.shape[3], step)
    tiles = ceil(height / f.m), ceil(width / f.m)
    fits = min(TILES, INPUT_BYTES // (f.size**2 * channels * 2))
    block = max(d for d in range(1, tiles[0] + 1)
                if tiles[0] % d == 0 and (d == 1 or d * tiles[1] <= fits))  # fmt: skip
    wide = kind == "vpdpwssd" and dot.nbytes == 64 and not target.halves
    wide = wide and target.cpu not in SMALL_CACHES
    weight_bytes = WIDE_WEIGHT_BYTES if wide else WEIGHT_BYTES
    if block * tiles[1] <= FEW_TILES:
        weight_bytes = FEW_WEIGHT_BYTES
    chunk = max(c for c in range(step, channels + 1, step)
                if channels % c == 0
                and (c == step or f.size**2 * c // 2 * VECTORS * dot.nbytes <= weight_bytes)
                )  # fmt: skip
    most = (target.registers - VECTORS - 1 - dot.temporaries) // VECTORS
    count = block * tiles[1]
    rows = min(range(3, most + 1), key=lambda r: (_row_cycles(count, r, dot), ceil(count / r), r))
    top, left, _, _ = node.pads
    _, rows_in, columns_in, depth = node.x.shape
    pads = (top, left, tiles[0] * f.m + 2 - rows_in - top, tiles[1] * f.m + 2 - columns_in - left)
    copy = Copy((rows_in, columns_in, depth), anchor.strides[:3], pads, node.x.type.zero)
    outer, kept = ceil(outputs / (VECTORS * dot.lanes)), 0
    kept_bytes = f.size**2 * (chunk // 2 * VECTORS * dot.nbytes + LINE) * outer
    if chunk == channels and block < tiles[0] and kept_bytes <= KEPT_BYTES:
        kept = outer
    turns = 1 if kept else tiles[0] // block
    cycles = node.shape[0] * _cycles(f, tiles, turns, channels, outputs, dot)
    finished = node.shape[0] * height * tiles[1] * f.m  # rows outside of the image are skipped
    cycles += finished * ceil(outputs / dot.lanes) * EPILOGUE_CYCLES
    return Tiling(f, dot, copy, tiles, block, channels, chunk, rows, kept, cycles)


def _row_cycles(tiles: int, rows: int, dot: DotProduct) -> float:
    """Cycles of one word of so many tiles, by register tiles of so many rows: on two multiply ports
    and two load ports, and at least the latency of a product."""
    latency = 5.0 if dot.kind == "vpdpwssd" else 1.0
    parts = [rows] * (tiles // rows) + [tiles % rows] * (tiles % rows > 0)
    return sum(max(r * VECTORS * dot.cycles, (r + VECTORS) / 2, latency) for r in parts)


def _cycles(
    f: Filter, tiles: tuple[int, int], turns: int, channels: int, outputs: int, dot: DotProduct
) -> float:
    """Estimated cycles of an image but for its epilogue; weights are transformed `turns` times."""
    count, vectors, q = prod(tiles), ceil(outputs / dot.lanes), f.size**2
    products = count * q * (channels // 2) * vectors * dot.cycles
    inputs = count * channels / dot.lanes / 2 * 3 * q
    weights = turns * (channels // 2) * vectors * WEIGHT_CYCLES[dot.kind] * q
    results = count * vectors * 3.5 * q
    return products + inputs + weights + results


def best_cut(t: Tiling, outputs: int) -> tuple[str, int]:
    """Along which loop the work is cut for threads, and into how many units: by blocks of rows of
    tiles, or by blocks of outputs, for each of which all inputs are transformed again."""
    choices = (
        ("blocks", t.tiles[0] // t.block),
        ("channels", ceil(ceil(outputs / t.dot.lanes) / VECTORS)),
    )
    return max(choices, key=lambda choice: balance(choice[1]) + (choice is choices[0]) * 0.05)


def pack(weights: Array, t: Tiling) -> Array:
    """Weights i8 in the order of use: per block of channels, per pair of inputs, per tap, the
    channels of the block with two bytes each. What is missing is 0."""
    outputs, _, _, depth = weights.shape
    lanes = t.dot.lanes
    wide = np.zeros((aligned(outputs, lanes), 9, t.channels), np.int8)
    wide[:outputs, :, :depth] = weights.reshape(outputs, 9, depth)
    blocks = [wide[o : o + VECTORS * lanes] for o in range(0, len(wide), VECTORS * lanes)]
    pairs = [b.reshape(len(b), 9, -1, 2).transpose(2, 1, 0, 3).reshape(-1) for b in blocks]
    return np.ascontiguousarray(np.concatenate(pairs))
