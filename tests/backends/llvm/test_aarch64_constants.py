"""Constants of AArch64 vectors: none is made by negating floats, all keep their bits."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from llvmlite import binding

from irc.audit.arm64 import ARM64_FLOAT
from irc.backends.llvm.code.aarch64_constants import is_negated, without_float_constants
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import Target, parse_target
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.quantization import Requantize
from irc.types import DType, Quant
from tests.backends.harness import schedule

ARM = parse_target("aarch64")
MIDDLE, MOST, LEAST = 2**31, 2**63 - 1, -(2**63)


def float_instructions(module: Any, target: Target) -> list[str]:
    """The mnemonics of an AArch64 module that compute with floats."""
    lines = target.machine().emit_assembly(module).splitlines()
    words = [line.split()[0] for line in lines if line.startswith("\t") and line.strip()]
    return [word for word in words if ARM64_FLOAT.fullmatch(word)]


def returning(kind: str, constant: str, triple: str = ARM.triple) -> str:
    """A module whose one function stores a constant."""
    return f"""target triple = "{triple}"
define void @made(ptr %to) {{
entry:
  store {kind} {constant}, ptr %to, align 1
  ret void
}}
"""


@pytest.mark.parametrize("target", ["aarch64", "aarch64+dotprod", "aarch64-macos"])
def test_rounding_by_2_to_the_31_is_no_float(target: str) -> None:
    x = Input(DType.I32, (4, 16), Quant(1.0), name="x")
    made = Requantize(x, 2**30 + 7, 32, (-128, 127), DType.I8, Quant(1.0))
    graph = schedule(Graph("g", (x,), (made,), ("y",)))
    code = generate_library(graph, parse_target(target), "net", float_io=False)
    module, _ = code.optimized()
    assert float_instructions(module, code.target) == []


@pytest.mark.parametrize(
    "word",
    [MIDDLE, MOST, LEAST, 2**30, 2**32, -MIDDLE, 0, 1, 127, -1, 0x3F8000003F800000, 0x4004 << 48,
     *(int.from_bytes(bytes(p) * 4, "little", signed=True) for p in ([0, 128], [4, 128], [1, 2])),
     *(int.from_bytes(bytes(p) * 2, "little", signed=True)
       for p in ([7, 0, 0, 128], [255, 255, 9, 128], [0, 9, 0, 128], [1, 2, 3, 4]))],
)  # fmt: skip
def test_what_llvm_negates_is_known(word: int) -> None:
    halves = parse_target("aarch64-linux-gnu:generic:+fullfp16")
    text = returning("<2 x i64>", f"splat (i64 {word})")
    negated = "fneg" in float_instructions(binding.parse_assembly(text), halves)
    assert negated == is_negated(word & (2**64 - 1))
    after = without_float_constants(binding.parse_assembly(text), halves)
    assert float_instructions(after, halves) == []


CONSTANTS: dict[str, tuple[str, str, list[int | None]]] = {
    "splat": ("<2 x i64>", f"splat (i64 {MIDDLE})", [MIDDLE] * 2),
    "of two registers": ("<4 x i64>", f"splat (i64 {LEAST})", [LEAST] * 4),
    "mixed": (
        "<8 x i64>",
        f"<{', '.join(f'i64 {n}' for n in (3, 4, MIDDLE, MIDDLE, MOST, MOST, 5, 6))}>",
        [3, 4, MIDDLE, MIDDLE, MOST, MOST, 5, 6],
    ),
    "odd": ("<3 x i64>", f"<i64 1, i64 2, i64 {MIDDLE}>", [1, 2, MIDDLE]),
    "words": ("<4 x i32>", "<i32 0, i32 -2147483648, i32 0, i32 -2147483648>",
              [0, -(2**31)] * 2),
    "open": ("<4 x i32>", "<i32 0, i32 -2147483648, i32 poison, i32 -2147483648>",
             [0, -(2**31), None, -(2**31)]),
    "half a register": ("<4 x i16>", "splat (i16 -32764)", [-32764] * 4),
    "twelve bytes": ("<3 x i32>", "splat (i32 -2147483641)", [-2147483641] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_bit_is_kept(name: str) -> None:
    """The text is made as for AArch64 and run here."""
    kind, constant, expected = CONSTANTS[name]
    here = binding.get_process_triple()
    module = binding.parse_assembly(returning(kind, constant, here))
    made = without_float_constants(module, ARM)
    assert "irc.opaque" in str(made)
    made.verify()
    machine = binding.Target.from_triple(here).create_target_machine()
    engine = binding.create_mcjit_compiler(made, machine)
    engine.finalize_object()
    dtype = np.dtype(f"i{int(kind.split(' i')[1][:-1]) // 8}")
    got = np.zeros(len(expected) + 8, dtype)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("made"))(got.ctypes.data)
    assert [n for n, e in zip(got.tolist(), expected, strict=False) if e is not None] == [
        e for e in expected if e is not None
    ]


def test_other_cpus_are_left_alone() -> None:
    module = binding.parse_assembly(returning("<2 x i64>", f"splat (i64 {MIDDLE})"))
    assert without_float_constants(module, parse_target("x86-64-v3")) is module
