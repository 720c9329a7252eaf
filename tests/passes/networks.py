"""Random small convolutional networks as a frontend makes them: NCHW between ops, a transpose
before and after each image op."""

from __future__ import annotations

import numpy as np

from irc.graph import Graph
from irc.ops.activation import Clip, HardSwish, LeakyRelu, Relu, Sigmoid
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.linear import Linear, MatMul
from irc.ops.normalization import BatchNorm
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.prelu import PRelu
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.reduce import ReduceMax, ReduceMean
from irc.ops.resize import ResizeNearest
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.ops.softmax import Softmax
from irc.types import DType, Quant
from irc.value import Value

IN, OUT = (0, 2, 3, 1), (0, 3, 1, 2)


class Network:
    """Draws nodes with a seeded generator. With `quantized`, weights are stored as i8 and
    activations pass quantize and dequantize now and then."""

    def __init__(self, seed: int, *, quantized: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.quantized = quantized
        self.x = Input(DType.F32, (1, 4, 6, 6), name="x")

    def graph(self, blocks: int) -> Graph:
        """A chain of random blocks with a random head."""
        y: Value = self.x
        if self.rng.random() < 0.3:
            y = Div(Sub(y, self.const(4, 1, 1)), Const(np.array([[[2.0]]], np.float32)))
        y = self.conv(y, 8, kernel=3)
        for _ in range(blocks):
            y = self.block(y)
        y = self.head(y)
        return Graph("net", (self.x,), (y,), ("y",))

    def block(self, x: Value) -> Value:
        kinds = [
            self.residual, self.squeeze, self.join, self.pointwise, self.split, self.shuffle,
            self.resample, self.depthwise, self.padded, self.shortcut, self.normalized,
        ]  # fmt: skip
        return self.stored(kinds[self.rng.integers(len(kinds))](x))

    def const(self, *shape: int) -> Const:
        return Const(self.rng.normal(0, 0.5, shape).astype(np.float32))

    def weights(self, *shape: int) -> Value:
        if not self.quantized:
            return self.const(*shape)
        scales = tuple(self.rng.uniform(0.005, 0.01, shape[0]).tolist())
        array = self.rng.integers(-127, 128, shape).astype(np.int8)
        return Dequantize(Const(array, Quant(scales, 0, axis=0)))

    def stored(self, x: Value) -> Value:
        if not self.quantized or self.rng.random() < 0.3:
            return x
        return Dequantize(Quantize(x, DType.U8, Quant(0.05, 100)))

    def conv(
        self, x: Value, channels: int, *, kernel: int = 1, groups: int = 1, pads: int | None = None
    ) -> Value:
        w = self.weights(channels, kernel, kernel, x.shape[1] // groups)
        b = self.const(channels) if self.rng.random() < 0.5 else None
        p = kernel // 2 if pads is None else pads
        made = Conv2d(Transpose(x, IN), w, b, pads=(p, p, p, p), groups=groups)
        return Transpose(made, OUT)

    def norm(self, x: Value) -> Value:
        variance = Const(self.rng.uniform(0.5, 2, x.shape[1]).astype(np.float32))
        parts = [self.const(x.shape[1]) for _ in range(3)]
        return BatchNorm(x, parts[0], parts[1], parts[2], variance, 1e-5, 1)

    def activation(self, x: Value) -> Value:
        kind = self.rng.integers(6)
        if kind == 5:
            gate = Clip(Add(x, Const(np.array(3, np.float32))), 0.0, 6.0)
            return Div(Mul(x, gate), Const(np.array(6, np.float32)))
        makers = (Relu, HardSwish, lambda v: Clip(v, 0.0, 6.0), lambda v: LeakyRelu(v, 0.1),
                  lambda v: PRelu(v, self.const(x.shape[1], 1, 1)))  # fmt: skip
        return makers[kind](x)

    def residual(self, x: Value) -> Value:
        inner = self.activation(self.norm(self.conv(x, x.shape[1], kernel=3)))
        return self.activation(Add(self.stored(self.conv(inner, x.shape[1])), x))

    def squeeze(self, x: Value) -> Value:
        pooled: Value = ReduceMean(x, (2, 3), True)
        if self.rng.random() < 0.5:
            gate = self.conv(Relu(self.conv(pooled, 2)), x.shape[1])
        else:
            flat = Reshape(pooled, x.shape[:2])
            inner = Relu(Linear(flat, self.weights(2, x.shape[1])))
            made = Linear(inner, self.weights(x.shape[1], 2))
            gate = Reshape(made, (*x.shape[:2], 1, 1))
        if self.rng.random() < 0.3:
            gate = Expand(gate, x.shape)
        return Mul(x, Sigmoid(gate))

    def join(self, x: Value) -> Value:
        parts = (self.conv(x, 4), x, self.activation(self.conv(x, 4, kernel=3)))
        return self.conv(Concat(parts, 1), 8)

    def pointwise(self, x: Value) -> Value:
        kind = self.rng.integers(3)
        if kind == 0:
            return Add(Mul(x, self.const(x.shape[1], 1, 1)), self.const(1, x.shape[1], 1, 1))
        return Softmax(x, 1) if kind == 1 else self.activation(x)

    def split(self, x: Value) -> Value:
        n, c, h, w = x.shape
        low = Slice(x, (0, 0, 0, 0), (n, c // 2, h, w), (1, 1, 1, 1))
        high = Slice(x, (0, c // 2, 0, 0), (n, c, h, w), (1, 1, 1, 1))
        return Concat((self.conv(low, c // 2), high), 1)

    def shuffle(self, x: Value) -> Value:
        n, c, h, w = x.shape
        grouped = Reshape(x, (n, 2, c // 2, h, w))
        return self.conv(Reshape(Transpose(grouped, (0, 2, 1, 3, 4)), x.shape), 8, kernel=3)

    def resample(self, x: Value) -> Value:
        y = Transpose(x, IN)
        size = (x.shape[2], x.shape[3])
        made: Value = MaxPool2d(y, (3, 3), pads=(1, 1, 1, 1))
        kind = self.rng.integers(4)
        if kind == 1:
            made = AvgPool2d(y, (3, 3), pads=(1, 1, 1, 1), count_include_pad=True)
        if kind == 2 and size[0] < 12:
            made = ResizeNearest(y, (size[0] * 2, size[1] * 2))
        if kind == 3 and size[0] < 12:
            made = ConvTranspose2d(y, self.weights(8, 2, 2, x.shape[1]), None, (2, 2))
        return Transpose(made, OUT)

    def depthwise(self, x: Value) -> Value:
        return self.norm(self.conv(x, x.shape[1], kernel=3, groups=x.shape[1]))

    def padded(self, x: Value) -> Value:
        pads = ((0, 0), (0, 0), (1, 1), (1, 1))
        return self.norm(self.conv(Pad(self.activation(x), pads), 8, kernel=3, pads=0))

    def shortcut(self, x: Value) -> Value:
        y = x if x.shape[2:] == self.x.shape[2:] else self.conv(self.x, 8)
        return self.conv(Concat((y, self.x), 1), 8) if y is x else y

    def normalized(self, x: Value) -> Value:
        return self.norm(self.norm(x))

    def head(self, x: Value) -> Value:
        kind = self.rng.integers(5)
        if kind == 0:
            return x
        if kind == 1:
            return ReduceMax(x, (1,), False)
        pooled = Reshape(ReduceMean(x, (2, 3), True), x.shape[:2])
        flat = self.rectified(Reshape(x, (1, x.type.size)))
        if kind == 2:
            return Softmax(Linear(pooled, self.weights(3, x.shape[1]), self.const(3)), 1)
        if kind == 3 and not self.quantized:
            return Add(MatMul(flat, self.const(x.type.size, 3)), self.const(3))
        return Linear(flat, self.weights(3, x.type.size))

    def rectified(self, x: Value) -> Value:
        return self.stored(Relu(x) if self.rng.random() < 0.5 else x)
