"""Tables of 256 bytes in vector registers: a byte of every lane at once.

| kind | per vector | tables as stored |
|---|---|---|
| vpermb | two `vpermi2b` of 128 entries each, and a blend by the top bit | as they are |
| pshufb | 16 times `psubb, pshufb, pxor` on rows of 16 entries | rows, each xor what came before |
| swizzle | WebAssembly's `sub, swizzle, or`, 16 times on rows of 16 entries | as they are |
| tbl | AArch64's `sub, tbx`, four times on 64 entries | as they are |

`swizzle` gives 0 where an index is beyond, `tbx` leaves what is there: from each index is taken off
what the rows before have.

`pshufb` gives 0 where the top bit of an index is set, else the entry that the index's low four bits
name. Before round k, 16*k has been subtracted from the index x: wrapping up to k = 8, saturating
beyond. So row k counts if 16*k <= x, for k <= 8 only if x - 16*k < 128 as well: for x in
[16*h, 16*h + 16) rows 0 to h count if h < 8, rows h - 7 to h above. Row k holds what the sum (xor)
of those before it is then short of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.kernels.vectors.memory import at
from irc.backends.llvm.target import Dot, Target
from irc.types import Array, DType

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_PSHUFB = {16: "ssse3.pshuf.b.128", 32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}
_VPERMI2B = "avx512.vpermi2var.qi.512"
LookUp = Callable[[Sequence[Any]], list[Any]]
"""From vectors of indices to vectors of what the table holds there."""


@dataclass(frozen=True)
class ByteShuffle:
    """One way to look bytes up, on vectors of `nbytes`."""

    kind: str
    nbytes: int

    @property
    def name(self) -> str:
        """How kernels are called that use it."""
        return f"{self.kind}_{self.nbytes * 8}"

    @property
    def key(self) -> str:
        """What the code depends on besides the name: nothing."""
        return ""

    def stored(self, table: Array, index: DType) -> Array:
        """256 bytes of any 8-bit dtype in the order of use, for indices that are the bit patterns
        of `index`: of i8, whose first entry belongs to -128."""
        entries = table.view(np.uint8)
        entries = np.roll(entries, 128) if index is DType.I8 else entries
        return _differences(entries) if self.kind == "pshufb" else entries

    def prepare(self, builder: Any, pointer: Any) -> LookUp:
        """Load a stored table; what is returned looks vectors up at the builder's position."""
        vector = ir.VectorType(I8, self.nbytes)
        if self.kind == "vpermb":
            parts = [builder.load(at(builder, pointer, 64 * i), typ=vector, align=1)
                     for i in range(4)]  # fmt: skip
            return lambda xs: [self._permuted(builder, parts, x) for x in xs]
        rows = [self._row(builder, pointer, k) for k in range(16)]
        if self.kind == "swizzle":
            return lambda xs: [_swizzled(builder, rows, x) for x in xs]
        if self.kind == "tbl":
            return lambda xs: [_looked_up(builder, rows, x) for x in xs]
        return lambda xs: self._shuffled(builder, rows, xs)

    def _permuted(self, builder: Any, parts: list[Any], x: Any) -> Any:
        low = _call(builder, _VPERMI2B, x.type, [parts[0], x, parts[1]])
        high = _call(builder, _VPERMI2B, x.type, [parts[2], x, parts[3]])
        zero = constant(x.type, 0)
        return builder.select(builder.icmp_signed("<", x, zero), high, low)

    def _row(self, builder: Any, pointer: Any, k: int) -> Any:
        """Row k in every 16 bytes of a vector."""
        row = builder.load(at(builder, pointer, 16 * k), typ=ir.VectorType(I8, 16), align=1)
        mask = shuffle_mask(list(range(16)) * (self.nbytes // 16))
        return builder.shuffle_vector(row, ir.Constant(row.type, ir.Undefined), mask)

    def _shuffled(self, builder: Any, rows: list[Any], xs: Sequence[Any]) -> list[Any]:
        sixteen = constant(xs[0].type, 16)
        left, found = list(xs), [None] * len(xs)
        for k, row in enumerate(rows):
            for i, x in enumerate(left):
                if k:
                    left[i] = x = _subtract(builder, x, sixteen, saturating=k > 8)
                part = _call(builder, _PSHUFB[self.nbytes], x.type, [row, x])
                found[i] = part if found[i] is None else builder.xor(found[i], part)
        return found


def byte_shuffle(target: Target) -> ByteShuffle | None:
    """What a target looks bytes up with; None where scalar loads are as good as it gets."""
    if target.is_aarch64:
        return ByteShuffle("tbl", 16)
    if target.is_wasm and target.dot is not Dot.NONE:
        return ByteShuffle("swizzle", 16)
    if not target.is_x86 or target.dot is Dot.NONE:
        return None  # before SSSE3
    if target.vector_bytes == 64 and "+avx512vbmi" in target.features.split(","):
        return ByteShuffle("vpermb", 64)
    return ByteShuffle("pshufb", target.vector_bytes)


def _swizzled(builder: Any, rows: list[Any], x: Any) -> Any:
    """A vector looked up in rows of 16 entries."""
    found = None
    for k, row in enumerate(rows):
        index = builder.sub(x, constant(x.type, 16 * k)) if k else x
        entry = _call(builder, "swizzle", x.type, [row, index], vendor="wasm.")
        found = entry if found is None else builder.or_(found, entry)
    return found


def _looked_up(builder: Any, rows: list[Any], x: Any) -> Any:
    """A vector looked up in four rows of 16 entries at a time."""
    found = constant(x.type, 0)
    for k in range(0, len(rows), 4):
        index = builder.sub(x, constant(x.type, 16 * k)) if k else x
        given = [found, *rows[k : k + 4], index]
        found = _call(builder, "tbx4.v16i8", x.type, given, vendor="aarch64.neon.")
    return found


def _differences(entries: Array) -> Array:
    rows = entries.reshape(16, 16)
    made = np.zeros_like(rows)
    for h in range(16):
        first = max(0, h - 7)
        made[h] = rows[h] ^ np.bitwise_xor.reduce(made[first:h], axis=0)
    return made.reshape(256)


def _subtract(builder: Any, x: Any, y: Any, *, saturating: bool) -> Any:
    if not saturating:
        return builder.sub(x, y)
    return _call(builder, f"ssub.sat.v{x.type.count}i8", x.type, [x, y], vendor="")


def _call(builder: Any, name: str, result: Any, arguments: list[Any], vendor: str = "x86.") -> Any:
    name = f"llvm.{vendor}{name}"
    declared = builder.module.globals.get(name)
    if declared is None:
        types = [a.type for a in arguments]
        declared = ir.Function(builder.module, ir.FunctionType(result, types), name)
    return builder.call(declared, arguments)
