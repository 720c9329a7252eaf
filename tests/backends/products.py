"""Random convolutions and linear layers at the edges of the matrix-product kernel: all tails of
its tiles, operands that are slices and results that lie in concatenations, extreme bytes."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np

from irc import fixedpoint
from irc.graph import Graph
from irc.ops.conv import QConv2d
from irc.ops.core import Const, Input
from irc.ops.linear import QLinear
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Lookup, magnitude
from irc.ops.shape import Concat, Slice
from irc.types import Array, DType, Shape
from irc.value import Value
from tests.ops.sampling import (
    EIGHT_BITS,
    Draw,
    Sample,
    array,
    clamp,
    fraction,
    integer,
    multipliers,
    pick,
    quant,
    steps,
)


def extreme_weights(draw: Draw, dims: Shape) -> Const:
    """Weights whose neighbours never saturate a 16-bit pair sum, or that do, or just may."""
    rng = np.random.default_rng(integer(draw, 0, 2**32 - 1))
    kind = pick(draw, ["safe", "any", "low", "high", "edge", "ends", "sparse"])
    made = {
        "safe": rng.integers(-64, 65, dims),
        "any": rng.integers(-127, 128, dims),
        "low": np.full(dims, -127),
        "high": np.full(dims, 127),
        # 128 in sum is the last that is exact, 129 the first that is not.
        "edge": rng.choice([64, 64, 65, -64, -65], dims),
        "ends": rng.choice([-127, 127], dims),
        "sparse": rng.choice([0, 0, 0, 1, -127], dims),
    }[kind]
    return Const(made.astype(np.int8), name="w")


def parameters(draw: Draw, dims: Shape, bits: int = 0) -> tuple[Const, Const, Const, Const]:
    """w, b, m, s; sums of up to 2^26 with so many bits below their unit, shifts on both sides of
    32, and results that 32 bits hold."""
    b = Const(array(draw, DType.I32, dims[:1], (-(2**24), 2**24)), name="b")
    low, high = (min(n + bits, 62) for n in pick(draw, [(27, 31), (28, 40), (33, 45), (50, 62)]))
    return extreme_weights(draw, dims), b, *multipliers(draw, dims[0], low, high)


def source(draw: Draw, dims: Shape) -> tuple[Input, Value]:
    """A u8 input, and a value of shape `dims`: the input itself or a slice of it."""
    q = quant(draw, DType.U8)
    starts, stops, steps, whole = [], [], [], []
    sliced = draw(st.booleans())
    for axis, d in enumerate(dims):
        step = pick(draw, [1, 1, 2]) if sliced and 0 < axis < len(dims) - 1 else 1
        before = integer(draw, 0, 3) if sliced else 0
        starts.append(before)
        stops.append(before + (d - 1) * step + 1)
        steps.append(step)
        whole.append(stops[-1] + (integer(draw, 0, 3) if sliced else 0))
    x = Input(DType.U8, tuple(whole), q, name="x")
    return x, Slice(x, tuple(starts), tuple(stops), tuple(steps)) if sliced else x


def tail(draw: Draw, y: Value) -> tuple[Value, list[Input]]:
    """What a kernel takes in behind its product: nothing, a table, a residual sum, or both; and
    the inputs that came with it."""
    inputs: list[Input] = []
    if draw(st.booleans()):
        dtype = pick(draw, EIGHT_BITS)
        y = Lookup(y, Const(array(draw, dtype, (256,)), name="table"), quant(draw, dtype))
    if draw(st.booleans()):
        dtype = pick(draw, EIGHT_BITS)
        dims = pick(draw, [y.shape, y.shape, y.shape[-1:], (1,)])
        other = Input(dtype, dims, quant(draw, dtype), name="residual")
        inputs.append(other)
        bounds = (magnitude(y.type), magnitude(other.type))
        (ma, mb), shift = fixedpoint.common_multipliers((1.0, pick(draw, [0.7, -1.0])), bounds)
        result = pick(draw, EIGHT_BITS)
        y = QAdd(y, other, ma, mb, shift, clamp(draw, result), result, quant(draw, result))
    return y, inputs


def wrapped(draw: Draw, x: Input, y: Value) -> Sample:
    """The graph of `y`: as it is, or part of a concatenation so that it lies with gaps."""
    made, more = tail(draw, y)
    if draw(st.booleans()):
        axis = pick(draw, [len(y.shape) - 1, max(0, len(y.shape) - 2)])
        dims = tuple(integer(draw, 1, 3) if i == axis else d for i, d in enumerate(y.shape))
        beside = Input(made.type.dtype, dims, made.type.quant, name="beside")
        more.append(beside)
        order = draw(st.permutations([made, beside]))
        made = Concat(tuple(order), axis)
    inputs = (x, *more)
    feeds = {v.name: bytes_of(draw, v) for v in inputs}
    return Sample(Graph("product", inputs, (made,), ("y",)), feeds)


def joined(samples: Sequence[Sample]) -> Sample:
    """Samples as one graph, which is compiled at once."""
    inputs, outputs, feeds = list[Input](), list[Value](), dict[str, Array]()
    for number, each in enumerate(samples):
        own = {x: x.replace(name=f"{x.name}{number}") for x in each.graph.inputs}
        new: dict[Value, Value] = {x: made for x, made in own.items()}
        for v in each.graph.order:
            if v not in new:
                new[v] = v.map_operands(new.__getitem__)
        inputs += own.values()
        outputs += [new[v] for v in each.graph.outputs]
        feeds |= {made.name: each.feeds[x.name] for x, made in own.items()}
    names = tuple(f"y{number}" for number in range(len(outputs)))
    return Sample(Graph("joined", tuple(inputs), tuple(outputs), names), feeds)


def bytes_of(draw: Draw, v: Input) -> Array:
    """Any bytes, or all at an end."""
    return array(draw, v.dtype, v.dims)


def extent(draw: Draw, kernel: int, dilation: int, pads: int, largest: int) -> int:
    """A height or width that the window fits."""
    low = max(1, (kernel - 1) * dilation + 1 - pads)
    return integer(draw, low, max(low, largest))


@st.composite
def convolutions(draw: Draw) -> Sample:
    """One convolution that is no depthwise one."""
    groups = pick(draw, [1, 1, 1, 2, 3])
    channels = integer(draw, 1 if groups == 1 else 2, 20)
    out = groups * integer(draw, 1, 70 // groups)
    kernel = pick(draw, [(1, 1), (1, 1), (3, 3), (1, 3), (2, 1), (2, 2), (5, 5)])
    strides, dilations = (
        (pick(draw, [1, 1, 2, 3]), pick(draw, [1, 1, 2, 3])),
        (pick(draw, [1, 1, 2]), pick(draw, [1, 1, 2])),
    )
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    if draw(st.booleans()):
        pads = (integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2), integer(draw, 0, 2))
    height = extent(draw, kernel[0], dilations[0], pads[0] + pads[2], 4)
    width = extent(draw, kernel[1], dilations[1], pads[1] + pads[3], 20)
    x, image = source(draw, (integer(draw, 1, 2), height, width, channels * groups))
    bits = fraction(draw)
    w, b, m, s = parameters(draw, (out, *kernel, channels), bits)
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, strides, pads, dilations, groups, clamp(draw, dtype), dtype,
                quant(draw, dtype), fraction=bits, **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


@st.composite
def depthwise(draw: Draw, largest: int = 20) -> Sample:
    """One depthwise convolution, perhaps of several channels for each."""
    channels = pick(draw, [4, 8, 12, 16, 20, 24, 40, 48, 72])
    several = [channels // n for n in (2, 4, 8, 16) if channels % n == 0 and channels > n]
    groups = pick(draw, [*[channels] * len(several), *several])
    kernel = pick(draw, [(3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (2, 2), (4, 1)])
    strides = pick(draw, [(1, 1), (1, 1), (2, 2), (2, 1), (1, 2), (3, 3)])
    dilations = (pick(draw, [1, 1, 1, 2]), pick(draw, [1, 1, 1, 2]))
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    if draw(st.booleans()):
        pads = (integer(draw, 0, 3), integer(draw, 0, 3), integer(draw, 0, 3), integer(draw, 0, 3))
    height = extent(draw, kernel[0], dilations[0], pads[0] + pads[2], largest)
    width = extent(draw, kernel[1], dilations[1], pads[1] + pads[3], largest)
    x, image = source(draw, (integer(draw, 1, 2), height, width, groups))
    bits = fraction(draw)
    w, b, m, s = parameters(draw, (channels, *kernel, 1), bits)
    dtype = pick(draw, EIGHT_BITS)
    y = QConv2d(image, w, b, m, s, strides, pads, dilations, groups, clamp(draw, dtype), dtype,
                quant(draw, dtype), fraction=bits, **steps(draw, b))  # fmt: skip
    return wrapped(draw, x, y)


@st.composite
def linears(draw: Draw) -> Sample:
    """One linear layer."""
    lead = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    x, rows = source(draw, (*lead, integer(draw, 1, 130)))
    bits = fraction(draw)
    w, b, m, s = parameters(draw, (integer(draw, 1, 70), rows.shape[-1]), bits)
    dtype = pick(draw, EIGHT_BITS)
    bounds, q = clamp(draw, dtype), quant(draw, dtype)
    y = QLinear(rows, w, b, m, s, bounds, dtype, q, fraction=bits, **steps(draw, b))
    return wrapped(draw, x, y)
