"""Convolutions, pools and resizes as onnxruntime computes them, with random attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irc.errors import ModelError
from tests.frontends.single_op import check, f32, i64, reals

SAME = st.sampled_from(["SAME_UPPER", "SAME_LOWER"])
seeds = st.integers(0, 2**16)


@dataclass(frozen=True)
class Geometry:
    """A window over one or two spatial axes, and sizes that it fits."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


@st.composite
def geometries(draw: st.DrawFn, dilated: bool = True) -> Geometry:
    spatial = draw(st.integers(1, 2))

    def several(low: int, high: int, count: int = spatial) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    kernel, strides = several(1, 4), several(1, 3)
    dilations = several(1, 2) if dilated else (1,) * spatial
    pads = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = tuple(span + draw(st.integers(0, 6)) for span in spans)
    return Geometry(sizes, kernel, strides, dilations, pads)


@given(geometries(), seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
@settings(max_examples=60)
def test_conv(g: Geometry, seed: int, groups: int, per: int, out: int, bias: bool) -> None:
    x = reals(seed, 2, groups * per, *g.sizes)
    constants = {"w": reals(seed + 1, groups * out, per, *g.kernel)}
    if bias:
        constants["b"] = reals(seed + 2, groups * out)
    check("Conv", {"x": x}, constants, kernel_shape=g.kernel, strides=g.strides, pads=g.pads,
          dilations=g.dilations, group=groups)  # fmt: skip


@given(geometries(dilated=False), seeds, st.one_of(SAME, st.just("VALID")))
@settings(max_examples=40)
def test_conv_auto_pad(g: Geometry, seed: int, mode: str) -> None:
    x = reals(seed, 1, 3, *g.sizes)
    w = reals(seed + 1, 4, 3, *g.kernel)
    check("Conv", {"x": x}, {"w": w}, auto_pad=mode, strides=g.strides)


def test_conv_with_weights_behind_other_nodes() -> None:
    graph = check("Conv", {"x": reals(0, 1, 2, 5, 5)}, {"w": reals(1, 3, 2, 3, 3)})
    assert [v.op for v in graph.order] == ["input", "transpose", "const", "conv2d", "transpose"]


@given(geometries(), seeds, st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.data())
@settings(max_examples=60)
def test_conv_transpose(
    g: Geometry, seed: int, groups: int, per: int, out: int, data: st.DataObject
) -> None:
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in g.strides)
    x = reals(seed, 1, groups * per, *g.sizes)
    constants = {
        "w": reals(seed + 1, groups * per, out, *g.kernel),
        "b": reals(seed + 2, groups * out),
    }
    sizes = zip(g.sizes, g.strides, g.kernel, g.dilations, extra, strict=True)
    full = [(n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in sizes]
    rank = len(full)
    assume(all(f > g.pads[i] + g.pads[rank + i] for i, f in enumerate(full)))
    check("ConvTranspose", {"x": x}, constants, kernel_shape=g.kernel, strides=g.strides,
          pads=g.pads, dilations=g.dilations, group=groups, output_padding=extra)  # fmt: skip


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("wanted", [None, (9, 8)])
def test_conv_transpose_output_shape(mode: str, wanted: tuple[int, ...] | None) -> None:
    x, w = reals(0, 1, 2, 5, 4), reals(1, 2, 3, 4, 3)
    check("ConvTranspose", {"x": x}, {"w": w}, strides=(2, 2), output_shape=wanted, auto_pad=mode)


@given(geometries(), seeds, st.booleans())
@settings(max_examples=60)
def test_max_pool(g: Geometry, seed: int, round_up: bool) -> None:
    x = reals(seed, 2, 3, *g.sizes)
    _pool("MaxPool", x, g, round_up, dilations=g.dilations)


@given(geometries(), seeds, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_average_pool(g: Geometry, seed: int, round_up: bool, include: bool) -> None:
    x = reals(seed, 2, 3, *g.sizes)
    _pool("AveragePool", x, g, round_up, count_include_pad=int(include))


@given(geometries(), seeds)
@settings(max_examples=20)
def test_average_pool_dilated(g: Geometry, seed: int) -> None:
    x = reals(seed, 2, 3, *g.sizes)
    _pool("AveragePool", x, g, False, dilations=g.dilations, opset=19)


def _pool(op: str, x: Any, g: Geometry, round_up: bool, **attrs: Any) -> None:
    """Windows that lie wholly in the padding have no mean and no maximum: refused, no example."""
    try:
        check(op, {"x": x}, kernel_shape=g.kernel, strides=g.strides, pads=g.pads,
              ceil_mode=int(round_up), **attrs)  # fmt: skip
    except ModelError as error:
        assume("lie wholly outside" not in str(error))
        raise


@given(geometries(dilated=False), seeds, SAME, st.sampled_from(["MaxPool", "AveragePool"]))
@settings(max_examples=30)
def test_pool_auto_pad(g: Geometry, seed: int, mode: str, op: str) -> None:
    x = reals(seed, 1, 2, *g.sizes)
    # onnxruntime computes negative pads where strides jump over elements.
    assume(all(s <= k for s, k in zip(g.strides, g.kernel, strict=True)))
    check(op, {"x": x}, kernel_shape=g.kernel, strides=g.strides, auto_pad=mode)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 4, 5, 6)])
