"""Dot products: four u8*i8 products, or two of i16, added into each i32 lane.

| kind | instructions per vector | exact |
|---|---|---|
| vpdpbusd | `vpdpbusd` | always: it wraps in 32 bits |
| maddubs | `vpmaddubsw, vpmaddwd(1), vpaddd` | if no pair of products leaves an i16 |
| split | the same twice, even and odd weights apart | always: |255 * 127| < 2^15 |
| maddwd | `vpmaddwd, vpaddd`, of i16 | up to where an i32 wraps |
| vpdpwssd | `vpdpwssd`, of i16 | up to where an i32 wraps |
| dot_i16x8 | WebAssembly's `i32x4.dot_i16x8_s, i32x4.add`, of bytes as i16 | always |
| relaxed | WebAssembly's `i32x4.relaxed_dot_i8x16_i7x16_add_s` | if no pair leaves an i16 |
| sdot | AArch64's `sdot`, of u8 less 128 | always: it wraps in 32 bits |
| smlal | Neon's `smull, smlal2, sadalp`, of u8 less 128 | without weights of -128 |

What takes 128 off what it multiplies begins with 128 times the sum of the weights. Of `relaxed`
the engine decides, once for all, whether it takes activations as u8 or as i8; code asks it first.
Pairs of u8 by i8 are proved to fit, those of i8 by i8 do without weights of -128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.kernels.vectors.lanes import part, parts
from irc.backends.llvm.target import Dot, Target
from irc.proofs import saturates
from irc.types import Array, DType

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))
_BITS = {16: "128", 32: "256", 64: "512"}
_MADDUBS = {16: "ssse3.pmadd.ub.sw.128", 32: "avx2.pmadd.ub.sw", 64: "avx512.pmaddubs.w.512"}
_MADDWD = {16: "sse2.pmadd.wd", 32: "avx2.pmadd.wd", 64: "avx512.pmaddw.d.512"}

PAIRS = {
    Dot.NONE: "maddwd", Dot.MADDUBS: "maddwd", Dot.VPDPBUSD: "maddwd", Dot.DOT_I16X8: "dot_i16x8",
    Dot.RELAXED: "dot_i16x8", Dot.SDOT: "smlal", Dot.SMLAL: "smlal",
}  # fmt: skip
"""The instruction of `multiply_pairs`."""


@dataclass(frozen=True)
class Costs:
    """What products take, of one vector where nothing else is said."""

    cycles: float
    """On two multiply ports, one more for sums."""
    instructions: int
    temporaries: int
    """Registers besides accumulators, weights and the broadcast activation."""
    load: float = 0.0
    """Cycles of each load that nothing hides."""
    constants: float = 0.0
    """Cycles of a tile for the constants behind the products of a vector of channels."""
    alone: float = 0.0
    """Cycles more for the results of a pixel's last vector where it has no neighbour: two vectors
    are packed and stored together, so an odd one takes as many instructions for half as many
    results."""
    width: int = 4
    """Instructions that begin in a cycle."""
    tap: float = 0.0
    """Cycles of a tile for each row of taps but the first, which is a loop of its own."""


_COSTS = {
    "vpdpbusd": Costs(0.5, 1, 0), "vpdpwssd": Costs(0.5, 1, 0), "sdot": Costs(0.5, 1, 0),
    "maddubs": Costs(1.0, 3, 2, 0.03, 2.5, 0.5, 6, tap=4), "relaxed": Costs(0.5, 1, 4, 0.2),
    "split": Costs(2.0, 6, 2, 0.03, 2.5, 0.5, 6), "dot_i16x8": Costs(2 / 3, 2, 2, 0.2),
    "maddwd": Costs(2 / 3, 2, 1, 0.03, 2.5, 0.5, 6), "smlal": Costs(1.5, 3, 9, 0.2),
}  # fmt: skip
"""Cycles of `maddubs`, `split` and `maddwd` were measured on vectors of 32 bytes, with AVX2; other
widths take them as they are (docs/decisions/046)."""


@dataclass(frozen=True)
class DotProduct:
    """One way to multiply and accumulate on vectors of `nbytes`."""

    kind: str
    nbytes: int
    halves: bool = False
    """Whether vectors of 64 bytes are done in two turns (`Target.halves`)."""

    @property
    def turns(self) -> int:
        """In how many a vector is loaded, and multiplied."""
        return 2 if self.halves and self.nbytes == 64 else 1

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
        """Per vector of products."""
        return _COSTS[self.kind].cycles * self.turns

    @property
    def instructions(self) -> int:
        """Per vector of products."""
        return _COSTS[self.kind].instructions

    @property
    def temporaries(self) -> int:
        """Registers that products are in before they are added up, and the like."""
        return _COSTS[self.kind].temporaries

    @property
    def exposed(self) -> float:
        """Cycles of a load that nothing hides."""
        return _COSTS[self.kind].load or 0.1 * self.halves

    @property
    def alone(self) -> float:
        """Cycles more for results of one vector, which are stored by themselves."""
        return _COSTS[self.kind].alone

    @property
    def width(self) -> int:
        """Instructions that begin in a cycle."""
        return _COSTS[self.kind].width

    @property
    def constants(self) -> float:
        """Cycles by which a vector of channels costs a tile more."""
        return _COSTS[self.kind].constants

    @property
    def tap(self) -> float:
        """Cycles of a tile for each row of taps but the first."""
        return _COSTS[self.kind].tap

    @property
    def by_lane(self) -> bool:
        """Whether a lane of four words is multiplied where it is, with no broadcast."""
        return self.kind == "sdot"

    @property
    def signed(self) -> bool:
        """Whether what is multiplied with weights is, or may be, a u8 less 128."""
        return self.kind in ("sdot", "smlal", "relaxed")

    @property
    def widens(self) -> bool:
        """Whether bytes are multiplied as 16 bits: activations that were widened before, weights
        that are when they are loaded. A word is then two of them."""
        return self.kind == "dot_i16x8"

    @property
    def weight_bytes(self) -> int:
        """Bytes of a vector of weights in memory."""
        return self.nbytes // 2 if self.widens else self.nbytes

    def weights(self, builder: Any, place: Any) -> Any:
        """A vector of packed weights, as they are multiplied."""
        stored = ir.VectorType(I8, self.weight_bytes)
        value = builder.load(place, typ=stored, align=min(16, self.weight_bytes))
        return builder.sext(value, ir.VectorType(I16, self.nbytes // 2)) if self.widens else value

    def beginning(self, packed: Array) -> Array:
        """What sums begin with, i32[channels], for weights [channels, words, 4]."""
        sums = packed.reshape(len(packed), -1).sum(1, dtype=np.int32)
        return np.asarray(sums * np.int32(128 if self.signed else 0))

    def arranged(self, words: Array) -> Array:
        """Weights [words, channels, 4] in the order in which vectors of them are multiplied."""
        if self.kind != "smlal":
            return words
        halves = words.reshape(len(words), -1, self.lanes, 2, 2).swapaxes(2, 3)
        return halves.reshape(words.shape)

    def prepared(self, builder: Any, x: Any) -> Any:
        """A vector of u8 as it is multiplied."""
        if not self.signed:
            return x
        top = constant(x.type, 0x80)
        if self.kind == "relaxed":
            top = builder.and_(top, builder.bitcast(_takes_signs(builder), x.type))
        return builder.xor(x, top)

    def begun(self, builder: Any, beginning: Any) -> Any:
        """A vector of what sums begin with, if what is multiplied is a u8 less 128, else 0."""
        if self.kind == "relaxed":
            return builder.and_(beginning, _takes_signs(builder))
        return beginning

    def accumulate(self, builder: Any, acc: Any, x: Any, w: Any) -> Any:
        """`acc + dot(x, w)`: x, `prepared`, and w are multiplied, acc is of i32."""
        words = ir.VectorType(I32, self.lanes)
        if self.kind == "vpdpbusd":
            name = f"llvm.x86.avx512.vpdpbusd.{_BITS[self.nbytes]}"
            return call(builder, name, words, [acc, x, w])
        halves = ir.VectorType(I16, self.lanes * 2)
        if self.kind in ("maddwd", "vpdpwssd"):
            x, w = builder.bitcast(x, halves), builder.bitcast(w, halves)
            dot = Dot.VPDPBUSD if self.kind == "vpdpwssd" else Dot.MADDUBS
            return multiply_pairs(builder, acc, x, w, dot)
        if self.widens:
            return multiply_pairs(builder, acc, builder.bitcast(x, halves), w, Dot.DOT_I16X8)
        if self.kind == "relaxed":
            return _relaxed(builder, acc, x, w)
        if self.signed:
            return (_sdot if self.kind == "sdot" else _smlal)(builder, acc, x, w)
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
        ones = constant(halves, 1)
        sums = call(builder, f"llvm.x86.{_MADDWD[self.nbytes]}", words, [pairs, ones])
        return builder.add(acc, sums)


def _relaxed(builder: Any, acc: Any, x: Any, w: Any) -> Any:
    """`acc` and the products of i8 weights by four u8 or i8 each."""
    name = "llvm.wasm.relaxed.dot.i8x16.i7x16.add.signed"
    return call(builder, name, acc.type, [w, x, acc])


def _takes_signs(builder: Any) -> Any:
    """All bits of an i32 vector where `_relaxed` takes activations as i8, none where as u8."""
    bytes_, words = ir.VectorType(I8, 16), ir.VectorType(I32, 4)
    top, one = (constant(bytes_, value) for value in (0x80, 1))
    product = _relaxed(builder, constant(words, 0), top, one)
    return builder.ashr(product, constant(words, 31))


def _sdot(builder: Any, acc: Any, x: Any, w: Any) -> Any:
    """`acc` and the products of four i8 each; a word of x may be a lane of the last operand."""
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", acc.type, [acc, w, x])


def _smlal(builder: Any, acc: Any, x: Any, w: Any) -> Any:
    """`acc` and the products of i8, of which weights are `arranged` and x has a word in each lane:
    both halves are multiplied and added as i16, neighbours as i32."""
    wide = ir.VectorType(I16, 8)
    pairs = part(builder, x, [0, 1] * 4 + [2, 3] * 4)
    first, second = (
        builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        for a, b in zip(parts(builder, pairs, 8), parts(builder, w, 8), strict=True)
    )
    both = builder.add(first, second)
    if builder.module.triple.startswith(("aarch64", "arm64")):
        sums = call(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", acc.type, [both])
        return builder.add(acc, sums)
    return call(builder, "llvm.arm.neon.vpadals.v4i32.v8i16", acc.type, [acc, both])


def multiply_pairs(builder: Any, acc: Any, x: Any, w: Any, dot: Dot) -> Any:
    """`acc + x[2i]*w[2i] + x[2i+1]*w[2i+1]` on vectors of i16, acc of i32 or None for 0, by what
    goes with a target's dot product."""
    words = ir.VectorType(I32, x.type.count // 2)
    nbytes = words.count * 4
    if dot is Dot.VPDPBUSD and acc is not None:
        return call(builder, f"llvm.x86.avx512.vpdpwssd.{_BITS[nbytes]}", words, [acc, x, w])
    if dot in (Dot.SDOT, Dot.SMLAL):
        return _multiply_sides(builder, acc, x, w, words)
    name = "llvm.wasm.dot" if PAIRS[dot] == "dot_i16x8" else f"llvm.x86.{_MADDWD[nbytes]}"
    product = call(builder, name, words, [x, w])
    return product if acc is None else builder.add(acc, product)


def _multiply_sides(builder: Any, acc: Any, x: Any, w: Any, words: Any) -> Any:
    """The first ones of all pairs, then the second ones, for a CPU that multiplies and adds lane by
    lane: what was interleaved is taken apart before it comes to that."""
    for side in (0, 1):
        lanes = range(side, x.type.count, 2)
        ends = (builder.sext(part(builder, v, lanes), words) for v in (x, w))
        product = builder.mul(*ends)
        acc = product if acc is None else builder.add(acc, product)
    return acc


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an intrinsic by name."""
    types = [a.type for a in arguments]
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(builder.module, ir.FunctionType(result, types), name)
    return builder.call(declared, arguments)


def multiplies(target: Target) -> bool:
    """Whether a target has vectors for `multiply_pairs`."""
    return target.vector_bytes >= 16 and (target.is_x86 or target.dot is not Dot.NONE)


def choose(target: Target, packed: Array) -> tuple[DotProduct, str] | None:
    """The dot product for a target and weights packed in groups of four along the last axis, and
    what was proved of it; None for a target that has none here."""
    if target.vector_bytes < 16:
        return None
    broken = int(np.count_nonzero(saturates(packed.reshape(-1, 2))))
    least = packed.min(initial=0) == DType.I8.min
    if target.dot is Dot.RELAXED and not broken and not least:
        return DotProduct("relaxed", 16), "every pair fits 16 bits, of u8 by i8 and of i8 by i8"
    if target.dot in (Dot.DOT_I16X8, Dot.RELAXED):
        return DotProduct("dot_i16x8", 16), "bytes are multiplied as 16 bits: exact"
    if target.dot is Dot.SDOT:
        return DotProduct("sdot", 16), "sdot wraps in 32 bits: exact"
    if target.dot is Dot.SMLAL:
        return None if least else (DotProduct("smlal", 16), "two products fit 16 bits")
    if target.dot is Dot.VPDPBUSD:
        dot = DotProduct("vpdpbusd", target.vector_bytes, target.halves)
        return dot, "vpdpbusd wraps in 32 bits: exact"
    if target.dot is not Dot.MADDUBS:
        return None
    if broken == 0:
        return DotProduct("maddubs", target.vector_bytes), "every vpmaddubsw pair fits 16 bits"
    proof = f"{broken} pairs could saturate: even and odd weights are multiplied apart"
    return DotProduct("split", target.vector_bytes), proof
