"""Other runtimes beside a model: who compares, and onnxruntime on a file as it is."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import irc
from irc.cli import app
from irc.commands import rivals
from irc.commands.rivals import check_rivals, in_turns, onnxruntime_call
from irc.errors import DataError, ToolError
from irc.types import Array

FLOAT = irc.parse("graph @f(%x: f32[1,6]) {\n  %y = relu(%x) : f32[1,6]\n  return %y\n}")
QDQ = irc.parse(
    "graph @q(%x: f32[1,6]) {\n  %q = quantize(%x) : u8[1,6] q(0.1, 3)\n"
    "  %y = dequantize(%q) : f32[1,6]\n  return %y\n}"
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Rows of a table by number, and a layer: ids i64[1,4], x f32[1,4,3], scale f32[]."""
    path, rng = tmp_path / "mixed.onnx", np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.normal(size=(9, 3)).astype(np.float32), "table"),
        numpy_helper.from_array(rng.normal(size=(3, 2)).astype(np.float32), "w"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["rows", "x"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["product"]),
        helper.make_node("Mul", ["product", "scale"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "mixed", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, path)
    return path


def test_calls_are_made_in_turns() -> None:
    made: list[str] = []
    calls = {n: lambda n=n: made.append(n) for n in "ab"}
    turns = in_turns(calls, rounds=2, warm=1, count=2)
    assert "".join(made) == "ab" + "aabb" * 2
    assert [len(t) for t in turns.times.values()] == [4, 4]
    assert turns.as_json()["a"]["best"] >= 0


def test_who_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_rivals(["openvino"], "host", FLOAT)
    assert not check_rivals(["onnxruntime"], "host", QDQ)
    with pytest.raises(DataError, match="any other is compared as it is: --against onnxruntime"):
        check_rivals(["openvino"], "host", QDQ)
    monkeypatch.setattr(rivals, "source_tree", lambda: None)
    assert not check_rivals(["onnxruntime"], "host", FLOAT)
    with pytest.raises(ToolError, match=r"needs bench/.*--against onnxruntime runs the model"):
        check_rivals(["openvino"], "host", FLOAT)


def test_a_model_of_several_inputs_beside_onnxruntime(mixed: Path, tmp_path: Path) -> None:
    data, written = tmp_path / "data.npz", tmp_path / "result.json"
    rng = np.random.default_rng(1)
    np.savez(data, ids=rng.integers(0, 9, (4, 4)), x=rng.normal(size=(4, 4, 3)).astype(np.float32))
    arguments = ["bench", mixed, "--calibration", data, "--value", "scale=0.5", "--rounds", "1",
                 "--against", "onnxruntime", "--json", written]  # fmt: skip
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "onnxruntime, as it is" in result.stdout
    assert set(json.loads(written.read_text())["comparison"]) == {"irc", "onnxruntime, as it is"}


def test_what_onnxruntime_cannot_run_is_told(mixed: Path) -> None:
    ids, x = np.zeros((1, 5), np.int64), np.zeros((1, 4, 3), np.float32)
    feed: dict[str, Array] = {"ids": ids, "x": x}
    with pytest.raises(ToolError, match=r"onnxruntime can't run mixed\.onnx: "):
        onnxruntime_call(mixed, feed, ["scale=1.0"], 1)
