"""Fashion-MNIST, ten kinds of clothes at 28x28, from Debian's dataset-fashion-mnist package."""

import gzip
import os
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.cache import ObtainError
from bench.images import Floats, Pixels

MEAN = 0.2860  # of the training images, pixels in [0, 1]; the models were trained with these
STD = 0.3530
Split = Literal["train", "t10k"]


def _read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file, shaped; a wrong magic number is an ObtainError."""
    raw = gzip.decompress(path.read_bytes())
    rank = magic & 0xFF
    if int.from_bytes(raw[:4], "big") != magic:
        raise ObtainError(f"{path}: not an IDX file of rank {rank} (begins {raw[:4].hex()})")
    sizes = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 * (rank + 1)).reshape(sizes)


def dataset_folder() -> Path:
    """Return the data set's folder, `$IRC_FASHION_MNIST` or Debian's."""
    default = "/usr/share/datasets/fashion-mnist"
    folder = Path(os.environ.get("IRC_FASHION_MNIST", default))
    if not folder.is_dir():
        raise ObtainError(
            f"{folder}: no Fashion-MNIST here; apt-get install dataset-fashion-mnist, "
            "or name the folder of its gzipped IDX files in IRC_FASHION_MNIST"
        )
    return folder


@cache
def fashion(split: Split) -> tuple[Pixels, NDArray[np.uint8]]:
    """Return images u8[n, 28, 28] and labels u8[n] of one split (60,000 or 10,000)."""
    folder = dataset_folder()
    return (
        _read_idx(folder / f"{split}-images-idx3-ubyte.gz", 0x803),
        _read_idx(folder / f"{split}-labels-idx1-ubyte.gz", 0x801),
    )


def fashion_normalized(pixels: Pixels) -> Floats:
    """Return (pixels / 255 - mean) / std: u8[n, 28, 28] to f32[n, 1, 28, 28]."""
    values = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return values[:, np.newaxis]


def fashion_images(count: int, seed: int) -> Floats:
    """Return seeded training images, normalized: f32[count, 1, 28, 28]."""
    pixels, _ = fashion("train")
    chosen = np.random.default_rng(seed).choice(len(pixels), count, replace=False)
    return fashion_normalized(pixels[chosen])
