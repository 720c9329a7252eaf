"""How the ops of other tools are said in the IR: NHWC images, OHWI weights, two spatial axes.

What comes in is channels-first, `[N, C, *spatial]`; each form puts a transpose before and after
its op, and one spatial axis becomes two with a height of 1; `volumes` says how three become two.
The layout pass cancels what meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod

import numpy as np

from irc.errors import TypeCheckError
from irc.frontends import volumes
from irc.frontends.builder import Builder
from irc.ops.activation import Clip
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import Linear, MatMul
from irc.ops.logic import Less
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Pad, Slice
from irc.ops.softmax import Softmax
from irc.ops.unary import Ceil, Exp, Floor, Log
from irc.ops.windows import Pair
from irc.types import Shape
from irc.value import Value

# ---------------------------------------------------------------- channels first and last


def channels_last(b: Builder, x: Value) -> Value:
    """`[N, C, H, W]` or `[N, C, L]` as `[N, H, W, C]`, H = 1 for one spatial axis."""
    if x.type.rank == 3:
        n, c, length = x.shape
        return b.reshape(b.transpose(x, (0, 2, 1)), (n, 1, length, c))
    if x.type.rank != 4:
        raise TypeCheckError(
            f"x is {x.type}: [N, C, H, W] or [N, C, L] is needed, other numbers of spatial axes"
            " are not supported"
        )
    return b.transpose(x, (0, 2, 3, 1))


def channels_first(b: Builder, y: Value, rank: int) -> Value:
    """Back from `[N, H, W, C]` to the model's rank."""
    if rank == 3:
        n, _, length, c = y.shape
        return b.transpose(b.reshape(y, (n, length, c)), (0, 2, 1))
    return b.transpose(y, (0, 3, 1, 2))


def on_images(b: Builder, x: Value, f: Callable[[Value], Value]) -> Value:
    """A function of NHWC images applied to a channels-first tensor."""
    return channels_first(b, b.add(f(channels_last(b, x))), x.type.rank)


