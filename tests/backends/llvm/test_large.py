"""Weights that find no room near to what the process has mapped before."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
import irc
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.quantization import Dequantize, Quantize
from irc.types import DType, Quant

def bytes_(v, quant, dtype):
    return Dequantize(Quantize(v, dtype, quant))

far = np.empty(4 << 30, np.uint8)  # never touched: it takes room only
rng = np.random.default_rng(1)
x = Input(DType.F32, (1, 24576), name="x")
v = bytes_(x, Quant(0.05, 100), DType.U8)
for size in (4096, 10):
    array = rng.integers(-20, 21, (size, v.shape[-1]), dtype=np.int8)
    w = Dequantize(Const(array, Quant((0.001,) * size, 0, 0)))
    v = bytes_(Linear(v, w, None), Quant(0.05, 100), DType.U8)
graph = Graph("large", (x,), (v,), ("y",))
sample = rng.integers(0, 256, x.shape).astype(np.uint8)
compiled = irc.compile(graph)
found = compiled({"x": sample})["y"]
assert np.array_equal(found, irc.evaluate(compiled.graph, {"x": sample})["y"])
"""


@pytest.mark.slow
def test_code_reaches_a_hundred_megabytes_of_weights() -> None:
    """In a process of its own: where a linker gives up it takes the process along."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
