"""Convolutions, pools and resizing as ONNX, which has them in NCHW."""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.writer import Layout, Writer, exports
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.resize import ResizeLinear, ResizeNearest

PLANAR = (Layout.PLANAR,)


@exports(Conv2d, layouts=PLANAR)
def _conv(w: Writer, v: Conv2d) -> str:
    """OHWI weights, seen as an image, are OIHW when planar."""
    bias = [] if v.b is None else [w.read(v.b, Layout.PLAIN)]
    return w.emit(
        "Conv", [w.read(v.x), w.read(v.w), *bias], name=v.name, group=v.groups,
        strides=list(v.strides), pads=list(v.pads), dilations=list(v.dilations),
        kernel_shape=list(v.window.kernel),
    )  # fmt: skip


@exports(ConvTranspose2d, layouts=PLANAR)
def _conv_transpose(w: Writer, v: ConvTranspose2d) -> str:
    bias = [] if v.b is None else [w.read(v.b, Layout.PLAIN)]
    return w.emit(
        "ConvTranspose", [w.read(v.x), _input_major(w, v), *bias], name=v.name, group=v.groups,
        strides=list(v.strides), pads=list(v.pads), dilations=list(v.dilations),
        kernel_shape=list(v.window.kernel), output_padding=list(v.output_padding),
    )  # fmt: skip


def _input_major(w: Writer, v: ConvTranspose2d) -> str:
    """Weights [O, kh, kw, C/groups] as [C, O/groups, kh, kw]."""
    out, kh, kw, ins = v.w.shape
    per_group = out // v.groups
    if v.groups == 1:
        return w.emit("Transpose", [w.read(v.w)], perm=[1, 0, 2, 3])
    split = w.integers([v.groups, per_group, kh, kw, ins])
    parts = w.emit("Reshape", [w.read(v.w, Layout.PLAIN), split])
    turned = w.emit("Transpose", [parts], perm=[0, 4, 1, 2, 3])
    return w.emit("Reshape", [turned, w.integers([v.groups * ins, per_group, kh, kw])])


@exports(MaxPool2d, layouts=PLANAR)
def _max_pool(w: Writer, v: MaxPool2d) -> str:
    return w.emit(
        "MaxPool", [w.read(v.x)], name=v.name, kernel_shape=list(v.kernel),
        strides=list(v.strides), pads=list(v.pads), dilations=list(v.dilations),
    )  # fmt: skip


@exports(AvgPool2d, layouts=PLANAR)
def _avg_pool(w: Writer, v: AvgPool2d) -> str:
    return w.emit(
        "AveragePool", [w.read(v.x)], name=v.name, kernel_shape=list(v.kernel),
        strides=list(v.strides), pads=list(v.pads), dilations=list(v.dilations),
        count_include_pad=int(v.count_include_pad),
    )  # fmt: skip


@exports(ResizeNearest, ResizeLinear, layouts=PLANAR)
def _resize(w: Writer, v: ResizeNearest | ResizeLinear) -> str:
    n, h, width, c = v.shape
    if v.scales is None:
        sizes = ["", "", w.integers([n, c, h, width])]
    else:
        sizes = ["", w.constant(np.array([1, 1, *v.scales], np.float32))]
    nearest = isinstance(v, ResizeNearest)
    return w.emit(
        "Resize", [w.read(v.x), *sizes], name=v.name, mode="nearest" if nearest else "linear",
        coordinate_transformation_mode=v.coordinates,
        nearest_mode=v.rounding if isinstance(v, ResizeNearest) else None,
    )  # fmt: skip
