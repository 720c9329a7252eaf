"""What instructions do, per architecture: where they go next, whether they compute with floats,
how they move the stack.

Floating point, by rule. An instruction is *float* if it rounds, compares, converts or computes with
floating-point numbers; an instruction that only moves, selects or combines bits is not, whatever
its name says of the register's intended use.

x86-64, by mnemonic, a leading `v` of AVX left aside:
  - `f…` (x87) and `pf…`, `pi2f…` (3DNow!) are float; `ldmxcsr`, `stmxcsr` handle the float state;
  - `cvt…` converts, so it is float;
  - other `p…` are packed integers, AMX's `tdpb…d` too;
  - of the rest, those ending in `ss`, `sd`, `ps`, `pd` (with AVX `sh`, `ph`, `bf16` too) are float,
    but for the bit movers of `X86_MOVES`.
AArch64: `f…` but `fmov`; `scvtf`, `ucvtf`; `bf…` with a dot product, product or conversion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        word = self.operands[-1].split(" ")[0] if self.operands else ""
        return int(word, 16) if re.fullmatch(r"(0x)?[0-9a-f]+", word) else None


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
        """Those registers were overwritten."""
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
    the stack pointer that a function may use."""

    call_bytes: int
    red_zone: int
    objdump: tuple[str, ...]

    def kind(self, i: Instruction) -> str:
        """`next`, `jump`, `branch`, `call`, `return`, `stop`, `system` or `bad`."""
        ...

    def is_float(self, i: Instruction) -> bool:
        """Whether it computes with floats."""
        ...

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """The frame behind the instruction; raises `UnknownStack`."""
        ...


def immediate(text: str) -> int | None:
    """A constant operand, hexadecimal ones as signed 64-bit numbers; None where it is none."""
    if not re.fullmatch(r"#?-?(0x[0-9a-f]+|\d+)", text):
        return None
    number = int(text.lstrip("#"), 0)
    return number - 2**64 if number >= 2**63 else number


# ---------------------------------------------------------------- x86-64

X86_MOVES = re.compile(
    r"(mov(a|u|h|l|hl|lh|nt|msk)?|shuf|unpck[lh]|blendv?|blendm|xor|or|and|andn|insert|extract|"
    r"broadcast|perm(il|i2|t2)?|maskmov|gather[dq]|scatter[dq]|compress|expand)"
    r"(ss|sd|ps|pd|sh|ph)"
)
X86_INTEGER = re.compile(r"tdpb[su][su]d|p(?!f|i2f).*")
X86_FLOAT = re.compile(r"f.*|pf.*|pi2f.*|cvt.*|(ld|st)mxcsr|.*(ss|sd|ps|pd)")
AVX_FLOAT = re.compile(r".*(sh|ph|bf16)")
X86_STOPS = frozenset(("ud2", "ud1", "ud0", "hlt", "int3"))
X86_SYSTEM = frozenset(("syscall", "sysenter", "int", "in", "out", "sysret"))
X86_READS = frozenset(("cmp", "test", "push"))


class X86:
    """x86-64, in Intel's syntax."""

    call_bytes = 8
    red_zone = 128
    objdump: tuple[str, ...] = ("-M", "intel")

    def kind(self, i: Instruction) -> str:
        """Where it goes next."""
        name = i.mnemonic
        if name in ("call", "jmp"):
            return {"call": "call", "jmp": "jump"}[name]
        if name.startswith("j") or name.startswith("loop") or name == "xbegin":
            return "branch"
        if name in X86_STOPS:
            return "stop"
        if name in X86_SYSTEM:
            return "system"
        if name == "(bad)":
            return "bad"
        return "return" if name == "ret" else "next"

    def is_float(self, i: Instruction) -> bool:
        """By the rule above."""
        avx = i.mnemonic.startswith("v")
        name = i.mnemonic.removeprefix("v")
        if X86_INTEGER.fullmatch(name) or X86_MOVES.fullmatch(name):
            return False
        return bool(X86_FLOAT.fullmatch(name) or (avx and AVX_FLOAT.fullmatch(name)))

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """Pushes, pops, and arithmetic on rsp with constants."""
        first = i.operands[0] if i.operands else ""
        match i.mnemonic, i.operands:
            case ("push" | "pushf", _):
                return frame.moved(frame.depth + 8)
            case ("pop" | "popf", _):
                return frame.moved(frame.depth - 8).without(first)
            case "leave", _ if "rbp" in frame.saved:
                return frame.moved(frame.saved["rbp"] - 8).without("rbp")
            case "mov", (register, "rsp"):
                return frame.holding(register, frame.depth)
        if first == "rsp" and i.mnemonic not in X86_READS:
            return frame.moved(self._depth(i, frame))
        if i.mnemonic in ("leave", "enter") or (i.mnemonic == "xchg" and "rsp" in i.operands):
            raise UnknownStack
        return frame if i.mnemonic in X86_READS else frame.without(first)

    def _depth(self, i: Instruction, frame: Frame) -> int:
        """What an instruction that writes rsp makes of it."""
        second = i.operands[1] if len(i.operands) > 1 else ""
        number = immediate(second)
        if number is not None and i.mnemonic in ("sub", "add"):
            return frame.depth + (number if i.mnemonic == "sub" else -number)
        if number is not None and i.mnemonic == "and" and _is_alignment(-number):
            return frame.depth - number
        if i.mnemonic == "mov" and second in frame.saved:
            return frame.saved[second]
        if i.mnemonic == "lea" and (m := re.fullmatch(r"\[(\w+)([+-]0x[0-9a-f]+)?\]", second)):
            start = frame.depth if m[1] == "rsp" else frame.saved.get(m[1])
            if start is not None:
                return start - int(m[2] or "0", 16)
        raise UnknownStack


