"""Hard-swish of bytes, computed on 16 bits: `x * clamp(x + 3, 0, 6) / 6`, a scale and a zero point.

On CPUs whose tables of 256 bytes take 16 shuffles this is shorter. With q the byte, A to E, K and W
constants:

    x = min(q, last) << 8
    u = (x * A >> 16) - B                     x, scaled
    r = sat(W - sat(K - (x * C >> 16)))       the clamp, scaled; sat(negative) is 0
    y = clamp((round(u * r >> 15) + E) >> fraction)

Each step rounds, so constants are searched for that give the table's own byte for each of the 256:
`hard_swish` tries every byte by every candidate, and answers None where none is right throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.kernels.tables.shuffle import LookUp
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.memory import at
from irc.types import Array, DType, TensorType

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_NAMES = {
    16: ("sse2.pmulhu.w", "ssse3.pmul.hr.sw.128", "sse2.packuswb.128", "sse2.packsswb.128"),
    32: ("avx2.pmulhu.w", "avx2.pmul.hr.sw", "avx2.packuswb", "avx2.packsswb"),
    64: ("avx512.pmulhu.w.512", "avx512.pmul.hr.sw.512", "avx512.packuswb.512",
         "avx512.packsswb.512"),
}  # fmt: skip
FRACTIONS = (7, 6)
"""Bits behind the point of a result before it is rounded; the fewer, the more functions fit."""
BATCHES, BATCH = 12, 128
"""Candidates that are tried."""
_STEPS = np.sqrt(np.array((2.0, 3.0, 5.0, 7.0, 11.0)))
"""Multiples of irrational numbers, but for their whole parts, fill a cube evenly."""


@dataclass(frozen=True)
class HardSwish:
    """The function, to `dtype`, on vectors of `nbytes`."""

    nbytes: int
    dtype: DType
    fraction: int

    @property
    def name(self) -> str:
        """How kernels are called that use it."""
        return f"hardswish_{self.nbytes * 8}"

    @property
    def key(self) -> str:
        """What the code depends on besides the name."""
        return f"{self.dtype.value} {self.fraction}"

    def prepare(self, builder: Any, pointer: Any) -> LookUp:
        """Load the constants that `hard_swish` found."""
        words = ir.VectorType(I16, self.nbytes // 2)

        def every(index: int) -> Any:
            word = builder.load(at(builder, pointer, 2 * index), typ=I16, align=2)
            return _spread(builder, word, words.count)

        last, *constants = (every(i) for i in range(7))
        last = builder.bitcast(last, ir.VectorType(I8, self.nbytes))
        return lambda xs: [self._vector(builder, x, last, constants) for x in xs]

    def _vector(self, builder: Any, x: Any, last: Any, constants: list[Any]) -> Any:
        x = builder.select(builder.icmp_unsigned("<", x, last), x, last)
        words = [self._words(builder, builder.bitcast(v, constants[0].type), *constants)
                 for v in _above_zeros(builder, x)]  # fmt: skip
        pack = _NAMES[self.nbytes][2 if self.dtype is DType.U8 else 3]
        return call(builder, f"llvm.x86.{pack}", x.type, words)

    def _words(
        self, builder: Any, x: Any, a: Any, b: Any, c: Any, k: Any, w: Any, e: Any
    ) -> Any:  # fmt: skip
        high, rounded, *_ = (f"llvm.x86.{name}" for name in _NAMES[self.nbytes])
        of = partial(call, builder)
        saturating = f"llvm.usub.sat.v{x.type.count}i16"
        u = builder.sub(of(high, x.type, [x, a]), b)
        r = of(saturating, x.type, [k, of(high, x.type, [x, c])])
        r = of(saturating, x.type, [w, r])
        y = of(rounded, x.type, [u, r])
        y = of(f"llvm.sadd.sat.v{x.type.count}i16", x.type, [y, e])
        return builder.ashr(y, constant(x.type, self.fraction))


def hard_swish(
    entries: Array, x: TensorType, y: TensorType, nbytes: int
) -> tuple[HardSwish, Array] | None:
    """The function that a table of 256 bytes holds, from a type of u8 to another type, and its
    constants as stored; None where it is another, or no constants were found."""
    if x.dtype is not DType.U8 or not _is_hard_swish(entries, x, y):
        return None
    last = int(np.argmax(entries == entries[-1]))
    while not (entries[last:] == entries[-1]).all():
        last += 1
    for fraction in FRACTIONS:
        for batch in range(BATCHES):
            found = _first_right(entries, last, fraction, _candidates(x, y, last, fraction, batch))
            if found is not None:
                stored = np.array([last * 0x101, *found]).astype(np.uint16)
                return HardSwish(nbytes, y.dtype, fraction), stored
    return None


def _corner(x: TensorType) -> tuple[float, float]:
    """Where the clamp begins, and its width, in steps of x."""
    return x.zero - 3 / x.scale, 6 / x.scale


def _is_hard_swish(entries: Array, x: TensorType, y: TensorType) -> bool:
    """Whether a table is no more than a rounding away."""
    begin, width = _corner(x)
    q = np.arange(256)
    real = (q - x.zero) * np.clip((q - begin) / width, 0, 1) * (x.scale / y.scale)
    exact = np.clip(real + y.zero, y.dtype.min, y.dtype.max)
    return bool((np.abs(exact - entries.astype(np.int64)) < 0.6).all())


def _candidates(x: TensorType, y: TensorType, last: int, fraction: int, batch: int) -> Array:
    """i64 [candidates, 6]: A, B, C, K, W, E."""
    (begin, width), unit = _corner(x), 2**fraction
    slope = x.scale / y.scale * unit
    most = min(32767 / max(last - x.zero, x.zero - begin, 1), 255.99)
    least = slope * max(1, 128 / width, (begin + width) / width / 2)
    if least > most:
        return np.zeros((0, 6), np.int64)
    u = (np.arange(batch * BATCH + 1, (batch + 1) * BATCH + 1)[:, None] * _STEPS) % 1
    a = np.rint(256 * (least + (most - least) * u[:, 0]))
    w = np.minimum(np.rint(2**15 * slope / (a / 256) + 4 * u[:, 1] - 2), 32767)
    made = [
        a, np.rint(a / 256 * x.zero + 2 * u[:, 2] - 1), np.rint(256 * w / width),
        np.rint(w / width * (begin + width) + 6 * u[:, 3] - 3), w,
        np.rint((y.zero + 0.5) * unit + 4 * u[:, 4] - 2),
    ]  # fmt: skip
    found = np.stack(made, axis=1).astype(np.int64)
    unsigned = found[:, (0, 2, 3)]
    return np.asarray(found[((unsigned >= 0) & (unsigned < 2**16)).all(axis=1)])


def _first_right(entries: Array, last: int, fraction: int, candidates: Array) -> Array | None:
    """The first of the candidates that gives every entry."""
    if not len(candidates):
        return None
    a, b, c, k, w, e = candidates.T[:, :, None]
    x = np.minimum(np.arange(256), last) << 8
    u = (((x * a >> 16) - b + 2**15) % 2**16) - 2**15
    r = np.maximum(w - np.maximum(k - (x * c >> 16), 0), 0)
    sums = np.clip((u * r + 2**14 >> 15) + e, -(2**15), 2**15 - 1)
    info = np.iinfo(entries.dtype)
    right = (np.clip(sums >> fraction, info.min, info.max) == entries).all(axis=1)
    return np.asarray(candidates[np.argmax(right)]) if right.any() else None


def _spread(builder: Any, word: Any, count: int) -> Any:
    one = ir.Constant(ir.VectorType(I16, 1), ir.Undefined)
    one = builder.insert_element(one, word, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, one, shuffle_mask([0] * count))


def _above_zeros(builder: Any, x: Any) -> list[Any]:
    """Bytes as the upper halves of words, whose lower ones are 0: of each 16 the first 8, and the
    others; packs put them together again."""
    count, zeros = x.type.count, constant(x.type, 0)
    made = []
    for part in (0, 8):
        bytes_ = [s + part + i for s in range(0, count, 16) for i in range(8)]
        mask = [m for b in bytes_ for m in (count + b, b)]
        made.append(builder.shuffle_vector(x, zeros, shuffle_mask(mask)))
    return made
