"""Integers of 4 and 2 bits, quantization by blocks, floats of 8 bits: a byte or a real each."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import irc
from irc.errors import ModelError
from irc.types import Array
from tests.frontends.single_op import IR_VERSION, node, reals, reference


def packed(name: str, kind: int, values: Array) -> TensorProto:
    dtype: Any = helper.tensor_dtype_to_np_dtype(kind)
    return numpy_helper.from_array(values.astype(dtype), name)


def real(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def made(
    nodes: list[onnx.NodeProto], x: Array, tensors: list[TensorProto], opset: int = 21
) -> onnx.ModelProto:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph = helper.make_graph(
        nodes, "few", [info], [helper.make_empty_tensor_value_info("y")], tensors
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(IR_VERSION, 10))


def numbers(seed: int, low: int, high: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


KINDS = [(TensorProto.INT4, -8, 7, 1), (TensorProto.UINT4, 0, 15, 7)]


@pytest.mark.parametrize(("kind", "low", "high", "zero"), KINDS)
def test_weights_of_four_bits(kind: int, low: int, high: int, zero: int) -> None:
    x = reals(1, 2, 6)
    tensors = [
        packed("w", kind, numbers(2, low, high, 6, 5)), real("s", np.linspace(0.1, 0.3, 5)),
        packed("z", kind, np.full(5, zero)),
    ]  # fmt: skip
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"])
    ]  # fmt: skip
    proto = made(nodes, x, tensors)
    graph = irc.load(proto)
    found = irc.evaluate(graph, {"x": x})["y"]
    np.testing.assert_allclose(found, reference(proto, {"x": x})["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "low", "high", "zero"), KINDS)
def test_activations_of_four_bits(kind: int, low: int, high: int, zero: int) -> None:
    """Saturate where four bits do, and are compiled as the 8-bit integers that hold them."""
    del low, high
    x = reals(1, 3, 40)
    tensors = [real("s", 0.15), packed("z", kind, np.asarray(zero))]
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    proto = made(nodes, x, tensors)
    expected = reference(proto, {"x": x})["y"]
    graph = irc.load(proto)
    np.testing.assert_allclose(irc.evaluate(graph, {"x": x})["y"], expected, atol=1e-6)
    compiled = irc.compile(graph, backend="llvm")({"x": x})["y"]
    np.testing.assert_allclose(compiled, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.INT8])
@pytest.mark.parametrize("block", [2, 4])
def test_weights_by_blocks(kind: int, block: int) -> None:
    x = reals(1, 2, 8)
    shape = (8 // block, 5)
    tensors = [
        packed("w", kind, numbers(2, -8, 7, 8, 5)), real("s", reals(3, *shape, low=0.1, high=1)),
        packed("z", kind, numbers(4, -3, 3, *shape)),
    ]  # fmt: skip
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=block),
        node("MatMul", ["x", "d"]),
    ]
    proto = made(nodes, x, tensors)
    found = irc.evaluate(irc.load(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, reference(proto, {"x": x})["y"], rtol=1e-5, atol=1e-5)


def test_weights_in_floats_of_eight_bits() -> None:
    x = reals(1, 2, 6)
    tensors = [packed("w", TensorProto.FLOAT8E4M3FN, reals(2, 6, 5)), real("s", 0.5)]
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"]), node("MatMul", ["x", "d"])]
    proto = made(nodes, x, tensors)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    found = irc.evaluate(irc.load(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)


def test_what_is_refused() -> None:
    x = reals(1, 2, 6)
    with pytest.raises(ModelError, match="rounding to floats of 8 bits"):
        irc.load(made([node("Cast", ["x"], to=TensorProto.FLOAT8E4M3FN)], x, []))
    zero = [real("s", 0.5), packed("z", TensorProto.FLOAT8E4M3FN, np.zeros(()))]
    with pytest.raises(ModelError, match="quantizing to floats of 8 bits"):
        irc.load(made([node("QuantizeLinear", ["x", "s", "z"])], x, zero))
    blocks = [real("s", np.ones((2, 3))), packed("z", TensorProto.INT8, np.zeros((2, 3)))]
    with pytest.raises(ModelError, match="only constants are quantized by blocks"):
        irc.load(made([node("QuantizeLinear", ["x", "s", "z"], block_size=2)], x, blocks))


N, K, BLOCK = 5, 40, 16


def matmul_few_bits(
    bits: int, inputs: int = 3, extra: tuple[TensorProto, ...] = (), /, **attributes: int
) -> onnx.ModelProto:
    """`x [3,40]` times weights of few bits; `inputs` of them beside x, the third zero points."""
    blocks, rng = -(-K // BLOCK), np.random.default_rng(bits)
    tensors = [
        numpy_helper.from_array(
            rng.integers(0, 256, (N, blocks, BLOCK * bits // 8)).astype(np.uint8), "w"
        ),
        real("s", rng.uniform(0.01, 0.02, N * blocks)),
        numpy_helper.from_array(
            rng.integers(0, 256, N * -(-blocks * bits // 8)).astype(np.uint8), "z"
        ),
        *extra,
    ]
    names = [t.name for t in tensors][:inputs]
    given: dict[str, Any] = {"K": K, "N": N, "bits": bits, "block_size": BLOCK} | attributes
    made_of = node("MatMulNBits", ["x", *names], domain="com.microsoft", **given)
    proto = made([made_of], reals(7, 3, K), tensors[: max(inputs, 2)])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


@pytest.mark.parametrize(("bits", "inputs"), [(4, 2), (4, 3), (8, 2), (8, 3)])
def test_onnxruntimes_products_with_weights_of_few_bits(bits: int, inputs: int) -> None:
    proto, x = matmul_few_bits(bits, inputs), reals(7, 3, K)
    graph = irc.load(proto)
    assert "linear" in {v.op for v in graph.order}
    found = irc.evaluate(graph, {"x": x})["y"]
    np.testing.assert_allclose(found, reference(proto, {"x": x})["y"], rtol=1e-4, atol=1e-4)


def test_products_with_weights_of_few_bits_that_are_refused() -> None:
    with pytest.raises(ModelError, match=r"MatMulNBits.*bits = 3 and block_size = 16"):
        irc.load(matmul_few_bits(4, bits=3))
    with pytest.raises(ModelError, match=r"160 weights are needed, it has u8"):
        irc.load(matmul_few_bits(4, K=64))
    order = numpy_helper.from_array(np.zeros(K, np.int32), "order")
    with pytest.raises(ModelError, match="g_idx"):
        irc.load(matmul_few_bits(4, 4, (order,)))


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.UINT4, TensorProto.INT4])
@pytest.mark.parametrize("zeros", [False, True])
def test_gathered_from_blocks(kind: int, zeros: bool) -> None:
    """Embeddings as onnxruntime's generators of decoders write them."""
    several = kind == TensorProto.UINT8
    low, high = (0, 255) if several else (-8, 7) if kind == TensorProto.INT4 else (0, 15)
    width = 40 // 2 if several else 40
    tensors = [
        packed("t", kind, numbers(1, low, high, 6, width)),
        real("s", np.linspace(0.1, 0.5, 18).reshape(6, 3)),
        numpy_helper.from_array(np.asarray([[5, 0], [-1, 3]], np.int64), "at"),
    ]
    if zeros:
        tensors.append(packed("z", kind, numbers(2, low, high, 6, 2 if several else 3)))
    gather = node(
        "GatherBlockQuantized", ["t", "at", "s", *(["z"] if zeros else [])], ["g"],
        domain="com.microsoft", block_size=16, bits=4,
    )  # fmt: skip
    x = reals(1, 2, 2, 40)
    proto = made([gather, node("Add", ["x", "g"])], x, tensors)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = irc.evaluate(irc.load(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, reference(proto, {"x": x})["y"], rtol=1e-5, atol=1e-5)
