"""COFF objects: Windows. Fields as in Microsoft's description of the PE format."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from irc.audit.objects import Object, Relocation, Section, Symbol

ARCHITECTURES = {0x8664: "x86_64", 0xAA64: "aarch64"}
CODE, ZERO_FILLED, LEFT_OUT, MERGED = 0x20, 0x80, 0x800, 0x1000
"""Of a section's flags: code, no room in the file, no part of the program, one of equals that the
linker keeps one of."""
EXECUTE, WRITE = 0x20000000, 0x80000000
MANY = 0x01000000
"""The number of relocations did not fit, and stands in the first of them."""
EXTERNAL, WEAK = 2, 105
"""Storage classes of symbols that others see."""
FUNCTION = 0x20
HEADER, SECTION, SYMBOL, RELOCATION = 20, 40, 18, 10
"""Bytes."""


def is_coff(content: bytes) -> bool:
    """Whether it begins as an object for a machine that is known here."""
    return len(content) > HEADER and int.from_bytes(content[:2], "little") in ARCHITECTURES


def read_object(content: bytes) -> Object:
    """An object file; raises `struct.error` or `ValueError` where it is broken."""
    machine, count, _, table, symbols, optional, _ = struct.unpack_from("<2H3I2H", content)
    names = table + SYMBOL * symbols
    merged = [_flags(content, HEADER + optional + SECTION * n) & MERGED != 0 for n in range(count)]
    starts = [HEADER + optional + SECTION * n for n in range(count)]
    return Object(
        form="COFF",
        arch=ARCHITECTURES[machine],
        sections=[_section(content, start, names) for start in starts],
        symbols=list(_symbols(content, table, symbols, merged)),
    )


def _section(content: bytes, start: int, names: int) -> Section:
    size, offset, relocations = struct.unpack_from("<3I", content, start + 16)
    many, flags = int.from_bytes(content[start + 32 : start + 34], "little"), _flags(content, start)
    if flags & MANY:
        (many,) = struct.unpack_from("<I", content, relocations)
    code = bool(flags & CODE)
    places = range(relocations, relocations + RELOCATION * many, RELOCATION)
    entries = (struct.unpack_from("<2IH", content, place) for place in places)
    return Section(
        name=_name(content, start, names),
        size=0 if flags & LEFT_OUT else size,
        code=code,
        writable=bool(flags & WRITE),
        content=b"" if flags & ZERO_FILLED else content[offset : offset + size],
        relocations=[Relocation(place, symbol) for place, symbol, _ in entries],
        executable=bool(flags & EXECUTE),
    )


def _flags(content: bytes, start: int) -> int:
    return int.from_bytes(content[start + 36 : start + 40], "little")


def _symbols(
    content: bytes, table: int, count: int, merged: Sequence[bool]
) -> Iterator[Symbol]:
    """One for each row of the table, so that relocations find theirs by its number. Constants that
    are merged with their equals are nobody's interface."""
    number, names = 0, table + SYMBOL * count
    while number < count:
        start = table + SYMBOL * number
        value, section, kind, storage, extra = struct.unpack_from("<IhH2B", content, start + 8)
        inside = section > 0
        yield Symbol(
            name=_name(content, start, names),
            section=section - 1 if inside else None,
            offset=value,
            public=inside and storage in (EXTERNAL, WEAK) and not merged[section - 1],
            function=bool(kind & FUNCTION),
            referred=section == 0 and storage in (EXTERNAL, WEAK),
        )
        for _ in range(extra):
            yield Symbol("", None, 0, public=False, function=False, referred=False)
        number += 1 + extra


def _name(content: bytes, start: int, names: int) -> str:
    """Eight bytes, or a place in the table of names: a symbol's behind four zeros, a section's
    behind a slash."""
    short = content[start : start + 8]
    if short[:4] == bytes(4):
        place = names + int.from_bytes(short[4:], "little")
    elif short[:1] == b"/" and short[1:].rstrip(b"\0").isdigit():
        place = names + int(short[1:].rstrip(b"\0"))
    else:
        return short.partition(b"\0")[0].decode("utf-8", "replace")
    return content[place : content.index(b"\0", place)].decode("utf-8", "replace")
