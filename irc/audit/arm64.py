"""AArch64.

Float: `f…` but `fmov`; `scvtf`, `ucvtf`; `bf…` with a dot product, product or conversion.
"""

from __future__ import annotations

import re

from irc.audit.machine import Frame, Instruction, UnknownStack, immediate, is_alignment

ARM64_FLOAT = re.compile(r"f(?!mov$).*|[su]cvtf|bf(dot|mmla|mlal[bt]?|cvt\w*|mops|mopa)")
ARM64_BRANCHES = re.compile(r"b\.\w+|bc\.\w+|cbn?z|tbn?z")


class Arm64:
    """AArch64."""

    call_bytes = 0
    red_zone = 0
    objdump: tuple[str, ...] = ()
    llvm: tuple[str, ...] = ("--mattr=+v8.6a,+dotprod,+i8mm,+sve",)

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
    if i.mnemonic == "and" and is_alignment(-number):
        return start - number
    return {"sub": start + number, "add": start - number}.get(i.mnemonic)
