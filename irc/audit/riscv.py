"""RISC-V.

Float: `f…`, `vf…`, `vmf…`, but what moves, loads, stores, merges or copies signs, and `fence`;
reading and writing of the float state.
"""

from __future__ import annotations

import re

from irc.audit.machine import Frame, Instruction, UnknownStack, immediate, is_alignment

MOVES = re.compile(
    r"fence(\.\w+)?|f(l|s)(h|w|d|q)(sp)?|fmv\..*|fsgnj(n|x)?\..*|f(mv|neg|abs)\.\w+|"
    r"vfmv\..*|vfirst\.m|vfmerge\..*|vfslide1.*|vfsgnj.*"
)
FLOAT = re.compile(r"f.*|vf.*|vmf.*")
STATE = re.compile(r"csr.*")
BRANCH = re.compile(r"b(eq|ne|lt|ge|gt|le)(u|z)?")
SYSTEM = frozenset(("ecall", "mret", "sret", "wfi"))
STOPS = frozenset(("ebreak", "unimp", "c.unimp"))
STORES = re.compile(r"(s[bhwdq]|fs[hwdq]|vs.*)")


class RiscV:
    """RISC-V, by the aliases that disassemblers write."""

    call_bytes = 0
    red_zone = 0
    objdump: tuple[str, ...] = ()
    llvm: tuple[str, ...] = ("--mattr=+m,+a,+f,+d,+c,+v",)

    def kind(self, i: Instruction) -> str:
        """Where it goes next."""
        name = i.mnemonic
        if name == "(bad)" or name.startswith("."):
            return "bad"
        if name in ("jal", "jalr", "call"):
            return "call"
        if name in ("j", "jr", "tail"):
            return "jump"
        if BRANCH.fullmatch(name):
            return "branch"
        if name in STOPS:
            return "stop"
        if name in SYSTEM:
            return "system"
        return "return" if name == "ret" else "next"

    def is_float(self, i: Instruction) -> bool:
        """By the rule above."""
        if STATE.fullmatch(i.mnemonic):
            return any(o in ("fflags", "frm", "fcsr") for o in i.operands)
        return bool(FLOAT.fullmatch(i.mnemonic)) and not MOVES.fullmatch(i.mnemonic)

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """Arithmetic on sp with constants."""
        first = i.operands[0] if i.operands else ""
        if STORES.fullmatch(i.mnemonic):
            return frame
        place = _address(i, frame)
        if first == "sp":
            if place is None:
                raise UnknownStack
            return frame.moved(place)
        return frame.without(first) if place is None else frame.holding(first, place)


def _address(i: Instruction, frame: Frame) -> int | None:
    """Bytes in use at an address computed from sp or a register that holds such an address."""
    places = {**frame.saved, "sp": frame.depth}
    if len(i.operands) < 2 or i.operands[1] not in places:
        return None
    start = places[i.operands[1]]
    if i.mnemonic == "mv":
        return start
    number = immediate(i.operands[2]) if len(i.operands) > 2 else None
    if number is None:
        return None
    if i.mnemonic == "andi" and is_alignment(-number):
        return start - number
    # GNU's aliases have no `addi`.
    return start - number if i.mnemonic in ("addi", "add") else None


def far_target(upper: Instruction, jump: Instruction) -> int | None:
    """Where `auipc r, high` and `jalr low(r)` or `jr low(r)` lead; None where they are no pair."""
    m = re.fullmatch(r"(-?\w+)\((\w+)\)", jump.operands[-1]) if jump.operands else None
    pair = upper.mnemonic == "auipc" and jump.mnemonic in ("jalr", "jr")
    if not pair or m is None or m[2] != upper.operands[0]:
        return None
    high = int(upper.operands[1], 0)
    high -= (high >= 1 << 19) << 20
    return upper.address + (high << 12) + int(m[1], 0)
