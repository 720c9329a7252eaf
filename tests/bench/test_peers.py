from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.accuracy import sqnr_db
from bench.models import MODELS
from bench.ours import Irc
from bench.peers import PER_CHANNEL_OPSET, absent, peers, write_at_least
from bench.runners import Runner, Task

PEERS = {runner.name: runner for runner in peers()}


@pytest.fixture
def task() -> Task:
    model = MODELS["fashion_dscnn"]
    noise = np.random.default_rng(0).standard_normal((8, 1, 28, 28), np.float32)
    return Task(model.name, model.obtain(), model.input, model.shape, noise)


def outputs(runner: Runner, task: Task, folder: Path) -> NDArray[np.float32]:
    folder.mkdir()
    runner.load(task, runner.build(task, folder))
    results: list[NDArray[Any]] = []
    for feed in task.feeds(task.calibration):
        found = runner.run(feed)
        assert list(found) == ["logits"]
        results.append(found["logits"].copy())
    return np.concatenate(results).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "onnxruntime-fp32"])
def test_peers_agree_with_float(name: str, task: Task, tmp_path: Path) -> None:
    reference, runner = PEERS["onnxruntime-fp32"], PEERS[name]
    if reason := reference.missing() or runner.missing():
        pytest.skip(reason)
    wanted = outputs(reference, task, tmp_path / "reference")
    found = outputs(runner, task, tmp_path / "found")
    # Noise is unlike the training images, so int8 is only asked to be the same function.
    assert sqnr_db(found, wanted) > {"openvino-fp32": 80, "openvino-auto": 25}.get(name, 12)


def test_int8_artefacts_are_smaller(task: Task, tmp_path: Path) -> None:
    small = PEERS["onnxruntime-u8s8"]
    if reason := small.missing():
        pytest.skip(reason)
    (path,) = small.build(task, tmp_path)
    assert path.stat().st_size < 0.6 * task.path.stat().st_size
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_absent_packages_are_named() -> None:
    assert absent("numpy") == ""
    assert absent("numpy", "surely_not_installed") == (
        "not installed: pip install surely_not_installed"
    )


def test_incomplete_irc_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import irc

    monkeypatch.delattr(irc, "open_library", raising=False)
    assert "open_library" in Irc().missing()


def test_old_opsets_are_raised_for_per_channel_scales(tmp_path: Path) -> None:
    bias = numpy_helper.from_array(np.ones(3, np.float32), "b")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    node = helper.make_node("Add", ["x", "b"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [bias])
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(old, tmp_path / "old.onnx")
    write_at_least(PER_CHANNEL_OPSET, tmp_path / "old.onnx", tmp_path / "new.onnx")
    assert onnx.load(tmp_path / "new.onnx").opset_import[0].version == PER_CHANNEL_OPSET