def _is_alignment(n: int) -> bool:
    """A power of two, up to a page."""
    return 0 < n <= 4096 and n & (n - 1) == 0


# ---------------------------------------------------------------- AArch64

ARM64_FLOAT = re.compile(r"f(?!mov$).*|[su]cvtf|bf(dot|mmla|mlal[bt]?|cvt\w*|mops|mopa)")
ARM64_BRANCHES = re.compile(r"b\.\w+|bc\.\w+|cbn?z|tbn?z")


class Arm64:
    """AArch64."""

    call_bytes = 0
    red_zone = 0
    objdump: tuple[str, ...] = ()

    def kind(self, i: Instruction) -> str:
        """Where it goes next."""
        name = i.mnemonic
        if name.startswith("ret"):
            return "return"
        if name.startswith("bl") and name in ("bl", "blr", "blraa", "blraaz", "blrab", "blrabz"):
            return "call"
        if name == "b" or name.startswith("br"):
            return "stop" if name == "brk" else "jump"
        if ARM64_BRANCHES.fullmatch(name):
            return "branch"
        if name in ("udf", "hlt"):
            return "stop"
        return {"svc": "system", "hvc": "system", "smc": "system", ".inst": "bad"}.get(name, "next")

    def is_float(self, i: Instruction) -> bool:
        """By the rule above."""
        return bool(ARM64_FLOAT.fullmatch(i.mnemonic))

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """Arithmetic on sp with constants; loads and stores that move it."""
        ops = i.operands
        if moved := _write_back(ops):
            return frame.moved(frame.depth - moved).without(*ops[:2] * i.mnemonic.startswith("ld"))
        place = _address(i, frame)
        if ops and ops[0] == "sp" and i.mnemonic not in ("cmp", "cmn"):
            if place is None:
                raise UnknownStack
            return frame.moved(place)
        if place is not None:
            return frame.holding(ops[0], place)
        loads = i.mnemonic.startswith("ld")
        return frame.without(*(ops[:2] if loads else ops[:1]))


def _write_back(ops: tuple[str, ...]) -> int:
    """Bytes that `[sp, #n]!` or `[sp], #n` adds to sp."""
    text = ", ".join(ops)
    m = re.search(r"\[sp, #(-?\w+)\]!|\[sp\], #(-?\w+)", text)
    return int(m[1] or m[2], 0) if m else 0


def _address(i: Instruction, frame: Frame) -> int | None:
    """Bytes in use at an address computed from sp or a register that holds such an address."""
    ops = i.operands
    places = {**frame.saved, "sp": frame.depth}
    if len(ops) < 2 or ops[1] not in places:
        return None
    start = places[ops[1]]
    if i.mnemonic == "mov":
        return start
    number = immediate(ops[2]) if len(ops) > 2 else None
    if number is None:
        return None
    if len(ops) > 3:
        number <<= int(ops[3].removeprefix("lsl #"), 0)
    if i.mnemonic == "and" and _is_alignment(-number):
        return start - number
    return {"sub": start + number, "add": start - number}.get(i.mnemonic)


MACHINES: Mapping[str, Machine] = {"EM_X86_64": X86(), "EM_AARCH64": Arm64()}
"""By the ELF header's word."""
TOOLS = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
"""First word of the names of tools for an architecture."""
