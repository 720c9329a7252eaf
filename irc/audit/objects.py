"""An object file before it is linked: sections, symbols, and what its code refers to.

Readers of each format (`elf`, `macho`, `coff`, `wasm`) give an `Object`; `binary_of` lays its code
out at addresses of its own and resolves what relocations name, so that control can be followed as
in a linked library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc.audit.binary import MANIFEST, Binary, Region
from irc.errors import ToolError

ALIGNMENT = 64
OUTSIDE = 1 << 48
"""Undefined functions are given addresses from here on, where no code is."""


@dataclass(frozen=True)
class Relocation:
    """A place in a section that is filled in by the linker: with a symbol's address, or, where
    `beyond` is given, with one that many bytes behind it."""

    offset: int
    symbol: int
    beyond: int = 0


@dataclass(frozen=True)
class Section:
    """A section that takes part in the program. `address` is where a disassembler shows it."""

    name: str
    size: int
    code: bool
    writable: bool
    content: bytes = b""
    address: int = 0
    relocations: Sequence[Relocation] = ()
    executable: bool = False
    """Whether the program may run it: code is."""


@dataclass(frozen=True)
class Symbol:
    """A name for a place, counted from its section's beginning; `section` is None for what is
    defined elsewhere."""

    name: str
    section: int | None
    offset: int
    public: bool
    function: bool = True
    referred: bool = True
    """Of what is defined elsewhere: whether the linker must find it."""


@dataclass(frozen=True)
class Object:
    """What a reader finds. Sections that take no part in the program are left out."""

    form: str
    arch: str
    sections: Sequence[Section]
    symbols: Sequence[Symbol]


def binary_of(path: Path, made: Object, content: bytes) -> Binary:
    """What an audit needs to know of an object that the file `path` holds as `content`.

    Raises `ToolError` where it holds no code.
    """
    if not any(s.code and s.size for s in made.sections):
        raise ToolError(f"{path} holds no code")
    bases = _bases(made)
    places = {n: _place(made, bases, n) for n in range(len(made.symbols))}
    public = [n for n, s in enumerate(made.symbols) if s.public and s.section is not None]
    named = ((n, s) for n, s in enumerate(made.symbols) if s.function or s.section is None)
    return Binary(
        path=path,
        form=made.form,
        arch=made.arch,
        linked=False,
        exports={made.symbols[n].name: places[n] or 0 for n in public},
        undefined=sorted(s.name for s in made.symbols if s.section is None and s.referred),
        needed=(),
        writable=[f"{s.name} ({s.size} bytes)" for s in made.sections if s.writable and s.size],
        executable_writable=any(s.executable and s.writable for s in made.sections),
        relocations=sum(len(s.relocations) for s in made.sections if not s.code),
        imports=[range(OUTSIDE, OUTSIDE + len(made.symbols))],
        functions={place: s.name for n, s in named if (place := places[n]) is not None},
        manifest=_manifest(made.sections),
        content=content,
        code=[Region(s.address, base) for s, base in _code(made, bases)],
        targets=_targets(made, bases, places),
    )


def find_manifest(data: bytes) -> dict[str, Any] | None:
    """The manifest as it stands in read-only data, found without running anything."""
    start = data.find(MANIFEST)
    if start < 0:
        return None
    try:
        content: dict[str, Any] = json.loads(data[start : data.index(b"\0", start)])
    except ValueError:
        return None
    return content


def _manifest(sections: Sequence[Section]) -> dict[str, Any] | None:
    found = (find_manifest(s.content) for s in sections if not s.code and not s.writable)
    return next((m for m in found if m is not None), None)


def _bases(made: Object) -> dict[int, int]:
    """Where the code of each section is taken to lie, one behind the other."""
    found: dict[int, int] = {}
    start = 0
    for number, section in enumerate(made.sections):
        if section.code:
            found[number] = start
            start += section.size + -section.size % ALIGNMENT
    return found


def _code(made: Object, bases: Mapping[int, int]) -> list[tuple[Section, int]]:
    """The sections that a disassembler shows, in its order."""
    return [(made.sections[n], base) for n, base in bases.items() if made.sections[n].size]


def _place(made: Object, bases: Mapping[int, int], number: int) -> int | None:
    """A symbol's address; None for data."""
    symbol = made.symbols[number]
    if symbol.section is None:
        return OUTSIDE + number
    base = bases.get(symbol.section)
    return None if base is None else base + symbol.offset


def _targets(
    made: Object, bases: Mapping[int, int], places: Mapping[int, int | None]
) -> dict[int, int]:
    """What the code refers to: addresses of places that are filled in, and of what is meant."""
    found = {}
    for number, base in bases.items():
        for r in made.sections[number].relocations:
            place = places.get(r.symbol)
            if place is not None:
                found[base + r.offset] = place + r.beyond
    return found
