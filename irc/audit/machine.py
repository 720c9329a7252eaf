"""What an audit must know of an architecture's instructions: where they go next, whether they
compute with floats, how they move the stack.

Floating point, by rule. An instruction is *float* if it rounds, compares, converts or computes with
floating-point numbers, or handles their state; an instruction that only moves, selects or combines
bits is not, whatever its name says of the register's intended use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True)
class Instruction:
    """A disassembled instruction; `next` is the address behind it."""

    address: int
    mnemonic: str
    operands: tuple[str, ...]
    next: int

    def __str__(self) -> str:
        return f"{self.mnemonic} {', '.join(self.operands)}".strip()

    @property
    def target(self) -> int | None:
        """The address that a jump or call names (its last operand), None if it is computed."""
        word = self.operands[-1] if self.operands else ""
        direct = re.fullmatch(r"0x[0-9a-f]+|\d+", word) and not self.mnemonic.endswith("_indirect")
        return int(word, 0) if direct else None

    def to(self, address: int) -> Instruction:
        """The same jump or call, to another address."""
        return replace(self, operands=(*self.operands[:-1], f"{address:#x}"))


@dataclass(frozen=True)
class Frame:
    """Bytes of stack in use since the function's entry, and registers that hold an address on it:
    how many bytes were in use at that address."""

    depth: int = 0
    saved: Mapping[str, int] = field(default_factory=dict)

    def moved(self, depth: int) -> Frame:
        """Another depth, the same registers."""
        return Frame(depth, self.saved)

    def without(self, *registers: str) -> Frame:
        """The frame after registers were overwritten."""
        if not any(r in self.saved for r in registers):
            return self
        return Frame(self.depth, {r: d for r, d in self.saved.items() if r not in registers})

    def holding(self, register: str, depth: int) -> Frame:
        """A register takes the address where `depth` bytes are in use."""
        return Frame(self.depth, {**self.saved, register: depth})


class UnknownStack(Exception):
    """An instruction that moves the stack by what can't be known."""


class Machine(Protocol):
    """An architecture. `call_bytes` are those that a call itself pushes, `red_zone` those below
    the stack pointer that a function may use; `objdump` and, for LLVM's alone, `llvm` are options
    that disassemblers take."""

    call_bytes: int
    red_zone: int
    objdump: tuple[str, ...]
    llvm: tuple[str, ...]

    def kind(self, i: Instruction) -> str:
        """`next`, `jump`, `branch`, `call`, `return`, `stop`, `system` or `bad`."""
        ...

    def is_float(self, i: Instruction) -> bool:
        """Whether it computes with floats."""
        ...

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """The frame behind the instruction; raises `UnknownStack`."""
        ...


def is_alignment(n: int) -> bool:
    """A power of two, up to a page."""
    return 0 < n <= 4096 and n & (n - 1) == 0


def immediate(text: str) -> int | None:
    """A constant operand, hexadecimal ones as signed 64-bit numbers; None where it is none."""
    if not re.fullmatch(r"#?-?(0x[0-9a-f]+|\d+)", text):
        return None
    number = int(text.lstrip("#"), 0)
    return number - 2**64 if number >= 2**63 else number
