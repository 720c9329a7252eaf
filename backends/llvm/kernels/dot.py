"""The dot products of x86: four u8*i8 products, or two of i16, added into each i32 lane.

| kind | instructions per vector | exact |
|---|---|---|
| vpdpbusd | `vpdpbusd` | always: it wraps in 32 bits |
| maddubs | `vpmaddubsw, vpmaddwd(1), vpaddd` | if no pair of products leaves an i16 |
| split | the same twice, even and odd weights apart | always: |255 * 127| < 2^15 |
| maddwd | `vpmaddwd, vpaddd`, of i16 | up to where an i32 wraps |
| vpdpwssd | `vpdpwssd`, of i16 | up to where an i32 wraps |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.target import Dot, Target
from irc.proofs import saturates
from irc.types import Array

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_BITS = {16: "128", 32: "256", 64: "512"}
_MADDUBS = {16: "ssse3.pmadd.ub.sw.128", 32: "avx2.pmadd.ub.sw", 64: "avx512.pmaddubs.w.512"}
_MADDWD = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}


_CYCLES = {"vpdpbusd": 0.5, "maddubs": 1.0, "split": 2.0, "maddwd": 2 / 3, "vpdpwssd": 0.5}


@dataclass(frozen=True)
class DotProduct:
    """One way to multiply and accumulate on vectors of `nbytes`."""

    kind: str
    nbytes: int

    @property
    def lanes(self) -> int:
        """Accumulators, i32, in one vector."""
        return self.nbytes // 4

    @property
    def streams(self) -> int:
        """Weight vectors per step: two where even and odd weights are kept apart."""
        return 2 if self.kind == "split" else 1

    @property
    def cycles(self) -> float:
        """Cycles per vector of products on two multiply ports, one more for sums."""
        return _CYCLES[self.kind]

    @property
    def instructions(self) -> int:
        """Per vector of products."""
        return {"maddubs": 3, "split": 6, "maddwd": 2}.get(self.kind, 1)

    @property
    def temporaries(self) -> int:
        """Registers besides accumulators, weights and the broadcast activation."""
        return {"vpdpbusd": 0, "vpdpwssd": 0, "maddwd": 1}.get(self.kind, 2)

    def accumulate(self, builder: Any, acc: Any, x: Any, w: Any) -> Any:
        """`acc + dot(x, w)`: x and w are vectors of bytes, acc of i32."""
        words = ir.VectorType(I32, self.lanes)
        if self.kind == "vpdpbusd":
            name = f"llvm.x86.avx512.vpdpbusd.{_BITS[self.nbytes]}"
            return call(builder, name, words, [acc, x, w])
        halves = ir.VectorType(I16, self.lanes * 2)
        if self.kind in ("maddwd", "vpdpwssd"):
            x, w = builder.bitcast(x, halves), builder.bitcast(w, halves)
            return multiply_pairs(builder, acc, x, w, accumulating=self.kind == "vpdpwssd")
        return self.accumulate_all(builder, acc, [x], [w])

    def accumulate_all(self, builder: Any, acc: Any, xs: Sequence[Any], ws: Sequence[Any]) -> Any:
        """`acc` and the dot products of several x and w, by `vpmaddubsw`: added as i16, which must
        hold them, then widened."""
        words, halves = ir.VectorType(I32, self.lanes), ir.VectorType(I16, self.lanes * 2)
        multiply = f"llvm.x86.{_MADDUBS[self.nbytes]}"
        products = (
            call(builder, multiply, halves, [x, w]) for x, w in zip(xs, ws, strict=True)
        )
        pairs = reduce(builder.add, products)
        ones = ir.Constant(halves, [1] * halves.count)
        sums = call(builder, f"llvm.x86.{_MADDWD[self.nbytes]}", words, [pairs, ones])
        return builder.add(acc, sums)


def multiply_pairs(builder: Any, acc: Any, x: Any, w: Any, *, accumulating: bool) -> Any:
    """`acc + x[2i]*w[2i] + x[2i+1]*w[2i+1]` on vectors of i16, acc of i32 or None for 0.

    `accumulating` says that the CPU has `vpdpwssd`, which does it at once.
    """
    words = ir.VectorType(I32, x.type.count // 2)
    nbytes = words.count * 4
    if accumulating and acc is not None:
        return call(builder, f"llvm.x86.avx512.vpdpwssd.{_BITS[nbytes]}", words, [acc, x, w])
    product = call(builder, f"llvm.x86.{_MADDWD[nbytes]}", words, [x, w])
    return product if acc is None else builder.add(acc, product)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an intrinsic by name."""
    types = [a.type for a in arguments]
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(builder.module, ir.FunctionType(result, types), name)
    return builder.call(declared, arguments)


def choose(target: Target, packed: Array) -> tuple[DotProduct, str] | None:
    """The dot product for a target and weights packed in groups of four along the last axis, and
    what was proved of it; None for a target that has none here."""
    if not target.is_x86 or target.vector_bytes < 16:
        return None
    if target.dot is Dot.VPDPBUSD:
        return DotProduct("vpdpbusd", target.vector_bytes), "vpdpbusd wraps in 32 bits: exact"
    if target.dot is not Dot.MADDUBS:
        return None
    broken = int(np.count_nonzero(saturates(packed.reshape(-1, 2))))
    if broken == 0:
        return DotProduct("maddubs", target.vector_bytes), "every vpmaddubsw pair fits 16 bits"
    proof = f"{broken} pairs could saturate: even and odd weights are multiplied apart"
    return DotProduct("split", target.vector_bytes), proof
