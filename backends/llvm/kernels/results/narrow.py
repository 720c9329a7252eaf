"""Results of 32 bits become bytes by saturating packs (`packs`), several vectors together.

A kernel's expression mostly ends in `clamp(x + zero, lo, hi)` as a byte. `vpackssdw` and
`vpackuswb` saturate, so they clamp by themselves to the range of a byte, and with `vpaddsw` between
them for the zero point this is exact: whatever saturates on the way is beyond the byte's range,
before and after. Packs work within 16 bytes; one permutation in the end puts all in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import splat
from irc.backends.llvm.code.numbers import is_number
from irc.backends.llvm.code.render import Renderer
from irc.backends.llvm.kernels.results.late_rounding import Late
from irc.backends.llvm.kernels.vectors.dot import call
from irc.backends.llvm.kernels.vectors.lanes import part, parts
from irc.backends.llvm.kernels.vectors.packs import pack, packs
from irc.backends.llvm.target import Target
from irc.loops import Binary, Cast, Expr, Int
from irc.types import DType

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))
Bounds = tuple[int, int]
BITS = 9
"""Of a result and its sign without its zero point, where it is a byte before it is clamped."""
_MULHRS = {16: "ssse3.pmul.hr.sw.128", 32: "avx2.pmul.hr.sw", 64: "avx512.pmul.hr.sw.512"}
YMM, ZMM = 32, 64
"""Bytes of vectors that are permuted."""
AT_ONCE = 4
"""Vectors of 32-bit lanes whose bytes fill one."""


@dataclass(frozen=True)
class Narrowing:
    """`clamp(wide + zero, low, high)` as a byte; wide is i32."""

    wide: Expr
    zero: int | Expr
    """A loaded one is less than 2^8, too."""
    low: int
    high: int
    dtype: DType


def narrowing(e: Expr) -> Narrowing | None:
    """What an expression narrows, where it ends so."""
    match e:
        case Cast(
            to=(DType.U8 | DType.I8) as to,
            a=Binary(
                kind="min",
                a=Binary(kind="max", a=wide, b=Int(value=low)),
                b=Int(value=high),
            ),
        ) if wide.dtype is DType.I32 and to.min <= low <= high <= to.max:
            pass
        case _:
            return None
    match wide:
        case Binary(kind="add", a=inner, b=Int(value=zero)) if abs(zero) < 2**8:
            return Narrowing(inner, zero, low, high, to)
        case Binary(kind="add", a=inner, b=zero) if is_number(zero):
            return Narrowing(inner, zero, low, high, to)
    return Narrowing(wide, 0, low, high, to)


def loaded_zero(renderer: Renderer, n: Narrowing) -> Any:
    """The zero point, i32, where it is loaded, else None."""
    return renderer.render(n.zero) if isinstance(n.zero, Expr) else None


def kept_bits(n: Narrowing) -> int:
    """How many bits below a result's last one may be packed with it: what saturates as a word must
    still be beyond the bounds. 7 as long as the zero point is a byte of its type: 2^8 and it come
    to more than the largest byte then, -2^8 and it to less than the smallest; else 6, for any zero
    point is less than 2^8."""
    known = isinstance(n.zero, int) and n.dtype.min <= n.zero <= n.dtype.max
    return 7 if known else 6


def register_bytes(target: Target, lanes: int) -> int:
    """Bytes of the vectors that results of `lanes` i32 are packed from: one, two or four of the
    widest; 0 where they don't fill such."""
    if not packs(target):
        return 0
    fit = (w for w in (64, 32, 16) if w <= target.vector_bytes and lanes * 4 in (w, 2 * w, 4 * w))
    return next(fit, 0)


@dataclass(frozen=True)
class _Packed:
    """A vector, which of all the elements its lanes hold, and what rounds these once they are
    words (`Late`)."""

    value: Any
    order: tuple[int, ...]
    factors: Any = None


def narrow(
    builder: Any, n: Narrowing, values: Sequence[Any], nbytes: int, zero: Any = None, *,
    together: bool = False,
) -> list[Any]:  # fmt: skip
    """The bytes of vectors of i32, all of one length, made of registers of `nbytes`; `zero` is the
    zero point, i32, where that is loaded. What was packed together is put in order so, if asked
    for."""
    order = tuple(range(values[0].type.count))
    wide = [_Packed(v, order) for v in values]
    return _narrowed(builder, n, wide, nbytes, zero, together=together)


def narrow_late(
    builder: Any, n: Narrowing, values: Sequence[Late], nbytes: int, zero: Any = None
) -> list[Any]:
    """As `narrow`, of words that are still to be rounded."""
    wide = [_Packed(v.words, v.order, v.factors) for v in values]
    return _narrowed(builder, n, wide, nbytes, zero, together=True)


