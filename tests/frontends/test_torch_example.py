"""The example of a training loop does what it says, on fewer epochs."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the example trains with PyTorch")
EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_to_c" / "train.py"


def as_the_whole_set(folder: Path) -> None:
    """The bundled images, as files of the data set."""
    with np.load(EXAMPLE.parents[1] / "data" / "fashion_test.npz") as data:
        pixels, labels = data["x"].astype(np.uint8), data["labels"].astype(np.uint8)
    for kind, chosen in (("train", slice(0, 1600)), ("t10k", slice(1600, 2000))):
        for name, head, array in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            raw = gzip.compress(bytes(head) + array[chosen].tobytes(), 1)
            (folder / f"{kind}-{name}-ubyte.gz").write_bytes(raw)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_a_trained_network_is_called_from_c(whole: bool, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--output", str(tmp_path / "out"), "--epochs", "4"]
    if whole:
        as_the_whole_set(tmp_path)
    environment = {**os.environ, "IRC_FASHION_MNIST": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training on 1600 images" in done.stdout
    assert "equal Python's on 400 of 400 images" in done.stdout
