"""Models that can't be imported: one clear `ModelError` each, never anything else."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper

from irc import driver
from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.types import Array
from tests.frontends.single_op import f32, i64, model, node, reals

EXAMPLE = Path(__file__).parents[2] / "examples" / "models" / "fashion_dscnn.onnx"
X = {"x": reals(0, 2, 4)}


def error(source: object) -> str:
    """The message of the `ModelError` that importing raises."""
    with pytest.raises(ModelError) as caught:
        load(source)  # type: ignore[arg-type]
    return str(caught.value)


def error_of(
    *nodes: NodeProto, inputs: dict[str, Array] | None = None, opset: int = 17, **constants: Array
) -> str:
    """The message for a model of these nodes over `x` float32[2, 4]."""
    return error(model(nodes, inputs or X, constants, opset))


# ---------------------------------------------------------------- files


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert "can't be read" in error(path)
    assert "can't be read" in error(tmp_path)
    path.write_bytes(b"")
    assert "empty" in error(path)
    path.write_text("# just text\n" * 100)
    assert "not an ONNX model" in error(path)
    path.write_bytes(EXAMPLE.read_bytes()[:20_000])
    assert str(path) in error(path)
    assert "truncated" in error(EXAMPLE.read_bytes()[:5_000])
    assert "holds no graph" in error(onnx.ModelProto(ir_version=8))


def archive_of(*names: str) -> bytes:
    """A zip archive that holds files of these names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite model: convert it"),
        (b"\x30\0\0\0ORTM" + bytes(99), "onnxruntime's own format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        (b"\x60\0\0\0\0\0\0\0{}", "weights alone (safetensors)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<?xml version='1.0'?><net/>", "OpenVINO"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (pickle.dumps({"a": [1.5] * 9}), "a Python pickle"),
        (archive_of("m/data.pkl", "m/constants.pkl"), "a TorchScript module"),
        (archive_of("m/data.pkl", "m/data/0"), "what torch.save wrote"),
        (archive_of("m/archive_format", "m/models/model.json"), "let its name end in .pt2"),
        (archive_of("config.json", "model.weights.h5"), "a Keras model"),
        (archive_of("x.npy"), "a NumPy archive"),
        (archive_of("model.onnx"), "a zip archive: unpack it"),
        (b"PK\x03\x04" + bytes(99), "a damaged zip archive"),
    ],
)
def test_other_formats_are_told(content: bytes, words: str) -> None:
    assert words in error(content)


@given(st.integers(0, EXAMPLE.stat().st_size - 1), st.integers(0, 255))
@settings(max_examples=30)
def test_any_truncation_and_any_flipped_byte(at: int, byte: int) -> None:
    data = bytearray(EXAMPLE.read_bytes())
    with pytest.raises(ModelError):
        load(bytes(data[:at]))
    data[at] = byte
    with suppress(ModelError):
        load(bytes(data))


def test_an_empty_graph() -> None:
    assert "the graph is empty" in error(model([], X))
    assert "the graph is empty" in error(model([node("Relu", ["x"])], X, outputs=()))


def test_opsets() -> None:
    proto = model([node("Relu", ["x"])], X)
    proto.opset_import[0].version = 5
    assert "opset 5, 6 is the oldest" in error(proto)
    proto.opset_import[0].version = 999
    assert "opset 999" in error(proto)
    del proto.opset_import[:]
    assert "imports no standard operators" in error(proto)


# ---------------------------------------------------------------- structure


def test_all_unsupported_operators_are_listed_at_once() -> None:
    nodes = [
        node("Det", ["x"], ["a"]),
        node("NonMaxSuppression", ["a", "a"], ["b"]),
        node("Det", ["b"], ["c"]),
        helper.make_node("Magic", ["c"], ["y"], name="m1", domain="com.example"),
    ]
    proto = model(nodes, X)
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    message = error(proto)
    assert "Det (opset 17): 2 nodes: 'Det_a', 'Det_c'" in message
    assert "NonMaxSuppression: how many boxes it leaves depends on data; cut the model" in message
    assert "(opset 17): 1 node: 'NonMaxSuppression_b'" in message
    assert "Magic (domain com.example, version 3): 1 node: 'm1'" in message


