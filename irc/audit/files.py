"""Files that an audit reads: shared libraries, objects, archives of one object."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from irc.audit import coff, elf, macho, wasm
from irc.audit.binary import Binary
from irc.audit.objects import Object, binary_of
from irc.errors import ToolError

ARCHIVE = b"!<arch>\n"
HEADER = 60
"""Bytes before each member of an archive."""
INDEXES = ("/", "//", "__.SYMDEF", "__.SYMDEF SORTED", "/<ECSYMBOLS>/")
"""Members that list symbols or long names."""
BROKEN = (
    ELFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip
"""What readers raise of numbers that can't be."""
WHAT = "audit reads libNAME.so, libNAME.a and NAME.o"


def read(path: Path) -> Binary:
    """Read a shared library, an object or an archive of one; raises `ToolError` for all else."""
    if path.is_dir():
        raise ToolError(f"{path} is a folder: {WHAT}")
    if not path.is_file():
        raise ToolError(f"there is no library {path}")
    try:
        content = path.read_bytes()
        if content.startswith(ARCHIVE):
            content = _only_member(path, content)
        return _read(path, content)
    except OSError as error:
        raise ToolError(f"can't read {path}: {error.strerror}") from None
    except BROKEN as error:
        why = f": {error}" if isinstance(error, ValueError) and str(error) else ""
        raise ToolError(f"{path} is no library that can be read{why}: {WHAT}") from None


def _read(path: Path, content: bytes) -> Binary:
    if not content.startswith(b"\x7fELF"):
        return binary_of(path, _object(content), content)
    file = ELFFile(io.BytesIO(content))
    if file["e_type"] == "ET_DYN":
        return elf.shared_library(path, file)
    if file["e_type"] == "ET_REL":
        return binary_of(path, elf.read_object(file), content)
    raise ToolError(f"{path} is a program, no library: {WHAT}")


def _object(content: bytes) -> Object:
    if macho.is_macho(content):
        return macho.read_object(content)
    if wasm.is_wasm(content):
        return wasm.read_object(content)
    if coff.is_coff(content):
        return coff.read_object(content)
    raise ValueError("its format is not known")


def _only_member(path: Path, content: bytes) -> bytes:
    """The object in an archive of ours. Raises `ToolError` where there are more, or none."""
    found = []
    place = len(ARCHIVE)
    while place + HEADER <= len(content):
        name = content[place : place + 16].decode("ascii", "replace").rstrip()
        size = int(content[place + 48 : place + 58])
        held = content[place + HEADER : place + HEADER + size]
        if name.startswith("#1/"):  # Darwin's: the name stands before what it names
            length = int(name[3:])
            name, held = held[:length].rstrip(b"\0").decode("utf-8", "replace"), held[length:]
        if name not in INDEXES:
            found.append(held)
        place += HEADER + size + size % 2
    if len(found) != 1:
        raise ToolError(f"{path} holds {len(found)} objects: libraries of irc hold one")
    return found[0]
