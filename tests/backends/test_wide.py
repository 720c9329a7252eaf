"""Layers whose result has a scale far below its inputs': equation (6) is computed in 64 bits."""

from typing import Any

import numpy as np
import pytest

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.passes.integer.prove import prove
from irc.types import DType, Quant, TensorType
from tests.backends.harness import TARGETS, agree

TINY = TensorType(DType.U8, (), Quant(2e-9, 3))


def weights(*shape: int) -> Const:
    rng = np.random.default_rng(5)
    array = rng.integers(-127, 128, shape).astype(np.int8)
    return Const(array, Quant(tuple([0.1] * shape[0]), 0, 0), name="w")


def layer(kind: str) -> tuple[Input, Any]:
    if kind == "linear":
        x = Input(DType.U8, (3, 20), Quant(0.1, 7), name="x")
        w = weights(9, 20)
        node: Any = Linear(Input(DType.F32, x.shape, name="x"), Const(w.array.astype(np.float32)))
    else:
        x = Input(DType.U8, (1, 6, 7, 16), Quant(0.1, 7), name="x")
        groups = 16 if kind == "depthwise" else 1
        w = weights(16, 3, 3, 16 // groups)
        real = Const(w.array.astype(np.float32))
        node = Conv2d(Input(DType.F32, x.shape, name="x"), real, pads=(1, 1, 1, 1), groups=groups)
    result = TensorType(TINY.dtype, node.shape, TINY.quant)
    return x, node.quantized((x, w), result).replace(name="y")


@pytest.mark.parametrize("kind", ["linear", "conv", "depthwise"])
def test_every_backend_rescales_in_64_bits(kind: str) -> None:
    x, y = layer(kind)
    assert y.wide
    graph = Graph("g", (x,), (y,), ("y",))
    prove(graph)
    array = np.random.default_rng(6).integers(0, 256, x.shape).astype(np.uint8)
    agree(graph, {"x": array}, TARGETS, numba=True)
    with pytest.raises(CompileError, match="set wide"):
        prove(Graph("g", (x,), (y.replace(wide=False),), ("y",)))
