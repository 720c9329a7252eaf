"""Models that arrive quantized: QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto

from irc import driver
from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.frontends.onnx.ops.quantization import _in_steps
from irc.graph import evaluate
from irc.ops.core import Const
from irc.ops.quantization import Dequantize, Quantize
from irc.types import Array, DType, Quant
from tests.frontends.single_op import agree, f32, i64, model, node, reals, reference

SCALE = np.float32(0.0213)


def test_quantize_and_dequantize_are_exact() -> None:
    x = {"x": reals(0, 4, 300, low=-4, high=4)}
    for dtype, zero in ((np.uint8, 117), (np.int8, -3), (np.uint16, 30000), (np.int16, 5)):
        constants: dict[str, Array] = {"s": np.asarray(SCALE), "z": np.asarray(zero, dtype)}
        nodes = [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"]),
        ]
        opset = 21 if dtype in (np.uint16, np.int16) else 13
        proto = model(nodes, x, constants, opset, ("q", "y"))
        graph = agree(proto, x)
        assert graph.outputs[0].type.quant == Quant(float(SCALE), zero)
    assert [v.op for v in graph.order] == ["input", "quantize", "dequantize"]


def test_without_zero_point_it_is_u8() -> None:
    x = {"x": reals(0, 10, low=0)}
    graph = agree(model([node("QuantizeLinear", ["x", "s"])], x, {"s": f32(0.01)}), x)
    assert graph.outputs[0].type.dtype is DType.U8


def qdq_conv(
    axis: int, w: Array, opset: int = 13, transposed: bool = False
) -> tuple[list[NodeProto], dict[str, Array]]:
    """Activations u8 per tensor, weights i8 per channel, bias i32."""
    channels = w.shape[axis]
    sw = np.linspace(0.01, 0.02, channels, dtype=np.float32)
    constants: dict[str, Array] = {
        "s": np.asarray(SCALE), "z": np.asarray(128, np.uint8), "w": w, "sw": sw,
        "zw": np.zeros(channels, np.int8), "b": np.arange(channels, dtype=np.int32) * 100,
        "sb": SCALE * sw, "zb": np.zeros(channels, np.int32),
        "so": np.asarray(0.05, np.float32), "zo": np.asarray(100, np.uint8),
    }  # fmt: skip
    op = "ConvTranspose" if transposed else "Conv"
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["x1"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["w1"], axis=axis),
        node("DequantizeLinear", ["b", "sb", "zb"], ["b1"], axis=0),
        node(op, ["x1", "w1", "b1"], ["c"]),
        node("QuantizeLinear", ["c", "so", "zo"], ["cq"]),
        node("DequantizeLinear", ["cq", "so", "zo"]),
    ]
    return nodes, constants


@pytest.mark.parametrize("spatial", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_stay_quantized(spatial: int, transposed: bool) -> None:
    x = {"x": reals(0, 1, 3, *(6, 7)[:spatial])}
    shape = (3, 4, *(3, 2)[:spatial]) if transposed else (4, 3, *(3, 2)[:spatial])
    w = np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8)
    nodes, constants = qdq_conv(int(transposed), w, transposed=transposed)
    proto = model(nodes, x, constants, 13)
    graph = load(proto)
    found = evaluate(graph, x)["y"]
    steps = np.abs(found - reference(proto, x)["y"]) / 0.05
    assert steps.max() < 1.01  # one rounding of the last quantize may fall the other way
    assert (steps < 0.01).mean() > 0.98
    (weights,) = (v for v in graph.order if isinstance(v, Dequantize) and v.name == "w1")
    assert isinstance(weights.x, Const)
    assert weights.x.quant is not None
    assert weights.x.quant.axis == 0
    assert weights.x.shape[0] == 4


def test_quantized_gemm_weights_move_their_axis() -> None:
    x = {"x": reals(0, 2, 3)}
    constants: dict[str, Array] = {
        "w": np.arange(12, dtype=np.int8).reshape(3, 4), "s": f32(0.1, 0.2, 0.3, 0.4),
        "z": np.zeros(4, np.int8),
    }  # fmt: skip
    nodes = [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("Gemm", ["x", "d"])]
    graph = agree(model(nodes, x, constants), x)
    (weights,) = (v.x for v in graph.order if isinstance(v, Dequantize))
    assert weights.type.quant == Quant(tuple(map(float, constants["s"])), 0, 0)
    assert weights.shape == (4, 3)


def test_float_weights_that_are_quantized_become_constants() -> None:
    x = {"x": reals(0, 2, 3)}
    constants: dict[str, Array] = {
        "w": reals(1, 4, 3),
        "s": f32(0.1, 0.2, 0.3, 0.4),
        "z": np.zeros(4, np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0),
        node("Gemm", ["x", "d"], transB=1),
    ]
    graph = agree(model(nodes, x, constants), x)
    assert not any(isinstance(v, Quantize) for v in graph.order)
    assert [v.op for v in graph.order] == ["input", "const", "dequantize", "linear"]


def test_float_weights_are_divided_as_runtimes_divide() -> None:
    """The largest of a symmetric range of 255 steps is a tie, in single precision or nearly one."""
    w = reals(1, 64, 20, low=-1, high=1)
    largest = np.abs(w).max(1).astype(np.float32)
    constants: dict[str, Array] = {
        "w": w, "s": largest / np.float32(127.5), "z": np.full(64, 128, np.uint8),
    }  # fmt: skip
    x = {"x": np.zeros(64, np.float32)[:, None]}
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0), node("Add", ["d", "x"]),
    ]  # fmt: skip
    agree(model(nodes, x, constants), x, relative=1e-6)


def test_float_weights_far_beyond_their_scale_saturate() -> None:
    constants: dict[str, Array] = {
        "w": f32(3e38, -3e38, 0.001, 3.4e38), "s": f32(1e-5)[0], "z": np.asarray(3, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]), node("Add", ["d", "x"]),
    ]  # fmt: skip
    x = {"x": np.zeros(4, np.float32)}
    agree(model(nodes, x, constants), x, relative=1e-6)
    builder = SimpleNamespace(const=lambda array, name: Const(array, name=name))
    stub: Any = SimpleNamespace(builder=builder)
    stepped = _in_steps(stub, Const(constants["w"]), Quant(1e-5))
    assert isinstance(stepped, Const)
    np.testing.assert_allclose(stepped.array, constants["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "zero"), [(np.int16, 0), (np.int16, -5), (np.uint16, 2**15), (np.uint16, 0)]
)
def test_weights_of_sixteen_bits_over_activations_of_eight(dtype: type, zero: int) -> None:
    x = {"x": reals(0, 3, 4)}
    w = np.random.default_rng(1).integers(-3000, 3000, (4, 5)) + zero
    constants: dict[str, Array] = {
        "s": f32(0.02)[0], "z": np.asarray(128, np.uint8), "w": (w % 2**16).astype(dtype),
        "sw": f32(1e-3)[0], "zw": np.asarray(zero, dtype), "so": f32(0.5)[0],
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["x1"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["w1"]), node("MatMul", ["x1", "w1"], ["c"]),
        node("QuantizeLinear", ["c", "so", "z"], ["cq"]),
        node("DequantizeLinear", ["cq", "so", "z"]),
    ]  # fmt: skip
    proto = model(nodes, x, constants, 21)
    made = driver.compile(load(proto), backend="reference")
    np.testing.assert_array_equal(made(x)["y"], reference(proto, x)["y"])


def test_moving_ops_keep_the_scale() -> None:
    x = {"x": reals(0, 1, 2, 6, 6)}
    constants: dict[str, Array] = {
        "s": np.asarray(SCALE),
        "z": np.asarray(128, np.uint8),
        "t": i64(1, -1),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["p", "t"], ["r"]),
        node("DequantizeLinear", ["r", "s", "z"]),
    ]
    agree(model(nodes, x, constants), x)


def test_integer_inputs_carry_the_scale_that_they_are_read_with() -> None:
    x = {"x": np.arange(256, dtype=np.uint8)}
    constants: dict[str, Array] = {"s": np.asarray(SCALE), "z": np.asarray(9, np.uint8)}
    graph = agree(model([node("DequantizeLinear", ["x", "s", "z"])], x, constants), x)
    assert graph.inputs[0].type.quant == Quant(float(SCALE), 9)


def error_of(nodes: list[NodeProto], constants: dict[str, Array], opset: int = 13) -> str:
    proto = model(nodes, {"x": reals(0, 2, 4)}, constants, opset)
    with pytest.raises(ModelError) as caught:
        load(proto)
    return str(caught.value)


def test_scales_that_can_not_be() -> None:
    quantize = [node("QuantizeLinear", ["x", "s"])]
    assert "positive and finite" in error_of([*quantize], {"s": f32(-1)})
    assert "3 scales for axis 1" in error_of([*quantize], {"s": f32(1, 2, 3)})
    assert "computed at run time" in error_of([node("QuantizeLinear", ["x", "x"])], {})


def test_scales_must_agree() -> None:
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "t"])]
    message = error_of([*nodes], {"s": f32(0.5), "t": f32(0.25)})
    assert "both must agree" in message
    assert "DequantizeLinear 'DequantizeLinear_y'" in message
