"""Static libraries in `ar` format, GNU's or Darwin's: the same bytes for the same members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Member:
    """One object file, and the symbols that it offers to the linker."""

    name: str
    content: bytes
    symbols: Sequence[str]


def archive(members: Sequence[Member], *, darwin: bool = False) -> bytes:
    """The archive, with the symbol index that linkers look members up by; no dates, no owners."""
    return MAGIC + (_darwin if darwin else _gnu)(members)


def _gnu(members: Sequence[Member]) -> bytes:
    """Long names in a member of their own; an index of big-endian offsets. Not only for ELF."""
    names = [f"{m.name}/" for m in members]
    long_names = b"".join(n.encode() + b"\n" for n in names if len(n) > 16)
    head = _entry("//", long_names) if long_names else b""
    symbols = b"".join(s.encode() + b"\0" for m in members for s in m.symbols)
    count = sum(len(m.symbols) for m in members)
    index_size = 4 + 4 * count + len(symbols)
    start = len(MAGIC) + 60 + index_size + index_size % 2 + len(head)
    offsets: list[int] = []
    body = b""
    for member, name in zip(members, names, strict=True):
        offsets += [start + len(body)] * len(member.symbols)
        body += _entry(_short(name, names), member.content)
    index = b"".join(n.to_bytes(4, "big") for n in (count, *offsets)) + symbols
    return _entry("/", index) + head + body


def _darwin(members: Sequence[Member]) -> bytes:
    """Names in front of what they name, all contents at multiples of 8 bytes; an index of
    little-endian places of names and members."""
    offered = [(n, s) for n, m in enumerate(members) for s in m.symbols]
    names = b"".join(b"_" + s.encode() + b"\0" for _, s in offered)
    names += bytes(-len(names) % 8)
    start = len(MAGIC) + len(_named("__.SYMDEF", bytes(8 + 8 * len(offered) + len(names))))
    entries = [_named(m.name, m.content) for m in members]
    index, place = (8 * len(offered)).to_bytes(4, "little"), 0
    for number, symbol in offered:
        member = start + sum(len(e) for e in entries[:number])
        index += place.to_bytes(4, "little") + member.to_bytes(4, "little")
        place += len(symbol) + 2
    index += len(names).to_bytes(4, "little") + names
    return _named("__.SYMDEF", index) + b"".join(entries)


def _named(name: str, content: bytes) -> bytes:
    """A Darwin entry, which begins and ends at a multiple of 8 bytes; headers are of 60."""
    encoded = name.encode()
    encoded += bytes((4 - len(encoded)) % 8)
    content += bytes(-len(content) % 8)
    return _entry(f"#1/{len(encoded)}", encoded + content)


def _short(name: str, names: Sequence[str]) -> str:
    """The name as it stands in the entry: long ones by their place in the table of names."""
    if len(name) <= 16:
        return name
    before = [n for n in names[: names.index(name)] if len(n) > 16]
    return f"/{sum(len(n) + 1 for n in before)}"


def _entry(name: str, content: bytes) -> bytes:
    fields = (name.ljust(16), "0".ljust(12), "0".ljust(6), "0".ljust(6), "644".ljust(8))
    header = "".join(fields) + str(len(content)).ljust(10) + "`\n"
    return header.encode("ascii") + content + b"\n" * (len(content) % 2)
