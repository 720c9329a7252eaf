"""Streams on a model that needs no download."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.audio import RATE, frames, noisy_speech
from bench.streams import STREAMS, Stream, calibration_of, main, markdown, measure, run_over
from tests.frontends.test_onnx_recurrent import layer


def stream(folder: Path) -> Stream:
    """A small LSTM that is fed noise."""
    proto, first = layer("LSTM", steps=1, batch=1)
    path = folder / "lstm.onnx"
    onnx.save(proto, path)

    def feeds(steps: int, seed: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(seed)
        return [{"x": rng.normal(0, 1, first["x"].shape).astype(np.float32)} for _ in range(steps)]

    return Stream("lstm", lambda: path, feeds, {"h": "yh", "c": "yc"}, steps=8)


def test_a_stream_is_measured(tmp_path: Path) -> None:
    result = measure(stream(tmp_path))
    assert result.imported < 1e-4
    assert set(result.sqnr) == {"y", "yh", "yc"}
    assert min(result.sqnr.values()) > 30
    assert "lstm" in markdown([result])


def test_states_are_fed_back(tmp_path: Path) -> None:
    made = stream(tmp_path)
    seen: list[float] = []

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(float(feed["h"].max()))
        return {"y": feed["x"], "yh": feed["h"] + 1, "yc": feed["c"]}

    feeds = made.feeds(3, 0)
    outputs = run_over(run, made, feeds)  # type: ignore[arg-type]
    assert seen == [0.0, 1.0, 2.0]
    assert [float(f["h"].max()) for f in calibration_of(made, outputs, feeds)] == seen


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["streams", "nothing"])
    assert main() == 1
    assert "nsnet2" in STREAMS


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="speech is made with espeak-ng")
def test_speech() -> None:
    signal = noisy_speech(2.0, 1)
    assert signal.shape == (2 * RATE,)
    assert np.array_equal(signal, noisy_speech(2.0, 1))
    assert 0.01 < float(signal.std()) < 0.5
    assert frames(signal, 576, 512).shape == (62, 576)
