"""The golden vector inside the library: inputs from a hash of their position, outputs as the
reference computes them, compared byte by byte or, if they are long, by a sum that weighs every
byte by its position."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.functions import I8, I32, I64
from irc.backends.llvm.code.loop import counted
from irc.backends.llvm.module.interface import Port
from irc.graph import Graph, evaluate
from irc.types import Array, DType

STORED = 4096
"""Outputs of up to this many bytes are stored; of longer ones a 64-bit sum."""
_STEP, _MIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9


def position_hash(start: int, count: int) -> Array:
    """64 bits for each of `count` positions: a multiplicative hash, mixed once."""
    x = (np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(_STEP)
    return np.asarray((x ^ (x >> np.uint64(29))) * np.uint64(_MIX))


def golden_inputs(graph: Graph) -> dict[str, Array]:
    """The self test's inputs: hashed bytes in quantized tensors, zeros and ones in booleans, zeros
    in plain integers, which may be indices."""
    found: dict[str, Array] = {}
    for number, v in enumerate(graph.inputs):
        t = v.type
        content = (position_hash(number << 40, t.nbytes) >> np.uint64(56)).astype(np.uint8)
        if t.dtype is DType.BOOL:
            content &= 1
        elif t.quant is None:
            content[:] = 0
        found[v.name] = content.view(t.dtype.numpy).reshape(t.shape)
    return found


def golden_outputs(graph: Graph) -> bytes:
    """All bytes of the outputs, one output after the other, by the reference."""
    outputs = evaluate(graph, golden_inputs(graph))
    return b"".join(np.ascontiguousarray(a).tobytes() for a in outputs.values())


def checksum(content: bytes) -> int:
    """`sum (byte + 1) * (hash(position) | 1) mod 2^64`: any single wrong byte changes it."""
    weights = position_hash(0, len(content)) | np.uint64(1)
    values = np.frombuffer(content, np.uint8).astype(np.uint64) + np.uint64(1)
    return int(np.sum(weights * values, dtype=np.uint64))


def _hash(builder: Any, position: Any) -> Any:
    x = builder.add(position, ir.Constant(I64, 1))
    x = builder.mul(x, ir.Constant(I64, _STEP))
    x = builder.xor(x, builder.lshr(x, ir.Constant(I64, 29)))
    return builder.mul(x, ir.Constant(I64, _MIX))


def _byte(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [index], inbounds=True, source_etype=I8)


def emit_fill(builder: Any, number: int, port: Port, pointer: Any) -> None:
    """Write the golden input `number` to `pointer`."""
    if port.type.nbytes == 0:
        return
    with counted(builder, port.type.nbytes) as loop:
        position = builder.add(loop.index, ir.Constant(I64, number << 40))
        value = builder.trunc(builder.lshr(_hash(builder, position), ir.Constant(I64, 56)), I8)
        if port.type.dtype is DType.BOOL:
            value = builder.and_(value, ir.Constant(I8, 1))
        elif not port.quantized:
            value = ir.Constant(I8, 0)
        builder.store(value, _byte(builder, pointer, loop.index), align=1)


def emit_compare(builder: Any, stored: Any, start: int, count: int, pointer: Any) -> Any:
    """An i32 that is 0 if `count` bytes equal the stored ones from `start` on."""
    if count == 0:
        return ir.Constant(I32, 0)
    with counted(builder, count, carry=ir.Constant(I8, 0)) as loop:
        at = builder.add(loop.index, ir.Constant(I64, start))
        wanted = builder.load(_byte(builder, stored, at), typ=I8, align=1)
        found = builder.load(_byte(builder, pointer, loop.index), typ=I8, align=1)
        loop.carry = builder.or_(loop.carry, builder.xor(wanted, found))
    return builder.zext(loop.carry, I32)


def emit_checksum(builder: Any, total: Any, start: int, count: int, pointer: Any) -> Any:
    """`total` with the weighed bytes added that stand from position `start` on."""
    if count == 0:
        return total
    with counted(builder, count, carry=total) as loop:
        weight = _hash(builder, builder.add(loop.index, ir.Constant(I64, start)))
        weight = builder.or_(weight, ir.Constant(I64, 1))
        value = builder.load(_byte(builder, pointer, loop.index), typ=I8, align=1)
        value = builder.add(builder.zext(value, I64), ir.Constant(I64, 1))
        loop.carry = builder.add(loop.carry, builder.mul(weight, value))
    return loop.carry
