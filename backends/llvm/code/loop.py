"""Counted loops, and the vector idioms that every emitter needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask

I32, I64 = ir.IntType(32), ir.IntType(64)


@dataclass
class Counter:
    """A loop being emitted: its index, and the value carried from round to round (set it to the
    next round's value before the loop closes; afterwards it is the last round's)."""

    index: Any
    carry: Any = None

    def end(self, builder: Any, last: Any, step: int) -> Any:
        """The index behind the block of `step` that begins here, but at most `last`; `step`
        divides a `last` that is a number."""
        if isinstance(self.index, ir.Constant) and isinstance(last, int):
            return min(self.index.constant + step, last)
        end = builder.add(self.index, ir.Constant(I64, step), flags=("nuw", "nsw"))
        return end if isinstance(last, int) else minimum(builder, end, last)


@contextmanager
def counted(
    builder: Any,
    end: Any,
    *,
    begin: Any = 0,
    step: int = 1,
    carry: Any = None,
    label: str = "i",
) -> Iterator[Counter]:
    """Emit `for index = begin; index < end; index += step` around what the block emits.

    The bounds are numbers or i64, `begin` less than `end`: the test stands at the end. A loop of
    one round by its numbers emits no loop.
    """
    begin = begin.constant if isinstance(begin, ir.Constant) else begin
    if isinstance(begin, int) and isinstance(end, int) and end - begin <= step:
        yield Counter(ir.Constant(I64, begin), carry)
        return
    before = builder.block
    body = builder.append_basic_block(f"{label}.body")
    after = builder.append_basic_block(f"{label}.end")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(I64, name=label)
    index.add_incoming(i64(begin), before)
    phi = None
    if carry is not None:
        phi = builder.phi(carry.type)
        phi.add_incoming(carry, before)
    counter = Counter(index, phi)
    yield counter
    following = builder.add(index, ir.Constant(I64, step), flags=("nuw", "nsw"))
    index.add_incoming(following, builder.block)
    if phi is not None:
        phi.add_incoming(counter.carry, builder.block)
    again = builder.icmp_unsigned("<", following, i64(end))
    builder.cbranch(again, body, after)
    builder.position_at_end(after)


@contextmanager
def spanned(
    builder: Any, start: Any, stop: Any, *, step: int = 1, label: str = "i"
) -> Iterator[Any]:
    """`counted` from `start` to `stop`, giving the index alone."""
    with counted(builder, stop, begin=start, step=step, label=label) as loop:
        yield loop.index


@contextmanager
def within(
    builder: Any, count: int, begin: Any, end: Any, label: str = "i", step: int = 1
) -> Iterator[Counter]:
    """Emit a loop over those of the indices 0 to `count` - 1 that lie from `begin` up to `end`;
    where the bounds are numbers there must be one, else there may be none."""
    if isinstance(begin, int) and isinstance(end, int):
        with counted(builder, min(end, count), begin=begin, step=step, label=label) as loop:
            yield loop
        return
    last = minimum(builder, end, count)
    with (
        builder.if_then(builder.icmp_signed("<", i64(begin), last)),
        counted(builder, last, begin=begin, step=step, label=label) as loop,
    ):
        yield loop


@contextmanager
def only_if(builder: Any, left: Any, right: int) -> Iterator[None]:
    """Emit what follows for `left == right` only: no test where both are numbers that are equal."""
    if isinstance(left, int):
        assert left == right, "what would never be done must not be emitted"
        yield
        return
    with builder.if_then(builder.icmp_signed("==", left, i64(right))):
        yield


def minimum(builder: Any, a: Any, b: Any) -> Any:
    """The lesser of two i64 or numbers."""
    a, b = i64(a), i64(b)
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def maximum(builder: Any, a: Any, b: Any) -> Any:
    """The greater of two i64 or numbers."""
    a, b = i64(a), i64(b)
    return builder.select(builder.icmp_signed("<", a, b), b, a)


def i64(value: Any) -> Any:
    """A number as an i64; values as they are."""
    return ir.Constant(I64, value) if isinstance(value, int) else value


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """A scalar on every lane."""
    full = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant):
        return constant(full, value.constant)
    empty = ir.Constant(full, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, empty, shuffle_mask([0] * lanes))
