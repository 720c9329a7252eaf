"""Compile-time proofs about integer kernels (arithmetic.md, "Proofs at compile time").

What a vector kernel may rely on is computed here from the actual weights: accumulators that fit
32 bits, neighbours that `vpmaddubsw` adds without saturating, shifts in range.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from irc.types import Array, DType

ACCUMULATOR_LIMIT = 2**31
PAIR_LIMIT = 128
"""Largest sum of like-signed neighbour weights for which u8·i8 pairs fit a signed 16-bit sum."""
GROUP = 4
"""A dot-product instruction takes this many consecutive weights of a kernel row."""


def kernel_rows(w: Array) -> Array:
    """Weights [O, ...] as rows of consecutive taps: [O, rows, length], length a multiple of 4.

    This is the canonical pairing: a convolution's kernel row [kw, C/groups] is one row, a linear
    layer's K is one row; zeros fill up to the multiple.
    """
    outs = w.shape[0]
    rows = w.shape[1] if w.ndim == 4 else 1
    flat = w.reshape(outs, rows, -1)
    return np.asarray(np.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % GROUP))))


def neighbours(w: Array) -> Array:
    """The canonical pairs (0,1), (2,3), … of each kernel row: [O, pairs, 2]."""
    return kernel_rows(w).reshape(w.shape[0], -1, 2)


def seconds(w: Array) -> Array:
    """Which weights of an output are the second of a canonical pair: b1[K]."""
    rows = w.shape[1] if w.ndim == 4 else 1
    length = math.prod(w.shape[1:]) // max(rows, 1)
    each = np.arange(length) % 2 == 1
    return np.tile(each & uses_pairs(w), rows)


def uses_pairs(w: Array) -> bool:
    """Whether kernels multiply these weights in pairs: not where each output has one channel per
    tap (depthwise)."""
    return w.ndim != 4 or w.shape[3] > 1


def saturates(pairs: Array) -> Array:
    """Whether u8·i8 products of the weights [..., 2] can leave the signed 16 bits in which
    `vpmaddubsw` adds them. Weights of unlike signs are harmless, and their sum is small; of
    like-signed ones it is what must not exceed 128."""
    found: Array = np.abs(pairs.astype(np.int32).sum(-1)) > PAIR_LIMIT
    return found


def broken_pairs(w: Array) -> Array:
    """Per output channel, how many pairs could saturate in `vpmaddubsw`: i64[O]. All zero means
    that the pairwise kernel is exact for every u8 input."""
    if not uses_pairs(w):
        return np.zeros(w.shape[0], np.int64)
    return np.asarray(np.count_nonzero(saturates(neighbours(w)), axis=1), np.int64)


def accumulator_bound(w: Array, bias: Array, x: DType, fraction: int = 0) -> Array:
    """`|B| + sum |w| * max|x| * 2^fraction` per output channel, i64[O], for inputs kept as u8 and
    as i8.

    `bias` is the folded B for inputs stored as `x`; storing them as the other 8-bit type moves B by
    128 * sum(w) (equation (3)), so the larger of both bounds holds for either choice of a backend.
    """
    flat = w.reshape(w.shape[0], -1).astype(np.int64) << fraction
    magnitude, total = np.abs(flat).sum(1), flat.sum(1)
    folded = bias.astype(np.int64)
    if x not in (DType.U8, DType.I8):
        return np.asarray(np.abs(folded) + magnitude * max(-x.min, x.max))
    unsigned = folded - (128 * total if x is DType.I8 else 0)
    signed = unsigned + 128 * total
    return np.asarray(
        np.maximum(np.abs(unsigned) + magnitude * 255, np.abs(signed) + magnitude * 128)
    )


def high_half(bound: npt.ArrayLike, s: npt.ArrayLike) -> Array:
    """Whether equation (6) may use the high half of the 64-bit product: s >= 32, or `acc` shifted
    left first so that it is, without leaving 32 bits. Boolean, per entry of `s`."""
    left = np.maximum(32 - np.asarray(s, np.int64), 0)
    fits: Array = (np.asarray(bound, np.int64) << left) < ACCUMULATOR_LIMIT
    return fits


def rescaled_bound(bound: Array, m: Array, s: Array, zero: int) -> int:
    """How far `zp + ((acc*m + 2^(s-1)) >> s)` can reach before the clamp, over all channels, for
    accumulators of at most `bound`."""
    each = (int(b) * abs(int(f)) >> int(t) for b, f, t in zip(bound, m, s, strict=True))
    return max(each, default=0) + 1 + abs(zero)


def needs_wide(
    w: Array, b: Array, m: Array, s: Array, x: DType, zero: int, fraction: int = 0
) -> bool:
    """Whether equation (6) of a layer can leave 32 bits before its clamp: then it is computed in
    64 (a layer whose outputs were never seen to move has a scale far below its inputs')."""
    bound = accumulator_bound(w, b, x, fraction)
    return rescaled_bound(bound, m, s, zero) >= ACCUMULATOR_LIMIT
