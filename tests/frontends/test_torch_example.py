"""The example of a training loop does what it says, on fewer epochs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the example trains with PyTorch")
EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_to_c" / "train.py"


@pytest.mark.slow
def test_a_trained_network_is_called_from_c(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--output", str(tmp_path), "--epochs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal Python's on 400 of 400 images" in done.stdout
