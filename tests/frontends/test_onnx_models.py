"""Whole models: the examples against onnxruntime, names, dynamic shapes, control flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.graph import evaluate, same
from irc.history import history_of
from irc.parser import parse
from irc.types import Array
from tests.frontends.single_op import agree, f32, i64, model, node, reals

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"


@pytest.mark.parametrize("name", ["fashion_dscnn", "fashion_resnet8"])
def test_example_models(name: str) -> None:
    path = EXAMPLES / f"{name}.onnx"
    graph = load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for _ in range(100):
        x = rng.random((1, 1, 28, 28), np.float32)
        expected = np.asarray(session.run(None, {"x": x})[0])
        found = evaluate(graph, {"x": x})["logits"]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert graph.name == name
    assert graph.output_types["logits"].shape == (1, 10)


def test_path_bytes_and_proto_are_one_model() -> None:
    path = EXAMPLES / "fashion_dscnn.onnx"
    sources = (path, str(path), path.read_bytes(), onnx.load(path))
    graphs = [load(source, name="n") for source in sources]
    assert all(same(graphs[0], other) for other in graphs[1:])
    assert same(parse(str(graphs[0])), graphs[0])


def test_values_are_named_after_the_models_tensors() -> None:
    x = {"in.put": reals(0, 1, 2, 4, 4)}
    nodes = [node("Conv", ["in.put", "w"], ["conv/out"]), node("Relu", ["conv/out"], ["out:0"])]
    graph = load(model(nodes, x, {"w": reals(1, 3, 2, 1, 1)}, outputs=("out:0",)))
    names = ["in.put", "in.put", "w", "conv/out", "conv/out", "out:0"]
    assert [v.name for v in graph.order] == names
    assert graph.output_names == ("out:0",)
    assert graph.name == "test"




def dynamic(dims: list[int | str | None], name: str = "x") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def with_inputs(*infos: onnx.ValueInfoProto) -> onnx.ModelProto:
    names = [i.name for i in infos]
    graph = helper.make_graph(
        [node("Sum", names)], "g", infos, [helper.make_empty_tensor_value_info("y")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def shape_of(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None) -> object:
    return load(proto, shapes).inputs[-1].shape


def test_a_batch_that_alone_is_dynamic_is_one() -> None:
    assert shape_of(with_inputs(dynamic(["N", 3, 8, 8]))) == (1, 3, 8, 8)
    assert shape_of(with_inputs(dynamic([0, 3]))) == (1, 3)
    assert shape_of(with_inputs(dynamic([-1, 3]))) == (1, 3)


def test_a_batch_that_was_not_pinned_is_told_once() -> None:
    both = with_inputs(dynamic(["N", 3, 8, 8]), dynamic(["N", 3, 8, 1], "z"))
    (note,) = history_of(load(both)).notes
    assert "1 was taken" in note
    assert "--shape x=N,3,8,8 --shape z=N,3,8,1" in note
    assert history_of(load(both, {"z": (1, 3, 8, 1)})).notes == ()
    assert history_of(load(with_inputs(dynamic([1, 3])))).notes == ()


def test_shapes_pin_dynamic_dimensions() -> None:
    assert shape_of(with_inputs(dynamic(["N", 3, "h", "w"])), {"x": (2, 3, 8, 9)}) == (2, 3, 8, 9)
    both = with_inputs(dynamic(["n", "k"]), dynamic(["n", "k"], "z"))
    assert shape_of(both, {"x": (2, 5)}) == (2, 5)


@pytest.mark.parametrize(
    ("dims", "shapes", "words"),
    [
        (["N", 3, "h", "w"], None, ["'x'", "[N, 3, h, w]", "--shape x=N,3,N,N"]),
        ([1, 3, "h", 4], None, ["--shape x=1,3,N,4"]),
        (["N", 3], {"x": (1, 4)}, ["[1, 4]", "[N, 3]"]),
        (["N", 3], {"x": (1, 3, 1)}, ["[1, 3, 1]", "[N, 3]"]),
        (["N", 3], {"x": (0, 3)}, ["must be positive"]),
        (["N", 3], {"z": (1, 3)}, ["'z'", "['x']"]),
        ([1 << 20, 1 << 20], None, ["input 'x'", "4,096.0 GiB"]),
        (None, None, ["does not state its shape", "--shape x="]),
    ],
)
def test_shapes_that_do_not_fit(
    dims: list[int | str | None] | None, shapes: dict[str, tuple[int, ...]] | None, words: list[str]
) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    with pytest.raises(ModelError) as caught:
        load(with_inputs(info), shapes)
    for word in words:
        assert word in str(caught.value)


def test_two_pins_of_one_symbol_must_agree() -> None:
    both = with_inputs(dynamic(["n"]), dynamic(["n"], "z"))
    with pytest.raises(ModelError, match="'n' is pinned to 3 here and to 2"):
        load(both, {"x": (2,), "z": (3,)})


def test_initializers_that_are_listed_as_inputs_are_none() -> None:
    x = {"x": reals(0, 2)}
    proto = model([node("Add", ["x", "w"])], x, {"w": f32(1, 2)})
    proto.graph.input.append(dynamic([2], "w"))
    assert [v.name for v in agree(proto, x).inputs] == ["x"]


def test_nodes_may_come_in_any_order_and_dead_ones_do_not_matter() -> None:
    x = {"x": reals(0, 2)}
    nodes = [node("Relu", ["h"]), node("NoSuchOp", ["x"], ["dead"]), node("Neg", ["x"], ["h"])]
    graph = load(model(nodes, x))
    assert [v.op for v in graph.order] == ["input", "neg", "relu"]


def test_an_if_with_a_known_condition_is_inlined() -> None:
    x = {"x": reals(0, 2, 3)}

    def branch(op: str) -> onnx.GraphProto:
        out = f"{op}_out"
        return helper.make_graph(
            [node(op, ["x"], [out])], op, [], [helper.make_empty_tensor_value_info(out)]
        )

    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["d"]),
        node("Equal", ["d", "three"], ["c"]),
        node("If", ["c"], then_branch=branch("Neg"), else_branch=branch("NoSuchOp")),
    ]
    constants = {"one": np.asarray(1, np.int64), "three": np.asarray(3, np.int64)}
    proto = model(nodes, x, constants)
    graph = load(proto)
    assert [v.op for v in graph.order] == ["input", "neg"]
    nodes[-1] = node("If", ["cond"], then_branch=branch("Neg"), else_branch=branch("Shape"))
    with pytest.raises(ModelError, match=r"If .*condition .'cond'. is computed at run time"):
        load(model(nodes[-1:], {"cond": np.asarray(True), **x}, constants))


def test_of_an_if_whose_condition_is_computed_both_branches_are() -> None:
    def branch(op: str) -> onnx.GraphProto:
        outs = [f"{op}_{name}" for name in "uv"]
        nodes = [node(op, [x], [out]) for x, out in zip(("x", "sum"), outs, strict=True)]
        infos = [helper.make_empty_tensor_value_info(out) for out in outs]
        return helper.make_graph(nodes, op, [], infos)

    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=1),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["u", "v"], then_branch=branch("Neg"), else_branch=branch("Exp")),
    ]
    constants = {"zero": np.zeros((1, 1), np.float32)}
    for x in (np.asarray([[1, 2]], np.float32), np.asarray([[1, -2]], np.float32)):
        proto = model(nodes, {"x": x}, constants, outputs=("u", "v"))
        assert "where" in [v.op for v in agree(proto, {"x": x}).order]


def test_functions_of_the_model_are_inlined() -> None:
    x = {"x": reals(0, 4)}
    opsets = [helper.make_opsetid("", 17)]
    twice = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets
    )
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], x)
    proto.functions.append(twice)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    assert [v.op for v in agree(proto, x).order] == ["input", "add"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_all_floats_are_f32(dtype: type) -> None:
    x = {"x": reals(0, 1, 2, 4, 4)}
    w: Array = reals(1, 3, 2, 3, 3).astype(dtype)
    nodes = [node("Cast", ["w"], ["c"], to=1), node("Conv", ["x", "c"])]
    agree(model(nodes, x, {"w": w}), x)


def test_bfloat16_weights() -> None:
    x = {"x": f32(1, 2)}
    proto = model([node("Cast", ["w"], ["c"], to=1), node("Add", ["x", "c"])], x)
    bits = np.asarray([0x3F80, 0xC040], np.uint16)  # 1 and -3
    tensor = TensorProto(name="w", data_type=TensorProto.BFLOAT16, dims=[2])
    tensor.raw_data = bits.tobytes()
    proto.graph.initializer.append(tensor)
    np.testing.assert_array_equal(evaluate(load(proto), x)["y"], f32(2, -1))
    tensor.ClearField("raw_data")
    tensor.int32_data.extend(bits.tolist())
    proto.graph.initializer[0].CopyFrom(tensor)
    np.testing.assert_array_equal(evaluate(load(proto), x)["y"], f32(2, -1))


def test_typed_data_fields() -> None:
    x = {"x": reals(0, 2, 2)}
    proto = model([node("Mul", ["x", "w"], ["m"]), node("Reshape", ["m", "s"])], x)
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [2], [1.5, -2.0]))
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.INT64, [1], [-1]))
    half = helper.make_tensor("h", TensorProto.FLOAT16, [2], [0.5, 3.0])
    proto.graph.initializer.append(half)
    agree(proto, x)


def test_external_data(tmp_path: Path) -> None:
    x = {"x": reals(0, 1, 3, 8, 8)}
    proto = model([node("Conv", ["x", "w"])], x, {"w": reals(1, 8, 3, 3, 3)})
    expected = evaluate(load(proto), x)["y"]
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0,
              location="net.data")  # fmt: skip
    graph = load(tmp_path / "net.onnx")
    np.testing.assert_array_equal(evaluate(graph, x)["y"], expected)
    assert graph.name == "net"


def test_every_opset_loads() -> None:
    x = {"x": reals(0, 1, 2, 6, 6)}
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2]),
        node("Flatten", ["c"]),
    ]
    constants = {"w": reals(1, 3, 2, 3, 3), "unused": i64(1)}
    for opset in range(7, onnx.defs.onnx_opset_version() + 1):
        assert load(model(nodes, x, constants, opset)).outputs[0].shape == (1, 27)
