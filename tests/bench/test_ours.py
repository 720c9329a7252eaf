import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from bench.ours import Irc
from bench.runners import Task


def small_library(path: Path) -> None:
    source = path.with_suffix(".c")
    source.write_text("int f(int x) { return x + 1; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, source], check=True)
    source.unlink()


class Recorder:
    """Stands for irc's public functions; remembers how each was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def load(self, path: Path, *, shapes: dict[str, tuple[int, ...]]) -> str:
        self.calls.append(("load", shapes))
        return f"graph of {path.name}"

    def quantize(self, graph: str, *, calibration: list[dict[str, Any]]) -> str:
        self.calls.append(("quantize", [feed["x"].shape for feed in calibration]))
        return f"quantized {graph}"

    def compile(self, graph: str, *, target: str, backend: str, threads: int) -> "Recorder":
        self.calls.append(("compile", (graph, target, backend, threads)))
        return self

    def save(self, folder: Path, *, name: str) -> None:
        small_library(folder / f"lib{name}.so")
        content = {"workspace_bytes": 128, "arena_bytes": 64, "arena_least_bytes": 32, "more": 1}
        (folder / f"{name}.json").write_text(json.dumps(content))
        (folder / f"{name}.h").write_bytes(b"text")

    def open_library(self, path: Path) -> Any:
        self.calls.append(("open_library", path.name))
        return lambda inputs: {"y": inputs["x"] + 1}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    for name in ("load", "quantize", "compile", "open_library"):
        monkeypatch.setattr(irc, name, getattr(made, name), raising=False)
    return made


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_only_public_names_are_used_as_the_interface_has_them(
    recorder: Recorder, tmp_path: Path
) -> None:
    samples = np.zeros((3, 1, 2, 2), np.float32)
    task = Task("net", tmp_path / "model.onnx", "x", (1, 1, 2, 2), samples, threads=2)
    runner = Irc(target="x86-64-v3")
    assert runner.missing() == ""
    files = runner.build(task, tmp_path)
    assert [file.name for file in files] == ["libnet.so"]  # what a program ships, no header
    facts = dict(runner.facts())
    assert facts.pop("compile_seconds") >= 0
    assert facts.pop("text_bytes") > 0
    assert facts == {"workspace_bytes": 128, "arena_bytes": 64, "arena_least_bytes": 32}
    runner.load(task, files)
    assert runner.run(task.feeds(samples)[0])["y"].tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert recorder.calls == [
        ("load", {"x": (1, 1, 2, 2)}),
        ("quantize", [(1, 1, 2, 2)] * 3),
        ("compile", ("quantized graph of model.onnx", "x86-64-v3", "llvm", 2)),
        ("open_library", "libnet.so"),
    ]
