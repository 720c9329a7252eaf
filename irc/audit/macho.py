"""Mach-O objects: macOS and iOS. Fields as in Apple's `mach-o/loader.h`, `nlist.h`, `reloc.h`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from irc.audit.objects import Object, Relocation, Section, Symbol

MAGIC = 0xFEEDFACF
"""64 bits, little-endian."""
OBJECT = 1
"""MH_OBJECT: not linked yet."""
ARCHITECTURES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
SEGMENT_64, SYMTAB = 0x19, 2
"""Load commands."""
KIND, ZERO_FILLED, CODE = 0xFF, (0x1, 0xC), 0x80000000
"""Of a section's flags: its type, those that take no room in the file, and that it is all code."""
READ_ONLY = ("__TEXT", "__DATA_CONST", "__LD")
"""Segments that a program can't write, or that are no part of it."""
EXTERNAL, TYPE, UNDEFINED, STAB = 0x01, 0x0E, 0x00, 0xE0
"""Of a symbol's type."""
NAMED = 1 << 27
"""Of a relocation: by a symbol, not by a section."""


@dataclass(frozen=True)
class _Raw:
    """A section, and where its relocations stand."""

    section: Section
    relocations: tuple[int, int]


def is_macho(content: bytes) -> bool:
    """Whether it begins as a Mach-O file of 64 bits."""
    return content[:4] == MAGIC.to_bytes(4, "little")


def read_object(content: bytes) -> Object:
    """An object file; raises `struct.error` or `ValueError` where it is broken, or linked."""
    _, cpu, _, kind, count = struct.unpack_from("<5I", content)
    if kind != OBJECT:
        raise ValueError("it is linked")
    raw: list[_Raw] = []
    symbols: list[Symbol] = []
    place = 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", content, place)
        if command == SEGMENT_64:
            raw += _sections(content, place)
        elif command == SYMTAB:
            symbols += _symbols(content, place, [r.section.address for r in raw])
        place += size
    return Object(
        form="Mach-O",
        arch=ARCHITECTURES.get(cpu, f"Mach-O's CPU {cpu:#x}"),
        sections=[_filled(content, r) for r in raw],
        symbols=symbols,
    )


def _sections(content: bytes, place: int) -> Iterator[_Raw]:
    (count,) = struct.unpack_from("<I", content, place + 64)
    for number in range(count):
        start = place + 72 + 80 * number
        name, segment = (_text(content[start + n : start + n + 16]) for n in (0, 16))
        address, size = struct.unpack_from("<2Q", content, start + 32)
        offset, _, relocations, many, flags = struct.unpack_from("<5I", content, start + 48)
        stored = flags & KIND not in ZERO_FILLED
        section = Section(
            name=f"{segment},{name}",
            size=size,
            code=bool(flags & CODE),
            writable=segment not in READ_ONLY,
            content=content[offset : offset + size] if stored else b"",
            address=address,
            executable=bool(flags & CODE),
        )
        yield _Raw(section, (relocations, many))


def _filled(content: bytes, raw: _Raw) -> Section:
    """The section with its relocations: those by a symbol alone, as the others stand in the code
    as they are meant."""
    start, count = raw.relocations
    entries = [struct.unpack_from("<iI", content, start + 8 * n) for n in range(count)]
    found = [Relocation(offset, word & 0xFFFFFF) for offset, word in entries if word & NAMED]
    s = raw.section
    return Section(s.name, s.size, s.code, s.writable, s.content, s.address, found, s.executable)


def _symbols(content: bytes, place: int, addresses: list[int]) -> Iterator[Symbol]:
    offset, count, names, _ = struct.unpack_from("<4I", content, place + 8)
    for number in range(count):
        name, kind, section, _, value = struct.unpack_from("<IBBHQ", content, offset + 16 * number)
        end = content.index(b"\0", names + name)
        text = _text(content[names + name : end]).removeprefix("_")
        elsewhere = kind & TYPE == UNDEFINED
        inside = 0 < section <= len(addresses) and not kind & STAB
        yield Symbol(
            name=text,
            section=section - 1 if inside else None,
            offset=value - addresses[section - 1] if inside else 0,
            public=bool(kind & EXTERNAL and inside),
            function=not text.startswith("ltmp"),
            referred=elsewhere and bool(kind & EXTERNAL),
        )


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("utf-8", "replace")
