"""Weights around zero are the same weights, in as many parts as eight bits need."""

from __future__ import annotations

import numpy as np
import pytest

from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.quantization import Dequantize
from irc.passes.integer.conversions import centred
from irc.passes.quantize.scales import symmetric
from irc.types import Array, DType, Quant


@pytest.mark.parametrize(
    ("dtype", "zero", "parts"),
    [(np.int8, 0, 1), (np.int8, 1, 2), (np.int8, -1, 2), (np.uint8, 128, 1), (np.uint8, 127, 2),
     (np.uint8, 0, 3)],
)  # fmt: skip
@pytest.mark.parametrize("bits", [DType.U8, DType.I16])
def test_weights_around_zero(bits: DType, dtype: type, zero: int, parts: int) -> None:
    ends = np.iinfo(dtype)
    array: Array = np.arange(ends.min, ends.max + 1).astype(dtype).reshape(2, 128)
    x = Input(bits, (1, 128), Quant(0.1, 0), name="x")
    weights = Const(array, Quant(0.5, zero), name="w")
    taken, w = centred(Linear(Dequantize(x), Dequantize(weights)), x, weights)
    if bits is DType.U8:
        assert (w.type.dtype, taken) == (DType.I8 if parts == 1 else DType.I16, x)
        np.testing.assert_array_equal(w.array, array.astype(int) - zero)
        return
    assert (w.type.dtype, w.shape, taken.shape) == (DType.I8, (2, parts * 128), (1, parts * 128))
    total = w.array.astype(int).reshape(2, parts, 128).sum(1)
    np.testing.assert_array_equal(total, array.astype(int) - zero)


@pytest.mark.parametrize(("dtype", "zero"), [(np.int16, 0), (np.uint16, 2**15), (np.uint16, 0)])
@pytest.mark.parametrize("bits", [DType.U8, DType.I16])
def test_weights_of_sixteen_bits_are_parts(bits: DType, dtype: type, zero: int) -> None:
    array: Array = np.array([[0, 300], [7, np.iinfo(dtype).max]], dtype)
    x = Input(bits, (1, 2), Quant(0.1, 0), name="x")
    weights = Const(array, Quant(0.5, zero), name="w")
    _, w = centred(Linear(Dequantize(x), Dequantize(weights)), x, weights)
    assert w.type.dtype is DType.I8
    total = w.array.astype(int).reshape(2, -1, 2).sum(1)
    np.testing.assert_array_equal(total, array.astype(int) - zero)


@pytest.mark.parametrize("largest", [0.1, 1.0, 5.0, 3e8])
def test_the_largest_of_sixteen_bits_is_the_last(largest: float) -> None:
    assert round(largest / symmetric(largest).tensor_scale) == DType.I16.max
