"""Static libraries in GNU `ar` format, the same bytes for the same members."""

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


def archive(members: Sequence[Member]) -> bytes:
    """The archive, with the symbol index that linkers look members up by; no dates, no owners."""
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
    return MAGIC + _entry("/", index) + head + body


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
