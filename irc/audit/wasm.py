"""WebAssembly objects, by the core specification's binary format and the tool conventions'
`linking` and `reloc.CODE` sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from irc.audit.machine import Frame, Instruction
from irc.audit.objects import Object, Relocation, Section, Symbol

MAGIC = b"\0asm\1\0\0\0"
CUSTOM, IMPORT, CODE, DATA = 0, 2, 10, 11
"""Sections."""
SEGMENTS, SYMBOLS = 5, 8
"""Parts of `linking`: names of data segments, symbols."""
FUNCTION, DATUM, GLOBAL, TAG, TABLE = 0, 1, 2, 4, 5
"""Kinds of symbols."""
LOCAL, UNDEFINED, OWN_NAME = 0x02, 0x10, 0x40
"""Of a symbol's flags; a symbol that is imported has its import's name unless it has its own."""
WITH_ADDEND = frozenset((3, 4, 5, 8, 9, 11, 14, 15, 16, 17, 21, 22, 23, 25))
"""Types of relocations that have one."""
LINKERS_OWN = frozenset(("__stack_pointer", "__linear_memory", "__indirect_function_table"))
"""What every program has."""


class _Reader:
    """Reads a part of a file from its beginning."""

    def __init__(self, content: bytes, place: int = 0, end: int | None = None) -> None:
        self.content, self.place = content, place
        self.end = len(content) if end is None else end

    def byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def number(self) -> int:
        """LEB128, unsigned; of a signed one only its length is right."""
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def data(self) -> bytes:
        size = self.number()
        self.place += size
        return self.content[self.place - size : self.place]

    def text(self) -> str:
        return self.data().decode("utf-8", "replace")

    def parts(self) -> Iterator[tuple[int, _Reader]]:
        """Pieces that begin with their kind and their size."""
        while self.place < self.end:
            kind, size = self.byte(), self.number()
            yield kind, _Reader(self.content, self.place, self.place + size)
            self.place += size


@dataclass
class _Module:
    imported: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Where the instructions of each function begin, counted from the code's beginning."""
    code_size: int = 0
    data: list[bytes] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    relocations: list[Relocation] = field(default_factory=list)

    def read(self, kind: int, reader: _Reader) -> None:
        """Take what a section says, if it is of use."""
        readers = {IMPORT: self.imports, CODE: self.code, DATA: self.contents}
        if kind == CUSTOM:
            named = {"linking": self.linking, "reloc.CODE": self.relocated}
            named.get(reader.text(), _pass_over)(reader)
        else:
            readers.get(kind, _pass_over)(reader)

    def imports(self, reader: _Reader) -> None:
        """Functions alone are counted; of the others the length is read."""
        for _ in range(reader.number()):
            _, name, kind = reader.text(), reader.text(), reader.byte()
            if kind == 0:
                self.imported.append(name)
                reader.number()
            elif kind == 3:
                reader.place += 2
            else:
                reader.place += kind == 1  # a table says of what it is
                limits = reader.byte()
                for _ in range(1 + (limits & 1)):
                    reader.number()

    def code(self, reader: _Reader) -> None:
        begin = reader.place
        self.code_size = reader.end - begin
        for _ in range(reader.number()):
            size = reader.number()
            end = reader.place + size
            for _ in range(reader.number()):
                reader.number()
                reader.byte()
            self.starts.append(reader.place - begin)
            reader.place = end

    def contents(self, reader: _Reader) -> None:
        """Data at constant places: `i32.const`, the place, `end`."""
        for _ in range(reader.number()):
            reader.place += 2
            reader.number()
            reader.byte()
            self.data.append(reader.data())

    def linking(self, reader: _Reader) -> None:
        reader.number()
        for kind, part in reader.parts():
            if kind == SEGMENTS:
                for _ in range(part.number()):
                    self.segments.append(part.text())
                    part.number()
                    part.number()
            elif kind == SYMBOLS:
                self.symbols += [self.symbol(part) for _ in range(part.number())]

    def symbol(self, reader: _Reader) -> Symbol:
        kind, flags = reader.byte(), reader.number()
        elsewhere = bool(flags & UNDEFINED)
        if kind in (FUNCTION, GLOBAL, TAG, TABLE):
            number = reader.number()
            named = not elsewhere or flags & OWN_NAME
            name = reader.text() if named else self.imported[number] if kind == FUNCTION else ""
            if kind == FUNCTION and not elsewhere:
                start = self.starts[number - len(self.imported)]
                return Symbol(name, 0, start, public=not flags & LOCAL)
            wanted = elsewhere and kind == FUNCTION and name not in LINKERS_OWN
            return Symbol(name, None, 0, public=False, function=False, referred=wanted)
        name = reader.text() if kind == DATUM else ""
        if kind != DATUM or not elsewhere:
            for _ in range(3 if kind == DATUM else 1):
                reader.number()
        return Symbol(name, None, 0, public=False, function=False, referred=elsewhere)

    def relocated(self, reader: _Reader) -> None:
        reader.number()
        for _ in range(reader.number()):
            kind, offset, symbol = reader.byte(), reader.number(), reader.number()
            self.relocations.append(Relocation(offset, symbol))
            if kind in WITH_ADDEND:
                reader.number()


def _pass_over(reader: _Reader) -> None:
    """What no check asks for."""


def is_wasm(content: bytes) -> bool:
    """Whether it begins as a WebAssembly module."""
    return content[:8] == MAGIC


def read_object(content: bytes) -> Object:
    """An object file; raises `IndexError` or `ValueError` where it is broken or linked. Read-only
    data is what the segments' names call so: an engine can't protect it."""
    module = _Module()
    parts = list(_Reader(content, len(MAGIC)).parts())
    # Symbols name functions: their code is read first.
    for kind, reader in sorted(parts, key=lambda part: part[0] == CUSTOM):
        module.read(kind, reader)
    if not module.symbols:
        raise ValueError("it is linked")
    code = Section(
        "code", module.code_size, code=True, writable=False, executable=True,
        relocations=module.relocations,
    )  # fmt: skip
    data = [
        Section(name, len(held), code=False, writable=not name.startswith(".rodata"), content=held)
        for name, held in zip(module.segments, module.data, strict=True)
    ]
    return Object("WebAssembly", "wasm32", [code, *data], module.symbols)


FLOAT = re.compile(r"f(32|64)(x\d)?\..*|.*_f(32|64)(x\d)?(_.*)?")
MOVES = re.compile(
    r"f\w+\.(load\w*|store\w*|const|select|splat|extract_lane|replace_lane|reinterpret_\w+)|"
    r"i\w+\.reinterpret_\w+"
)


class WebAssembly:
    """WebAssembly. Code within a function can't be left but by calls, so it is read from its
    beginning to its end. Float: what names a type of reals and does more than move it; a
    disassembler may write `f32.select` for a choice between values of any type."""

    call_bytes = 0
    red_zone = 0
    objdump: tuple[str, ...] = ()
    llvm: tuple[str, ...] = ()

    def kind(self, i: Instruction) -> str:
        """Where it goes next."""
        if i.mnemonic == "(bad)":
            return "bad"
        if i.mnemonic in ("call", "call_indirect"):
            return "call"
        return "return" if i.next < 0 else "next"

    def is_float(self, i: Instruction) -> bool:
        """By the rule above."""
        return bool(FLOAT.fullmatch(i.mnemonic)) and not MOVES.fullmatch(i.mnemonic)

    def stack(self, i: Instruction, frame: Frame) -> Frame:
        """None is followed: the engine's is out of sight."""
        del i
        return frame
