"""Small scheduled graphs for the tests of the LLVM backend."""

import numpy as np

from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.quantization import Lookup, Requantize, epilogue_constants
from irc.passes import PIPELINES
from irc.pipeline import Pipeline
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value


def scheduled(graph: Graph) -> Graph:
    """The graph as kernels with a memory plan."""
    return Pipeline(PIPELINES["schedule"])(graph)


def conv(x: Value, channels: int, seed: int, *, groups: int = 1, stride: int = 1) -> QConv2d:
    """A 3x3 convolution with random weights, padded by one."""
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, (channels, 3, 3, x.shape[3] // groups)).astype(np.int8)
    bias = rng.integers(-1000, 1000, channels)
    bias -= x.type.zero * w.reshape(channels, -1).sum(1, dtype=np.int64)
    factors: Array = rng.uniform(1e-4, 4e-3, channels)
    b, m, s = epilogue_constants(factors, bias, "conv")
    return QConv2d(
        x, Const(w), b, m, s, strides=(stride, stride), pads=(1, 1, 1, 1), dilations=(1, 1),
        groups=groups, clamp=(0, 255), dtype=DType.U8, quant=Quant(0.05, 7), name=f"conv{seed}",
    )  # fmt: skip


def small_net(channels: int = 24) -> Graph:
    """One input; a convolution with two heads: depthwise and requantized, looked up and
    requantized."""
    x = Input.of(TensorType(DType.U8, (1, 14, 13, 16), Quant(0.1, 5)), "x")
    trunk = conv(x, channels, 1)
    deep = conv(trunk, channels, 2, groups=channels, stride=2)
    first = Requantize.to(deep, TensorType(DType.I8, deep.shape, Quant(0.03, -3)), name="first")
    table = Const(np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8))
    looked = Lookup(trunk, table, Quant(0.1, 0))
    other = TensorType(DType.U8, looked.shape, Quant(0.07, 9))
    second = Requantize.to(looked, other, name="second")
    return scheduled(Graph("small", (x,), (first, second), ("first", "second")))


def tiny_net() -> Graph:
    """One table: an input of 37 elements, an output small enough to be stored whole."""
    x = Input.of(TensorType(DType.U8, (37,), Quant(0.1, 5)), "x")
    table = Const(np.random.default_rng(1).permutation(256).astype(np.uint8).view(np.int8))
    y = Lookup(x, table, Quant(0.25, -3), name="y")
    return scheduled(Graph("tiny", (x,), (y,), ("y",)))


def random_inputs(graph: Graph, seed: int = 5) -> dict[str, Array]:
    """Integers all over each input's range."""
    rng = np.random.default_rng(seed)
    return {
        v.name: rng.integers(v.type.dtype.min, v.type.dtype.max, v.shape, endpoint=True).astype(
            v.type.dtype.numpy
        )
        for v in graph.inputs
    }