def test_what_an_exporter_could_not_convert() -> None:
    message = error(model([node("StatefulPartitionedCall", ["x"])], X))
    assert "StatefulPartitionedCall: ONNX has no such operator; exporters leave" in message


def test_a_layout_that_onnxruntime_chose_for_one_cpu() -> None:
    nodes = [helper.make_node("Conv", ["x", "x"], ["y"], name="c", domain="com.microsoft.nchwc")]
    proto = model(nodes, X)
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    assert "optimize to its extended level at most" in error(proto)


def test_operators_of_another_opset() -> None:
    assert "does not exist in opset 7" in error_of(node("Mish", ["x"]), opset=7)
    assert "attribute 'axes' does not exist in opset 18" in error_of(
        node("ReduceMean", ["x"], axes=[1]), opset=18
    )
    assert "does not exist in opset 17" in error_of(node("Upsample", ["x"], scales=[1.0]))


def test_cycles() -> None:
    message = error_of(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]),
                       node("Neg", ["b"]))  # fmt: skip
    assert "cycle" in message
    assert "Add 'Add_a'" in message
    assert "Relu 'Relu_b'" in message
    assert "cycle" in error_of(node("Add", ["x", "y"]))


def test_names() -> None:
    assert "Add 'Add_y' (output 'y') reads 'w'" in error_of(node("Add", ["x", "w"]))
    twice = (node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["a"]), node("Abs", ["a"]))
    assert "'a' is defined twice" in error_of(*twice)
    assert "'x' is defined twice" in error_of(node("Relu", ["x"], ["x"]))
    proto = model([node("Relu", ["x"])], X, outputs=("y", "y"))
    assert "one stands there twice" in error(proto)
    proto = model([node("Relu", ["x"])], {**X, "": f32(1)})
    assert "without a name" in error(proto)
    proto = model([node("Relu", ["x"])], X, outputs=("z",))
    assert "output 'z' of the graph is made by no node" in error(proto)


def test_names_that_are_no_text() -> None:
    data = model([node("Relu", ["x"])], X).SerializeToString()
    for name in (b"Relu_y", b"test"):
        at = data.index(name)
        assert "damaged" in error(data[:at] + b"\xff" + data[at + 1 :])


def test_inputs_that_are_no_tensors() -> None:
    proto = model([node("Relu", ["x"])], X)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2]))
    proto.graph.input[0].type.CopyFrom(kind)
    assert "input 'x': is no tensor" in error(proto)
    proto.graph.input[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.STRING, [2]))
    assert "input 'x': element type STRING is not supported" in error(proto)
    proto.graph.input[0].type.tensor_type.elem_type = 0
    assert "has no element type" in error(proto)


def test_loops_whose_body_does_not_fit() -> None:
    body = helper.make_graph([], "body", [], [])
    assert "its body has 0 outputs" in error_of(node("Loop", ["", "", "x"], body=body))


# ---------------------------------------------------------------- tensors


def with_tensor(**fields: object) -> onnx.ModelProto:
    proto = model([node("Add", ["x", "w"])], X)
    proto.graph.initializer.append(TensorProto(name="w", **fields))  # type: ignore[arg-type]
    return proto


BROKEN: list[tuple[dict[str, object], str]] = [
    ({"data_type": 1, "dims": [4], "raw_data": b"\0" * 15}, "15 bytes of data, shape [4] of FLOAT"),
    ({"data_type": 1, "dims": [4], "float_data": [1.0]}, "1 elements of data, shape [4] takes 4"),
    ({"data_type": 1, "dims": [10**6, 10**6], "raw_data": b""}, "3,725.3 GiB"),
    ({"data_type": 1, "dims": [2**62, 2**62], "raw_data": b""}, "GiB"),
    ({"data_type": 1, "dims": [-4], "raw_data": b""}, "negative dimension"),
    ({"data_type": 8, "dims": [1], "string_data": [b"a"]}, "element type STRING"),
    ({"data_type": 99, "dims": [1]}, "initializer 'w': element type 99"),
    ({"data_type": 2, "dims": [1], "int32_data": [300]}, "data that is no UINT8"),
]


