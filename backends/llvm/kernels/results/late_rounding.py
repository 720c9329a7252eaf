"""Equation (6) before a byte, rounded behind the pack: in 16 bits, two vectors at once.

With w the high word of the product and t = s - 32, `(w + 2^(t-1)) >> t` is wanted. Where t is above
some number of bits k, those below the last k of w's t can go before it is rounded: with
u = w >> (t - k)
    (w + 2^(t-1)) >> t = (u + 2^(k-1)) >> k
since what is cut off is less than one. Then `vpackssdw` saturates u to v; `vpmulhrsw` rounds it:
    (v * 2^(15-k) + 2^14) >> 15 = (v + 2^(k-1)) >> k
What saturates comes to 2^(15-k) or more, or its negative or less, either way: k is such that this
is beyond the bounds on that side (`narrow.kept_bits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.render import Renderer
from irc.loops import Expr


@dataclass(frozen=True)
class Late:
    """Words to be packed and the factors, i32, that `vpmulhrsw` then rounds them by; and which of
    the elements the lanes hold."""

    words: Any
    factors: Any
    order: tuple[int, ...]


def late(renderer: Renderer, e: Expr, bits: int) -> Late | None:
    """An expression so, packed with up to so many bits; None where it is not equation (6), or its
    shifts may be 32 or less."""
    found = renderer.render_high(e)
    if found is None:
        return None
    builder, words, kept = renderer.builder, found.words, found.shifts

    const = partial(constant, kept.type)
    if found.most > bits:
        few = builder.icmp_signed("<", kept, const(bits))
        gone = builder.select(few, const(0), builder.sub(kept, const(bits)))
        words = builder.ashr(words, gone)
        kept = builder.select(few, kept, const(bits))
    return Late(words, builder.lshr(const(2**15), kept), found.order)
