"""Machine code as instructions, by `objdump`."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from irc.audit.machines import MACHINES, TOOLS, Instruction
from irc.errors import ToolError

PREFIXES = frozenset((
    "rep", "repz", "repnz", "repe", "repne", "lock", "bnd", "notrack", "data16", "addr32", "cs",
    "ds", "es", "fs", "gs", "ss", "xacquire", "xrelease", "{vex}", "{vex3}", "{evex}", "{disp32}",
))  # fmt: skip


def tool(arch: str) -> str:
    """An `objdump` that may read an architecture; raises `ToolError` where there is none."""
    name = TOOLS[arch]
    own = f"{name}-linux-gnu-objdump"
    names = ("objdump", own) if platform.machine() == name else (own, "objdump")
    for candidate in names:
        if path := shutil.which(candidate):
            return path
    raise ToolError(f"no objdump is there to read {name} code: install binutils, or {own}")


def disassemble(path: Path, arch: str) -> dict[int, Instruction]:
    """Every instruction by its address.

    Raises `ToolError` for an architecture that no installed `objdump` knows.
    """
    if arch not in MACHINES:
        known = ", ".join(TOOLS.values())
        raise ToolError(f"{path}: code for {arch} can't be audited, only for {known}")
    command = [tool(arch), "-d", "--no-show-raw-insn", *MACHINES[arch].objdump, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "can't disassemble" in done.stderr + done.stdout:
        reason = " ".join(done.stderr.split()) or "it knows no such code"
        raise ToolError(
            f"{command[0]} can't disassemble {path}: {reason}; install"
            f" {TOOLS[arch]}-linux-gnu-objdump"
        )
    return {i.address: i for i in _instructions(done.stdout)}


def _instructions(text: str) -> Iterator[Instruction]:
    lines = re.findall(r"^ *([0-9a-f]+):\t(.*)$", text, flags=re.MULTILINE)
    addresses = [int(address, 16) for address, _ in lines]
    for (_, words), address, follows in zip(lines, addresses, [*addresses[1:], -1], strict=True):
        yield _parse(words, address, follows)


def _parse(text: str, address: int, follows: int) -> Instruction:
    comment = re.split(r"\s+(?:#|//)\s|\s*<[^>]*>", text, maxsplit=1)
    words = comment[0].split()
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    mnemonic, rest = (words[0], " ".join(words[1:])) if words else ("(bad)", "")
    return Instruction(address, mnemonic, _operands(rest), follows)


def _operands(text: str) -> tuple[str, ...]:
    """Split at commas outside of brackets."""
    parts = re.findall(r"(?:\[[^\]]*\]!?|\{[^}]*\}|[^,\[{])+", text)
    return tuple(p.strip() for p in parts if p.strip())
