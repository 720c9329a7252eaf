"""Counted loops, and the vector idioms that every emitter needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

I32, I64 = ir.IntType(32), ir.IntType(64)


@dataclass
class Counter:
    """A loop being emitted: its index, and the value carried from round to round (set it to the
    next round's value before the loop closes; afterwards it is the last round's)."""

    index: Any
    carry: Any = None


@contextmanager
def counted(
    builder: Any, extent: int, *, step: int = 1, carry: Any = None, label: str = "i"
) -> Iterator[Counter]:
    """Emit `for index = 0; index < extent; index += step` around what the block emits.

    `extent` is at least 1: the test stands at the end. A loop of one round emits no loop.
    """
    if extent <= step:
        yield Counter(ir.Constant(I64, 0), carry)
        return
    before = builder.block
    body = builder.append_basic_block(f"{label}.body")
    after = builder.append_basic_block(f"{label}.end")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(I64, name=label)
    index.add_incoming(ir.Constant(I64, 0), before)
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
    again = builder.icmp_unsigned("<", following, ir.Constant(I64, extent))
    builder.cbranch(again, body, after)
    builder.position_at_end(after)


@contextmanager
def spanned(
    builder: Any, start: Any, stop: Any, *, step: int = 1, label: str = "i"
) -> Iterator[Any]:
    """Emit `for index = start; index < stop; index += step` around what the block emits, and give
    the index. `start` and `stop` are i64 or numbers, known to the emitter or not, of at least one
    round."""
    first, last = (ir.Constant(I64, v) if isinstance(v, int) else v for v in (start, stop))
    before = builder.block
    body = builder.append_basic_block(f"{label}.body")
    after = builder.append_basic_block(f"{label}.end")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(I64, name=label)
    index.add_incoming(first, before)
    yield index
    following = builder.add(index, ir.Constant(I64, step), flags=("nuw", "nsw"))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, last), body, after)
    builder.position_at_end(after)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """A scalar on every lane."""
    full = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant):
        return ir.Constant(full, [value.constant] * lanes)
    empty = ir.Constant(full, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, empty, mask)
