"""x86-64, in Intel's syntax.

Float, a leading `v` of AVX left aside:
  - `f…` (x87) and `pf…`, `pi2f…` (3DNow!) are; `ldmxcsr`, `stmxcsr` handle the float state;
  - `cvt…` converts, so it is;
  - other `p…` are packed integers, AMX's `tdpb…d` too;
  - of the rest, those ending in `ss`, `sd`, `ps`, `pd` (with AVX `sh`, `ph`, `bf16` too) are, but
    for the bit movers of `X86_MOVES`.
"""

from __future__ import annotations

import re

from irc.audit.machine import Frame, Instruction, UnknownStack, immediate, is_alignment

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
    llvm: tuple[str, ...] = ("--print-imm-hex",)

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
        if (place := _loaded_address(i, frame)) is not None:
            return frame.holding(first, place)
        if i.mnemonic in ("leave", "enter") or (i.mnemonic == "xchg" and "rsp" in i.operands):
            raise UnknownStack
        return frame if i.mnemonic in X86_READS else frame.without(first)

    def _depth(self, i: Instruction, frame: Frame) -> int:
        """What an instruction that writes rsp makes of it."""
        second = i.operands[1] if len(i.operands) > 1 else ""
        number = immediate(second)
        if number is not None and i.mnemonic in ("sub", "add"):
            return frame.depth + (number if i.mnemonic == "sub" else -number)
        if number is not None and i.mnemonic == "and" and is_alignment(-number):
            return frame.depth - number
        if i.mnemonic == "mov" and second in frame.saved:
            return frame.saved[second]
        place = _loaded_address(i, frame)
        if place is None:
            raise UnknownStack
        return place


def _loaded_address(i: Instruction, frame: Frame) -> int | None:
    """Bytes in use at the address that `lea` computes from rsp, or from what holds such a one."""
    m = re.fullmatch(r"\[(\w+)([+-]\w+)?\]", i.operands[-1]) if i.mnemonic == "lea" else None
    start = None if m is None else {**frame.saved, "rsp": frame.depth}.get(m[1])
    return None if m is None or start is None else start - int(m[2] or "0", 0)
