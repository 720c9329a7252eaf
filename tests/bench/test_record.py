import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record
from bench.cache import ObtainError
from bench.isa import LEVELS
from bench.models import MODELS
from bench.plots import roofline_plot
from bench.record import Record, one_thread
from bench.roofline import Layer, kind_of, measure_layers, merged
from tests.bench.test_document import MACHINE, result

LAYERS = [
    Layer("a", "qgemm amx", 8_000_000, 100_000, 0.1, 0.7),
    Layer("b", "qdepthwise", 100_000, 50_000, 0.05, 0.3),
]


def recorded(folder: Path, threads: int = 1) -> Record:
    made = Record(MACHINE, LEVELS["native"], threads, "python -m bench x", None, folder / "p.md")
    made.add(result("small", 1.0, 4.0))
    made.add(result("large", 2.0, 1.0))
    return made


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_numbers_give_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "measure_layers", lambda *_, **__: LAYERS)
    for name in ("a", "b"):
        made = recorded(tmp_path / name)
        made.roofline(MODELS["fashion_dscnn"], rounds=1, calibration=1)
        made.fail("gone", "no wheel")
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert first == second
    plots = ["p/native-1-layers.svg", "p/native-1.svg"]
    assert sorted(first) == ["p.md", "p/native-1-layers.svg", "p/native-1.json", *plots[1:]]
    assert all(f"({plot})".encode() in first["p.md"] for plot in plots)
    for plot in plots:
        assert b"dc:date" not in first[plot]
        assert b" \n" not in first[plot]
        assert len(first[plot]) < 60_000


def test_every_model_is_written_at_once(tmp_path: Path) -> None:
    recorded(tmp_path)
    text = (tmp_path / "p.md").read_text()
    assert "| small" in text
    assert "| large" in text
    read = json.loads((tmp_path / "p" / "native-1.json").read_text())
    assert [each["model"] for each in read["comparisons"]] == ["small", "large"]


def test_two_threads_find_the_run_of_one(tmp_path: Path) -> None:
    assert one_thread(tmp_path / "absent.json", MACHINE) == {}
    recorded(tmp_path)
    written = tmp_path / "p" / "native-1.json"
    assert one_thread(written, MACHINE) == {"small": 1.0, "large": 2.0}
    written.write_text(written.read_text().replace(MACHINE.cpu, "another"))
    assert one_thread(written, MACHINE) == {}


def test_json_alone(tmp_path: Path) -> None:
    made = Record(MACHINE, LEVELS["avx2"], 1, "c", tmp_path / "out.json")
    made.fail("gone", "no wheel")
    assert json.loads((tmp_path / "out.json").read_text())["failures"] == {"gone": "no wheel"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def call(layer: str, kernel: str, macs: int, ms: float) -> dict[str, Any]:
    return {"layer": layer, "kernel": kernel, "macs": macs, "milliseconds": ms, "nbytes": 500}


def test_a_layers_calls_are_one_layer() -> None:
    calls = [
        call("a", "halo", 0, 1.0),
        call("a", "qgemm_u8i8_3x24_maddubs_256", 2_000_000, 3.0),
        call("b", "generic loops", 0, 4.0),
        call("c", "generic loops", 10, 0.0),
    ]
    (layer,) = merged(calls)
    assert layer == Layer("a", "qgemm maddubs", 2_000_000, 500, 4.0, 0.5)
    assert (layer.gmacs, layer.intensity) == (0.5, 4000.0)


def test_kinds_of_kernels() -> None:
    assert kind_of("qgemm_u8i8_56x16_amx") == "qgemm amx"
    assert kind_of("qdepthwise_u8i8_3x3_8x8_rowpairs_256") == "qdepthwise rowpairs"
    assert kind_of("generic loops") == "generic loops"


def test_layers_that_cannot_be_measured_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="error: no clock")

    monkeypatch.setattr(subprocess, "run", refuse)
    noise = np.zeros((1, 1, 28, 28), np.float32)
    model = replace(MODELS["fashion_dscnn"], samples=lambda *_: noise)
    with pytest.raises(ObtainError, match="fashion_dscnn: irc bench failed: error: no clock"):
        measure_layers(model, LEVELS["native"], rounds=1, calibration=1)


def test_a_plot_without_peaks_is_drawn(tmp_path: Path) -> None:
    roofline_plot(tmp_path / "r.svg", LAYERS, {}, {})
    assert "qdepthwise" in (tmp_path / "r.svg").read_text()
