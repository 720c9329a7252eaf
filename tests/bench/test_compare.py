import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.compare import OURS, compare, fastest_peer, select
from bench.images import Floats
from bench.isa import LEVELS, ONEDNN_VARIABLE, hold_to
from bench.machine import Machine
from bench.models import MODELS, Model
from bench.ours import Irc
from bench.report import comparison_markdown, markdown_table, skipped_lines, write_json
from bench.runners import Arrays, Task
from bench.timing import Timings


@dataclass
class FakeRunner:
    """Writes a file of `size` bytes and echoes; or is missing, or fails, or crashes."""

    name: str
    size: int = 10
    reason: str = ""
    fault: str = ""
    crashes: int = -1  # at this run, counted from 0
    runs: int = 0

    def missing(self) -> str:
        return self.reason

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        if self.fault:
            raise RuntimeError(self.fault)
        path = folder / task.name
        path.write_bytes(bytes(self.size))
        return (path,)

    def facts(self) -> dict[str, float]:
        return {"size": self.size}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        assert all(file.exists() for file in files)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self.runs += 1
        if self.runs > self.crashes >= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": inputs["x"]}


@pytest.fixture
def model() -> Model:
    def noise(count: int, seed: int) -> Floats:
        shape = (count, 1, 28, 28)
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    real = MODELS["fashion_dscnn"]
    return Model(real.name, real.input, real.shape, real.obtain, noise, trained=True)


def test_selection_takes_families_and_single_peers() -> None:
    names = [runner.name for runner in select(["onnxruntime-u8s8", "openvino"])]
    assert names == ["irc", "onnxruntime-u8s8", "openvino-fp32", "openvino-auto", "openvino-int8"]
    assert [runner.name for runner in select([])] == ["irc"]


def test_unknown_peer_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"no peer is called tvm; there are .*onnxruntime-u8s8"):
        select(["tvm"])


def test_fastest_peer_is_by_median_and_never_irc() -> None:
    timings = {
        OURS: Timings(((1.0,),)),
        "a": Timings(((3.0, 3.0, 3.0),)),
        "b": Timings(((2.0, 4.0, 4.0),)),
    }
    assert fastest_peer(timings) == "a"
    assert fastest_peer({OURS: timings[OURS]}) == OURS


def test_comparison_of_fakes(model: Model, tmp_path: Path) -> None:
    runners = [FakeRunner(OURS, size=7), FakeRunner("peer"), FakeRunner("gone", reason="no wheel")]
    result = compare(model, [*runners, FakeRunner("bad", fault="boom")], rounds=2, cores=(1,))
    assert [row.runner for row in result.rows] == [OURS, "peer"]
    assert result.skipped == {"gone": "no wheel", "bad": "failed: RuntimeError: boom"}
    assert result.fastest_peer == "peer"
    ours, peer = result.rows
    assert (ours.artefact_bytes, peer.artefact_bytes) == (7, 10)
    assert peer.ratio.median == 1.0
    assert ours.facts == {"size": 7}
    assert ours.gmacs == pytest.approx(result.macs / ours.latency.median / 1e6)

    text = comparison_markdown(result)
    assert "ratios to peer" in text
    assert "left out: bad: failed: RuntimeError: boom" in text
    path = tmp_path / "out.json"
    machine = Machine("cpu", ("avx2",), 2, "Linux", "3.11", {}, {"maddubs_256": 97.0})
    write_json(path, machine, {"comparisons": [result.as_json()]})
    read = json.loads(path.read_text())
    assert read["machine"]["peaks"] == {"maddubs_256": 97.0}
    assert read["comparisons"][0]["rows"][0]["runner"] == OURS


def test_nothing_to_run_is_an_error(model: Model) -> None:
    with pytest.raises(ValueError, match="nothing could run"):
        compare(model, [FakeRunner("gone", reason="no wheel")], rounds=1)


def test_macs_are_those_of_the_float_model(model: Model) -> None:
    result = compare(model, [FakeRunner("peer")], rounds=1)
    assert 1e6 < result.macs < 1e8


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_crash_ends_one_runner_only(at: int, model: Model) -> None:
    result = compare(model, [FakeRunner("bad", crashes=at), FakeRunner("peer")], rounds=1)
    assert [row.runner for row in result.rows] == ["peer"]
    assert result.skipped == {"bad": f"failed: crashed with exit code {-signal.SIGKILL}"}


def test_feeds_have_the_models_shape() -> None:
    task = Task("t", Path(), "x", (1, 1, 2, 2), np.zeros((3, 1, 2, 2), np.float32))
    feeds = task.feeds(task.calibration)
    assert [feed["x"].shape for feed in feeds] == [(1, 1, 2, 2)] * 3


def test_runners_left_out_for_one_reason_share_a_line() -> None:
    lines = skipped_lines({"a": "no wheel", "b": "boom", "c": "no wheel"})
    assert lines == ["\nleft out: a, c: no wheel", "\nleft out: b: boom"]


def test_markdown_columns_line_up() -> None:
    table = markdown_table(("name", "ms"), [("a", "1.0"), ("long name", "10.25")])
    assert table.splitlines() == [
        "| name      |    ms |",
        "| --------- | ----: |",
        "| a         |   1.0 |",
        "| long name | 10.25 |",
    ]


def test_a_level_holds_irc_and_leaves_out_what_cannot_be_held() -> None:
    ours, *theirs = select(["onnxruntime", "openvino"], LEVELS["avx2"])
    assert isinstance(ours, Irc)
    assert ours.target == "x86-64-v3"
    held = [peer.name for peer in theirs if "can't be held to avx2" not in peer.missing()]
    assert held == ["openvino-fp32", "openvino-auto", "openvino-int8"]


def test_only_a_limit_reaches_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ONEDNN_VARIABLE, raising=False)
    hold_to(LEVELS["native"])
    assert ONEDNN_VARIABLE not in os.environ
    hold_to(LEVELS["avx2"])
    assert os.environ.pop(ONEDNN_VARIABLE) == "AVX2"
