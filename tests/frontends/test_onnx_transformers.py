"""onnxruntime's fused attention and embeddings, and its dynamically quantized attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

import irc
from irc.types import Array
from tests.frontends.single_op import agree, fused, model, node, reals

WIDTH, HEADS, STEPS = 12, 3, 5
WEIGHTS = {"w": reals(2, WIDTH, 3 * WIDTH, low=-0.5, high=0.5), "b": reals(3, 3 * WIDTH)}


def attention(inputs: list[str], x: dict[str, Array], outputs: tuple[str, ...] = ("y",),
              **attributes: Any) -> None:  # fmt: skip
    proto = fused("Attention", inputs, x, WEIGHTS, outputs, num_heads=HEADS, **attributes)
    agree(proto, x, relative=1e-4)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(causal: int, masked: bool) -> None:
    x = {"x": reals(1, 2, STEPS, WIDTH)}
    if masked:
        x["m"] = np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    attention(["x", "w", "b", *(["m"] if masked else [])], x, unidirectional=causal)


def test_masked_attention_in_integers() -> None:
    """The mask stays what it is at the interface; 8 bits suffice."""
    x = {
        "x": reals(1, 2, STEPS, WIDTH),
        "m": np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
    }
    graph = irc.load(fused("Attention", ["x", "w", "b", "m"], x, WEIGHTS, num_heads=HEADS))
    quantized = irc.quantize(graph, calibration=[x])
    first, second = (irc.compile(quantized, backend=b)(x)["y"] for b in ("reference", "llvm"))
    np.testing.assert_array_equal(first, second)
    real = irc.evaluate(graph, x)["y"]
    assert np.abs(first - real).max() < 0.05 * np.ptp(real)


def test_attention_over_a_past() -> None:
    past = reals(4, 2, 2, HEADS, 4, WIDTH // HEADS)
    x = {"x": reals(1, 2, STEPS, WIDTH), "past": past}
    attention(["x", "w", "b", "", "past"], x, ("y", "present"), unidirectional=1)


def test_dynamically_quantized_attention() -> None:
    """Becomes the float attention over quantized weights that it was made from."""
    x = reals(1, 2, STEPS, WIDTH)
    q = np.random.default_rng(5).integers(-127, 128, (WIDTH, 3 * WIDTH)).astype(np.int8)
    scale, zero = np.asarray(0.004, np.float32), np.asarray(0, np.int8)
    constants = {"w": q, "b": WEIGHTS["b"], "ws": scale, "wz": zero}
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node(
            "QAttention", ["q", "w", "b", "s", "ws", "", "z", "wz"], domain="com.microsoft",
            num_heads=HEADS,
        ),
    ]  # fmt: skip
    proto = model(nodes, {"x": x}, constants)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = irc.evaluate(irc.load(proto), {"x": x})["y"]
    plain = {"w": q * np.float32(0.004), "b": WEIGHTS["b"]}
    real = fused("Attention", ["x", "w", "b"], {"x": x}, plain, num_heads=HEADS)
    np.testing.assert_allclose(found, irc.evaluate(irc.load(real), {"x": x})["y"], atol=1e-4)


@pytest.mark.parametrize("segments", [False, True])
def test_embeddings(segments: bool) -> None:
    ids = {"ids": np.asarray([[1, 5, 2, 0], [6, 6, 3, 1]], np.int32)}
    if segments:
        ids["seg"] = np.asarray([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32)
    mask = {"mask": np.asarray([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)}
    tables = {
        "word": reals(1, 7, WIDTH), "place": reals(2, 6, WIDTH), "kind": reals(3, 2, WIDTH),
        "g": reals(4, WIDTH), "be": reals(5, WIDTH),
    }  # fmt: skip
    if not segments:
        del tables["kind"]
    names = ["ids", "seg" if segments else "", "word", "place", "kind" if segments else ""]
    proto = fused(
        "EmbedLayerNormalization", [*names, "g", "be", "mask"], ids | mask, tables,
        ("y", "lengths"), epsilon=1e-6,
    )  # fmt: skip
    agree(proto, ids | mask, relative=1e-4)
