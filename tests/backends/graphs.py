"""Random small integer graphs: residuals, shared operands, nested concatenations, slices of
slices, outputs that view each other, whatever fusion and the memory plan must get right."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.conv import QConv2d, QConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Maximum, Minimum
from irc.ops.linear import QLinear, QMatMul
from irc.ops.pool import MaxPool2d, QAvgPool2d
from irc.ops.qelementwise import QAdd, QMul
from irc.ops.quantization import Lookup, Requantize, magnitude
from irc.ops.reduce import QReduceSum, ReduceMax
from irc.ops.resize import QResizeLinear, ResizeNearest
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.ops.softmax import QSoftmax
from irc.types import DType, Quant, TensorType
from irc.value import Value
from tests.ops.sampling import (
    EIGHT_BITS,
    Draw,
    Sample,
    array,
    clamp,
    integer,
    multiplier,
    multipliers,
    pick,
    quant,
    weights,
)
from tests.passes.networks import Network

LARGEST = 700
"""Elements of a value: the reference and Numba's compiler shall be quick."""


class Builder:
    """Draws nodes over the values there are, later ones first."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        # Few different quantizations, so that values often can be concatenated as they are.
        self.kinds = [(DType.U8, quant(draw, DType.U8))]
        self.kinds += [(d, quant(draw, d)) for d in draw(st.permutations(EIGHT_BITS))]
        self.inputs: list[Input] = []
        self.values: list[Value] = []

    def input(self) -> None:
        """One more input, an image."""
        dtype, q = pick(self.draw, self.kinds)
        dims = (integer(self.draw, 1, 2), *(integer(self.draw, 1, 5) for _ in range(2)),
                pick(self.draw, [1, 2, 3, 4, 4, 8, 12]))  # fmt: skip
        self.inputs.append(Input(dtype, dims, q, name=f"x{len(self.inputs)}"))
        self.values.append(self.inputs[-1])

    def value(self) -> Value:
        """A value, as likely as not the newest."""
        return pick(self.draw, [self.values[-1], *self.values[-3:], *self.values])

    def image(self) -> Value:
        """A value, reshaped to an image where it is none."""
        v = self.value()
        if len(v.shape) == 4:
            return v
        channels = v.shape[-1] if v.shape else 1
        return self.keep(Reshape(v, (1, 1, v.type.size // channels, channels)))

    def keep(self, v: Value) -> Value:
        """`v` is there for others to read; too large ones are cut."""
        if v.type.size > LARGEST:
            stops = tuple(min(d, 5) for d in v.shape)
            v = Slice(v, (0,) * len(stops), stops, (1,) * len(stops))
        self.values.append(v)
        return v

    def result(self) -> tuple[tuple[int, int], DType, Quant]:
        """Clamp, dtype and quantization of a result."""
        dtype, q = pick(self.draw, self.kinds)
        return clamp(self.draw, dtype), dtype, q

    def like(self, v: Value, t: TensorType) -> Value:
        """`v` in the quantization of `t`."""
        if (v.type.dtype, v.type.quant) == (t.dtype, t.quant):
            return v
        return Requantize(v, *multiplier(self.draw, 29, 33), (t.dtype.min, t.dtype.max), t.dtype,
                          fixedpoint.quant_of(t))  # fmt: skip

    def step(self) -> None:
        """One node or two."""
        self.keep(pick(self.draw, self.blocks)())

    @property
    def blocks(self) -> list[Callable[[], Value]]:
        """What there is to draw; the memory plan's favourites several times."""
        moving = [self.concat, self.concat, self.cut, self.cut, self.reshape, self.reshape]
        pointwise = [self.add, self.add, self.mul, self.lookup, self.requantize, self.choice]
        windows = [self.conv, self.conv, self.depthwise, self.transposed, self.pool, self.mean]
        rest = [self.linear, self.matmul, self.total, self.largest, self.softmax, self.transpose,
                self.pad, self.expand, self.nearest, self.resize]  # fmt: skip
        return [*pointwise, *moving, *windows, *rest]

    # ------------------------------------------------------------ pointwise

    def add(self) -> Value:
        a = self.value()
        b = self.partner(a)
        factors = (1.0, pick(self.draw, [1.0, 0.5, -0.75]))
        bounds = (magnitude(a.type), magnitude(b.type))
        (ma, mb), shift = fixedpoint.common_multipliers(factors, bounds)
        return QAdd(a, b, ma, mb, shift, *self.result())

    def mul(self) -> Value:
        a = self.value()
        m, s = multiplier(self.draw, 34, 40)
        return QMul(a, self.partner(a), m, s, *self.result())

    def partner(self, a: Value) -> Value:
        """An operand that broadcasts with `a`: of its shape if there is one, itself, a vector."""
        fit = [v for v in self.values if v.shape == a.shape]
        vectors = [v for v in self.values if fits(v, a)]
        return pick(self.draw, [*fit, *fit, *vectors])

    def choice(self) -> Value:
        a = self.value()
        cls = pick(self.draw, [Minimum, Maximum])
        return cls(a, self.like(self.partner(a), a.type))

    def lookup(self) -> Value:
        dtype, q = pick(self.draw, self.kinds)
        return Lookup(self.value(), Const(array(self.draw, dtype, (256,))), q)

    def requantize(self) -> Value:
        m, s = multiplier(self.draw, 29, 33)
        return Requantize(self.value(), m, s, *self.result())

    # ------------------------------------------------------------ moving

    def concat(self) -> Value:
        """Values that agree in all axes but one, often the same one twice."""
        first = self.value()
        if not first.shape:
            return self.lookup()
        axis = pick(self.draw, [len(first.shape) - 1, integer(self.draw, 0, len(first.shape) - 1)])
        fit = [v for v in self.values if joins(v, first, axis)]
        others = [pick(self.draw, fit) for _ in range(integer(self.draw, 0, 3))]
        alike = [first, *(self.like(v, first.type) for v in others)]
        return Concat(tuple(self.draw(st.permutations(alike))), axis)

    def cut(self) -> Value:
        """A slice, mostly of one axis, sometimes backwards or with steps."""
        x = self.value()
        if not x.shape:
            return self.lookup()
        starts, stops, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        for axis in {len(x.shape) - 1, integer(self.draw, 0, len(x.shape) - 1)}:
            d, step = x.shape[axis], pick(self.draw, [1, 1, 1, 2, -1])
            start = integer(self.draw, 0, d - 1)
            stop = integer(self.draw, start + 1, d) if step > 0 else -1
            starts[axis], stops[axis], steps[axis] = start, stop, step
        return Slice(x, tuple(starts), tuple(stops), tuple(steps))

    def reshape(self) -> Value:
        x = self.value()
        size = x.type.size
        last = pick(self.draw, [d for d in range(1, size + 1) if size % d == 0])
        dims = pick(self.draw, [(size,), (1, 1, size // last, last), (size // last, last),
                                (1, *x.shape), x.shape])  # fmt: skip
        return Reshape(x, dims if len(dims) <= 5 else (size,))

    def transpose(self) -> Value:
        x = self.value()
        return Transpose(x, tuple(self.draw(st.permutations(range(len(x.shape))))))

    def pad(self) -> Value:
        x = self.value()
        pads = tuple((integer(self.draw, 0, 1), integer(self.draw, 0, 2)) for _ in x.shape)
        return Pad(x, pads, 0.0, pick(self.draw, ["constant", "edge"]))

    def expand(self) -> Value:
        x = self.value()
        return Expand(x, (integer(self.draw, 1, 2), *x.shape) if len(x.shape) < 4 else x.shape)

    def nearest(self) -> Value:
        return ResizeNearest(self.image(), (integer(self.draw, 1, 6), 3))

    # ------------------------------------------------------------ windows

    def parameters(self, *dims: int) -> tuple[Const, Const, Const, Const]:
        """w, b, m, s; results that seldom saturate."""
        b = Const(array(self.draw, DType.I32, dims[:1], (-5000, 5000)))
        return weights(self.draw, dims), b, *multipliers(self.draw, dims[0], 37, 42)

    def geometry(self, x: Value) -> tuple[int, int, int]:
        """Kernel, stride and padding that fit."""
        kernel = pick(self.draw, [1, 1, 3])
        padding = 1 if kernel == 3 else 0
        if kernel == 3 and min(x.shape[1:3]) >= 3 and self.draw(st.booleans()):
            padding = 0
        return kernel, pick(self.draw, [1, 1, 2]), padding

    def conv(self) -> Value:
        x = self.image()
        kernel, stride, p = self.geometry(x)
        groups = pick(self.draw, [g for g in (1, 1, 2, 3) if x.shape[3] % g == 0])
        out = groups * integer(self.draw, 1, 9)
        w, b, m, s = self.parameters(out, kernel, kernel, x.shape[3] // groups)
        return QConv2d(x, w, b, m, s, (stride, stride), (p, p, p, p), (1, 1), groups,
                       *self.result())  # fmt: skip

    def depthwise(self) -> Value:
        x = self.image()
        kernel, stride, p = self.geometry(x)
        channels = x.shape[3]
        w, b, m, s = self.parameters(channels, kernel, kernel, 1)
        return QConv2d(x, w, b, m, s, (stride, stride), (p, p, p, p), (1, 1), channels,
                       *self.result())  # fmt: skip

    def transposed(self) -> Value:
        x = self.image()
        w, b, m, s = self.parameters(integer(self.draw, 1, 4), 2, 2, x.shape[3])
        return QConvTranspose2d(x, w, b, m, s, (2, 2), (0, 0, 0, 0), (1, 1), 1, (0, 0),
                                *self.result())  # fmt: skip

    def pool(self) -> Value:
        return MaxPool2d(self.image(), (2, 2), (1, 1), (1, 1, 1, 1))

    def mean(self) -> Value:
        m, s = multipliers(self.draw, 1, 31, 35)
        return QAvgPool2d(self.image(), m, s, (2, 2), (1, 1), (0, 0, 1, 1), (1, 1),
                          *self.result())  # fmt: skip

    def resize(self) -> Value:
        x = self.image()
        size = (integer(self.draw, 1, 6), integer(self.draw, 1, 6))
        return QResizeLinear(x, size, "half_pixel", None, 1, 22, *self.result())

    # ------------------------------------------------------------ the rest

    def linear(self) -> Value:
        x = self.value()
        if not x.shape:
            x = Reshape(x, (1,))
        w, b, m, s = self.parameters(integer(self.draw, 1, 20), x.shape[-1])
        return QLinear(x, w, b, m, s, *self.result())

    def matmul(self) -> Value:
        """A value times another's transpose, or its own."""
        a = self.value()
        depth = a.shape[-1] if a.shape else 1
        a = Reshape(a, (a.type.size // depth, depth))
        m, s = multiplier(self.draw, 36, 40)
        return QMatMul(a, Transpose(a, (1, 0)), m, s, *self.result())

    def total(self) -> Value:
        x = self.value()
        axes = tuple(range(max(0, len(x.shape) - 3), max(0, len(x.shape) - 1)))
        keepdims = self.draw(st.booleans())
        m, s = multiplier(self.draw, 31, 36)
        return QReduceSum(x, axes, keepdims, m, s, *self.result())

    def largest(self) -> Value:
        x = self.value()
        return ReduceMax(x, tuple(range(min(1, len(x.shape)))), self.draw(st.booleans()))

    def softmax(self) -> Value:
        x = self.value()
        if not x.shape:
            return self.lookup()
        table = Const(fixedpoint.softmax_table(x.type.scale))
        m, s = fixedpoint.softmax_multiplier(1 / 256)
        axis = pick(self.draw, [len(x.shape) - 1, 0])
        return QSoftmax(x, table, axis, m, s, DType.U8, Quant(1 / 256, 0))


def fits(v: Value, a: Value) -> bool:
    """Whether `v` broadcasts to the shape of `a`."""
    pairs = zip(v.shape[::-1], a.shape[::-1], strict=False)
    return len(v.shape) <= len(a.shape) and all(d in (1, e) for d, e in pairs)


def joins(v: Value, first: Value, axis: int) -> bool:
    """Whether `v` can be concatenated with `first` along an axis, their quantizations aside."""
    return len(v.shape) == len(first.shape) and all(
        d == e or i == axis for i, (d, e) in enumerate(zip(v.shape, first.shape, strict=True))
    )


@st.composite
def integer_graphs(draw: Draw, sizes: tuple[int, ...] = (1, 2, 4, 8, 8, 12, 16)) -> Sample:
    """A graph of some blocks, as many as one of `sizes`, with arrays for its inputs."""
    builder = Builder(draw)
    for _ in range(integer(draw, 1, 2)):
        builder.input()
    for _ in range(pick(draw, sizes)):
        builder.step()
    outputs = draw(st.permutations(chosen_outputs(draw, builder.values)))
    names = tuple(f"y{i}" for i in range(len(outputs)))
    graph = Graph("random", tuple(builder.inputs), tuple(outputs), names)
    return Sample(graph, {v.name: array(draw, v.dtype, v.dims) for v in builder.inputs})


def chosen_outputs(draw: Draw, values: list[Value]) -> list[Value]:
    """The newest value and any others: inputs, views of another output, one twice; or all that
    nothing reads."""
    if draw(st.booleans()):
        read = {o for v in values for o in v.operands}
        return [v for v in values if v not in read]
    return [values[-1], *(pick(draw, values) for _ in range(integer(draw, 0, 3)))]


@st.composite
def float_models(draw: Draw) -> Sample:
    """A float network as a frontend makes it, and noise for its input."""
    seed = integer(draw, 0, 2**32 - 1)
    graph = Network(seed).graph(integer(draw, 0, 4))
    rng = np.random.default_rng(seed)
    feeds = {v.name: rng.normal(0, 1, v.shape).astype(np.float32) for v in graph.inputs}
    return Sample(graph, feeds)
