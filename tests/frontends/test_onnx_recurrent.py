"""LSTM, GRU and RNN as onnxruntime computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.types import Array
from tests.frontends.single_op import agree, model, node, reals, reference

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}
DIRECTIONS = ("forward", "reverse", "bidirectional")
OPSET = 14


def layer(
    op: str,
    direction: str = "forward",
    *,
    steps: int = 3,
    batch: int = 2,
    size: int = 4,
    hidden: int = 5,
    given: tuple[str, ...] = ("b", "h", "c"),
    lengths: tuple[int, ...] = (),
    outputs: tuple[str, ...] = ("y", "yh", "yc"),
    **attributes: Any,
) -> tuple[Any, dict[str, Array]]:
    """A model of one layer with random weights, and inputs for it."""
    d, gates = (2 if direction == "bidirectional" else 1), GATES[op]
    constants = {
        "w": reals(1, d, gates * hidden, size, low=-1, high=1),
        "r": reals(2, d, gates * hidden, hidden, low=-1, high=1),
        "b": reals(3, d, 2 * gates * hidden),
        "p": reals(4, d, 3 * hidden),
        "lengths": np.asarray(lengths, np.int32),
    }
    inputs = {"x": reals(5, steps, batch, size)}
    states = {"h": reals(6, d, batch, hidden), "c": reals(7, d, batch, hidden)}
    known = [s for s in STATES[op] if s in given]
    inputs |= {s: states[s] for s in known}
    named = ["x", "w", "r", "b", "lengths", *STATES[op], *(["p"] if op == "LSTM" else [])]
    present = {"x", "w", "r", *given, *(["lengths"] if lengths else [])}
    names = [n if n in present else "" for n in named]
    kept = list(outputs[: 1 + len(STATES[op])])
    attributes |= {"direction": direction, "hidden_size": hidden}
    made = node(op, names, kept, **attributes)
    used = {n: a for n, a in constants.items() if n in names}
    return model([made], inputs, used, OPSET, [o for o in kept if o]), inputs


@settings(max_examples=12)
@given(
    st.sampled_from(sorted(GATES)), st.sampled_from(DIRECTIONS), st.integers(1, 4),
    st.integers(1, 3), st.sampled_from([(), ("b",), ("h",), ("b", "h", "c")]), st.booleans(),
)  # fmt: skip
def test_layers(
    op: str, direction: str, steps: int, batch: int, given: tuple[str, ...], after: bool
) -> None:
    extra: dict[str, Any] = {"linear_before_reset": int(after)} if op == "GRU" else {}
    agree(*layer(op, direction, steps=steps, batch=batch, given=given, **extra))


@pytest.mark.parametrize("op", sorted(GATES))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_sequences_of_different_length(op: str, direction: str) -> None:
    agree(*layer(op, direction, steps=4, batch=3, lengths=(2, 4, 1)))


@pytest.mark.parametrize(
    "outputs", [("y", "", ""), ("", "yh", ""), ("", "", "yc"), ("y", "", "yc")]
)
def test_outputs_that_are_left_out(outputs: tuple[str, ...]) -> None:
    agree(*layer("LSTM", outputs=outputs))


def test_peepholes() -> None:
    agree(*layer("LSTM", "bidirectional", given=("b", "h", "c", "p")))


def test_coupled_gates() -> None:
    agree(*layer("LSTM", input_forget=1))


@pytest.mark.parametrize("op", sorted(GATES))
def test_clipped_arguments(op: str) -> None:
    agree(*layer(op, clip=0.5))


@pytest.mark.parametrize(
    ("op", "functions", "alpha", "beta"),
    [
        ("LSTM", ["HardSigmoid", "Relu", "Tanh"], [0.3], [0.4]),
        ("LSTM", ["Sigmoid", "Softsign", "Softplus"], None, None),
        ("GRU", ["Sigmoid", "ScaledTanh"], [0.7], [1.3]),
        ("GRU", ["HardSigmoid", "LeakyRelu"], [0.2, 0.1], [0.5]),
        ("RNN", ["Relu"], None, None),
        ("RNN", ["Affine"], [0.5], [0.1]),
        ("RNN", ["Elu"], [0.8], None),
    ],
)
def test_functions(
    op: str, functions: list[str], alpha: list[float] | None, beta: list[float] | None
) -> None:
    given: dict[str, Any] = {"activation_alpha": alpha, "activation_beta": beta}
    agree(*layer(op, activations=functions, **given))


@pytest.mark.parametrize("op", sorted(GATES))
def test_computed_lengths_are_refused(op: str) -> None:
    proto, _ = layer(op, lengths=(3, 3))
    (stored,) = (t for t in proto.graph.initializer if t.name == "lengths")
    proto.graph.initializer.remove(stored)
    proto.graph.input.append(
        helper.make_tensor_value_info("lengths", 6, (2,))
    )
    with pytest.raises(ModelError, match=r"sequence lengths.*run time"):
        load(proto)


def test_a_long_sequence_is_refused() -> None:
    proto, _ = layer("RNN", steps=5000, batch=1, size=1, hidden=1)
    with pytest.raises(ModelError, match="too long"):
        load(proto)


def test_weights_that_do_not_fit_are_refused() -> None:
    proto, _ = layer("GRU")
    proto.graph.node[0].op_type = "LSTM"
    with pytest.raises(ModelError, match="W f32"):
        load(proto)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_weights_that_are_quantized_dynamically(
    direction: str, per_channel: bool, tmp_path: Path
) -> None:
    """As close to onnxruntime as its 8-bit activations allow."""
    proto, inputs = layer("LSTM", direction, hidden=8)
    source, target = tmp_path / "float.onnx", tmp_path / "dynamic.onnx"
    onnx.save(proto, source)
    quantize_dynamic(
        source, target, per_channel=per_channel, weight_type=QuantType.QInt8, reduce_range=True
    )  # fewer bits of weights: onnxruntime's pairs of products saturate on CPUs without VNNI
    made = onnx.load(target)
    assert made.graph.node[0].op_type == "DynamicQuantizeLSTM"
    expected = reference(made, inputs)
    found = evaluate(load(made), inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=0.05)
