"""What an audit needs to know of a file with compiled code, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = b'{\n "format":'


@dataclass(frozen=True)
class Region:
    """A section of code: where a disassembler shows it, and where it is taken to lie."""

    shown: int
    base: int


@dataclass(frozen=True)
class Binary:
    """A shared library, or an object that is not linked yet."""

    path: Path
    form: str
    """ELF, Mach-O, COFF or WebAssembly."""
    arch: str
    """A key of `machines.MACHINES`, or whatever else the header says."""
    linked: bool
    exports: Mapping[str, int]
    undefined: Sequence[str]
    needed: Sequence[str]
    writable: Sequence[str]
    executable_writable: bool
    relocations: int
    imports: Sequence[range]
    """Addresses of code that jumps to what is undefined."""
    functions: Mapping[int, str]
    manifest: Mapping[str, Any] | None
    content: bytes = b""
    """What is to be disassembled in place of `path`, where that is an archive."""
    code: Sequence[Region] = ()
    """Of an object: its sections of code, in their order."""
    targets: Mapping[int, int] = field(default_factory=dict)
    """Of an object: places in code that the linker fills in, and what they will refer to."""

    def name(self, address: int) -> str:
        """The function at an address."""
        return self.functions.get(address, f"{address:#x}")
