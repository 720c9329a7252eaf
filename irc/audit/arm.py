"""Arm of 32 bits: A32, Thumb, Helium.

Float: what names a type `f16`, `f32`, `f64` or `bf16` and does more than move, select or combine
bits; `vmrs` and `vmsr` of the float state.
"""

from __future__ import annotations

import re

from irc.audit.machine import Frame, Instruction, UnknownStack, immediate, is_alignment

CONDITION = "eq|ne|hs|cs|lo|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
FLOAT_TYPE = re.compile(r".*\.(f16|f32|f64|bf16)\b.*")
MOVES = re.compile(
    rf"v(mov|ldr|str|dup|sel|rev\d*|ext|trn|zip|uzp|tbl|swp|and|orr|eor|bic|orn|bsl|bif|bit|ins)"
    rf"({CONDITION})?(\..*)?"
)
WIDTH = re.compile(r"\.[nw]$")
"""Which of two encodings it is, in GNU's words always, in LLVM's where there are both."""
BRANCH = re.compile(rf"(b({CONDITION})|cbn?z|le|letp|wlstp|wls)(\.\w+)?")
CALL = re.compile(rf"bl(x|{CONDITION}|x({CONDITION}))?")
CONDITIONAL = re.compile(rf"(pop|ldm(ia)?|ldr|bx|mov|add|sub|push|stm(db)?)({CONDITION})(\.w)?")
STOPS = frozenset(("udf", "bkpt", "hlt", "trap"))
SYSTEM = frozenset(("svc", "hvc", "smc"))
READS = ("push", "vpush", "st", "vst", "cmp", "cmn", "tst")
"""What writes no register but sp, and that only as `sp!` or `[sp…]` says."""
DATA = frozenset((".word", ".short", ".hword", ".byte", ".long", ".inst"))


class Arm:
    """Arm of 32 bits, whatever its instructions' lengths."""

    call_bytes = 0
    red_zone = 0
    objdump: tuple[str, ...] = ()
    llvm: tuple[str, ...] = ()

    def kind(self, i: Instruction) -> str:
        """Where it goes next. What returns only on a condition may go on: `next`."""
        name = WIDTH.sub("", i.mnemonic)
        if name in DATA or name == "(bad)":
            return "bad"
        if CALL.fullmatch(name):
            return "call"
        if BRANCH.fullmatch(name):
            return "branch"
        if self._leaves(i):
            return "next" if CONDITIONAL.fullmatch(name) else "return"
        if name in ("b", "bx", "tbb", "tbh") or _writes_pc(i):
            return "jump"
        if name in STOPS:
            return "stop"
        return "system" if name in SYSTEM else "next"

    def _leaves(self, i: Instruction) -> bool:
        """Whether it returns: to lr, or to what lay on the stack."""
        popped = i.mnemonic.startswith(("pop", "ldm")) and "pc" in _registers(i.operands[-1])
        back = i.mnemonic.startswith(("bx", "mov")) and i.operands[-1:] == ("lr",)
        loaded = i.mnemonic.startswith("ldr") and i.operands[:2] == ("pc", "[sp]")
        return popped or loaded or (back and i.operands[0] in ("lr", "pc"))

    def is_float(self, i: Instruction) -> bool:
        """By the rule above."""
        name = i.mnemonic
        if name.startswith(("vmrs", "vmsr")):
            return "fpscr" in i.operands
        typed = name.startswith("v") and FLOAT_TYPE.fullmatch(name)
        return bool(typed and not MOVES.fullmatch(name))

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """Pushes, pops, arithmetic on sp with constants."""
        conditional = CONDITIONAL.fullmatch(i.mnemonic)
        if conditional and (self._leaves(i) or _gives_back(i)):
            return frame  # it goes on where nothing was given back; elsewhere less is in use
        moved = _pushed(i)
        if moved and not conditional:
            return frame.moved(frame.depth + moved).without(*_loaded(i))
        place = _address(i, frame)
        if i.operands[:1] == ("sp",) and not _keeps_sp(i):
            if place is None or conditional:
                raise UnknownStack
            return frame.moved(place)
        if moved:
            raise UnknownStack
        return frame.without(*_loaded(i)) if place is None else frame.holding(i.operands[0], place)


def _keeps_sp(i: Instruction) -> bool:
    """Whether sp, its first operand, stays: a place to write to, or to load registers from."""
    listed = i.operands[-1].startswith("{") and "sp" not in _registers(i.operands[-1])
    return i.mnemonic.startswith(READS) or listed


def _registers(text: str) -> list[str]:
    """The registers of a list in braces, runs of them one by one."""
    found: list[str] = []
    for word in text.strip("{}^").replace(" ", "").split(","):
        first, _, last = word.partition("-")
        if last and (letter := first[:1]) == last[:1] and last[1:].isdigit():
            found += [f"{letter}{n}" for n in range(int(first[1:]), int(last[1:]) + 1)]
        else:
            found.append(first)
    return found


def _pushed(i: Instruction) -> int:
    """Bytes that a push or a pop, or a load or store that moves sp, adds to those in use."""
    name, ops = re.sub(r"\.\w+$", "", i.mnemonic), i.operands
    if ops and ops[-1].startswith("{"):
        registers = _registers(ops[-1])
        size = sum(8 if r.startswith("d") else 16 if r.startswith("q") else 4 for r in registers)
        if name.startswith(("push", "vpush")) or (ops[0] == "sp!" and "stm" in name):
            return size
        if name.startswith(("pop", "vpop")) or (ops[0] == "sp!" and "ldm" in name):
            return -size
    m = re.search(r"\[sp, #(-?\w+)\]!|\[sp\], #(-?\w+)", ", ".join(ops))
    return -int(m[1] or m[2], 0) if m else 0


def _loaded(i: Instruction) -> list[str]:
    """Registers that an instruction may overwrite."""
    if i.mnemonic.startswith(READS):
        return []
    if i.operands and i.operands[-1].startswith("{"):
        return _registers(i.operands[-1])
    return list(i.operands[: 2 if i.mnemonic.startswith(("ldrd", "umull", "smull", "umlal",
                                                         "smlal")) else 1])  # fmt: skip


def _address(i: Instruction, frame: Frame) -> int | None:
    """Bytes in use at an address computed from sp or a register that holds such an address."""
    name, ops = re.sub(r"\.\w+$", "", i.mnemonic), i.operands
    places = {**frame.saved, "sp": frame.depth}
    if len(ops) == 3 and name in ("bfc",) and ops[0] in places and immediate(ops[1]) == 0:
        return places[ops[0]] + (1 << (immediate(ops[2]) or 0))
    first, second = (ops[0], ops[1]) if len(ops) == 2 else (ops[1:3] if len(ops) == 3 else ("", ""))
    if name in ("mov", "movs") and len(ops) == 2:
        return places.get(second)
    number = immediate(second)
    if number is None or first not in places:
        return None
    if name in ("bic", "bics") and is_alignment(number + 1):
        return places[first] + number + 1
    signed = {"sub": number, "subs": number, "subw": number, "add": -number, "adds": -number,
              "addw": -number}.get(name)  # fmt: skip
    return None if signed is None else places[first] + signed


def _gives_back(i: Instruction) -> bool:
    """Whether it takes bytes off the stack."""
    return i.mnemonic.startswith("pop") or (i.mnemonic.startswith("add") and i.operands[0] == "sp")


def _writes_pc(i: Instruction) -> bool:
    """Whether it goes where some computation says."""
    return i.operands[:1] == ("pc",) and not i.mnemonic.startswith(READS)
