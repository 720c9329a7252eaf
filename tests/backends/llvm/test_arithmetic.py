"""Products that are rounded and shifted, and long division, by themselves: at every edge."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from irc import fixedpoint
from irc.backends.llvm.code.division import divide_signed, divide_unsigned
from irc.backends.llvm.code.functions import I32, I64, PTR
from irc.backends.llvm.code.rescale import mul_shift_vector
from irc.backends.llvm.target import host
from irc.types import Array

LANES = 8
EDGES = [0, 1, 2, 3, 5, 2**15, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1]


def computed(emit: Callable[..., Any], element: Any, *operands: Array) -> Array:
    """A function of vectors, lane by lane over arrays of one length."""
    module = ir.Module("arithmetic")
    module.triple = host().triple
    vector = ir.VectorType(element, LANES)
    kind = ir.FunctionType(ir.VoidType(), [PTR] * (len(operands) + 1))
    function = ir.Function(module, kind, "vectors")
    builder = ir.IRBuilder(function.append_basic_block())
    *sources, result = function.args
    values = [builder.load(p, typ=vector, align=1) for p in sources]
    builder.store(emit(builder, *values), result, align=1)
    builder.ret_void()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), host().machine())
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(operands) + 1))(
        engine.get_function_address("vectors")
    )
    rest = -len(operands[0]) % LANES
    padded = [np.ascontiguousarray(np.pad(o, (0, rest), mode="edge")) for o in operands]
    made: Array = np.zeros_like(padded[0])
    for i in range(0, len(made), LANES):
        call(*(a[i : i + LANES].ctypes.data for a in (*padded, made)))
    return made[: len(operands[0])]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("x86", [True, False])
@pytest.mark.parametrize(
    "shifts", [(1, 62), (20, 31), (31, 31), (31, 32), (32, 32), (32, 40), (33, 62), (40, 40)]
)
def test_rescaling(shifts: tuple[int, int], x86: bool, half: bool) -> None:
    """The low words of equation (6), whatever bounds of the shift are known."""
    rng = np.random.default_rng(0)
    a = np.array([*EDGES, *(-e for e in EDGES), -(2**31)]).repeat(40)
    a = np.concatenate([a, rng.integers(-(2**31), 2**31, 2000)]).astype(np.int32)
    m = rng.choice([2**30, 2**30 + 1, 2**31 - 1, int(rng.integers(2**30, 2**31))], len(a))
    m = m.astype(np.int32)
    s = rng.integers(shifts[0], shifts[1], len(a), np.int32, endpoint=True)

    def emit(builder: Any, a: Any, m: Any, s: Any) -> Any:
        return mul_shift_vector(builder, a, m, s, shifts, x86=x86, half=half)

    wanted = fixedpoint.mul_shift(a, m, s, half=half).astype(np.int32)
    np.testing.assert_array_equal(computed(emit, I32, a, m, s), wanted)


def test_long_division() -> None:
    rng = np.random.default_rng(1)
    words = np.array([*EDGES, 2**32, 2**61, 2**62 + 1, 2**63 - 1], np.int64)
    bits = rng.integers(1, 63, 400)
    a = np.concatenate([words.repeat(len(words)), rng.integers(0, 1 << bits)])
    b = np.concatenate([np.tile(words, len(words)), rng.integers(0, 1 << rng.permutation(bits))])
    b = np.maximum(b, 1)
    np.testing.assert_array_equal(computed(divide_unsigned, I64, a, b), a // b)
    sign = np.where(rng.integers(0, 2, len(a)), 1, -1)
    np.testing.assert_array_equal(computed(divide_signed, I64, sign * a, b), sign * (a // b))
    np.testing.assert_array_equal(computed(divide_signed, I64, a, sign * b), sign * (a // b))