def _narrowed(
    builder: Any, n: Narrowing, values: Sequence[_Packed], nbytes: int, zero: Any, *,
    together: bool,
) -> list[Any]:  # fmt: skip
    lanes, each = nbytes // 4, len(values[0].order)
    registers = [_lanes_of(builder, v, range(i, i + lanes))
                 for v in values for i in range(0, each, lanes)]  # fmt: skip
    results: list[Any] = []
    while registers:
        size = next(g for g in (AT_ONCE, 2, 1) if g <= len(registers))
        packed = _bytes(builder, n, registers[:size], zero)
        results += _apart(builder, packed, each, size * lanes // each, together=together)
        registers = registers[size:]
    return results


def _lanes_of(builder: Any, p: _Packed, lanes: range) -> _Packed:
    """Some lanes."""
    value, factors = (v if v is None else part(builder, v, lanes) for v in (p.value, p.factors))
    return _Packed(value, p.order[lanes.start : lanes.stop], factors)


def narrow_lanes(builder: Any, n: Narrowing, registers: Sequence[Any], zero: Any = None) -> Any:
    """The bytes of four registers of i32, left in the order in which packs within 16 bytes put
    them: of every 16 bytes' lanes those of the first register, then of the second, and so on.
    `zero` as in `narrow`."""
    packed = [_Packed(r, tuple(range(r.type.count))) for r in registers]
    return _bytes(builder, n, packed, zero).value


def saturated(builder: Any, registers: Sequence[Any], low: int, high: int) -> list[Any]:
    """Vectors of i32 clamped to bounds of 16 bits: as vectors of i16, in each of which a value
    fills both halves of what was its lane."""
    found: list[Any] = []
    for i in range(0, len(registers), 2):
        pair = registers[i : i + 2]
        a, b = (_Packed(r, ()) for r in (pair[0], pair[-1]))
        words = _pack(builder, "packssdw", (a, b)).value
        words = bounded(builder, words, (low, high), (DType.I16.min, DType.I16.max))
        for first in range(0, 4 * len(pair), 4):
            lanes = [i + first + k // 2 for i in range(0, words.type.count, 8) for k in range(8)]
            mask = shuffle_mask(lanes)
            found.append(builder.shuffle_vector(words, words, mask))
    return found


def _bytes(
    builder: Any, n: Narrowing, registers: list[_Packed], zero: Any = None
) -> _Packed:
    """One to four vectors of i32 as bytes."""
    words = [_rounded(builder, _pack(builder, "packssdw", p)) for p in _pairs(builder, registers)]
    zero = n.zero if zero is None else zero
    words = [_Packed(_add(builder, w.value, zero), w.order) for w in words]
    kind = "packuswb" if n.dtype is DType.U8 else "packsswb"
    (packed,) = (_pack(builder, kind, p) for p in _pairs(builder, words))
    value = bounded(
        builder, packed.value, (n.low, n.high), (n.dtype.min, n.dtype.max),
        signed=n.dtype is DType.I8,
    )  # fmt: skip
    return _Packed(value, packed.order)


def _pairs(builder: Any, registers: list[_Packed]) -> list[tuple[_Packed, _Packed]]:
    """Neighbours; an odd one's halves (itself twice where it has none)."""
    even = len(registers) // 2 * 2
    pairs = [(registers[i], registers[i + 1]) for i in range(0, even, 2)]
    return pairs + [_halves(builder, r) for r in registers[even:]]


def _halves(builder: Any, p: _Packed) -> tuple[_Packed, _Packed]:
    count = p.value.type.count
    if count * p.value.type.element.width <= 128:
        return p, _Packed(p.value, (), p.factors)
    low, high = range(count // 2), range(count // 2, count)
    return _lanes_of(builder, p, low), _lanes_of(builder, p, high)


def _pack(builder: Any, kind: str, pair: tuple[_Packed, _Packed]) -> _Packed:
    a, b = pair
    count = a.value.type.count
    bits = a.value.type.element.width
    step = 128 // bits
    order: list[int] = []
    for i in range(0, count, step):
        order += [*a.order[i : i + step], *b.order[i : i + step]]
    factors = None
    if a.factors is not None:
        factors = pack(builder, kind, a.factors, b.factors)
    return _Packed(pack(builder, kind, a.value, b.value), tuple(order), factors)


def _rounded(builder: Any, words: _Packed) -> _Packed:
    """Words multiplied by their factors, if they have any, halved 15 times and rounded."""
    if words.factors is None:
        return words
    kind = words.value.type
    name = f"llvm.x86.{_MULHRS[kind.count * 2]}"
    return _Packed(call(builder, name, kind, [words.value, words.factors]), words.order)


def _add(builder: Any, words: Any, zero: Any) -> Any:
    if isinstance(zero, int):
        if zero == 0:
            return words
        zero = ir.Constant(I16, zero)
    else:
        zero = builder.trunc(zero, I16)
    constant = splat(builder, zero, words.type.count)
    return call(builder, f"llvm.sadd.sat.v{words.type.count}i16", words.type, [words, constant])


def bounded(
    builder: Any, value: Any, bounds: Bounds, extremes: Bounds, *, signed: bool = True
) -> Any:
    """A vector within bounds that are narrower than its extremes."""
    compare = builder.icmp_signed if signed else builder.icmp_unsigned
    for bound, extreme, test in zip(bounds, extremes, "><", strict=True):
        if bound != extreme:
            limit = constant(value.type, bound)
            value = builder.select(compare(test, value, limit), value, limit)
    return value


def _apart(
    builder: Any, packed: _Packed, each: int, count: int, *, together: bool
) -> list[Any]:
    """The results that were packed together, `each` lanes, in order. In a vector of 32 bytes one
    shuffle and one permutation put all of them in order `together`, in one of 64 a permutation."""
    lanes: dict[int, list[int]] = {}
    for lane, element in enumerate(packed.order):
        lanes.setdefault(element, []).append(lane)
    order = [lanes[e][k] for k in range(count) for e in range(each)]
    if not together or len(order) not in (YMM, ZMM) or count == 1:
        return [part(builder, packed.value, order[i : i + each])
                for i in range(0, len(order), each)]  # fmt: skip
    whole = part(builder, packed.value, order)
    kind = ir.FunctionType(whole.type, [whole.type])
    # LLVM can't look through the empty code: it would shuffle each result by itself.
    anywhere = "=x,0" if len(order) == YMM else "=v,0"
    whole = builder.asm(kind, "", anywhere, [whole], side_effect=False)
    return parts(builder, whole, each)
