"""ELF: shared libraries and objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irc.audit.binary import Binary
from irc.audit.objects import Object, Relocation, Section, Symbol, find_manifest
from irc.errors import ToolError

WRITE, ALLOC, RUN = 1, 2, 4
"""SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR."""
EXECUTE, WRITABLE = 1, 2
"""PF_X, PF_W of segments."""
LOADERS_OWN = (".dynamic", ".relro_padding")
"""Writable sections that only the system's loader ever writes, before any code runs: its table,
and lld's filling up of the page that is then made read-only."""
GOT = (".got", ".got.plt")
RESERVED_WORDS = 3
"""A table of addresses begins with these, for the loader; one that holds no more is empty."""
UNWINDING = (".ARM.exidx", ".eh_frame")
"""Sections of tables of functions, which only who handles exceptions reads."""
ARCHITECTURES = {
    "EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_ARM": "arm", "EM_RISCV": "riscv",
}  # fmt: skip


def architecture(elf: Any) -> str:
    """What the header says."""
    machine = str(elf["e_machine"])
    return ARCHITECTURES.get(machine, machine)


def shared_library(path: Path, elf: Any) -> Binary:
    """A library that is linked; raises `ToolError` where it exports nothing."""
    dynamic = elf.get_section_by_name(".dynsym")
    if dynamic is None:
        raise ToolError(f"{path} exports nothing: it is no library of ours")
    symbols = [s for s in dynamic.iter_symbols() if s.name]
    defined = [s for s in symbols if s["st_shndx"] != "SHN_UNDEF"]
    rodata = elf.get_section_by_name(".rodata")
    return Binary(
        path=path,
        form="ELF",
        arch=architecture(elf),
        linked=True,
        exports={s.name: _address(elf, s) for s in defined},
        undefined=[s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"],
        needed=_needed(elf),
        writable=_writable(elf),
        executable_writable=any(_both(s["p_flags"]) for s in elf.iter_segments()),
        relocations=_relocations(elf),
        imports=[
            range(s["sh_addr"], s["sh_addr"] + s["sh_size"])
            for s in elf.iter_sections()
            if s.name.startswith((".plt", ".iplt"))
        ],
        functions=_functions(elf, defined),
        manifest=None if rodata is None else find_manifest(rodata.data()),
    )


def _address(elf: Any, symbol: Any) -> int:
    """Where a symbol lies; Arm marks functions of short instructions by an odd address."""
    odd = elf["e_machine"] == "EM_ARM" and symbol["st_info"]["type"] == "STT_FUNC"
    return int(symbol["st_value"]) & (~1 if odd else ~0)


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
            found[_address(elf, s)] = str(s.name)
    return found


def read_object(elf: Any) -> Object:
    """An object file."""
    sections, table = list(elf.iter_sections()), elf.get_section_by_name(".symtab")
    kept = [n for n, s in enumerate(sections) if s["sh_flags"] & ALLOC]
    number = {old: new for new, old in enumerate(kept)}
    filled = {int(s["sh_info"]): s for s in sections if s["sh_type"] in ("SHT_RELA", "SHT_REL")}
    return Object(
        form="ELF",
        arch=architecture(elf),
        sections=[_section(elf, sections[n], filled.get(n)) for n in kept],
        symbols=[_symbol(elf, s, number) for s in table.iter_symbols()],
    )


def _section(elf: Any, section: Any, filled: Any) -> Section:
    flags, data = section["sh_flags"], section["sh_type"] != "SHT_NOBITS"
    tables = section.name.startswith(UNWINDING)
    return Section(
        name=section.name,
        size=int(section["sh_size"]),
        code=bool(flags & RUN),
        writable=bool(flags & WRITE),
        content=section.data() if data else b"",
        relocations=[] if filled is None or tables else list(_filled_in(elf, filled)),
        executable=bool(flags & RUN),
    )


def _filled_in(elf: Any, table: Any) -> Iterator[Relocation]:
    """What a section's relocations refer to. Those by a section's own symbol say how far behind
    its beginning; x86-64 counts from behind the four bytes that are filled in."""
    symbols = elf.get_section(table["sh_link"])
    behind = 4 if elf["e_machine"] == "EM_X86_64" else 0
    for r in table.iter_relocations():
        number = int(r["r_info_sym"])
        whole = symbols.get_symbol(number)["st_info"]["type"] == "STT_SECTION"
        beyond = int(r["r_addend"]) + behind if whole and r.is_RELA() else 0
        yield Relocation(int(r["r_offset"]), number, beyond)


def _symbol(elf: Any, symbol: Any, number: dict[int, int]) -> Symbol:
    place, kind = symbol["st_shndx"], symbol["st_info"]["type"]
    inside = isinstance(place, int) and place in number
    return Symbol(
        name=symbol.name,
        section=number[place] if inside else None,
        offset=_address(elf, symbol),
        public=symbol["st_info"]["bind"] != "STB_LOCAL" and inside,
        function=kind == "STT_FUNC",
        referred=place == "SHN_UNDEF" and bool(symbol.name),
    )
