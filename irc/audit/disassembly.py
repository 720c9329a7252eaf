"""Machine code as instructions, by GNU's or LLVM's `objdump`."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from irc.audit.binary import Binary
from irc.audit.machine import Instruction, Machine
from irc.audit.machines import MACHINES
from irc.audit.riscv import far_target
from irc.errors import ToolError

PREFIXES = frozenset((
    "rep", "repz", "repnz", "repe", "repne", "lock", "bnd", "notrack", "data16", "addr32", "cs",
    "ds", "es", "fs", "gs", "ss", "xacquire", "xrelease", "{vex}", "{vex3}", "{evex}", "{disp32}",
))  # fmt: skip
OWN = {
    "x86_64": "x86_64-linux-gnu-objdump", "aarch64": "aarch64-linux-gnu-objdump",
    "arm": "arm-none-eabi-objdump", "riscv": "riscv64-linux-gnu-objdump",
}  # fmt: skip
"""GNU's tools by the architecture that they are for."""
DISASSEMBLERS = ("objdump", *OWN.values(), "llvm-objdump")
"""All that may be of use."""
UNREAD = {"wasm32": ("<unknown>",), "arm": ("<UNDEFINED> instruction",)}
"""What disassemblers write of instructions that they don't know, where code never holds any: what
follows is misread, or where it goes is."""
GOES = ("call", "jump", "branch")
"""Kinds of instructions that name where they go on."""
LINE = re.compile(
    r"^ *(?P<address>[0-9a-f]+): *\t(?P<text>.*)$|^(?P<section>Disassembly of section )|"
    r"^[0-9a-f]+ <(?P<function>.*)>:$",
    re.MULTILINE,
)


def tools(arch: str) -> list[str]:
    """What may read an architecture's code, the likeliest first; raises `ToolError` where there
    is nothing at all."""
    names = ["objdump", OWN.get(arch, "objdump"), "llvm-objdump"]
    if platform.machine() != arch:
        names = [*names[1:], names[0]]
    found = [path for name in dict.fromkeys(names) if (path := shutil.which(name))]
    if not found:
        raise ToolError(f"no objdump is there to read {arch} code: install {_wanted(arch)}")
    return found


def _wanted(arch: str) -> str:
    """What to install."""
    gnu = {OWN.get(arch, "llvm-objdump"): None, "llvm-objdump": None}
    return f"binutils with {' or '.join(gnu)}"


def disassemble(binary: Binary) -> dict[int, Instruction]:
    """Every instruction by its address.

    Raises `ToolError` for an architecture that no installed `objdump` knows.
    """
    if binary.arch not in MACHINES:
        known = ", ".join(MACHINES)
        raise ToolError(
            f"{binary.path}: code for {binary.arch} can't be audited, only for {known}"
        )
    machine = MACHINES[binary.arch]
    shown = _shown(binary, machine)
    code = {i.address: i for i in _instructions(shown, binary, machine)}
    return _resolved(code, binary, machine)


def _shown(binary: Binary, machine: Machine) -> str:
    """What the first tool prints that can read the file."""
    reasons = []
    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        path = binary.path.resolve()
        if binary.content:
            path = Path(folder) / "object"
            path.write_bytes(binary.content)
        for tool in tools(binary.arch):
            options = (*machine.objdump, *(machine.llvm if _is_llvm(tool) else ()))
            command = [tool, "-d", "--no-show-raw-insn", *options, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and "can't disassemble" not in done.stderr + done.stdout:
                if not any(mark in done.stdout for mark in UNREAD.get(binary.arch, ())):
                    return done.stdout
                reasons.append(f"{tool} is too old to know all of its instructions")
                continue
            said = " ".join(done.stderr.split()).replace(str(path), str(binary.path))
            reasons.append(f"{tool} can't disassemble it: {said or 'it knows no such code'}")
    raise ToolError(f"{binary.path}: {'; '.join(reasons)}; install {_wanted(binary.arch)}")


def _is_llvm(tool: str) -> bool:
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    return "LLVM" in done.stdout


def _instructions(text: str, binary: Binary, machine: Machine) -> Iterator[Instruction]:
    """The lines, at the addresses where sections are taken to lie. Where a section ends nothing
    follows; nor does where a function of WebAssembly ends."""
    shifts = [region.base - region.shown for region in binary.code] or [0]
    ends = binary.arch == "wasm32"
    section, held = -1, None
    for m in LINE.finditer(text):
        if m["section"]:
            section += 1
        if held is not None and (m["section"] or (m["function"] and ends)):
            yield replace(held, next=-1)
            held = None
        if m["address"]:
            shift = shifts[min(section, len(shifts) - 1)]
            address = int(m["address"], 16) + shift
            if held is not None:
                yield replace(held, next=address)
            held = _parse(m["text"], address)
            if held.target is not None and machine.kind(held) in GOES:
                held = held.to(held.target + shift)
    if held is not None:
        yield held


def _parse(text: str, address: int) -> Instruction:
    text = re.sub(r"^([0-9a-f]{2}\s+)+(?=\.)", "", text)  # LLVM shows the bytes of constants
    shown = re.split(r"\s+(?:##?|//|@)\s", text, maxsplit=1)[0]
    plain, named, _ = re.sub(r"^<unknown>", "(bad)", shown).partition("<")
    words = plain.split()
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    mnemonic, rest = (words[0], " ".join(words[1:])) if words else ("(bad)", "")
    made = Instruction(address, mnemonic, _operands(rest), -1)
    place = made.operands[-1] if named and made.operands else ""
    # Behind an address its symbol stands; GNU writes the address without 0x.
    return made.to(int(place, 16)) if re.fullmatch(r"[0-9a-f]+", place) else made


def _operands(text: str) -> tuple[str, ...]:
    """Split at commas outside of brackets; within them spaces tell nothing."""
    parts = re.findall(r"(?:\[[^\]]*\]!?|\{[^}]*\}|[^,\[{])+", text)
    return tuple(_plain(p.strip()) for p in parts if p.strip())


def _plain(operand: str) -> str:
    """LLVM writes `[rsp + 0x8]` where GNU writes `[rsp+0x8]`."""
    return re.sub(r" ([+*-]) ", r"\1", operand)


def _resolved(
    code: Mapping[int, Instruction], binary: Binary, machine: Machine
) -> dict[int, Instruction]:
    """Calls and jumps with the places that relocations, or two instructions together, name."""
    targets = {**_in_pairs(code), **_by_relocation(code, binary.targets)}
    return {
        a: i.to(targets[a]) if a in targets and machine.kind(i) in GOES else i
        for a, i in code.items()
    }


def _in_pairs(code: Mapping[int, Instruction]) -> dict[int, int]:
    """Where far calls and jumps of two instructions lead, by the address of the second."""
    found = {}
    for upper in code.values():
        jump = code.get(upper.next)
        if jump is not None and (target := far_target(upper, jump)) is not None:
            found[jump.address] = target
    return found


def _by_relocation(
    code: Mapping[int, Instruction], targets: Mapping[int, int]
) -> dict[int, int]:
    """What direct calls and jumps lead to that the linker fills in, by their addresses."""
    found, addresses = {}, sorted(code)
    for place, target in targets.items():
        number = bisect_right(addresses, place) - 1
        if number < 0:
            continue
        i = code[addresses[number]]
        jump = code.get(i.next)
        if jump is not None and far_target(i, jump) is not None:
            found[jump.address] = target
        elif i.target is not None:
            found[i.address] = target
    return found
