import gzip
from pathlib import Path

import numpy as np
import pytest

from bench import fashion
from bench.cache import ObtainError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny data set in the real format: three images, three labels."""
    pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8)
    header = np.array([0x803, 3, 28, 28], ">u4").tobytes()
    labels = np.array([0x801, 3], ">u4").tobytes() + bytes([9, 2, 1])
    for split in ("train", "t10k"):
        images = gzip.compress(header + pixels.tobytes())
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(images)
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setenv("IRC_FASHION_MNIST", str(tmp_path))
    fashion.fashion.cache_clear()
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_reads_images_and_labels() -> None:
    pixels, labels = fashion.fashion("t10k")
    assert pixels.shape == (3, 28, 28)
    assert pixels[0, 0, :3].tolist() == [0, 1, 2]
    assert labels.tolist() == [9, 2, 1]
    fashion.fashion.cache_clear()


@pytest.mark.usefixtures("folder")
def test_normalizes_as_the_models_were_trained() -> None:
    values = fashion.fashion_images(2, seed=0)
    assert values.shape == (2, 1, 28, 28)
    assert values.dtype == np.float32
    black = fashion.fashion_normalized(np.zeros((1, 28, 28), np.uint8))
    assert black[0, 0, 0, 0] == pytest.approx(-0.2860 / 0.3530)
    fashion.fashion.cache_clear()


def test_other_files_are_refused(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(ObtainError, match="not an IDX file of rank 3"):
        fashion.fashion("train")


def test_absent_data_set_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_FASHION_MNIST", str(tmp_path / "none"))
    with pytest.raises(ObtainError, match="apt-get install dataset-fashion-mnist"):
        fashion.dataset_folder()
