"""Pools against onnxruntime, and their integer twins against them."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from irc.errors import IRCError, TypeCheckError
from irc.ops.core import Const, Input
from irc.ops.pool import AvgPool2d, MaxPool2d, QAvgPool2d
from irc.ops.quantization import Requantize
from irc.types import DType, Quant, TensorType
from tests.ops import peer, twins
from tests.ops.samples_images import pooled


@settings(max_examples=60)
@given(st.data())
def test_max_pool_is_onnx(data: st.DataObject) -> None:
    shape, dims = pooled(data.draw)
    x = twins.activation(data.draw, "x", dims)
    node = MaxPool2d(x.real, shape.kernel, shape.strides, shape.pads, shape.dilations)
    image = x.reals.astype(np.float32) - 1000
    expected = peer.run(
        "MaxPool", [peer.to_nchw(image)], kernel_shape=node.kernel, strides=node.strides,
        pads=node.pads, dilations=node.dilations,
    )  # fmt: skip
    found = node.replace(x=Input(DType.F32, dims, name="x")).evaluate(image)
    np.testing.assert_array_equal(found, peer.to_nhwc(expected))


@settings(max_examples=60)
@given(st.data(), st.booleans())
def test_average_pool_is_onnx(data: st.DataObject, include: bool) -> None:
    shape, dims = pooled(data.draw)
    x = twins.activation(data.draw, "x", dims)
    node = AvgPool2d(x.real, shape.kernel, shape.strides, shape.pads, include, shape.dilations)
    image = x.reals.astype(np.float32)
    expected = peer.run(
        "AveragePool", [peer.to_nchw(image)], kernel_shape=node.kernel, strides=node.strides,
        pads=node.pads, count_include_pad=int(include), dilations=node.dilations,
    )  # fmt: skip
    scale = max(1e-3, float(np.abs(image).max()))
    found = node.evaluate(image)
    np.testing.assert_allclose(found, peer.to_nhwc(expected), rtol=0, atol=1e-5 * scale)


@settings(max_examples=60)
@given(st.data(), st.booleans())
def test_integer_average_is_off_by_one_at_most(data: st.DataObject, include: bool) -> None:
    shape, dims = pooled(data.draw)
    x = twins.activation(data.draw, "x", dims)
    node = AvgPool2d(x.real, shape.kernel, shape.strides, shape.pads, include, shape.dilations)
    twin = twins.check_twin(data.draw, node, (x,))
    assert isinstance(twin, QAvgPool2d)
    assert twin.m.shape == (twin.taps if any(shape.pads) and not include else 1,)


@settings(max_examples=40)
@given(st.data())
def test_integer_maximum_is_off_by_one_at_most(data: st.DataObject) -> None:
    shape, dims = pooled(data.draw)
    x = twins.activation(data.draw, "x", dims)
    node = MaxPool2d(x.real, shape.kernel, shape.strides, shape.pads, shape.dilations)
    twins.check_twin(data.draw, node, (x,))


def test_maximum_keeps_its_scale() -> None:
    real = MaxPool2d(Input(DType.F32, (1, 4, 4, 3), name="x"), (2, 2), (2, 2), name="pool")
    x = Input(DType.U8, (1, 4, 4, 3), Quant(0.5, 7), name="x")
    same = real.quantized((x,), TensorType(DType.U8, real.shape, Quant(0.5, 7)))
    assert isinstance(same, MaxPool2d)
    assert same.name == "pool"
    other = real.quantized((x,), TensorType(DType.I8, real.shape, Quant(0.25, 7)))
    assert isinstance(other, Requantize)
    assert isinstance(other.x, MaxPool2d)


def test_windows_without_pixels_are_refused() -> None:
    x = Input(DType.F32, (1, 4, 4, 3), name="x")
    for cls in (MaxPool2d, AvgPool2d):
        with pytest.raises(TypeCheckError, match="wholly outside"):
            cls(x, (2, 2), pads=(2, 0, 0, 0))


def test_other_errors() -> None:
    x = Input(DType.F32, (1, 4, 4, 3), name="x")
    integer = Input(DType.U8, (1, 4, 4, 3), Quant(1e6, 7), name="x")
    with pytest.raises(TypeCheckError, match="must be float"):
        AvgPool2d(integer, (2, 2))
    pool = AvgPool2d(x, (2, 2), name="mean")
    with pytest.raises(IRCError, match=r"%mean: the scales of .* are too far apart"):
        pool.quantized((integer,), TensorType(DType.U8, pool.shape, Quant(1e-4, 0)))
    with pytest.raises(TypeCheckError, match="1 or 4 entries"):
        QAvgPool2d(
            integer, Const(np.ones(3, np.int32)), Const(np.ones(3, np.int8)), (2, 2), (1, 1),
            (0, 0, 0, 0), (1, 1), (0, 255), DType.U8, Quant(1.0, 0),
        )  # fmt: skip
    for count, power in ((1, 31), (4, 2)):
        with pytest.raises(TypeCheckError, match=f"power {power} of {count} factors"):
            QAvgPool2d(
                integer, Const(np.ones(count, np.int32)), Const(np.ones(count, np.int8)), (2, 2),
                (1, 1), (0, 0, 0, 0), (1, 1), (0, 255), DType.U8, Quant(1.0, 0), power,
            )  # fmt: skip