@pytest.mark.parametrize(("fields", "words"), BROKEN)
def test_broken_tensors(fields: dict[str, object], words: str) -> None:
    message = error(with_tensor(**fields))
    assert words in message
    assert "initializer 'w'" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    message = error_of(node("Mul", ["x", "w"]), w=f32(1, bad, 2, 3))
    broken = "constant 'w': NaN or" if bad == -np.inf else "'w': 1 of 4 values are NaN or"
    assert f"{broken} infinite" in message
    tiny = error_of(node("Div", ["w", "z"], ["v"]), node("Add", ["x", "v"]), w=f32(1), z=f32(0))
    assert "constant 'v': NaN or infinite" in tiny
    assert "NaN or infinite" in error_of(node("Add", ["x", "w"]), w=np.asarray(bad, np.float32))


def test_a_mask_may_hold_negative_infinity() -> None:
    x = np.ones((2, 4), np.float32)
    mask = f32(0, -np.inf, 0, 0)
    nodes = [node("Add", ["x", "w"], ["a"]), node("Softmax", ["a"])]
    graph = load(model(nodes, {"x": x}, {"w": mask}))
    assert all(np.isfinite(c.array).all() for c in graph.constants)
    found = evaluate(graph, {"x": x})["y"]
    np.testing.assert_allclose(found, [[1 / 3, 0, 1 / 3, 1 / 3]] * 2, rtol=1e-6)
    chosen = [node("Where", ["w", "x", "v"])]
    graph = load(model(chosen, {"x": x}, {"w": mask == 0, "v": np.asarray(-np.inf, np.float32)}))
    assert evaluate(graph, {"x": x})["y"].min() == np.finfo(np.float32).min


def test_what_is_never_chosen_may_be_no_number() -> None:
    nothing = np.full((2, 4), np.nan, np.float32)
    nodes = [node("Greater", ["v", "z"], ["c"]), node("Where", ["c", "x", "w"])]
    known = {"w": nothing, "v": np.asarray(15, np.float32), "z": np.asarray(0, np.float32)}
    for rows in (1, 2):
        x = reals(0, rows, 4)
        found = evaluate(load(model(nodes, {"x": x}, known)), {"x": x})["y"]
        np.testing.assert_array_equal(found, np.broadcast_to(x, (2, 4)))
    broken = error_of(node("Greater", ["x", "v"], ["c"]), node("Where", ["c", "x", "w"]), w=nothing,
                      v=np.asarray(0, np.float32))  # fmt: skip
    assert "NaN or infinite" in broken


def test_a_guard_against_nan_costs_nothing() -> None:
    """As jax's sort has it."""
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    nodes = [node("IsNaN", ["x"], ["n"]), node("Where", ["n", "w", "x"])]
    graph = load(model(nodes, {"x": x}, {"w": np.asarray(np.inf, np.float32)}))
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], x)
    assert "where" not in {v.op for v in driver.simplify(graph).order}


def test_sparse_initializers() -> None:
    proto = model([node("Add", ["x", "w"])], X)
    proto.graph.sparse_initializer.add()
    assert "sparse initializers are not supported" in error(proto)


