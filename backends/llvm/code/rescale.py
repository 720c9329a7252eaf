"""Equation (6) on vectors: a 64-bit product of 32-bit lanes, rounded and shifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask

I32, I64 = ir.IntType(32), ir.IntType(64)
WASM_LANES = 4
"""Of the only vectors that WebAssembly has."""
STAYS = ("memory(inaccessiblemem: readwrite)", "nounwind", "willreturn")
"""Of code that is not taken out of a loop, but that all around it may be."""


def mul_shift_vector(
    builder: Any, a: Any, m: Any, s: Any, shifts: tuple[int, int], *, x86: bool = True,
    half: bool = True, bits: int | None = None,
) -> Any:  # fmt: skip
    """Equation (6) on vectors of i32, an even number of lanes; `shifts` bounds s. Without `half`
    no 2^(s-1) is added. With `bits`, what leaves -2^bits to 2^bits may be anything else beyond:
    then words can be brought to one shift for all, where lanes can't be shifted apart.

    With p = a*m, `(p + 2^(s-1)) >> s` is taken in two steps, by t = min(s, 32) in 64 bits and by
    s - t in 32 bits: floor(floor(x / 2^t) / 2^(s-t)) = floor(x / 2^s), and the low word of the
    first step is the same for a logical shift, since t <= 32. If s > 32 throughout, 2^(s-1) is a
    multiple of 2^32 and is added to the high word instead.
    """
    low, high = shifts
    count = a.type.count
    if _on_wasm(builder) and count > WASM_LANES:
        return _by_parts(
            builder, (a, m, s),
            lambda a, m, s: mul_shift_vector(
                builder, a, m, s, shifts, x86=x86, half=half, bits=bits
            ),
        )  # fmt: skip

    const = partial(constant, ir.VectorType(I32, count))
    products = _products(builder, a, m, x86=x86)
    if low > 32:
        word = _words(builder, products, None, x86=x86)
        if half:
            word = builder.add(word, _power(builder, builder.sub(s, const(33))))
        if bits is not None and low < high <= 62 - bits:
            return _shifted_alike(builder, word, builder.sub(s, const(32)), high - 32, bits)
        return builder.ashr(word, builder.sub(s, const(32)))
    if half:
        halves = split(builder, s, signed=False, x86=x86)
        products = tuple(_add_half(builder, p, t) for p, t in zip(products, halves, strict=True))
    if low == 32:
        word = _words(builder, products, None, x86=x86)
        return word if high == 32 else builder.ashr(word, builder.sub(s, const(32)))
    first = s
    if high > 32:
        first = builder.select(builder.icmp_signed("<", s, const(32)), s, const(32))
    word = _words(builder, products, split(builder, first, signed=False, x86=x86), x86=x86)
    return word if high <= 32 else builder.ashr(word, builder.sub(s, first))


PAIRED = (0, 2, 1, 3)
"""The order of every four lanes that `high_pairs` leaves."""


def high_signed(builder: Any, a: Any, m: Any) -> Any:
    """The high words of the products of i32 lanes on x86-64, in lane order."""
    return _words(builder, _products(builder, a, m, x86=True), None, x86=True)


def high_pairs(builder: Any, a: Any, m: Any) -> Any:
    """The high words of `high_signed`, in the order of `paired`: one shuffle without a mask takes
    them."""
    first, second = (builder.bitcast(p, a.type) for p in _products(builder, a, m, x86=True))
    count = a.type.count
    odd = [g + i for g in range(0, count, 4) for i in (1, 3, count + 1, count + 3)]
    return _take(builder, first, second, odd)


def in_pairs(builder: Any, v: Any) -> Any:
    """A vector in the order of `paired`."""
    return _take(builder, v, v, paired(v.type.count))


def paired(count: int) -> list[int]:
    """Of every four lanes the even ones, then the odd ones."""
    return [g + i for g in range(0, count, 4) for i in PAIRED]


def kept(builder: Any, factor: Any) -> Any:
    """A factor that, on WebAssembly, LLVM takes as it is: knowing more of it, it would shift lane
    by lane what is to be multiplied by a power of two; extend it before a loop, and then no longer
    see products of 32 bits (`i64x2.extmul`). Code that does nothing, and that can't be looked
    into, stands before it."""
    if not _on_wasm(builder) or factor.type.count % WASM_LANES:
        return factor
    four = ir.VectorType(I32, WASM_LANES)
    kind = ir.FunctionType(four, [four])

    def opaque(part: Any) -> Any:
        made = builder.asm(kind, "", "=r,0", [part], side_effect=True)
        for promise in STAYS:  # llvmlite knows none of them
            set.add(made.attributes, promise)
        return made

    return _by_parts(builder, (factor,), opaque)


def low_words(builder: Any, halves: Sequence[Any]) -> Any:
    """The low words of 64-bit lanes, those of both halves side by side."""
    words = ir.VectorType(I32, 2 * halves[0].type.count)
    first, second = (builder.bitcast(v, words) for v in halves)
    return _take(builder, first, second, range(0, 2 * words.count, 2))


def on_x86(builder: Any) -> bool:
    """Whether code is for x86-64, whose products of 32 bits are of even lanes."""
    return bool(builder.module.triple.startswith("x86_64"))


def _on_wasm(builder: Any) -> bool:
    return bool(builder.module.triple.startswith("wasm"))


def _by_parts(builder: Any, values: Sequence[Any], of: Callable[..., Any]) -> Any:
    """A function of vectors, done on four lanes at a time."""
    count = values[0].type.count
    starts = range(0, count, WASM_LANES)
    parts = [of(*(_take(builder, v, v, range(i, i + WASM_LANES)) for v in values)) for i in starts]
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [_take(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _shifted_alike(builder: Any, word: Any, s: Any, most: int, bits: int) -> Any:
    """`word >> s`, lane by lane, `most` the largest: clamped first to what `bits` hold behind it,
    so that all can be multiplied by powers of two and shifted by `most`."""
    const = partial(constant, s.type)
    largest = _power(builder, builder.add(s, const(bits)))
    for limit, test in ((builder.neg(largest), "<"), (largest, ">")):
        word = builder.select(builder.icmp_signed(test, word, limit), limit, word)
    word = builder.mul(word, kept(builder, _power(builder, builder.sub(const(most), s))))
    return builder.ashr(word, const(most))


def _power(builder: Any, exponent: Any) -> Any:
    """2^exponent, lane by lane, up to 2^30. Not a shift to the left: before AVX2 LLVM makes that
    power of two in floating point."""
    top = constant(exponent.type, 30)
    one = constant(exponent.type, 2**30)
    return builder.lshr(one, builder.sub(top, exponent))


def _add_half(builder: Any, product: Any, s: Any) -> Any:
    one = constant(s.type, 1)
    return builder.add(product, builder.shl(one, builder.sub(s, one)))


def split(builder: Any, v: Any, *, x86: bool = True, signed: bool = True) -> tuple[Any, Any]:
    """A vector of i32, extended to two of i64: even and odd lanes on x86, whose products sit so
    in registers; else the lower and the upper half."""
    count = v.type.count
    half = count // 2
    wide = ir.VectorType(I64, half)
    if x86:
        pairs = builder.bitcast(v, wide)
        word = constant(wide, 32)
        if signed:
            # LLVM multiplies at once what it sees to be 32 bits: it moves these two shifts, and no
            # others, next to the product if they were taken out of a loop.
            odd = _take(builder, v, v, [i | 1 for i in range(count)])
            halves = pairs, builder.bitcast(odd, wide)
            even, odd = (builder.ashr(builder.shl(h, word), word) for h in halves)
            return even, odd
        low = constant(wide, 0xFFFFFFFF)
        return builder.and_(pairs, low), builder.lshr(pairs, word)
    extend = builder.sext if signed else builder.zext
    return (
        extend(_take(builder, v, v, range(half)), wide),
        extend(_take(builder, v, v, range(half, count)), wide),
    )


def _products(builder: Any, a: Any, m: Any, *, x86: bool) -> tuple[Any, Any]:
    pairs = zip(split(builder, a, x86=x86), split(builder, kept(builder, m), x86=x86), strict=True)
    first, second = (builder.mul(x, y) for x, y in pairs)
    return first, second


def high_words(builder: Any, a: Any, b: Any) -> Any:
    """The high words of the unsigned products of an even number of 32-bit lanes."""
    x86 = on_x86(builder)
    sides = (split(builder, v, signed=False, x86=x86) for v in (a, kept(builder, b)))
    first, second = (builder.mul(x, y) for x, y in zip(*sides, strict=True))
    return _words(builder, (first, second), None, x86=x86)


def _words(builder: Any, products: tuple[Any, Any], shifts: Any, *, x86: bool) -> Any:
    """One word of each 64-bit product, back in lane order: the high one, or with `shifts` the low
    one after shifting."""
    count = products[0].type.count * 2
    words = ir.VectorType(I32, count)
    pick = 1
    if shifts is not None:
        shifted = [builder.lshr(p, s) for p, s in zip(products, shifts, strict=True)]
        products, pick = (shifted[0], shifted[1]), 0
    first, second = (builder.bitcast(p, words) for p in products)
    if x86:
        order = [i // 2 * 2 + pick + (count if i % 2 else 0) for i in range(count)]
    else:
        order = [2 * i + pick for i in range(count)]
    return _take(builder, first, second, order)


def _take(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, shuffle_mask(order))
