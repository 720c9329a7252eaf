"""Samples of convolutions, pools and resizing: NHWC images of odd sizes, all attributes."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st

from irc import fixedpoint
from irc.ops.conv import QConv2d, QConvTranspose2d
from irc.ops.core import Const
from irc.ops.grid import MODES, PADDINGS, TAPS, QGridSample, gain
from irc.ops.pool import MaxPool2d, QAvgPool2d
from irc.ops.resample import QResample, reach
from irc.ops.resize import COORDINATES, ROUNDINGS, WEIGHT_BITS, QResizeLinear, ResizeNearest, Scales
from irc.ops.windows import Pads, Pair, TransposedWindow, Window
from irc.types import DType, Shape
from tests.ops.sampling import (
    EIGHT_BITS,
    RESULTS,
    Draw,
    Feed,
    Sample,
    array,
    clamp,
    fraction,
    integer,
    multiplier,
    multipliers,
    operand,
    pick,
    quant,
    sample,
    sample_of,
    shape,
    steps,
    weights,
)


def pair(draw: Draw, low: int, high: int) -> Pair:
    """Two whole numbers."""
    return integer(draw, low, high), integer(draw, low, high)


def pads(draw: Draw, largest: int = 2) -> Pads:
    """Four pads, often none, often unlike each other."""
    if draw(st.booleans()):
        return (0, 0, 0, 0)
    top, left = pair(draw, 0, largest)
    return (top, left, *pair(draw, 0, largest))


def window(draw: Draw) -> Window:
    """Any window."""
    return Window(pair(draw, 1, 3), pair(draw, 1, 3), pads(draw), pair(draw, 1, 2))


def extent(draw: Draw, w: Window, axis: int) -> int:
    """A height (axis 0) or width that the window fits."""
    span = (w.kernel[axis] - 1) * w.dilations[axis] + 1
    low = max(1, span - w.pads[axis] - w.pads[axis + 2])
    return integer(draw, low, low + 4)


def groups(draw: Draw) -> tuple[int, int, int]:
    """Input channels, output channels and groups: dense, grouped or depthwise."""
    count = pick(draw, [1, 1, 2, 3])
    if draw(st.booleans()):
        return count, count * integer(draw, 1, 2), count
    return count * integer(draw, 1, 5), count * integer(draw, 1, 4), count


@sample("qconv2d")
def qconv2d(draw: Draw) -> Sample:
    shape = window(draw)
    channels, out, count = groups(draw)
    dims = (integer(draw, 1, 2), extent(draw, shape, 0), extent(draw, shape, 1), channels)
    x = operand(draw, "x", dims)
    w, b, m, s = parameters(draw, (out, *shape.kernel, channels // count))
    dtype = pick(draw, RESULTS)
    node = QConv2d(
        x.value, w, b, m, s, shape.strides, shape.pads, shape.dilations, count,
        clamp(draw, dtype), dtype, quant(draw, dtype), fraction=fraction(draw), **steps(draw, b),
    )  # fmt: skip
    return sample_of(node, x)


def parameters(draw: Draw, dims: Shape) -> tuple[Const, Const, Const, Const]:
    """w, b, m, s; sums of up to 2^25 don't leave 32 bits."""
    b = Const(array(draw, DType.I32, dims[:1], (-(2**24), 2**24)), name="b")
    return weights(draw, dims), b, *multipliers(draw, dims[0], 27, 50)


def transposed(draw: Draw) -> tuple[TransposedWindow, Pair]:
    """The window of a transposed convolution, and an extent of which its pads leave something;
    `output_padding` stays below the strides, as ONNX wants it."""
    kernel, strides, dilations = pair(draw, 1, 3), pair(draw, 1, 3), pair(draw, 1, 2)
    extra = integer(draw, 0, strides[0] - 1), integer(draw, 0, strides[1] - 1)
    whole = TransposedWindow(kernel, strides, (0, 0, 0, 0), dilations, extra)
    height, width = pair(draw, 1, 4)
    rows, columns = whole.canvas(height, width)
    top, left = integer(draw, 0, min(2, rows - 1)), integer(draw, 0, min(2, columns - 1))
    bottom = integer(draw, 0, min(2, rows - 1 - top))
    right = integer(draw, 0, min(2, columns - 1 - left))
    return dataclasses.replace(whole, pads=(top, left, bottom, right)), (height, width)


