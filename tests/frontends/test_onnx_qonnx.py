"""QONNX's Quant: rounds to any number of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc.errors import ModelError
from irc.types import Array
from tests.frontends.single_op import model, node, reals

DOMAIN = "qonnx.custom_op.general"


def rounded(x: Array, scale: Any, zero: float, bits: int, signed: int, narrow: int) -> Array:
    """As QONNX defines it."""
    low = narrow - 2 ** (bits - 1) if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    q = np.clip(np.rint(x / np.float32(scale) + zero), low, high)
    return np.asarray((q - zero) * scale, np.float32)


def network(
    bits: int, signed: int, narrow: int, zero: float, scales: Array, **attributes: Any
) -> onnx.ModelProto:
    """A layer whose input, weights and result are rounded."""
    given: dict[str, Any] = {"signed": signed, "narrow": narrow, "domain": DOMAIN, **attributes}
    nodes = [
        node("Quant", ["x", "s", "z", "n"], ["q"], **given),
        node("Quant", ["w", "ws", "0", "n"], ["v"], **given | {"signed": 1, "narrow": 1}),
        node("Conv", ["q", "v"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("Quant", ["r", "s", "z", "n"], **given),
    ]
    constants = {
        "s": np.asarray(0.05, np.float32), "z": np.asarray(zero, np.float32), "ws": scales,
        "0": np.zeros((), np.float32), "n": np.asarray(bits, np.float32),
        "w": reals(2, 4, 3, 1, 1, low=-0.6, high=0.6),
    }  # fmt: skip
    proto = model(nodes, {"x": reals(1, 1, 3, 6, 5)}, constants)
    proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return proto


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("narrow", [0, 1])
def test_rounds_as_defined(bits: int, signed: int, narrow: int) -> None:
    scales = np.asarray([0.01, 0.02, 0.005, 0.04], np.float32).reshape(4, 1, 1, 1)
    zero = 0.0 if signed else 1.0
    graph = irc.load(network(bits, signed, narrow, zero, scales))
    x, w = reals(1, 1, 3, 6, 5), reals(2, 4, 3, 1, 1, low=-0.6, high=0.6)
    how = (zero, bits, signed, narrow)
    q, v = rounded(x, 0.05, *how), rounded(w, scales, 0, bits, 1, 1)
    expected = rounded(np.maximum(np.einsum("nchw,oc->nohw", q, v[..., 0, 0]), 0), 0.05, *how)
    found = irc.evaluate(graph, {"x": x})["y"]
    assert np.mean(np.abs(found - expected) > 0.01) < 0.01  # a sum may lie at the edge of a step
    if bits <= 8:
        made = irc.compile(graph)({"x": x})["y"]
        assert np.mean(np.abs(made - expected) > 0.01) < 0.02


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 20}, "20 bits are not supported"),
    ({"zero": 0.5}, "must be whole numbers from -128 to 127"),
    ({"scales": np.full((4, 3, 1, 1), 0.1, np.float32)}, "differ along more than one axis"),
    ({"scales": np.full(7, 0.1, np.float32)}, "do not fit a tensor"),
    ({"rounding_mode": "FLOOR"}, "rounding_mode = 'FLOOR' is not supported"),
])  # fmt: skip
def test_what_is_not_understood_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "bits": 8, "signed": 1, "narrow": 0, "zero": 0.0,
        "scales": np.asarray(0.1, np.float32), **change,
    }  # fmt: skip
    with pytest.raises(ModelError, match=message):
        irc.load(network(**given))
