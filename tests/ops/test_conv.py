"""Convolutions against onnxruntime, and their integer twins against them."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from irc.errors import IRCError, TypeCheckError
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.ops.core import Const, Input
from irc.ops.windows import Window, correlate
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.ops import peer, twins
from tests.ops.samples_images import extent, groups, transposed, window
from tests.ops.sampling import Draw, integer


def conv(draw: Draw) -> tuple[Conv2d, tuple[twins.Operand, ...]]:
    """A convolution over quantized operands."""
    shape = window(draw)
    channels, out, count = groups(draw)
    dims = (integer(draw, 1, 2), extent(draw, shape, 0), extent(draw, shape, 1), channels)
    x = twins.activation(draw, "x", dims)
    w = twins.weight(draw, (out, *shape.kernel, channels // count))
    operands = (x, w, twins.bias(draw, x, w)) if draw(st.booleans()) else (x, w)
    b = operands[2].real if len(operands) > 2 else None
    node = Conv2d(x.real, w.real, b, shape.strides, shape.pads, shape.dilations, count, name="c")
    return node, operands


def conv_transpose(draw: Draw) -> tuple[ConvTranspose2d, tuple[twins.Operand, ...]]:
    """A transposed convolution over quantized operands."""
    shape, size = transposed(draw)
    channels, out, count = groups(draw)
    x = twins.activation(draw, "x", (integer(draw, 1, 2), *size, channels))
    w = twins.weight(draw, (out, *shape.kernel, channels // count))
    operands = (x, w, twins.bias(draw, x, w)) if draw(st.booleans()) else (x, w)
    node = ConvTranspose2d(
        x.real, w.real, operands[2].real if len(operands) > 2 else None, shape.strides,
        shape.pads, shape.dilations, count, shape.output_padding, name="c",
    )  # fmt: skip
    return node, operands


def check(node: Conv2d | ConvTranspose2d, given: list[Array], expected: Array) -> None:
    """Equal but for the rounding of 32-bit sums, which goes with the size of their terms: where
    they cancel, the sum itself says nothing."""
    found = node.evaluate(*given, *[None] * (3 - len(given)))
    terms = node.evaluate(*(np.abs(a) for a in given), *[None] * (3 - len(given)))
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= 2e-6 * terms + 1e-12)


def arguments(node: Conv2d | ConvTranspose2d, operands: tuple[twins.Operand, ...]) -> list[Array]:
    """x, w and perhaps b as 32-bit floats."""
    return [o.reals.astype(np.float32) for o in operands]


@settings(max_examples=60)
@given(st.data())
def test_conv_is_onnx(data: st.DataObject) -> None:
    node, operands = conv(data.draw)
    x, w, *b = arguments(node, operands)
    expected = peer.run(
        "Conv", [peer.to_nchw(x), peer.to_nchw(w), *b], strides=node.strides, pads=node.pads,
        dilations=node.dilations, group=node.groups,
    )  # fmt: skip
    check(node, [x, w, *b], peer.to_nhwc(expected))


@settings(max_examples=60)
@given(st.data())
def test_conv_transpose_is_onnx(data: st.DataObject) -> None:
    node, operands = conv_transpose(data.draw)
    x, w, *b = arguments(node, operands)
    # ONNX keeps [C, O/groups, kh, kw], group by group.
    parts = [p.transpose(3, 0, 1, 2) for p in np.split(w, node.groups)]
    expected = peer.run(
        "ConvTranspose", [peer.to_nchw(x), np.concatenate(parts), *b], strides=node.strides,
        pads=node.pads, dilations=node.dilations, group=node.groups,
        output_padding=node.output_padding,
    )  # fmt: skip
    check(node, [x, w, *b], peer.to_nhwc(expected))


@settings(max_examples=60)
@given(st.data())
def test_integer_conv_is_off_by_one_at_most(data: st.DataObject) -> None:
    twins.check_twin(data.draw, *conv(data.draw))


@settings(max_examples=60)
@given(st.data())
def test_integer_conv_transpose_is_off_by_one_at_most(data: st.DataObject) -> None:
    twins.check_twin(data.draw, *conv_transpose(data.draw))


@given(st.data())
def test_exact_in_float64(data: st.DataObject) -> None:
    """Whole numbers below 2^53 come out as they are, whatever the order of the sums."""
    node, operands = conv(data.draw)
    x, w = (o.array.astype(np.float64) for o in operands[:2])
    acc = correlate(x, w, node.window, node.groups, fill=3)
    padded = node.window.pad(x, 3).astype(np.int64)
    direct = np.zeros(acc.shape, np.int64)
    made, taken = w.shape[0] // node.groups, w.shape[3]
    for o in range(w.shape[0]):
        first = o // made * taken
        for ky, kx, view in node.window.taps(padded, (acc.shape[1], acc.shape[2])):
            pixels = view[..., first : first + taken]
            direct[..., o] += (pixels * w[o, ky, kx].astype(np.int64)).sum(-1)
    np.testing.assert_array_equal(acc, direct)


def test_large_images_go_in_pieces() -> None:
    """More rows than fit one piece, by columns and depthwise."""
    rng = np.random.default_rng(1)
    x = rng.integers(-9, 9, (1, 300, 200, 16)).astype(np.float64)
    for w, groups_ in (
        (rng.integers(-9, 9, (3, 3, 3, 16)), 1),
        (rng.integers(-9, 9, (32, 3, 3, 1)), 16),
    ):
        around = Window((3, 3), (2, 1), (1, 1, 1, 1))
        found = correlate(x, w.astype(np.float64), around, groups_)
        for row in (0, 77, found.shape[1] - 1):
            above = max(0, 2 * row - 1)
            part = Window((3, 3), (2, 1), (int(row == 0), 1, 0, 1))
            alone = correlate(x[:, above : 2 * row + 2], w.astype(np.float64), part, groups_)
            np.testing.assert_array_equal(found[:, row], alone[:, 0])


IMAGE = Input(DType.F32, (1, 5, 5, 4), name="x")


def floats(*dims: int) -> Const:
    return Const(np.zeros(dims, np.float32), name="w")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(IMAGE, floats(2, 3, 3, 3)), "x has 4 channels, w takes 3"),
        (lambda: Conv2d(IMAGE, floats(3, 3, 3, 2), groups=2), "2 groups divide neither"),
        (lambda: Conv2d(IMAGE, floats(2, 6, 3, 4)), "does not fit 5x5"),
        (lambda: Conv2d(IMAGE, floats(2, 3, 3, 4), floats(3)), r"b must be f32\[2\]"),
        (lambda: Conv2d(IMAGE, floats(2, 3, 3, 4), strides=(0, 1)), "must be positive"),
        (lambda: Conv2d(IMAGE, floats(3, 4)), "2 axes"),
        (lambda: ConvTranspose2d(IMAGE, floats(2, 1, 1, 4), pads=(3, 0, 2, 0)), "leave nothing"),
        (
            lambda: ConvTranspose2d(IMAGE, floats(2, 1, 1, 4), output_padding=(-1, 0)),
            "output_padding",
        ),
    ],
)
def test_bad_operands(make: Callable[[], Value], message: str) -> None:
    with pytest.raises(TypeCheckError, match=message):
        make()


def test_weights_must_be_constant() -> None:
    w = Input(DType.I8, (2, 3, 3, 4), Quant((0.1, 0.2), 0, 0), name="w")
    x = Input(DType.U8, (1, 5, 5, 4), Quant(0.1, 3), name="x")
    node = Conv2d(IMAGE, floats(2, 3, 3, 4), name="layer")
    result = TensorType(DType.U8, node.shape, Quant(0.1, 0))
    with pytest.raises(IRCError, match=r"layer.*must be a constant"):
        node.quantized((x, w), result)