@sample("qconv_transpose2d")
def qconv_transpose2d(draw: Draw) -> Sample:
    shape, size = transposed(draw)
    channels, out, count = groups(draw)
    x = operand(draw, "x", (integer(draw, 1, 2), *size, channels))
    w, b, m, s = parameters(draw, (out, *shape.kernel, channels // count))
    dtype = pick(draw, RESULTS)
    node = QConvTranspose2d(
        x.value, w, b, m, s, shape.strides, shape.pads, shape.dilations, count,
        shape.output_padding, clamp(draw, dtype), dtype, quant(draw, dtype),
        fraction=fraction(draw),
    )  # fmt: skip
    return sample_of(node, x)


def pooled(draw: Draw) -> tuple[Window, Shape]:
    """A window, and an image of which each of its positions sees a pixel."""
    kernel, dilations = pair(draw, 1, 3), pair(draw, 1, 2)
    top, left = integer(draw, 0, kernel[0] - 1), integer(draw, 0, kernel[1] - 1)
    bottom, right = integer(draw, 0, kernel[0] - 1), integer(draw, 0, kernel[1] - 1)
    made = Window(kernel, pair(draw, 1, 3), (top, left, bottom, right), dilations)
    # Taps lie at most one dilation apart, so that no window falls between the pixels.
    least = max(*dilations, *((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)))
    height, width = pair(draw, least, least + 4)
    return made, (integer(draw, 1, 2), height, width, integer(draw, 1, 5))


@sample("max_pool2d")
def max_pool2d(draw: Draw) -> Sample:
    shape, dims = pooled(draw)
    x = operand(draw, "x", dims, (*EIGHT_BITS, DType.I16))
    node = MaxPool2d(x.value, shape.kernel, shape.strides, shape.pads, shape.dilations)
    return sample_of(node, x)


@sample("qavg_pool2d")
def qavg_pool2d(draw: Draw) -> Sample:
    shape, dims = pooled(draw)
    x = operand(draw, "x", dims)
    power, dtype = pick(draw, [0, 0, 1, 2, 4]), pick(draw, RESULTS)
    count = pick(draw, [1, shape.kernel[0] * shape.kernel[1]])
    m, s = multipliers(draw, 1 if power else count, 18, 50)
    node = QAvgPool2d(
        x.value, m, s, shape.kernel, shape.strides, shape.pads, shape.dilations,
        clamp(draw, dtype), dtype, quant(draw, dtype), power,
    )  # fmt: skip
    return sample_of(node, x)


def resized(draw: Draw, dtypes: tuple[DType, ...]) -> tuple[Feed, Pair, str, Scales | None]:
    """An image, a size for it, coordinates, and the scales that gave the size, or none."""
    height, width = pair(draw, 1, 5)
    x = operand(draw, "x", (integer(draw, 1, 2), height, width, integer(draw, 1, 3)), dtypes)
    coordinates = pick(draw, COORDINATES)
    factors = st.sampled_from([0.5, 0.6, 1.0, 1.5, 2.0, 2.3, 3.0])
    scales = draw(factors), draw(factors)
    size = int(height * scales[0]), int(width * scales[1])
    if min(size) < 1 or draw(st.booleans()):
        return x, pair(draw, 1, 11), coordinates, None
    return x, size, coordinates, scales


@sample("resize_nearest")
def resize_nearest(draw: Draw) -> Sample:
    x, size, coordinates, scales = resized(draw, EIGHT_BITS)
    node = ResizeNearest(x.value, size, coordinates, pick(draw, ROUNDINGS), scales)
    return sample_of(node, x)


@sample("qresize_linear")
def qresize_linear(draw: Draw) -> Sample:
    wide = draw(st.booleans())
    x, size, coordinates, scales = resized(draw, (DType.I16,) if wide else EIGHT_BITS)
    m, s = 1, 2 * WEIGHT_BITS
    if not wide and draw(st.booleans()):
        m, s = fixedpoint.multiplier(2.0 ** draw(st.floats(-10, 5)) / (1 << s))
    dtype = pick(draw, EIGHT_BITS)
    node = QResizeLinear(
        x.value, size, coordinates, scales, m, s, clamp(draw, dtype), dtype, quant(draw, dtype)
    )
    return sample_of(node, x)


@sample("qresample")
def qresample(draw: Draw) -> Sample:
    """Any taps along one or two axes, weights of any sign."""
    x = operand(draw, "x", shape(draw, 1, 4, 5))
    dims = x.value.shape
    axes = st.sets(st.integers(0, len(dims) - 1), min_size=1, max_size=2)
    over = tuple(sorted(draw(axes)))
    taps: list[Const | None] = []
    for axis in over:
        table = (integer(draw, 1, 4), integer(draw, 1, 3))
        taps.append(Const(array(draw, DType.I32, table, (0, dims[axis] - 1)), name=f"p{axis}"))
        taps.append(Const(array(draw, DType.I16, table, (-(2**9), 2**9)), name=f"w{axis}"))
    rows, row_weights, columns, column_weights = [*taps, None, None][:4]
    assert rows is not None
    assert row_weights is not None
    m, s = multiplier(draw, 40, 62)
    dtype = pick(draw, EIGHT_BITS)
    gain = reach([t.array for t in taps[1::2] if t is not None])
    node = QResample(
        x.value, rows, row_weights, columns, column_weights, over, gain, m, s, clamp(draw, dtype),
        dtype, quant(draw, dtype),
    )  # fmt: skip
    return sample_of(node, x)


@sample("qgrid_sample")
def qgrid_sample(draw: Draw) -> Sample:
    """Points in and around an image of one to three axes, any weights."""
    n, mode = integer(draw, 1, 3), pick(draw, MODES)
    sizes, points = (tuple(integer(draw, 1, 4) for _ in range(n)) for _ in range(2))
    batch, wide = integer(draw, 1, 2), draw(st.booleans())
    dtypes = (DType.I16,) if wide else EIGHT_BITS
    x = operand(draw, "x", (batch, *sizes, integer(draw, 1, 9)), dtypes)
    grid = operand(draw, "grid", (batch, *points, n), RESULTS, constant=True)
    bits = 0 if mode == "nearest" else integer(draw, 0, 3)
    most = {1: 2**9, 2: 2**7, 3: 2**4}[n]
    first, end = TAPS[mode]
    weights = Const(array(draw, DType.I16, (1 << bits, end - first), (-most, most)), name="weights")
    over = integer(draw, 0, 30)
    # The whole range of the grid spans a few images.
    span = grid.value.type.dtype.max - grid.value.type.dtype.min
    at = tuple((integer(draw, -3 * e, 3 * e) << bits + over) // span for e in sizes)
    start = tuple(integer(draw, -(e << bits + over), e << bits + over) for e in sizes)
    m, s = (1, integer(draw, 1, 30)) if wide else multiplier(draw, 40, 62)
    dtype = pick(draw, EIGHT_BITS)
    node = QGridSample(
        x.value, grid.value, weights, at, start, over, mode, pick(draw, PADDINGS),
        draw(st.booleans()), gain(weights.array, n), m, s, clamp(draw, dtype), dtype,
        quant(draw, dtype),
    )  # fmt: skip
    return sample_of(node, x, grid)
