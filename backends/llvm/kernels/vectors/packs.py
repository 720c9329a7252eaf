"""Saturating packs: two vectors become one of elements half as wide, within 16 bytes.

| family | i32 to i16 | i16 to i8 | i16 to u8 |
|---|---|---|---|
| x86 | `packssdw` | `packsswb` | `packuswb` |
| WebAssembly | `i16x8.narrow_i32x4_s` | `i8x16.narrow_i16x8_s` | `i8x16.narrow_i16x8_u` |
| Neon | `sqxtn` | `sqxtn` | `sqxtun` |

Neon narrows a vector to half of one; the second one of a pair goes into the upper half.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.target import Dot, Target

_X86 = {
    ("packssdw", 16): "sse2.packssdw.128",
    ("packssdw", 32): "avx2.packssdw",
    ("packssdw", 64): "avx512.packssdw.512",
    ("packsswb", 16): "sse2.packsswb.128",
    ("packsswb", 32): "avx2.packsswb",
    ("packsswb", 64): "avx512.packsswb.512",
    ("packuswb", 16): "sse2.packuswb.128",
    ("packuswb", 32): "avx2.packuswb",
    ("packuswb", 64): "avx512.packuswb.512",
}
_WASM = {
    "packssdw": "signed.v8i16.v4i32", "packsswb": "signed.v16i8.v8i16",
    "packuswb": "unsigned.v16i8.v8i16",
}  # fmt: skip
_AARCH64 = {"packssdw": "sqxtn.v4i16", "packsswb": "sqxtn.v8i8", "packuswb": "sqxtun.v8i8"}
_ARM = {"packssdw": "vqmovns.v4i16", "packsswb": "vqmovns.v8i8", "packuswb": "vqmovnsu.v8i8"}


def packs(target: Target) -> bool:
    """Whether a target has these instructions."""
    return target.vector_bytes >= 16 and (target.is_x86 or target.dot is not Dot.NONE)


def pack(builder: Any, kind: str, a: Any, b: Any) -> Any:
    """Two vectors as one, by the name of what x86 does; of every 16 bytes the elements of `a`,
    then those of `b`."""
    bits, count = a.type.element.width, a.type.count
    result = ir.VectorType(ir.IntType(bits // 2), 2 * count)
    arch = builder.module.triple.partition("-")[0]
    if arch.startswith("wasm"):
        return call(builder, f"llvm.wasm.narrow.{_WASM[kind]}", result, [a, b])
    if arch.startswith(("aarch64", "arm", "thumb")):
        neon = arch.startswith(("aarch64", "arm64"))
        name = f"llvm.aarch64.neon.{_AARCH64[kind]}" if neon else f"llvm.arm.neon.{_ARM[kind]}"
        half = ir.VectorType(result.element, count)
        halves = [call(builder, name, half, [v]) for v in (a, b)]
        return join(builder, halves, 2 * count)
    return call(builder, f"llvm.x86.{_X86[kind, count * bits // 8]}", result, [a, b])
