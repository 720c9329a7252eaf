"""A shared library as ELF: sections, symbols, segments, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from irc.errors import ToolError

WRITE, ALLOC = 1, 2
"""SHF_WRITE, SHF_ALLOC; segments have the same bit for writing."""
EXECUTE = 1
"""PF_X."""
WRITABLE = 2
"""PF_W."""
MANIFEST = b'{\n "format":'
LOADERS_OWN = (".dynamic", ".relro_padding")
"""Writable sections that only the system's loader ever writes, before any code runs: its table,
and lld's filling up of the page that is then made read-only."""
GOT = (".got", ".got.plt")
RESERVED_WORDS = 3
"""A table of addresses begins with these, for the loader; one that holds no more is empty."""


@dataclass(frozen=True)
class Binary:
    """What an audit needs to know of a shared library."""

    path: Path
    arch: str
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

    def name(self, address: int) -> str:
        """The function at an address."""
        return self.functions.get(address, f"{address:#x}")


def read(path: Path) -> Binary:
    """Read a shared library; raises `ToolError` where it is none."""
    if not path.is_file():
        raise ToolError(f"there is no library {path}")
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if elf["e_type"] != "ET_DYN":
                raise ToolError(f"{path} is no shared library: audit reads libNAME.so")
            return _binary(path, elf)
    except OSError as error:
        raise ToolError(f"can't read {path}: {error.strerror}") from None
    except (ELFError, UnicodeDecodeError, KeyError, IndexError, AttributeError):
        raise ToolError(f"{path} is no library that can be read: audit reads libNAME.so") from None


def _binary(path: Path, elf: Any) -> Binary:
    dynamic = elf.get_section_by_name(".dynsym")
    if dynamic is None:
        raise ToolError(f"{path} exports nothing: it is no library of ours")
    symbols = [s for s in dynamic.iter_symbols() if s.name]
    defined = [s for s in symbols if s["st_shndx"] != "SHN_UNDEF"]
    return Binary(
        path=path,
        arch=str(elf["e_machine"]),
        exports={s.name: int(s["st_value"]) for s in defined},
        undefined=[s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"],
        needed=_needed(elf),
        writable=_writable(elf),
        executable_writable=any(_both(s["p_flags"]) for s in elf.iter_segments()),
        relocations=_relocations(elf),
        imports=[
            range(s["sh_addr"], s["sh_addr"] + s["sh_size"])
            for s in elf.iter_sections()
            if s.name.startswith(".plt")
        ],
        functions=_functions(elf, defined),
        manifest=_manifest(elf),
    )


def _both(flags: int) -> bool:
    return bool(flags & EXECUTE and flags & WRITABLE)


def _needed(elf: Any) -> list[str]:
    section = elf.get_section_by_name(".dynamic")
    tags = [] if section is None else section.iter_tags()
    return [str(t.needed) for t in tags if t.entry.d_tag == "DT_NEEDED"]


def _writable(elf: Any) -> list[str]:
    """Sections that the program could write, with their sizes."""
    found = []
    for s in elf.iter_sections():
        both = WRITE | ALLOC
        if s["sh_flags"] & both != both or s["sh_size"] == 0 or s.name in LOADERS_OWN:
            continue
        if s.name in GOT and s["sh_size"] <= RESERVED_WORDS * elf.elfclass // 8:
            continue
        found.append(f"{s.name} ({s['sh_size']} bytes)")
    return found


def _relocations(elf: Any) -> int:
    kinds = ("SHT_RELA", "SHT_REL")
    sections = [s for s in elf.iter_sections() if s["sh_type"] in kinds]
    return sum(s.num_relocations() for s in sections if s["sh_flags"] & ALLOC)


def _functions(elf: Any, exported: Sequence[Any]) -> dict[int, str]:
    table = elf.get_section_by_name(".symtab")
    local = [] if table is None else list(table.iter_symbols())
    found = {}
    for s in (*local, *exported):
        if s["st_info"]["type"] == "STT_FUNC" and s["st_shndx"] != "SHN_UNDEF":
            found[int(s["st_value"])] = str(s.name)
    return found


def _manifest(elf: Any) -> dict[str, Any] | None:
    """The manifest as it stands in the read-only data, found without running anything."""
    section = elf.get_section_by_name(".rodata")
    data = b"" if section is None else section.data()
    start = data.find(MANIFEST)
    if start < 0:
        return None
    try:
        content: dict[str, Any] = json.loads(data[start : data.index(b"\0", start)])
    except ValueError:
        return None
    return content
