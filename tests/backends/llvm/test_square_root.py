"""The integer root by Newton's steps is the one that is found bit by bit."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from llvmlite import binding, ir

from irc import fixedpoint
from irc.backends.llvm.code.functions import I64, PTR
from irc.backends.llvm.code.loop import counted
from irc.backends.llvm.kernels.rows.square_root import reciprocal_root, starts
from irc.backends.llvm.target import host
from irc.types import Array


def compiled(d: Array) -> tuple[Array, Array]:
    """n and r of each element, by code."""
    module = ir.Module("root")
    module.triple = host().triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR] * 4 + [I64]), "roots")
    builder = ir.IRBuilder(function.append_basic_block())
    source, table, *results, count = function.args
    with counted(builder, count) as loop:
        places = [builder.gep(p, [loop.index], source_etype=I64) for p in (source, *results)]
        found = reciprocal_root(builder, table, builder.load(places[0], typ=I64))
        for place, value in zip(places[1:], found, strict=True):
            builder.store(value, place)
    builder.ret_void()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), host().machine())
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64)
    n: Array = np.zeros_like(d)
    r: Array = np.zeros_like(d)
    pointers = [a.ctypes.data for a in (d, starts(), n, r)]
    call(engine.get_function_address("roots"))(*pointers, len(d))
    return n, r


def edges() -> Array:
    """Squares of 31 bits, at both ends and between, and their neighbours."""
    rng = np.random.default_rng(1)
    roots = np.concatenate([
        np.arange(2**30, 2**30 + 3000), np.arange(2**31 - 3000, 2**31),
        rng.integers(2**30, 2**31, 30000),
        np.sqrt(np.arange(64, 256) * 2.0**54).astype(np.int64),  # where the table steps
    ])  # fmt: skip
    squares = roots.astype(np.int64) ** 2
    near: Array = np.concatenate([squares - 1, squares, squares + 1])
    return near.clip(2**60, 2**62 - 1)


@pytest.mark.skipif(not host().is_x86, reason="the kernels that need it are of x86-64")
@pytest.mark.parametrize("kind", ["edges", "any", "small"])
def test_roots(kind: str) -> None:
    rng = np.random.default_rng(2)
    d: Array = {
        "edges": edges(),
        "any": rng.integers(2**60, 2**62, 100_000),
        "small": (2.0 ** rng.uniform(0, 62, 50_000)).astype(np.int64),
    }[kind]
    n, r = compiled(d)
    expected = fixedpoint.half_shift(d)
    np.testing.assert_array_equal(n, expected)
    roots = fixedpoint.square_root(d << (2 * expected))
    np.testing.assert_array_equal(r, ((1 << fixedpoint.ROOT_BITS) - 1) // roots)
