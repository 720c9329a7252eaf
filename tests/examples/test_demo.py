"""The demo does what it says, on fewer images."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--output", str(output)]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_few_images_of_one_model(tmp_path: Path) -> None:
    done = demo(tmp_path, "--images", "200", "--model", "fashion_dscnn")
    assert done.returncode == 0, done.stderr
    assert "equal Python's on 200 of 200 images" in done.stdout
    assert (tmp_path / "fashion_dscnn" / "report.html").is_file()


@pytest.mark.long
def test_both_models_on_all_images(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 1000 of 1000 images") == 2


def test_what_the_examples_promise_is_there() -> None:
    for name in ("main.c", "demo.py", "README.md", "data/fashion_test.npz"):
        assert (ROOT / "examples" / name).is_file()
