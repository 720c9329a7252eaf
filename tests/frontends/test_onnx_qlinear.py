"""Operators over integers, the standard's and onnxruntime's: at most 1 in the last place away from
onnxruntime, as imported and as compiled to integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

import irc
from irc.driver import integerize
from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.types import Array
from tests.frontends.single_op import agree, f32, model, node, reals, reference

DOMAIN = "com.microsoft"


def contrib(op: str, inputs: list[str], **attributes: Any) -> NodeProto:
    return node(op, inputs, domain=DOMAIN, **attributes)


def whole(
    nodes: list[NodeProto], inputs: Mapping[str, Array], constants: Mapping[str, Array]
) -> onnx.ModelProto:
    proto = model(nodes, inputs, constants, 17)
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return proto


def one_place(
    nodes: list[NodeProto], inputs: Mapping[str, Array], constants: Mapping[str, Array]
) -> None:
    """Both forms differ from onnxruntime by at most 1, and hardly ever."""
    proto = whole(nodes, inputs, constants)
    expected = reference(proto, inputs)["y"]
    graph = load(proto)
    for form in (graph, integerize(graph)):
        found = evaluate(form, inputs)["y"]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        steps = np.abs(found.astype(np.int64) - expected)
        assert steps.max(initial=0) <= 1
        assert (steps == 0).mean() > 0.97


def ints(seed: int, dtype: type, *shape: int) -> Array:
    info = np.iinfo(dtype)
    made = np.random.default_rng(seed).integers(info.min, info.max + 1, shape)
    return made.astype(dtype)


def halved(seed: int, dtype: type, *shape: int) -> Array:
    """Weights for unsigned activations: of 7 bits where they have a sign, for onnxruntime's sums of
    two products saturate at 16 bits on CPUs without VNNI."""
    made = ints(seed, dtype, *shape)
    return made // 2 if dtype is np.int8 else made


def scale(value: float) -> Array:
    return np.asarray(value, np.float32)


def zero(value: int, dtype: type) -> Array:
    return np.asarray(value, dtype)


DTYPES = [(np.uint8, 131), (np.int8, -7)]


# ---------------------------------------------------------------- the standard's


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("xt", "wt"), [("u", "i"), ("u", "u"), ("i", "i")])
def test_qlinear_conv(per_channel: bool, bias: bool, xt: str, wt: str) -> None:
    xd, wd = (np.uint8 if t == "u" else np.int8 for t in (xt, wt))
    o = 6
    ws = np.linspace(0.002, 0.004, o, dtype=np.float32) if per_channel else scale(0.003)
    wz = np.zeros(o, wd) if per_channel else zero(120 if wt == "u" else 0, wd)
    w = (halved if xt == "u" else ints)(1, wd, o, 4, 3, 3)
    constants = {
        "xs": scale(0.021), "xz": zero(19, xd), "w": w, "ws": ws, "wz": wz,
        "ys": scale(0.13), "yz": zero(3, xd), "b": np.arange(o, dtype=np.int32) * 5000,
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"] + ["b"] * bias
    nodes = [node("QLinearConv", names, pads=[1, 1, 1, 1], strides=[2, 1])]
    one_place(nodes, {"x": ints(0, xd, 2, 4, 9, 8)}, constants)


def test_qlinear_conv_depthwise() -> None:
    constants = {
        "xs": scale(0.021), "xz": zero(128, np.uint8), "w": ints(1, np.int8, 8, 1, 3, 3),
        "ws": np.linspace(0.002, 0.004, 8, dtype=np.float32), "wz": np.zeros(8, np.int8),
        "ys": scale(0.07), "yz": zero(99, np.uint8),
    }  # fmt: skip
    nodes = [node("QLinearConv", ["x", *constants], group=8, auto_pad="SAME_UPPER")]
    one_place(nodes, {"x": ints(0, np.uint8, 1, 8, 9, 8)}, constants)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("wt", [np.int8, np.uint8])
def test_qlinear_matmul_by_weights(per_column: bool, wt: type) -> None:
    point = 0 if wt is np.int8 else 127
    constants = {
        "xs": scale(0.021), "xz": zero(19, np.uint8), "w": halved(1, wt, 40, 10),
        "ws": np.linspace(0.002, 0.004, 10, dtype=np.float32) if per_column else scale(0.003),
        "wz": np.full(10, point, wt) if per_column else zero(point, wt),
        "ys": scale(0.3), "yz": zero(100, np.uint8),
    }  # fmt: skip
    nodes = [node("QLinearMatMul", ["x", *constants])]
    one_place(nodes, {"x": ints(0, np.uint8, 3, 5, 40)}, constants)


def test_qlinear_matmul_of_activations() -> None:
    constants = {
        "as": scale(0.021), "az": zero(19, np.uint8), "bs": scale(0.013), "bz": zero(101, np.uint8),
        "ys": scale(0.3), "yz": zero(100, np.uint8),
    }  # fmt: skip
    inputs = {"a": ints(0, np.uint8, 2, 5, 30), "b": ints(1, np.uint8, 2, 30, 7)}
    nodes = [node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"])]
    one_place(nodes, inputs, constants)


def test_integer_products() -> None:
    x = {"x": ints(0, np.uint8, 1, 3, 6, 7)}
    constants = {
        "w": ints(1, np.uint8, 4, 3, 3, 2),
        "xz": zero(5, np.uint8),
        "wz": zero(130, np.uint8),
    }
    one_place([node("ConvInteger", ["x", "w", "xz", "wz"])], x, constants)
    x = {"x": ints(0, np.int8, 3, 20)}
    constants = {"w": ints(1, np.int8, 20, 4), "xz": zero(5, np.int8)}
    one_place([node("MatMulInteger", ["x", "w", "xz"])], x, constants)


def test_a_dynamic_scale_alone_is_refused() -> None:
    proto = model([node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], {"x": f32(1, 2)})
    with pytest.raises(ModelError, match="its scale is computed from each input"):
        load(proto)


# ---------------------------------------------------------------- onnxruntime's

PAIR = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op: str, dtype: type, point: int) -> None:
    constants = {
        "as": scale(0.021), "az": zero(point, dtype), "bs": scale(0.033), "bz": zero(3, dtype),
        "ys": scale(0.05 if op == "QLinearAdd" else 0.11), "yz": zero(9, dtype),
    }  # fmt: skip
    inputs = {"a": ints(0, dtype, 2, 3, 5, 4), "b": ints(1, dtype, 3, 1, 4)}
    one_place([contrib(op, PAIR)], inputs, constants)


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_functions_of_one_element(op: str, dtype: type, point: int) -> None:
    sigmoid = op == "QLinearSigmoid"
    constants = {
        "xs": scale(0.05), "xz": zero(point, dtype), "ys": scale(1 / 256 if sigmoid else 0.045),
        "yz": zero(np.iinfo(dtype).min if sigmoid else 10, dtype),
    }  # fmt: skip
    attributes = {} if sigmoid else {"alpha": 0.2}
    nodes = [contrib(op, ["x", *constants], **attributes)]
    one_place(nodes, {"x": ints(0, dtype, 4, 100)}, constants)


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
def test_concat(dtype: type, point: int) -> None:
    constants = {
        "ys": scale(0.05), "yz": zero(9, dtype), "as": scale(0.021), "az": zero(point, dtype),
        "bs": scale(0.033), "bz": zero(3, dtype),
    }  # fmt: skip
    inputs = {"a": ints(0, dtype, 1, 3, 5), "b": ints(1, dtype, 1, 4, 5)}
    nodes = [contrib("QLinearConcat", ["ys", "yz", "a", "as", "az", "b", "bs", "bz"], axis=1)]
    one_place(nodes, inputs, constants)


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
def test_softmax(dtype: type, point: int) -> None:
    constants = {
        "xs": scale(0.05), "xz": zero(point, dtype), "ys": scale(1 / 256),
        "yz": zero(np.iinfo(dtype).min, dtype),
    }  # fmt: skip
    nodes = [contrib("QLinearSoftmax", ["x", *constants], axis=-1, opset=13)]
    one_place(nodes, {"x": ints(0, dtype, 20, 10)}, constants)


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool(dtype: type, point: int, include: int) -> None:
    constants = {
        "xs": scale(0.05), "xz": zero(point, dtype), "ys": scale(0.04), "yz": zero(9, dtype),
    }  # fmt: skip
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    nodes = [
        contrib("QLinearAveragePool", ["x", *constants], count_include_pad=include, **attributes)
    ]
    one_place(nodes, {"x": ints(0, dtype, 2, 3, 9, 8)}, constants)


@pytest.mark.parametrize(("dtype", "point"), DTYPES)
def test_global_average_pool(dtype: type, point: int) -> None:
    constants = {
        "xs": scale(0.05), "xz": zero(point, dtype), "ys": scale(0.01), "yz": zero(9, dtype),
    }  # fmt: skip
    nodes = [contrib("QLinearGlobalAveragePool", ["x", *constants])]
    one_place(nodes, {"x": ints(0, dtype, 2, 5, 7, 6)}, constants)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qgemm(transposed: int, per_channel: bool, bias: bool) -> None:
    w = halved(1, np.int8, *((10, 40) if transposed else (40, 10)))
    constants = {
        "xs": scale(0.021), "xz": zero(19, np.uint8), "w": w,
        "ws": np.linspace(0.002, 0.004, 10, dtype=np.float32) if per_channel else scale(0.003),
        "wz": np.zeros(10, np.int8) if per_channel else zero(0, np.int8),
        "ys": scale(0.3), "yz": zero(100, np.uint8), "b": np.arange(10, dtype=np.int32) * 3000,
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "b" if bias else "", "ys", "yz"]
    nodes = [contrib("QGemm", names, transB=transposed)]
    one_place(nodes, {"x": ints(0, np.uint8, 3, 40)}, constants)


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu"])
def test_gelus(op: str) -> None:
    x = {"x": reals(0, 50, low=-4, high=4)}
    agree(whole([contrib(op, ["x"])], x, {}), x)


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_gelus_of_a_sum(op: str) -> None:
    x = {"x": reals(0, 5, 10)}
    agree(whole([contrib(op, ["x", "b"])], x, {"b": reals(1, 10)}), x)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", None), ("LeakyRelu", [0.1]), ("Clip", [-1.0, 0.5]), ("HardSigmoid", [0.2, 0.4])],
)
@pytest.mark.parametrize("summed", [False, True])
def test_fused_conv(activation: str, parameters: list[float] | None, summed: bool) -> None:
    inputs = {"x": reals(0, 1, 3, 6, 6)} | ({"z": reals(3, 1, 4, 4, 4)} if summed else {})
    constants = {"w": reals(1, 4, 3, 3, 3), "b": reals(2, 4)}
    fused = contrib(
        "FusedConv", ["x", "w", "b"] + ["z"] * summed,
        activation=activation, activation_params=parameters,
    )  # fmt: skip
    agree(whole([fused], inputs, constants), inputs)


def test_fused_products() -> None:
    x = {"x": reals(0, 4, 6)}
    constants = {"w": reals(1, 6, 5), "b": reals(2, 5)}
    gemm = contrib("FusedGemm", ["x", "w", "b"], activation="Relu")
    agree(whole([gemm], x, constants), x)
    x = {"x": reals(0, 2, 4, 6), "w": reals(1, 2, 5, 6)}
    agree(whole([contrib("FusedMatMul", ["x", "w"], transB=1, alpha=0.5)], x, {}), x)


@pytest.mark.parametrize("swapped", [0, 1])
@pytest.mark.parametrize("of", ["A", "B"])
def test_fused_product_whose_rows_come_first(of: str, swapped: int) -> None:
    """As the optimizer fuses the transposes of an attention."""
    first, other = (5, 2, 3, 4), (2, 3, 4, 6) if of == "A" else (2, 3, 6, 5)
    first = first if not swapped else (4, 2, 3, 5)
    shapes = (first, other) if of == "A" else (other, first)
    x = {n: reals(i, *shape) for i, (n, shape) in enumerate(zip("xw", shapes, strict=True))}
    attributes = {f"transBatch{of}": 1, f"trans{of}": swapped}
    agree(whole([contrib("FusedMatMul", ["x", "w"], **attributes)], x, {}), x)


def test_what_is_not_known_of_a_domain_is_named() -> None:
    proto = whole([contrib("Gelu", ["x"], approximate="tanh")], {"x": f32(1)}, {})
    with pytest.raises(irc.IRCError, match=r"com\.microsoft\.Gelu.*attribute 'approximate'"):
        load(proto)
