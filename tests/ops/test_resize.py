"""Resizing against onnxruntime, and the integer twins."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from irc.errors import TypeCheckError
from irc.ops.core import Input
from irc.ops.resize import (
    COORDINATES,
    ROUNDINGS,
    QResizeLinear,
    ResizeLinear,
    ResizeNearest,
    Sampling,
    sampling,
    samplings,
)
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value
from tests.ops import peer, twins
from tests.ops.samples_images import resized
from tests.ops.sampling import EIGHT_BITS


def as_onnx(node: ResizeNearest | ResizeLinear, image: Array, **attributes: str) -> Array:
    """What onnxruntime makes of the node."""
    scales = None if node.scales is None else np.array([1, 1, *node.scales], np.float32)
    sizes = np.array([image.shape[0], image.shape[3], *node.size], np.int64)
    inputs = [peer.to_nchw(image), None, scales, sizes if scales is None else None]
    mode = node.coordinates
    found = peer.run("Resize", inputs, coordinate_transformation_mode=mode, **attributes)
    return peer.to_nhwc(found)


def clear(s: Sampling, size: int, rounding: str) -> bool:
    """Whether no coordinate lies where rounding turns, or 32 bits hold the scale exactly: else
    onnxruntime may turn the other way."""
    step = Fraction(s.a, s.d).numerator
    turn = Fraction(1, 2) if rounding.startswith("round") else Fraction(0)
    coordinates = [Fraction(s.a * i + s.b, s.d) for i in range(size)]
    return step & (step - 1) == 0 or all((c - turn).denominator != 1 for c in coordinates)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(ROUNDINGS))
def test_nearest_is_onnx(data: st.DataObject, rounding: str) -> None:
    x, size, coordinates, scales = resized(data.draw, EIGHT_BITS)
    both = samplings(x.value.type, size, coordinates, scales)
    assume(all(clear(s, n, rounding) for s, n in zip(both, size, strict=True)))
    node = ResizeNearest(
        Input(DType.F32, x.array.shape, name="x"), size, coordinates, rounding, scales
    )
    floats = x.array.astype(np.float32)
    expected = as_onnx(node, floats, mode="nearest", nearest_mode=rounding)
    np.testing.assert_array_equal(node.evaluate(floats), expected)


@settings(max_examples=100)
@given(st.data())
def test_linear_is_onnx(data: st.DataObject) -> None:
    x, size, coordinates, scales = resized(data.draw, EIGHT_BITS)
    node = ResizeLinear(Input(DType.F32, x.array.shape, name="x"), size, coordinates, scales)
    floats = x.array.astype(np.float32)
    expected = as_onnx(node, floats, mode="linear")
    np.testing.assert_allclose(node.evaluate(floats), expected, rtol=0, atol=1e-3)


@settings(max_examples=100)
@given(st.data())
def test_integer_linear_is_off_by_one_at_most(data: st.DataObject) -> None:
    drawn, size, coordinates, scales = resized(data.draw, EIGHT_BITS)
    x = twins.activation(data.draw, "x", drawn.array.shape)
    twins.check_twin(data.draw, ResizeLinear(x.real, size, coordinates, scales), (x,))


@settings(max_examples=30)
@given(st.data())
def test_integer_nearest_is_off_by_one_at_most(data: st.DataObject) -> None:
    drawn, size, coordinates, scales = resized(data.draw, EIGHT_BITS)
    x = twins.activation(data.draw, "x", drawn.array.shape)
    node = ResizeNearest(x.real, size, coordinates, "floor", scales)
    twins.check_twin(data.draw, node, (x,))


def test_one_scale_means_one_rounding() -> None:
    real = ResizeLinear(Input(DType.F32, (1, 2, 2, 1), name="x"), (4, 4), name="up")
    x = Input(DType.U8, (1, 2, 2, 1), Quant(0.1, 9), name="x")
    twin = real.quantized((x,), x.type.with_shape(real.shape))
    assert isinstance(twin, QResizeLinear)
    assert (twin.m, twin.s) == (1, 22)
    corners = np.array([[0, 255], [255, 0]], np.uint8).reshape(1, 2, 2, 1)
    expected = [[0, 64, 191, 255], [64, 96, 159, 191], [191, 159, 96, 64], [255, 191, 64, 0]]
    assert twin.evaluate(corners)[0, ..., 0].tolist() == expected


def test_wide_integers_are_requantized_apart() -> None:
    real = ResizeLinear(Input(DType.F32, (1, 2, 2, 1), name="x"), (4, 4))
    x = Input(DType.I16, (1, 2, 2, 1), Quant(0.1, 9), name="x")
    result = TensorType(DType.U8, real.shape, Quant(0.3, 1))
    twin = real.quantized((x,), result)
    assert twin.op == "requantize"
    assert twin.operands[0].op == "qresize_linear"
    assert twin.type == result


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(COORDINATES))
def test_lookups_stay_inside(extent: int, size: int, coordinates: str) -> None:
    s = sampling(extent, size, coordinates, None)
    low, high, part = s.between(np.arange(size))
    for found in (low, high, *(s.nearest(np.arange(size), r) for r in ROUNDINGS)):
        assert found.min() >= 0
        assert found.max() < extent
    assert np.all((part >= 0) & (part < s.d))
    assert np.all((s.weight(part) >= 0) & (s.weight(part) <= 2048))


def test_scales_are_read_as_the_fractions_they_mean() -> None:
    third = float(np.float32(1 / 3))
    assert sampling(6, 2, "asymmetric", third) == sampling(6, 2, "asymmetric", None)
    assert sampling(5, 3, "asymmetric", float(np.float32(0.6))) == Sampling(5, 0, 3, 5)
    assert sampling(5, 7, "asymmetric", 1.5) == Sampling(2, 0, 3, 5)


X = Input(DType.F32, (1, 2, 2, 1), name="x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResizeNearest(X, (0, 2)), "two positive sizes"),
        (lambda: ResizeNearest(X, (2, 2), "tf_crop_and_resize"), "none of half_pixel"),
        (lambda: ResizeNearest(X, (2, 2), rounding="up"), "none of round_prefer_floor"),
        (lambda: ResizeLinear(X, (2, 2), scales=(0.0, 1.0)), "out of bounds"),
        (lambda: ResizeLinear(Input(DType.U8, (1, 2, 2, 1), name="x"), (2, 2)), "must be float"),
        (lambda: ResizeLinear(Input(DType.F32, (2, 2), name="x"), (2, 2)), "2 axes"),
    ],
)
def test_bad_operands(make: Callable[[], Value], message: str) -> None:
    with pytest.raises(TypeCheckError, match=message):
        make()
