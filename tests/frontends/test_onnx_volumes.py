"""Convolutions and pools over three and more spatial axes, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc.graph import evaluate
from tests.frontends.single_op import check, model, node, reals

CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1, 2], "pads": [1, 0, 1, 0, 2, 1]},
    {"dilations": [2, 1, 1], "group": 2},
    {"strides": [3, 2, 1], "pads": [1, 1, 1, 1, 1, 1], "group": 4},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
def test_conv3d(attributes: dict[str, Any]) -> None:
    w = reals(2, 4, 4 // attributes.get("group", 1), 2, 3, 2)
    constants = {"w": w, "b": reals(3, 4)}
    check("Conv", {"x": reals(1, 2, 4, 6, 7, 5)}, constants, relative=1e-4, **attributes)


@pytest.mark.parametrize(
    "attributes", [*CONVOLUTIONS, {"output_padding": [1, 0, 0], "strides": [2, 1, 1]}]
)
def test_conv_transpose3d(attributes: dict[str, Any]) -> None:
    constants = {"w": reals(2, 4, 2, 2, 3, 2), "b": reals(3, 2 * attributes.get("group", 1))}
    check("ConvTranspose", {"x": reals(1, 2, 4, 3, 4, 3)}, constants, relative=1e-4, **attributes)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2, 1], "pads": [1, 0, 1, 0, 1, 0]},
        {"ceil_mode": 1, "strides": [2, 3, 2]},
    ],
)
def test_pool3d(op: str, attributes: dict[str, Any]) -> None:
    check(op, {"x": reals(1, 2, 3, 6, 7, 5)}, kernel_shape=[2, 3, 2], **attributes)


def test_padding_counts_in_a_pool() -> None:
    pads = [1, 0, 1, 1, 1, 0]
    check(
        "AveragePool", {"x": reals(1, 1, 2, 4, 5, 6)},
        kernel_shape=[2, 3, 2], pads=pads, count_include_pad=1,
    )  # fmt: skip


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool3d(op: str) -> None:
    check(op, {"x": reals(1, 2, 3, 4, 5, 6)})


def test_conv3d_in_integers() -> None:
    """One multiply-accumulate, as in two dimensions."""
    x, constants = reals(1, 1, 3, 5, 6, 6), {"w": reals(2, 4, 3, 3, 3, 3)}
    conv = node("Conv", ["x", "w"], pads=[1] * 6, strides=[2, 1, 1])
    graph = irc.load(model([conv], {"x": x}, constants))
    quantized = irc.quantize(graph, calibration=[{"x": x}])
    real, found = (irc.evaluate(g, {"x": x})["y"] for g in (graph, quantized))
    assert np.abs(real - found).max() < 0.03 * np.abs(real).max()
    made = irc.compile(quantized, backend="llvm")
    np.testing.assert_allclose(made({"x": x})["y"], found, atol=0.02 * np.abs(real).max())


def test_four_spatial_axes() -> None:
    """The recursion goes on; onnxruntime stops at three."""
    x, w = reals(1, 1, 2, 3, 4, 3, 4), reals(2, 2, 2, 2, 2, 1, 2)
    graph = irc.load(model([node("Conv", ["x", "w"])], {"x": x}, {"w": w}))
    view = np.lib.stride_tricks.sliding_window_view(x[0], (2, 2, 1, 2), (1, 2, 3, 4))
    expected = np.einsum("cabdeijkl,ocijkl->oabde", view, w)
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"][0], expected, rtol=1e-4, atol=1e-5)