def pair(values: Sequence[int], fill: int) -> Pair:
    """One number per spatial axis as (height, width); `fill` for the height that was not there."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def four(pads: Sequence[int]) -> tuple[int, int, int, int]:
    """Pads `[begin…, end…]` as top, left, bottom, right."""
    if len(pads) == 2:
        return (0, pads[0], 0, pads[1])
    return (pads[0], pads[1], pads[2], pads[3])


# ---------------------------------------------------------------- windows


def span(kernel: int, dilation: int) -> int:
    """How many elements a dilated kernel reaches over."""
    return (kernel - 1) * dilation + 1


def same_pads(
    sizes: Sequence[int], kernel: Shape, strides: Shape, dilations: Shape, *, upper: bool
) -> Shape:
    """Pads `[begin…, end…]` for which the result has ceil(size / stride) elements."""
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (ceil(size / s) - 1) * s + span(k, d) - size)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


def ceil_pads(
    sizes: Sequence[int], kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> Shape:
    """The pads that a window rounding its result's extent up really needs at the end. The last
    window must begin inside of the input or its leading padding."""
    rank = len(sizes)
    ends = []
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        begin, end, reach = pads[i], pads[rank + i], span(k, d)
        out = ceil((size + begin + end - reach) / s) + 1
        if (out - 1) * s >= size + begin:
            out -= 1
        ends.append(max(end, (out - 1) * s + reach - size - begin))
    return (*pads[:rank], *ends)


def conv(
    b: Builder, x: Value, w: Value, bias: Value | None,
    strides: Shape, pads: Shape, dilations: Shape, groups: int,
) -> Value:  # fmt: skip
    """Convolution of channels-first x by weights `[O, C/groups, *kernel]`."""
    if len(strides) > 2:
        ends = volumes.ends(pads, 0)
        places = volumes.window_places(x.shape[2], w.shape[2], strides[0], ends, dilations[0])
        _check_groups(x, w, groups, x.shape[1] == groups * w.shape[1])
        y = conv(
            b, volumes.folded(b, x, places, groups), volumes.conv_weights(b, w), bias,
            strides[1:], volumes.part(pads, slice(1, None)), dilations[1:], groups,
        )  # fmt: skip
        return volumes.unfolded(b, y, x.shape[0])
    weights = channels_last(b, w)

    def op(image: Value) -> Value:
        return Conv2d(
            image, weights, bias,
            strides=pair(strides, 1), pads=four(pads), dilations=pair(dilations, 1), groups=groups,
        )  # fmt: skip

    return on_images(b, x, op)


def conv_transpose(
    b: Builder, x: Value, w: Value, bias: Value | None,
    strides: Shape, pads: Shape, dilations: Shape, groups: int, output_padding: Shape,
) -> Value:  # fmt: skip
    """Transposed convolution of channels-first x by weights `[C, O/groups, *kernel]`."""
    if len(strides) > 2:
        ends = volumes.ends(pads, 0)
        places = volumes.transposed_places(
            x.shape[2], w.shape[2], strides[0], ends, dilations[0], output_padding[0]
        )
        _check_groups(x, w, groups, x.shape[1] == w.shape[0])
        y = conv_transpose(
            b, volumes.folded(b, x, places, groups), volumes.conv_transpose_weights(b, w, groups),
            bias, strides[1:], volumes.part(pads, slice(1, None)), dilations[1:], groups,
            output_padding[1:],
        )  # fmt: skip
        return volumes.unfolded(b, y, x.shape[0])
    weights = _transposed_weights(b, w, groups)

    def op(image: Value) -> Value:
        return ConvTranspose2d(
            image, weights, bias,
            strides=pair(strides, 1), pads=four(pads), dilations=pair(dilations, 1), groups=groups,
            output_padding=pair(output_padding, 0),
        )  # fmt: skip

    return on_images(b, x, op)


def _check_groups(x: Value, w: Value, groups: int, fits: bool) -> None:
    if groups < 1 or x.shape[1] % groups or not fits:
        raise TypeCheckError(f"x {x.type} and weights {w.type} don't fit {groups} groups")


def _transposed_weights(b: Builder, w: Value, groups: int) -> Value:
    """`[C, O/groups, *kernel]` as `[O, kh, kw, C/groups]`."""
    channels, per_group, *kernel = w.shape
    if w.type.rank not in (3, 4) or groups < 1 or channels % groups:
        raise TypeCheckError(f"weights {w.type} don't fit {groups} groups and 1 or 2 spatial axes")
    kh, kw = pair(kernel, 1)
    if groups == 1:
        return b.transpose(b.reshape(w, (channels, per_group, kh, kw)), (1, 2, 3, 0))
    split = b.reshape(w, (groups, channels // groups, per_group, kh, kw))
    moved = b.transpose(split, (0, 2, 3, 4, 1))
    return b.reshape(moved, (groups * per_group, kh, kw, channels // groups))


def max_pool(
    b: Builder, x: Value, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape
) -> Value:
    """Maximum over windows of channels-first x."""
    if len(kernel) > 2:
        return volumes.pool(
            b, x,
            lambda y, at: max_pool(
                b, y, kernel[at], strides[at], volumes.part(pads, at), dilations[at]
            ),
            lambda y: max_pool(
                b, y, (kernel[0], 1), (strides[0], 1), volumes.height(pads), (dilations[0], 1)
            ),
        )  # fmt: skip

    def op(image: Value) -> Value:
        return MaxPool2d(
            image, pair(kernel, 1), strides=pair(strides, 1), pads=four(pads),
            dilations=pair(dilations, 1),
        )  # fmt: skip

    return on_images(b, x, op)


def avg_pool(
    b: Builder, x: Value, kernel: Shape, strides: Shape, dilations: Shape, pads: Shape,
    extra: Shape, *, count_include_pad: bool,
) -> Value:  # fmt: skip
    """Mean over windows of channels-first x. `extra` are the pads that windows rounded up need;
    what they add to `pads` never counts, so padding that does is made explicit first."""
    if len(kernel) > 2:

        def over(y: Value, *window: Shape) -> Value:
            return avg_pool(b, y, *window, count_include_pad=count_include_pad)

        lists, padding = (kernel, strides, dilations), (pads, extra)
        return volumes.pool(
            b, x,
            lambda y, at: over(y, *(v[at] for v in lists), *(volumes.part(p, at) for p in padding)),
            lambda y: over(y, *((v[0], 1) for v in lists), *map(volumes.height, padding)),
        )  # fmt: skip
    if count_include_pad and extra != pads:
        rank = len(pads) // 2
        widths = ((0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True))
        x = b.add(Pad(x, widths, name=x.name))
        extra = tuple(e - p for e, p in zip(extra, pads, strict=True))
        count_include_pad = False

    def op(image: Value) -> Value:
        return AvgPool2d(
            image, pair(kernel, 1), strides=pair(strides, 1), pads=four(extra),
            count_include_pad=count_include_pad, dilations=pair(dilations, 1),
        )  # fmt: skip

    return on_images(b, x, op)


def global_pool(b: Builder, x: Value, op: type[ReduceMean] | type[ReduceMax]) -> Value:
    """Mean or maximum over all spatial axes, which stay with extent 1."""
    if x.type.rank > 4:
        y = global_pool(b, volumes.flat(b, x), op)
        return b.reshape(y, (*y.shape[:2], *(1,) * (x.type.rank - 2)))
    return on_images(b, x, lambda image: op(image, axes=(1, 2), keepdims=True))


# ---------------------------------------------------------------- linear


def matmul(b: Builder, x: Value, y: Value, constant: bool) -> Value:
    """NumPy's matmul; with a constant matrix on the right it is a linear layer."""
    if constant and y.type.rank == 2 and x.type.rank >= 2:
        return b.add(Linear(x, b.transpose(y, (1, 0)), None))
    a = b.reshape(x, (1, *x.shape)) if x.type.rank == 1 else x
    c = b.reshape(y, (*y.shape, 1)) if y.type.rank == 1 else y
    z = b.add(MatMul(a, c))
    shape = z.shape[:-1] if y.type.rank == 1 else z.shape
    if x.type.rank == 1:
        at = len(shape) - (1 if y.type.rank == 1 else 2)
        shape = (*shape[:at], *shape[at + 1 :])
    return b.reshape(z, shape)