def external(folder: Path, location: str, **entries: str) -> str:
    proto = with_tensor(data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        proto.graph.initializer[0].external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return error(path)


def test_external_data_must_lie_in_the_models_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 16)
    (folder / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    for location in ("../secret", str(secret), "link", "a/../../secret", "/dev/zero"):
        assert "lies outside of the model's folder" in external(folder, location)
    assert "'w.data' is missing" in external(folder, "w.data")
    assert "is missing" in external(folder, ".")
    assert "is missing" in external(folder, "pipe")
    assert "no file name" in external(folder, "")
    assert "no file name" in external(folder, "a\0b")


def test_external_data_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"\0" * 16)
    assert "needs 16 bytes at offset 4" in external(tmp_path, "w", offset="4")
    assert "12 of them declared" in external(tmp_path, "w", length="12")
    assert "offset '-1'" in external(tmp_path, "w", offset="-1")
    proto = with_tensor(data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    proto.graph.initializer[0].external_data.add(key="location", value="w")
    assert "give the model by its path" in error(proto.SerializeToString())


# ---------------------------------------------------------------- sizes

HUGE = i64(10**6, 10**6)
ABSURD: list[tuple[NodeProto, dict[str, Array]]] = [
    (node("ConstantOfShape", ["s"]), {"s": HUGE}),
    (node("Expand", ["x", "s"]), {"s": i64(10**6, 10**6, 1, 1)}),
    (node("Expand", ["w", "s"]), {"s": HUGE, "w": f32(1)}),
    (node("Tile", ["x", "s"]), {"s": HUGE}),
    (node("Pad", ["x", "s"]), {"s": i64(0, 0, 0, 10**12)}),
    (node("Resize", ["x", "", "", "s"]), {"s": HUGE}),
    (node("Resize", ["x", "", "", "s"]), {"s": i64(1, 10**15)}),
    (node("Range", ["a", "b", "c"]),
     {"a": np.asarray(0.0, np.float32), "b": np.asarray(1e12, np.float32),
      "c": np.asarray(1.0, np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize(("made", "constants"), ABSURD, ids=[n.op_type for n, _ in ABSURD])
def test_absurd_sizes_are_refused_before_they_are_made(
    made: NodeProto, constants: dict[str, Array]
) -> None:
    message = error(model([made], X, constants))
    assert "GiB" in message
    assert f"{made.op_type} " in message


# ---------------------------------------------------------------- nodes

IMAGE = {"x": reals(0, 1, 2, 6, 6)}
VOLUME = {"x": reals(0, 1, 2, 4, 4, 4)}
W = reals(1, 3, 2, 3, 3)

NODES: list[tuple[str, NodeProto, dict[str, Array], dict[str, Array], int]] = [
    ("x has 2 channels", node("Conv", ["x", "w"]), IMAGE, {"w": reals(1, 3, 5, 3, 3)}, 17),
    ("the axes don't fit", node("Conv", ["x", "w"]), VOLUME, {"w": W}, 17),
    ("does not fit", node("Conv", ["x", "w"]), IMAGE, {"w": reals(1, 3, 2, 9, 9)}, 17),
    ("kernel_shape [2, 2]", node("Conv", ["x", "w"], kernel_shape=[2, 2]), IMAGE, {"w": W}, 17),
    ("GiB", node("MaxPool", ["x"], kernel_shape=[2**40, 1], pads=[2**39, 0, 2**39, 0]), IMAGE, {},
     17),
    ("GiB", node("Conv", ["x", "w"], pads=[2**40] * 4), IMAGE, {"w": W}, 17),
    ("strides [0, 1] must be", node("Conv", ["x", "w"], strides=[0, 1]), IMAGE, {"w": W}, 17),
    ("pads [1]", node("Conv", ["x", "w"], pads=[1]), IMAGE, {"w": W}, 17),
    ("'WRONG'", node("Conv", ["x", "w"], auto_pad="WRONG"), IMAGE, {"w": W}, 17),
    ("1 inputs, it takes 2 to 3", node("Conv", ["x"]), IMAGE, {}, 17),
    ("input 1 is missing", node("Conv", ["x", "", "w"]), IMAGE, {"w": W}, 17),
    ("attribute 'colour' does not exist", node("Relu", ["x"], colour=1), IMAGE, {}, 17),
    ("attribute 'alpha' must be of type", node("Elu", ["x"], alpha=1), IMAGE, {}, 17),
    ("attribute 'axis' is missing", node("Concat", ["x"]), IMAGE, {}, 17),
    ("number of axes", node("Concat", ["x", "w"], axis=1), IMAGE, {"w": f32(1)}, 17),
    ("one dtype", node("Add", ["x", "w"]), IMAGE, {"w": i64(1)}, 17),
    ("do not broadcast", node("Add", ["x", "w"]), IMAGE, {"w": f32(1, 2)}, 17),
    ("computed at run time", node("Reshape", ["x", "s"]),
     {"x": reals(0, 4), "s": i64(2, 2)}, {}, 17),
    ("does not fit shape [5, 5]", node("Reshape", ["x", "s"]), IMAGE, {"s": i64(5, 5)}, 17),
    ("one axis may be -1", node("Reshape", ["x", "s"]), IMAGE, {"s": i64(-1, -1)}, 17),
    ("list of integers", node("Reshape", ["x", "s"]), IMAGE, {"s": f32(1)}, 17),
    ("axis 7 does not exist", node("Softmax", ["x"], axis=7), IMAGE, {}, 17),
    ("name one axis twice", node("Squeeze", ["x", "a"]), IMAGE, {"a": i64(0, -4)}, 17),
    ("not all of extent 1", node("Squeeze", ["x", "a"]), IMAGE, {"a": i64(1)}, 17),
    ("perm [0, 0]", node("Transpose", ["x"], perm=[0, 0]), IMAGE, {}, 17),
    ("mode = 'twice'", node("Pad", ["x", "p"], mode="twice"), IMAGE, {"p": i64(*[0] * 8)}, 19),
    ("7 pads for 4 axes", node("Pad", ["x", "p"]), IMAGE, {"p": i64(*[0] * 7)}, 17),
    ("mode = 'quintic'", node("Resize", ["x", "", "s"], mode="quintic"), IMAGE,
     {"s": f32(1, 1, 2, 2)}, 17),
    ("policy = 'round'", node("Resize", ["x", "", "", "s"], keep_aspect_ratio_policy="round"),
     IMAGE, {"s": i64(1, 3, 2, 2)}, 18),
    ("its indices reach", node("Gather", ["x", "i"]), IMAGE, {"i": i64(9)}, 17),
    ("divides by zero", node("Div", ["a", "b"]), X, {"a": i64(1), "b": i64(0)}, 17),
    ("can't be split", node("Split", ["x", "s"]), IMAGE, {"s": i64(3)}, 17),
    ("training_mode", node("BatchNormalization", ["x", "s", "s", "s", "s"], training_mode=1),
     IMAGE, {"s": f32(1, 1)}, 17),
    ("must be f32[2]",
     node("BatchNormalization", ["x", "s", "s", "s", "s"]), IMAGE, {"s": f32(1)}, 17),
    ("training_mode is not supported", node("Dropout", ["x", "", "t"]), X,
     {"t": np.asarray(True)}, 17),
    ("element type STRING", node("Cast", ["x"], to=8), X, {}, 17),
    ("x must be float", node("Sigmoid", ["x"]), {"x": i64(1)}, {}, 17),
    ("condition must be b1", node("Where", ["x", "x", "x"]), X, {}, 17),
]  # fmt: skip


@pytest.mark.parametrize(("words", "made", "inputs", "constants", "opset"), NODES,
                         ids=[f"{n[1].op_type}-{i}" for i, n in enumerate(NODES)])  # fmt: skip
def test_nodes_that_can_not_be(
    words: str, made: NodeProto, inputs: dict[str, Array], constants: dict[str, Array], opset: int
) -> None:
    message = error(model([made], inputs, constants, opset))
    assert words in message
    assert message.startswith(f"{made.op_type} {made.name!r} (output 'y'): ")
    assert "can't be imported" not in message


def test_outputs_that_are_not_made() -> None:
    norm = node("BatchNormalization", ["x", "s", "s", "s", "s"], ("y", "mean"))
    s = {"s": f32(1, 1)}
    assert load(model([norm], IMAGE, s, 13)).output_names == ("y",)
    message = error(model([norm], IMAGE, s, 13, outputs=("y", "mean")))
    assert "its output 'mean' is not supported" in message


def test_whatever_goes_wrong_in_a_handler_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from irc.frontends.onnx.ops import HANDLERS

    faults: list[Callable[[object], object]] = [lambda n: [][1], lambda n: 1 // 0]
    for fault in faults:
        monkeypatch.setitem(HANDLERS, "Relu", fault)
        assert "Relu 'Relu_y' (output 'y'): can't be imported" in error_of(node("Relu", ["x"]))