def test_global_pools(op: str, shape: tuple[int, ...]) -> None:
    check(op, {"x": reals(3, *shape)})


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def coordinate(how: str, i: Any, scale: Any, before: int, after: int) -> Any:
    """Where output pixel i lies in the input, by the ONNX definitions, in the numbers given."""
    if how == "align_corners":
        return i * (before - 1) / (after - 1) if after > 1 else i * 0
    if how == "asymmetric" or (how == "pytorch_half_pixel" and after == 1):
        return i / scale
    half = type(scale)(0.5)
    return (i + half) / scale - half


def exact_in_32_bits(how: str, before: int, after: int) -> bool:
    """Whether 32-bit coordinates fall on the same side of every tie as exact ones."""

    def sides(x: Fraction) -> tuple[int, bool]:
        return math.floor(2 * x), 2 * x == math.floor(2 * x)

    exact, near = Fraction(after, before), np.float32(after / before)
    return all(
        sides(coordinate(how, Fraction(i), exact, before, after))
        == sides(Fraction(float(coordinate(how, np.float32(i), near, before, after))))
        for i in range(after)
    )


@given(
    st.sampled_from(COORDINATES), st.sampled_from(ROUNDINGS), st.integers(1, 7), st.integers(1, 7),
    st.integers(1, 15), st.integers(1, 15),
)  # fmt: skip
@settings(max_examples=80)
def test_resize_nearest_to_sizes(how: str, rounding: str, h: int, w: int, a: int, b: int) -> None:
    # onnxruntime computes coordinates in 32 bits: 7 pixels to 1 gives 2.9999998, where 3 is exact.
    assume(exact_in_32_bits(how, h, a) and exact_in_32_bits(how, w, b))
    check("Resize", {"x": reals(1, 1, 2, h, w)}, {"sizes": i64(1, 2, a, b)}, opset=18,
          order=["x", "", "", "sizes"], mode="nearest", coordinate_transformation_mode=how,
          nearest_mode=rounding)  # fmt: skip


@given(st.sampled_from(COORDINATES), st.integers(1, 7), st.integers(1, 7), st.integers(1, 15),
       st.integers(1, 15))  # fmt: skip
@settings(max_examples=60)
def test_resize_linear_to_sizes(how: str, h: int, w: int, a: int, b: int) -> None:
    check("Resize", {"x": reals(1, 2, 3, h, w)}, {"sizes": i64(2, 3, a, b)}, opset=13,
          order=["x", "", "", "sizes"], mode="linear", coordinate_transformation_mode=how,
          relative=1e-4)  # fmt: skip


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("how", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.5, 0.5), (1.5, 2.5), (0.6, 1.3)])
def test_resize_by_scales(mode: str, how: str, scales: tuple[float, float]) -> None:
    def run() -> None:
        check("Resize", {"x": reals(1, 1, 2, 5, 7)}, {"scales": f32(1, 1, *scales)}, opset=13,
              order=["x", "", "scales"], mode=mode, coordinate_transformation_mode=how,
              relative=1e-4)  # fmt: skip

    if how == "align_corners" and scales != (2.0, 2.0):  # ONNX and onnxruntime disagree
        with pytest.raises(ModelError, match="means different things to different runtimes"):
            run()
    else:
        run()


def test_resize_one_spatial_axis() -> None:
    for mode in ("nearest", "linear"):
        check("Resize", {"x": reals(1, 1, 2, 5)}, {"scales": f32(1, 1, 2)}, opset=13,
              order=["x", "", "scales"], mode=mode)  # fmt: skip


def test_resize_axes_since_18() -> None:
    check("Resize", {"x": reals(1, 1, 2, 4, 6)}, {"sizes": i64(8, 3)}, opset=18,
          order=["x", "", "", "sizes"], axes=[2, 3])  # fmt: skip


def test_resize_nearest_of_any_axis() -> None:
    check("Resize", {"x": reals(1, 2, 3, 4)}, {"sizes": i64(4, 2, 5)}, opset=13,
          order=["x", "", "", "sizes"], coordinate_transformation_mode="asymmetric",
          nearest_mode="floor")  # fmt: skip


@pytest.mark.parametrize("scales", [(2.0, 2.0), (3.0, 1.0), (1.5, 1.5)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(scales: tuple[float, float], mode: str) -> None:
    x = reals(1, 1, 2, 4, 4)
    check("Upsample", {"x": x}, opset=7, scales=[1.0, 1.0, *scales], mode=mode)
    check("Upsample", {"x": x}, {"s": f32(1, 1, *scales)}, opset=9, mode=mode)
    check("Resize", {"x": x}, {"s": f32(1, 1, *scales)}, opset=10, mode=mode)


def test_resize_10_that_shrinks() -> None:
    check("Resize", {"x": reals(1, 1, 2, 7, 5)}, {"s": f32(1, 1, 0.5, 0.6)}, opset=10)


