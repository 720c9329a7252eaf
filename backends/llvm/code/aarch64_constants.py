"""AArch64: vector constants that LLVM would make with an instruction for floats.

Where the bits of a constant are those that `movi` can make but for the sign bits of floats, LLVM
writes `movi` and `fneg`: so 2^31 in lanes of 64 bits, which rounding by (6) adds, or bytes that the
self test expects. `fneg` only flips bits, but a library promises to have no instruction for floats:
such a constant comes from a general register, which LLVM can't look into.
"""

from __future__ import annotations

import re
from typing import Any

from llvmlite import binding

from irc.backends.llvm.target import Target

_SIGNS = (0x8000000080000000, 0x8000000000000000, 0x8000800080008000)
"""The sign bits of floats of 32, 64 and 16 bits."""
_TYPE = re.compile(r"<(\d+) x i(\d+)>")
_ELEMENT = r"i\d+ (?:-?\d+|poison|undef)"
_CONSTANT = re.compile(rf"splat \(i(\d+) (-?\d+)\)|<({_ELEMENT}(?:, {_ELEMENT})*)>")
_FUNCTION = re.compile(r"^define .*?^}$", re.MULTILINE | re.DOTALL)
_REGISTER = 128
_Lanes = tuple[int | None, ...]
"""The elements of a constant; None for what is left open."""


def without_float_constants(module: Any, target: Target) -> Any:
    """An optimized module whose code will need no `fneg`."""
    if target.arch != "aarch64":
        return module
    before = str(module)
    after = _FUNCTION.sub(lambda found: _function(found[0]), before)
    return module if after == before else binding.parse_assembly(after)


def is_negated(word: int) -> bool:
    """Whether LLVM makes a vector of these 64 bits, again and again, by negating floats."""
    return not _is_immediate(word) and any(_is_immediate(word ^ signs) for signs in _SIGNS)


def _is_immediate(word: int) -> bool:
    """Whether one `movi`, `mvni` or `fmov` of a vector makes these 64 bits."""
    if all(byte in (0, 255) for byte in word.to_bytes(8, "little")):
        return True
    if word & (2**48 - 1) == 0 and word >> 54 & 0x1FF in (0x100, 0xFF):  # a double
        return True
    half = word & 0xFFFFFFFF
    if half != word >> 32:
        return False
    single = half & 0x7FFFF == 0 and half >> 25 & 0x3F in (0x20, 0x1F)
    return single or _is_shifted(half) or _is_shifted(half ^ 0xFFFFFFFF)


def _is_shifted(half: int) -> bool:
    """One byte at its place in lanes of 32, 16 or 8 bits, behind zeros or before ones."""
    low = half & 0xFFFF
    lanes = {32: half} | ({16: low} if low == half >> 16 else {})
    if any(lane & ~(0xFF << at) == 0 for bits, lane in lanes.items() for at in range(0, bits, 8)):
        return True
    behind = (half >> at for at in (8, 16) if half & (1 << at) - 1 == (1 << at) - 1)
    return half.to_bytes(4, "little") == bytes([half & 0xFF] * 4) or any(b < 256 for b in behind)


def _function(text: str) -> str:
    """The text of a function whose constants are made where it begins."""
    names: dict[tuple[int, _Lanes], str] = {}
    lines = [_line(line, names) for line in text.splitlines()]
    if not names:
        return text
    labelled = lines[1].partition(";")[0].rstrip().endswith(":")
    made = [line for (bits, lanes), name in names.items() for line in _made(bits, lanes, name)]
    return "\n".join([*lines[: 1 + labelled], *made, *lines[1 + labelled :]])


def _line(line: str, names: dict[tuple[int, _Lanes], str]) -> str:
    """One instruction, which takes such constants by name."""

    def named(found: re.Match[str]) -> str:
        constant = _constant(found, line)
        if constant is None or not any(_negated_pieces(*constant)):
            return found[0]
        return names.setdefault(constant, f"%irc.opaque.{len(names)}")

    return _CONSTANT.sub(named, line)


def _constant(found: re.Match[str], line: str) -> tuple[int, _Lanes] | None:
    """Bits of an element, and the elements; None for what is less than a register."""
    width, value, listed = found.groups()
    lanes: _Lanes
    if listed is None:
        before = [m for m in _TYPE.finditer(line, 0, found.start()) if m[2] == width]
        lanes = (int(value),) * (int(before[-1][1]) if before else 0)
    else:
        parts = [part.split() for part in listed.split(", ")]
        width = parts[0][0][1:]
        lanes = tuple(None if n in ("poison", "undef") else int(n) for _, n in parts)
    bits = int(width)
    return None if bits < 8 or bits * len(lanes) < 64 else (bits, lanes)


def _negated_pieces(bits: int, lanes: _Lanes) -> list[int | None]:
    """For each register of a constant, the 64 bits that negating floats would make it of."""
    step = _REGISTER // bits
    return [_negated(bits, lanes[at : at + step]) for at in range(0, len(lanes), step)]


def _negated(bits: int, lanes: _Lanes) -> int | None:
    """The 64 bits that a register repeats, if it is negated; what is open may be either."""
    period = 64 // bits
    mask, known = (1 << bits) - 1, [set(lanes[i::period]) - {None} for i in range(period)]
    if any(len(values) > 1 for values in known) or not any(known):
        return None
    for filler in (0, mask):
        numbers = [values.copy().pop() if values else filler for values in known]
        word = sum((n & mask) << bits * i for i, n in enumerate(numbers) if n is not None)
        if is_negated(word):
            return word
    return None


def _made(bits: int, lanes: _Lanes, name: str) -> list[str]:
    """A constant of which each such register is filled from a general one."""
    pieces, step = _negated_pieces(bits, lanes), _REGISTER // bits
    padded = -(-len(lanes) // (64 // bits)) * (64 // bits)
    kind = f"<{padded} x i{bits}>"
    rest = [None if pieces[i // step] is not None else n for i, n in enumerate(lanes)]
    rest += [None] * (padded - len(lanes))
    current = f"<{', '.join(f'i{bits} ' + ('poison' if n is None else str(n)) for n in rest)}>"
    made, words = [], sorted({word for word in pieces if word is not None})
    for n, word in enumerate(words):
        splat, last = f"{name}.{n}", n == len(words) - 1
        made += _splat(kind, padded * bits // 64, word, splat)
        chosen = [
            i + padded if i < len(lanes) and pieces[i // step] == word else i
            for i in range(len(lanes) if last else padded)
        ]
        mask = f"<{', '.join(f'i32 {i}' for i in chosen)}>"
        result = name if last else f"{splat}.so_far"
        made.append(
            f"  {result} = shufflevector {kind} {current}, {kind} {splat},"
            f" <{len(chosen)} x i32> {mask}"
        )
        current = result
    return made


def _splat(kind: str, count: int, word: int, name: str) -> list[str]:
    """`count` times a word, as a vector of a type."""
    words, signed = f"<{count} x i64>", word - 2**64 if word >> 63 else word
    return [
        f'  {name}.word = call i64 asm "", "=r,0"(i64 {signed})',
        f"  {name}.first = insertelement {words} poison, i64 {name}.word, i64 0",
        f"  {name}.all = shufflevector {words} {name}.first, {words} poison,"
        f" <{count} x i32> zeroinitializer",
        f"  {name} = bitcast {words} {name}.all to {kind}",
    ]
