from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.core import Const, Input, Kernel
from irc.ops.linear import QLinear
from irc.ops.reduce import QReduceSum
from irc.passes.integer.prove import Prove, prove
from irc.proofs import accumulator_bound, broken_pairs, high_half, neighbours
from irc.types import DType, Quant


def qlinear(w: Any, bias: Any = 0, shift: int = 40, dtype: DType = DType.U8) -> Graph:
    outs, depth = w.shape
    quant = Quant(0.1, 3)
    x = Input(dtype, (1, depth), quant, name="x")
    b = Const(np.full(outs, bias, np.int32), name="b")
    m, s = Const(np.full(outs, 2**30, np.int32)), Const(np.full(outs, shift, np.int8))
    w = Const(w.astype(np.int8), name="w")
    y = QLinear(x, w, b, m, s, (0, 255), DType.U8, quant, name="fc")
    return Graph("g", (x,), (y,), ("y",))


def saturates(pair: Any) -> bool:
    """What the instruction does to the worst u8 inputs: the definition behind the proof."""
    positive, negative = np.maximum(pair, 0).sum(), np.minimum(pair, 0).sum()
    return bool(255 * positive > 32767 or 255 * negative < -32768)


@given(st.lists(st.integers(-128, 127), min_size=2, max_size=2))
def test_pairs_are_broken_where_the_instruction_saturates(pair: list[int]) -> None:
    w = np.array([[*pair, 0, 0]], np.int8)
    assert bool(broken_pairs(w)[0]) == saturates(np.array(pair))


def test_pairs_do_not_cross_kernel_rows() -> None:
    # Three weights per kernel row: the third stands beside padding, not beside the next row.
    w = np.zeros((1, 2, 1, 3), np.int8)
    w[0, 0, 0, 2] = w[0, 1, 0, 0] = 127
    assert neighbours(w).shape == (1, 4, 2)
    assert broken_pairs(w).sum() == 0
    w[0, 1, 0, 1] = 2
    assert broken_pairs(w).sum() == 1


def test_depthwise_weights_are_exempt() -> None:
    assert broken_pairs(np.full((4, 3, 3, 1), 127, np.int8)).sum() == 0


@given(st.integers(0, 2**32), st.sampled_from([DType.U8, DType.I8]))
def test_no_input_exceeds_the_bound(seed: int, dtype: DType) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, (3, 9))
    b = rng.integers(-5000, 5000, 3)
    bound = accumulator_bound(w, b, dtype)
    for x in (
        rng.integers(dtype.min, dtype.max + 1, (50, 9)),
        np.where(w > 0, dtype.max, dtype.min),
        np.where(w > 0, dtype.min, dtype.max),
    ):
        assert np.all(np.abs(x @ w.T + b) <= bound)


@given(st.integers(1, 62), st.integers(0, 2**31 - 1))
def test_high_half_never_shifts_out_of_32_bits(s: int, bound: int) -> None:
    fits = bool(high_half(bound, s))
    assert fits == (bound * 2 ** max(32 - s, 0) < 2**31)


def test_proof_of_a_layer() -> None:
    w = np.zeros((2, 8))
    w[0, :2] = 100, 28
    w[1, :2] = 100, 29
    (proof,) = prove(qlinear(w, bias=7))
    assert (proof.name, proof.op, proof.pairs, proof.broken) == ("fc", "qlinear", 8, 1)
    assert not proof.pairs_exact
    # As i8 the input ends at -128, but 128 * sum(w) joins the bias: that is the larger bound.
    assert proof.accumulator == max(129 * 255 + 7, 129 * 128 + (7 + 129 * 128))
    assert proof.shift == (40, 40)
    assert proof.as_json()["broken"] == 1


def test_a_rescaled_sum_that_leaves_32_bits_is_refused() -> None:
    w = np.full((2, 8), 100)
    (proof,) = prove(qlinear(w, shift=20))
    assert proof.result == ((proof.accumulator * 2**30) >> 20) + 1 + 3
    with pytest.raises(CompileError, match=r"qlinear %fc: the rescaled sum could overflow"):
        prove(qlinear(w, shift=8))


def test_accumulator_overflow_is_refused() -> None:
    with pytest.raises(CompileError, match=r"qlinear %fc.*overflow"):
        prove(qlinear(np.full((1, 66_400), 127)))
    prove(qlinear(np.full((1, 66_000), 127)))
    with pytest.raises(CompileError, match="overflow"):
        Prove()(qlinear(np.full((1, 4), 1), bias=2**31 - 100))


def test_signed_storage_counts_as_unsigned_too() -> None:
    # A backend may store i8 inputs as u8: 128 * sum(w) moves into the bias.
    (proof,) = prove(qlinear(np.full((1, 4), 100), dtype=DType.I8))
    assert proof.accumulator == 128 * 400 + 255 * 400


def test_shift_out_of_range_is_refused() -> None:
    with pytest.raises(CompileError, match="shifts 0 to 0"):
        prove(qlinear(np.ones((1, 4)), shift=0))


def test_kernels_are_looked_into() -> None:
    graph = qlinear(np.array([[127, 127, 0, 0]]))
    (y,) = graph.outputs
    args = y.operands
    formal = tuple(Input.of(a.type, f"a{i}") for i, a in enumerate(args))
    given = iter(formal)
    body = Graph("body", formal, (y.map_operands(lambda _: next(given)),), ("y",))
    outer = graph.with_outputs((Kernel(args, body, name="k"),))
    assert prove(outer) == prove(graph)


def test_sums_may_widen() -> None:
    x = Input(DType.U8, (1, 2**24, 1, 1), Quant(1.0), name="x")
    total = QReduceSum(x, (1,), False, 2**30, 60, (0, 255), DType.U8, Quant(1.0), name="sum")
    (proof,) = prove(Graph("g", (x,), (total,), ("y",)))
    assert 2**31 < proof.accumulator < proof.limit