# ---------------------------------------------------------------- others


def softmax(b: Builder, x: Value, axis: int, *, flatten: bool) -> Value:
    """Softmax along an axis; with `flatten`, over all axes from it on (ONNX before opset 13)."""
    if not flatten or prod(x.shape[axis + 1 :]) == 1:
        return b.add(Softmax(x, axis))
    flat = b.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
    return b.reshape(b.add(Softmax(flat, 1)), x.shape)


def log_softmax(b: Builder, x: Value, axis: int, *, flatten: bool) -> Value:
    """`d - log(sum(exp(d)))` with `d = x - max(x)`."""
    if flatten:
        flat = b.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
        return b.reshape(log_softmax(b, flat, 1, flatten=False), x.shape)
    d = b.add(Sub(x, b.add(ReduceMax(x, (axis,), True))))
    total = b.add(ReduceSum(b.add(Exp(d)), (axis,), True))
    return b.add(Sub(d, b.add(Log(total))))


def finite(b: Builder, x: Value) -> Value:
    """x, what is infinite as the largest single: less itself that is 0, not NaN."""
    most = float(np.finfo(np.float32).max)
    return b.add(Clip(x, -most, most))


def crop(b: Builder, x: Value, begins: Shape, ends: Shape) -> Value:
    """Without so many elements at the begin and end of each axis."""
    stops = tuple(d - e for d, e in zip(x.shape, ends, strict=True))
    return b.add(Slice(x, begins, stops, (1,) * len(begins)))


def gather_axis(b: Builder, x: Value, indices: Sequence[int], axis: int) -> Value:
    """The elements at constant indices of one axis."""
    if list(indices) == list(range(x.shape[axis])):
        return x
    at = b.const(np.asarray(indices, np.int64), name=f"{b.name}.indices")
    return b.add(Gather(x, at, axis))


def concat(b: Builder, parts: Sequence[Value], axis: int) -> Value:
    """Parts along an axis, without those that are empty."""
    kept = tuple(v for v in parts if v.shape[axis]) or tuple(parts[:1])
    return b.add(Concat(kept, axis)) if kept[1:] else kept[0]


def truncated(b: Builder, x: Value) -> Value:
    """Floats without their fraction."""
    negative = b.add(Less(x, b.const(np.zeros((), x.type.dtype.numpy))))
    return b.add(Where(negative, b.add(Ceil(x)), b.add(Floor(x))))


def total(b: Builder, values: Sequence[Value]) -> Value:
    """The sum of values, from the left."""
    result = values[0]
    for v in values[1:]:
        result = b.add(Add(result, v))
    return result


def scaled(b: Builder, x: Value, factor: float) -> Value:
    """`x * factor`."""
    if factor == 1.0:
        return x
    return b.add(Mul(x, b.const(np.asarray(factor, x.type.dtype.numpy))))
