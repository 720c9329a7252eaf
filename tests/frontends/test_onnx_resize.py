"""Resizing by taps: cubic, antialiased, over any axes, of a region; as onnxruntime does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import irc
from tests.frontends.single_op import check, f32, i64, model, node, reals

NONE = f32()
COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


def resize(shape: tuple[int, ...], sizes: tuple[int, ...], **attributes: Any) -> None:
    constants = {"roi": NONE, "scales": NONE, "sizes": i64(*sizes)}
    attributes = {"opset": 19, "relative": 1e-4, **attributes}
    check("Resize", {"x": reals(0, *shape)}, constants, **attributes)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("exclude", [0, 1])
@pytest.mark.parametrize("a", [-0.75, -0.5])
@pytest.mark.parametrize("size", [(9, 11), (3, 4), (5, 7)])
def test_cubic(coordinates: str, exclude: int, a: float, size: tuple[int, int]) -> None:
    resize(
        (1, 2, 5, 7), (1, 2, *size), mode="cubic", cubic_coeff_a=a, exclude_outside=exclude,
        coordinate_transformation_mode=coordinates,
    )  # fmt: skip


@pytest.mark.parametrize("size", [(4, 5, 6), (2, 9, 3)])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_three_axes(coordinates: str, size: tuple[int, int, int]) -> None:
    resize(
        (1, 2, 3, 4, 5), (1, 2, *size), mode="linear", coordinate_transformation_mode=coordinates
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_region(mode: str) -> None:
    constants = {
        "roi": f32(0, 0, 0.2, -0.3, 1, 1, 0.9, 1.4), "scales": NONE, "sizes": i64(1, 2, 4, 9),
    }  # fmt: skip
    check(
        "Resize", {"x": reals(0, 1, 2, 5, 6)}, constants, opset=13, mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0,
    )  # fmt: skip


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_proportions(policy: str, mode: str) -> None:
    constants = {"roi": NONE, "scales": NONE, "sizes": i64(7, 8)}
    check(
        "Resize", {"x": reals(0, 1, 2, 4, 6)}, constants, opset=18, mode=mode, axes=[2, 3],
        keep_aspect_ratio_policy=policy, relative=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(3, 5), (12, 4), (7, 7)])
def test_antialiasing_is_by_onnx(mode: str, size: tuple[int, int]) -> None:
    """Inside; at the edges, which ONNX repeats, onnxruntime takes only what is there."""
    x = reals(0, 1, 1, 20, 24)
    constants = {"roi": NONE, "scales": NONE, "sizes": i64(1, 1, *size)}
    proto = model(
        [node("Resize", ["x", *constants], mode=mode, antialias=1)], {"x": x}, constants, 19
    )
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    assert isinstance(expected, np.ndarray)
    found = irc.evaluate(irc.load(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_integers(mode: str) -> None:
    """One rounding, whatever the number of taps; the library computes the same bits."""
    x = reals(0, 1, 3, 9, 10)
    constants = {"roi": NONE, "scales": NONE, "sizes": i64(1, 3, 5, 6)}
    nodes = [node("Resize", ["x", *constants], mode=mode, antialias=1)]
    graph = irc.load(model(nodes, {"x": x}, constants, 19))
    quantized = irc.quantize(graph, calibration=[{"x": x}])
    real = irc.evaluate(graph, {"x": x})["y"]
    found, same = (
        irc.compile(quantized, backend=b)({"x": x})["y"] for b in ("reference", "llvm")
    )
    np.testing.assert_array_equal(found, same)
    assert np.abs(found - real).max() < 4 / 255 + 2 * np.ptp(real) / 255
