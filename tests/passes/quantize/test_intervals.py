"""The types of values that a model leaves unquantized: as wide as they can be, and no wider."""

from __future__ import annotations

import numpy as np
import pytest

from irc.ops.activation import Clip
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear
from irc.ops.reduce import ReduceMean, ReduceSum
from irc.passes.quantize.intervals import inner_type, output_type
from irc.types import DType, Quant, TensorType
from irc.value import Value

A, B = (Input(DType.F32, (1, 2), name=name) for name in "ab")
INTEGERS: dict[Value, Value] = {
    A: Input(DType.U8, (1, 2), Quant(0.5, 100), name="a"),  # -50 to 77.5
    B: Input(DType.U8, (1, 2), Quant(0.25, 0), name="b"),  # 0 to 63.75
}
W = Const(np.array([[1, -2], [3, 0]], np.float32))
BIAS = Const(np.array([10, -20], np.float32))
LAYER = Linear(A, W, BIAS)
"""Its first output lies between -50 - 2*77.5 + 10 and 77.5 + 2*50 + 10, the second between
-3*50 - 20 and 3*77.5 - 20."""

PRODUCT = Mul(A, B)


def known(v: Value) -> Value | None:
    return v if isinstance(v, Const) else INTEGERS.get(v)


def roots(v: Value) -> dict[Value, Value]:
    return {v: v, **{p: r for o in v.operands for p, r in roots(o).items()}}


@pytest.mark.parametrize(("v", "low", "high"), [
    (Add(A, B), -50.0, 141.25), (Sub(A, B), -113.75, 77.5), (Sub(B, A), -77.5, 113.75),
    (Mul(A, B), -50 * 63.75, 77.5 * 63.75), (ReduceSum(A, (1,), True), -100.0, 155.0),
    (ReduceMean(A, (1,), True), -50.0, 77.5), (Clip(Sub(A, B), -4.0, 6.0), -4.0, 6.0),
    (Add(LAYER, B), -195.0, 212.5 + 63.75),
])  # fmt: skip
def test_outputs_reach_as_far_as_they_can(v: Value, low: float, high: float) -> None:
    t = output_type(v, known, roots(v))
    assert t.dtype is DType.I16
    assert t.scale == pytest.approx((high - low) / 65535, rel=1e-9)
    ends = (np.array([-(2**15), 2**15 - 1]) - t.zero) * t.scale
    assert ends == pytest.approx([low, high], abs=t.scale)


@pytest.mark.parametrize(("v", "low", "high"), [
    (Sub(PRODUCT, B), 0.0, 191.25), (Sub(B, PRODUCT), -127.5, 63.75),
    (Add(PRODUCT, B), -63.75, 127.5),
])  # fmt: skip
def test_what_goes_into_a_sum_reaches_as_far_as_the_sum_tells(
    v: Value, low: float, high: float
) -> None:
    """Of a result between 0 and 127.5 in steps of 0.5: 7 bits more than that in 16."""
    target = TensorType(DType.U8, v.shape, Quant(0.5, 0))
    t = inner_type(v, PRODUCT, target, known, roots(v), {})
    assert t is not None
    assert (t.dtype, t.scale) == (DType.I16, 0.5 / 2**7)
    assert -t.zero * t.scale == pytest.approx((low + high) / 2, abs=t.scale)
