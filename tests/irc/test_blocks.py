"""What is computed block by block is what it is as a whole."""

import numpy as np
import pytest

from irc import fixedpoint
from irc.blocks import BLOCK, by_blocks
from irc.ops.activation import Silu
from irc.ops.core import Input
from irc.types import DType, Quant, TensorType


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_every_element_once(size: int) -> None:
    x = np.arange(2 * size, dtype=np.int32)[::2]
    found = by_blocks(lambda part: part + 0.5, x, np.float32)
    assert found.dtype == np.float32
    assert np.array_equal(found, (x + 0.5).astype(np.float32))


def test_blocks_have_no_part_in_the_result() -> None:
    x = np.random.default_rng(0).normal(0, 3, (5, BLOCK // 2, 3)).astype(np.float32)
    x[0, :3, 0] = np.nan, np.inf, -np.inf
    t = TensorType(DType.U8, x.shape, Quant(0.05, 100))
    whole = fixedpoint.quantize(x, t)
    rows = [fixedpoint.quantize(part, t.with_shape(part.shape)) for part in x[:, :100]]
    assert np.array_equal(whole[:, :100], np.stack(rows))
    reals = [fixedpoint.dequantize(part, t.with_shape(part.shape)) for part in whole[:, :100]]
    assert np.array_equal(fixedpoint.dequantize(whole, t)[:, :100], np.stack(reals))
    silu = Silu(Input(DType.F32, x.shape, name="x"))
    assert np.array_equal(
        silu.evaluate(x)[:, :100], np.stack([silu.evaluate(part) for part in x[:, :100]]),
        equal_nan=True,
    )  # fmt: skip
