"""Small float networks, NHWC, that quantization is tested on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from irc import fixedpoint
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip, HardSwish, Relu, Sigmoid
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.pool import MaxPool2d
from irc.ops.reduce import ReduceMean
from irc.ops.shape import Concat, Reshape
from irc.ops.softmax import Softmax
from irc.types import Array, DType
from irc.value import Value


@dataclass
class Net:
    """Builds a graph over one image; every node gets a name."""

    seed: int = 0
    shape: tuple[int, ...] = (1, 8, 8, 3)
    count: int = 0
    x: Input = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.x = Input(DType.F32, self.shape, name="x")

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}{self.count}"

    def const(self, *shape: int, scale: float = 1.0) -> Const:
        array = self.rng.standard_normal(shape).astype(np.float32) * np.float32(scale)
        return Const(array, name=self.name("c"))

    def conv(self, x: Value, out: int, k: int = 3, groups: int = 1, bias: bool = True) -> Conv2d:
        channels = x.shape[3] // groups
        w = self.const(out, k, k, channels, scale=(k * k * channels) ** -0.5)
        b = self.const(out, scale=0.1) if bias else None
        side = k // 2
        pads = (side, side, side, side)
        return Conv2d(x, w, b, pads=pads, groups=groups, name=self.name("conv"))

    def linear(self, x: Value, out: int) -> Linear:
        w = self.const(out, x.shape[-1], scale=x.shape[-1] ** -0.5)
        return Linear(x, w, self.const(out, scale=0.1), name=self.name("linear"))

    def graph(self, *outputs: Value) -> Graph:
        return Graph("net", (self.x,), outputs, tuple(f"y{i}" for i in range(len(outputs))))

    def samples(self, count: int = 8) -> Array:
        return self.rng.standard_normal((count, *self.shape)).astype(np.float32)


def residual(n: Net) -> Graph:
    """Convolutions with clamps, a residual sum, a pool and a classifier."""
    a = Relu(n.conv(n.x, 8), name="a")
    b = Clip(n.conv(a, 8), 0.0, 6.0, name="b")
    total = Relu(Add(a, b, name="sum"), name="r")
    pooled = ReduceMean(MaxPool2d(total, (2, 2), (2, 2), name="p"), (1, 2), False, name="mean")
    return n.graph(n.linear(pooled, 5))


def separable(n: Net) -> Graph:
    """Depthwise, hard swish, a gate of one number per channel, softmax."""
    a = HardSwish(n.conv(n.conv(n.x, 8, 1), 8, groups=8), name="a")
    gate = Sigmoid(n.conv(ReduceMean(a, (1, 2), True, name="mean"), 8, 1), name="gate")
    gated = n.conv(Mul(a, gate, name="gated"), 4, 1)
    flat = Reshape(gated, (1, 4 * 64), name="flat")
    return n.graph(Softmax(n.linear(flat, 5), 1, name="probabilities"))


def branches(n: Net) -> Graph:
    """Two convolutions joined, one of them read elsewhere too; two outputs."""
    a, b = n.conv(n.x, 4), Relu(n.conv(n.x, 4, 1), name="b")
    joined = n.conv(Concat((a, b), 3, name="joined"), 6, 1, groups=2)
    return n.graph(joined, Add(n.conv(b, 4), a, name="sum"))


NETS: dict[str, Callable[[Net], Graph]] = {
    "residual": residual,
    "separable": separable,
    "branches": branches,
}


def reals(graph: Graph, feed: dict[str, Array]) -> dict[str, Array]:
    """Evaluate a graph on reals: integer inputs are quantized, outputs dequantized."""
    types = graph.input_types
    given = {k: a if types[k].quant is None else fixedpoint.quantize(a, types[k])
             for k, a in feed.items()}  # fmt: skip
    results = evaluate(graph, given)
    return {
        k: a if t.quant is None else fixedpoint.dequantize(a, t)
        for (k, a), t in zip(results.items(), graph.output_types.values(), strict=True)
    }


def sqnr(wanted: Array, got: Array) -> float:
    """Signal to noise in decibels."""
    error = float(np.sum((wanted - got).astype(np.float64) ** 2))
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / max(error, 1e-30)))
