"""Which rows of a depthwise convolution are packed together, and which of them are padding."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from irc.ops.conv import QConv2d

CACHE_BYTES = 32 * 1024
"""For rows of a strip, as they are and packed: about the first-level cache."""
PACKING_CYCLES = 2.0
"""Per vector of a packed pair of rows."""
RESULT_CYCLES = 8.0
"""Per vector of results."""
LINE, LINE_CYCLES = 64, 3.0
"""Bytes of a line of the cache, and what one costs that comes from the second level."""
SECOND_BYTES, FAR_CYCLES = 512 * 1024, 8.0
"""What of a strip stays in the second-level cache; of more, a packed line costs so much again."""
UNEVEN = 1.02
"""Times what strips cost of which the last one is shorter."""
IN_ORDER = 0.7
"""Part of that which a packed line costs, read next to the one before."""


@dataclass(frozen=True)
class Strip:
    """Output rows that are computed from one packing, at most; strips start at an even row of the
    padded image."""

    rows: int
    pairs: int
    """Pairs of rows that so many read."""
    columns: int
    """Columns of the padded image that they read."""


@dataclass(frozen=True)
class Padding:
    """Which pairs of rows of the padded image hold rows of the image: from `real[0]` up to
    `real[1]`. What the others come to is known before: windows skip up to `above` pairs at their
    top and `below` at their bottom."""

    real: tuple[int, int]
    above: int
    below: int

    @classmethod
    def of(cls, node: QConv2d) -> Padding:
        """Of a convolution."""
        top = node.pads[0]
        real = (top // 2, ceil((top + node.x.shape[1]) / 2))
        above = below = 0
        for y in range(node.shape[1]):
            first = y * node.strides[0] // 2
            pairs = row_pairs(node, y % phases(node))
            skipped = min(max(real[0] - first, 0), pairs)
            above = max(above, skipped)
            below = max(below, pairs - max(min(real[1] - first, pairs), skipped))
        return cls(real, above, below)

    @property
    def skips(self) -> bool:
        """Whether there is any such pair."""
        return self.above + self.below > 0

    @property
    def states(self) -> int:
        """How many pairs of numbers of skipped pairs there are; 0 where none is skipped."""
        return (self.above + 1) * (self.below + 1) if self.skips else 0


def phases(node: QConv2d) -> int:
    """How many kinds of output rows there are: starting at even rows, and at odd ones."""
    return 1 if node.strides[0] % 2 == 0 else 2


def row_pairs(node: QConv2d, phase: int) -> int:
    """Pairs of rows that a window meets."""
    return ceil((node.window.kernel[0] + phase) / 2)


def strip_of(node: QConv2d, rows: int) -> Strip:
    """What output rows read."""
    columns = (node.shape[2] - 1) * node.strides[1] + 1
    columns += (node.window.kernel[1] - 1) * node.dilations[1]
    last = (rows - 1) * node.strides[0] + node.window.kernel[0]
    return Strip(rows, ceil(last / 2), columns)


def best_strip(node: QConv2d, lanes: int) -> Strip:
    """The one that costs least: of packing rows, and of reading them again for each vector of
    channels where they don't stay in the cache."""
    height, count = node.shape[1], phases(node)
    fits = {*range(count, height, count), height}
    return strip_of(node, min(fits, key=lambda rows: (image_cycles(node, rows, lanes), -rows)))


def image_cycles(node: QConv2d, rows: int, lanes: int) -> float:
    """Of an image in strips of so many rows, the last one of the rest."""
    whole, rest = divmod(node.shape[1], rows)
    cycles = whole * _cycles(strip_of(node, rows), node, lanes)
    return UNEVEN * (cycles + _cycles(strip_of(node, rest), node, lanes)) if rest else cycles


def _cycles(strip: Strip, node: QConv2d, lanes: int) -> float:
    """Of a strip, roughly. A vector of channels meets a line of each pixel, and the next vector
    the same ones."""
    channels = node.shape[3]
    vectors = ceil(channels / lanes)
    packed = strip.pairs * strip.columns * lanes * 4
    pixels = min(strip.pairs * 2, node.x.shape[1]) * node.x.shape[2]
    met = pixels * min(channels, LINE) / LINE
    resident = met * LINE + packed <= CACHE_BYTES
    lines = pixels * channels / LINE if resident else met * vectors
    spilled = IN_ORDER * packed / LINE * vectors if packed > CACHE_BYTES else 0
    far = packed / LINE * vectors if met * LINE + packed > SECOND_BYTES else 0
    packing = strip.pairs * strip.columns * vectors * PACKING_CYCLES
    results = strip.rows * node.shape[2] * vectors * RESULT_CYCLES
    return (lines + spilled) * LINE_CYCLES + far * FAR_CYCLES + packing + results
